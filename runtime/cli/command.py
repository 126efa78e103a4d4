"""The options of `ltx-run`. What it does is imported after they are parsed: its packages are heavy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.machine.names import ALIASES, AUTO, choices
from ltxrt.engines.start import importing
from ltxrt.engines.terminal import mode_options
from ltxrt.runtime.cli.doctor import doctor_command
from ltxrt.runtime.cli.encoding import encoding_options
from ltxrt.runtime.cli.help import RunGroup
from ltxrt.runtime.request.options import setting_options

PATH = click.Path(path_type=Path)


def _lazily(name: str) -> Callable[..., Any]:
    """A completion, whose module loads NumPy."""

    def complete(*given: Any) -> Any:
        from ltxrt.runtime.request import completion

        return getattr(completion, name)(*given)

    return complete


@ltxrt_command(
    "ltx-run",
    cls=RunGroup,
    invoke_without_command=True,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="[COMMAND]",
)
@click.option(
    "--bundle",
    type=PATH,
    metavar="DIR",
    shell_complete=_lazily("folders"),
    help="Folder made by ltx-export onnx.  [required]",
)
@click.option(
    "--output",
    type=PATH,
    metavar="FILE",
    help="Its suffix names the format; without one it is a folder of PNG. {seed}, {n} and {prompt} in it are "
    "filled in.  [required]",
)
@click.option("--config", type=PATH, metavar="FILE", help="YAML file with settings; official files work too.")
@click.option(
    "--precision",
    metavar="P | COMPONENT=P,…",
    shell_complete=_lazily("precisions"),
    help="Precisions of the bundle to run.  [default: the backend's preference]",
)
@click.option(
    "--backend",
    default=AUTO,
    show_default=True,
    metavar=f"[{'|'.join((AUTO, *ALIASES))}]",
    shell_complete=lambda _ctx, _option, begun: [one for one in choices() if one.startswith(begun)],
    help="What runs the engines; auto is the best that this machine and the bundle can.",
)
@click.option("--device", type=int, default=0, show_default=True, metavar="N", help="Number of the GPU.")
@click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: all cores]")
@click.option("--keep-loaded", is_flag=True, help="Keep engines between passes; uses more memory.")
@click.option(
    "--prompts",
    type=PATH,
    metavar="FILE",
    help="A video for each line: a prompt, or a JSON object of settings.",
)
@click.option("--seeds", metavar="LIST", help="A video for each seed: 1-8 or 1,5,9.")
@click.option(
    "--preview",
    type=PATH,
    metavar="FILE",
    help="Small .webp or .png of the video, updated while it is sampled.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--skip-existing", is_flag=True, help="Make the videos whose outputs do not exist.")
@click.option(
    "--explain", is_flag=True, help="Show what would run and the memory that it takes; load nothing."
)
@click.option("--list-presets", is_flag=True, help="Show the bundle's presets and exit.")
@encoding_options
@mode_options
@setting_options
@click.version_option(package_name="ltxrt")
@click.pass_context
def main(
    context: click.Context,
    /,
    bundle: Path | None,
    output: Path | None,
    explain: bool,
    list_presets: bool,
    **options: Any,
) -> None:
    """Make videos from a bundle of engines. Needs no torch."""
    if context.invoked_subcommand is not None:
        return
    if bundle is None:
        raise click.UsageError("Missing option '--bundle'.")
    if list_presets:
        from ltxrt.runtime.cli import presets

        presets.show(bundle)
        return
    if explain:
        from ltxrt.runtime.cli import explain as explaining

        explaining.show(bundle, output, options)
        return
    if output is None:
        raise click.UsageError("Missing option '--output'.")
    from ltxrt.engines.terminal import job

    with job() as report:  # on the screen before what the next line imports
        with importing():
            from ltxrt.runtime.cli import run

        run.generate(bundle, output, options, report)


main.add_command(doctor_command)
