"""The command `ltx-run`: makes a video file. Heavy packages are imported after the options are parsed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ltxrt.engines.cli_base import called, check_interrupted, ltxrt_command, name_settings, say
from ltxrt.runtime.request.options import RequestGroup, setting_options

if TYPE_CHECKING:
    from ltxrt.engines.bundle import Bundle
    from ltxrt.runtime import Event, Request, Stream

PATH = click.Path(path_type=Path)

WAITING = 16  # decoded frames in the encoder's queue, each of at most some megabytes


@ltxrt_command(
    "ltx-run",
    cls=RequestGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--bundle", type=PATH, metavar="DIR", help="Folder made by ltx-export onnx.  [required]")
@click.option("--output", type=PATH, metavar="FILE", help=".mp4, .webm, .gif, or a name for a folder of PNG.")
@click.option("--config", type=PATH, metavar="FILE", help="YAML file with settings; official files work too.")
@click.option(
    "--precision",
    metavar="P | COMPONENT=P,…",
    help="Precisions of the bundle to run.  [default: the backend's preference]",
)
@click.option("--backend", default="onnxruntime", show_default=True, help="Backend that runs the engines.")
@click.option("--device", type=int, default=0, show_default=True, help="Number of the GPU.")
@click.option("--threads", type=int, help="CPU threads. [default: all cores]")
@click.option("--keep-loaded", is_flag=True, help="Keep engines between passes; uses more memory.")
@click.option("--list-presets", is_flag=True, help="Show the bundle's presets and exit.")
@setting_options
@click.version_option(package_name="ltxrt")
@click.pass_context
def main(
    context: click.Context, /, bundle: Path | None, output: Path | None, list_presets: bool, **options: Any
) -> None:
    """Make a video from a bundle. Needs no torch."""
    if context.invoked_subcommand is not None:
        return
    if bundle is None:
        raise click.UsageError("Missing option '--bundle'.")
    from ltxrt.engines.bundle import read_bundle

    if list_presets:
        say(_presets(read_bundle(bundle)))
        return
    if output is None:
        raise click.UsageError("Missing option '--output'.")
    _generate(bundle, output, options)


@main.command("doctor")
@click.option("--bundle", type=PATH, metavar="DIR", help="Report on this bundle's engines too.")
@click.pass_context
def doctor_command(context: click.Context, /, bundle: Path | None) -> None:
    """Report what this machine can run, and how to install what is missing."""
    from ltxrt.engines.doctor import report

    for line in report(bundle or _before_doctor(context)):
        say(line)


def _before_doctor(context: click.Context) -> Path | None:
    """The --bundle given before the subcommand's name; other options there are refused."""
    above = context.parent
    if above is None:
        return None
    for option in above.command.params:
        source = above.get_parameter_source(option.name or "")
        if option.name not in ("bundle", "debug") and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]}: doctor has no use for it; leave it out")
    found: Path | None = above.params.get("bundle")
    return found


def _generate(bundle: Path, output: Path, options: dict[str, Any]) -> None:
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.engines.families import component_names
    from ltxrt.runtime.families import family
    from ltxrt.runtime.media.write import check_not_read, check_output
    from ltxrt.runtime.request import provenance
    from ltxrt.runtime.request.options import precisions

    check_output(output)
    where = {key: options.pop(key) for key in ("backend", "device", "threads", "keep_loaded")}
    precision = precisions(options.pop("precision"), component_names())
    opened = read_bundle(bundle)
    model = family(opened.family)
    pipeline = model.Pipeline(opened, precision=precision, **where)
    request, first = _request(options)
    check_not_read(output, request.files())
    start = time.monotonic()
    console = Console()
    inputs = provenance.inputs(request)
    stream = pipeline.stream(request, console)
    for line in (*pipeline.unproved(stream.plan), *model.notes(stream.plan), *_first_only(stream, first)):
        say(line, err=True)
    if stream.truncated:
        over = f"{stream.truncated} tokens over {stream.settings.preset.max_tokens}"
        click.echo(f"warning: the prompt is {over}; its end was cut off", err=True)
    count = _write(stream, output, model.metadata(stream.plan, pipeline.engines, inputs))
    console.finish()
    say(f"{output}: {count} frames in {time.monotonic() - start:.1f} s")


def _first_only(stream: Stream, first: list[str]) -> list[str]:
    """A note on the given options that apply to the first of two passes alone."""
    if not first or len(stream.plan.passes) == 1:
        return []
    context = click.get_current_context()
    flags = ", ".join(called(context, name) for name in first)
    return [f"note: {flags} hold for the first pass; --second-pass KEY=VALUE sets the second's"]


def _request(options: dict[str, Any]) -> tuple[Request, list[str]]:
    """The options as a request, with a settings file's values where no option was given.

    Also returns the options that only apply to the first of two passes.
    """
    from ltxrt.runtime.request import options as settings
    from ltxrt.runtime.request import yaml_file
    from ltxrt.runtime.request.request import Request

    config = options.pop("config")
    values, second = settings.read(options)
    base: dict[str, Any] = {}
    if config is not None:
        file = yaml_file.read(config)
        base = file.fields()
        given = {*values, *(f"second_pass.{name}" for name in second)}
        name_settings({name: label for name, label in file.names.items() if name not in given})
    whole = settings.merged(base, values, second)
    if "prompt" not in whole:
        raise click.UsageError("Missing option '--prompt'.")
    return Request(**whole), settings.first_only(values, second)


def _presets(bundle: Bundle) -> str:
    """The presets as text, one field per line."""
    from ltxrt.engines.families import named

    lines = [f"{named(bundle.family).title} {bundle.version}"]
    for name, preset in bundle.presets.items():
        lines.append(f"{name}:")
        lines += [f"  {_key(n)}: {value}" for n, value in vars(preset).items() if n != "passes"]
        for number, one in enumerate(preset.passes, 1):
            lines.append(f"  pass {number}:")
            lines += [f"    {_key(n)}: {_shown(value)}" for n, value in vars(one).items()]
    return "\n".join(lines)


def _key(name: str) -> str:
    return name.replace("_", "-")


def _shown(value: Any) -> str:
    """A value in the syntax of its option."""
    if not isinstance(value, tuple):
        return str(value)
    parts = (
        (value if not isinstance(value[0], tuple) else (",".join(map(str, v)) for v in value))
        if value
        else ()
    )
    return (";" if value and isinstance(value[0], tuple) else ",").join(map(str, parts))


def _write(stream: Stream, output: Path, metadata: dict[str, str]) -> int:
    """Write the frames as they are decoded; returns their number."""
    from ltxrt.runtime.media.overlap import behind
    from ltxrt.runtime.media.write import VideoWriter

    preset = stream.settings.preset
    with (
        VideoWriter(output, preset.height, preset.width, preset.frame_rate, metadata) as writer,
        behind(writer.write, WAITING) as write,
    ):
        for chunk in stream.frames:
            check_interrupted()
            for frame in chunk:
                write(frame)
    return writer.count


class Console:
    """Shows events on stderr: a line per stage, and for the steps one line that is written over."""

    def __init__(self) -> None:
        self.started = self.previous = time.monotonic()
        self.stage = ""

    def __call__(self, event: Event) -> None:
        check_interrupted()
        if event.step is None:
            self.finish()
            self.stage = event.stage
            self.started = self.previous = time.monotonic()
            return
        done = event.step.index + 1
        each = time.monotonic() - self.previous  # the first one's includes loading
        self.previous += each
        left = each * (event.total - done)
        line = f"step {done}/{event.total}  {each:.2f} s/step  {left:.0f} s left"
        if sys.stderr.isatty():
            click.echo(f"\r{line}\033[K", err=True, nl=done == event.total)
        else:
            click.echo(line, err=True)

    def finish(self) -> None:
        """The stage that ran last is over."""
        if self.stage:
            click.echo(f"{self.stage}: {time.monotonic() - self.started:.1f} s", err=True)


if __name__ == "__main__":
    main()
