"""`ltx-export`: checkpoints to bundles. Imports torch only in the command that needs it."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines import precision
from ltxrt.engines.cli import build_command, engines_group, verify_bundle_command
from ltxrt.engines.cli_base import Choice, LtxrtGroup, ltxrt_command
from ltxrt.engines.errors import InputError, MissingPackageError
from ltxrt.engines.precision import PRECISIONS
from ltxrt.engines.progress import Progress, Report
from ltxrt.engines.terminal import job, mode_options, result, warn
from ltxrt.export import families

if TYPE_CHECKING:
    from ltxrt.export.components import Component
    from ltxrt.export.hub.locating import Located

PATH = click.Path(path_type=Path)


class ComponentName(click.ParamType):
    """A component of any family, as the registry has them when the command runs."""

    name = "component"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(families.component_names())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Choice(families.component_names()).convert(value, param, ctx)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for everything that can be given beside a checkpoint of some family."""
    for source in reversed(families.sources()):
        command = click.option(
            source.option,
            source.name,
            metavar=source.metavar,
            help=source.help,
            multiple=source.multiple,
        )(command)
    return command


# What people look for → where it is.
MEANT = {
    "export": "onnx", "convert": "onnx", "build": "build-engines", "compile": "build-engines",
    "list": "engines list", "prune": "engines prune", "info": "inspect", "check": "verify",
}  # fmt: skip


@ltxrt_command(
    "ltx-export", cls=LtxrtGroup, meant=MEANT, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="ltxrt")
def main() -> None:
    """Turn a checkpoint into a bundle of ONNX graphs that runs without torch."""


@main.command("inspect")
@click.argument("file")
@mode_options
def inspect_command(file: str) -> None:
    """Say what FILE is: any file or folder that a command takes or makes. Works without torch.

    A checkpoint (version, components, sizes, dtypes, licence), a VAE, an upsampler, a text encoder, a LoRA,
    a bundle or a file in it, an engine, scales, a video (how it was made), settings, noise, a picture. A name
    on the Hugging Face hub (OWNER/NAME:FILE) is described without downloading its weights.
    """
    from ltxrt.export.inspect import explain

    with job() as report:
        found = explain(file, report)
    data = {"kind": found.kind, **found.data, "description": list(found.lines)}
    result("\n".join(found.lines), data)


@main.command("onnx")
@click.argument("checkpoint")
@click.option("--output", type=PATH, required=True, metavar="BUNDLE", help="The bundle's folder.")
@source_options
@click.option(
    "--component",
    "chosen",
    type=ComponentName(),
    multiple=True,
    help="Export only this component; repeatable. Default: all that the checkpoint has.",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    metavar="P | COMPONENT=P,…",
    help=f"One of {', '.join(PRECISIONS)} for all components, or a list of components.",
)
@click.option("--scales", type=PATH, metavar="FILE", help="For fp8: scales made by ltx-parity calibrate.")
@click.option("--fp8-attention", is_flag=True, help="For fp8: quantise self-attention too.")
@click.option("--uncalibrated", is_flag=True, help="For fp8: no scales, only to try what compiles.")
@click.option("--model-version", metavar="NAME", help="Release, if the file does not tell.")
@mode_options
def onnx_command(checkpoint: str, chosen: tuple[str, ...], **options: Any) -> None:
    """Export CHECKPOINT to ONNX graphs in BUNDLE.

    CHECKPOINT is a .safetensors file, a diffusers folder, or the name of one on the Hugging Face hub, such as
    Lightricks/LTX-Video:ltxv-2b-0.9.6-dev-04-25.safetensors (OWNER/NAME, @REVISION if not the newest, :FILE).
    From the hub, the text encoder and the latent upsampler that go with it are downloaded too; sizes and
    licences are shown before. What is in the hub's cache is not downloaded again.

    Batch, tokens, frames, height, width and text length stay dynamic. Weights are streamed: memory does not
    grow with the model.
    """
    _check_readable("--scales", options["scales"])
    if importlib.util.find_spec("torch") is None:  # told before gigabytes are downloaded
        raise MissingPackageError("torch", "export")
    start = time.monotonic()
    with job() as report:
        located = _located(checkpoint, chosen, options, report)
        report(Progress("opening the checkpoint"))
        given = located.checkpoint, options["model_version"]
        families.open_checkpoint(
            *given, check=False, **located.sources
        )  # refuses files before torch is loaded
        report(Progress("loading torch"))
        try:
            from ltxrt.export.write import Plan, export_bundle
        except ModuleNotFoundError as error:
            raise MissingPackageError(error.name or "torch", "export") from error
        from ltxrt.export import components

        report(Progress("comparing tensors with the networks"))
        opened = families.open_checkpoint(*given, **located.sources)
        names = tuple(dict.fromkeys(chosen)) or components.available(opened)
        precisions = parse_precisions(options["precision"], names)
        _check_fp8(components.rows(opened), precisions, options)
        for line in families.family(opened.family).notes(opened, names, not chosen):
            warn(line)
        plan = Plan(opened, options["output"], precisions, options["scales"], options["fp8_attention"])
        report.expect(plan.stages, f"export {opened.family}")
        export_bundle(plan, report)
    seconds = time.monotonic() - start
    data = {"bundle": str(plan.folder), "components": precisions, "seconds": round(seconds, 3)}
    result(f"{plan.folder}: {', '.join(names)} in {seconds:.0f} s", data)


def _located(checkpoint: str, chosen: tuple[str, ...], options: Mapping[str, Any], report: Report) -> Located:
    """What was given, on this machine: names of the hub are downloaded."""
    from ltxrt.export.hub.locating import Wanted, locate

    given = {source.name: options[source.name] for source in families.sources() if source.name in options}
    return locate(Wanted(checkpoint, given, options["model_version"], chosen), report, warn)


def parse_precisions(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """`fp16`, or `transformer=fp16,vae_decoder=fp32` with fp32 for what is not named."""
    chosen = {**dict.fromkeys(names, "fp32"), **precision.parse(text, names)}
    for name, one in chosen.items():
        if one not in PRECISIONS:
            raise InputError(f"--precision {one!r} for {name}: must be one of {', '.join(PRECISIONS)}")
    return chosen


def _check_fp8(
    rows: Mapping[str, Component], precisions: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    """FP8 is for some components, and needs to know how large their activations are."""
    chosen = [name for name, precision in precisions.items() if precision.startswith("fp8")]
    quantised = [name for name, row in rows.items() if row.fp8 is not None]
    for name in chosen:
        if name not in quantised:
            only = f"only the {', '.join(quantised)} is" if quantised else "no component of this model is"
            raise InputError(f"--precision {name}={precisions[name]}: {only} quantised to FP8")
    if chosen and (options["scales"] is None) is not options["uncalibrated"]:
        raise InputError(
            f"--precision {chosen[0]}=fp8 takes --scales FILE, made by ltx-parity calibrate, or "
            "--uncalibrated to try what compiles; give one of them"
        )
    for flag in ("--fp8-attention", "--scales"):
        if options[flag[2:].replace("-", "_")] and not chosen:
            able = f"{quantised[0]}=" if quantised else ""
            raise InputError(f"{flag} is for --precision {able}fp8 or fp8-fp16; add it or leave {flag} out")


def _check_readable(flag: str, path: Path | None) -> None:
    """Refuse a file that is not there at once: what it is for comes late."""
    if path is None:
        return
    if not path.is_file():
        raise InputError(f"{flag} {path}: no such file; give one that ltx-parity calibrate made")
    if not os.access(path, os.R_OK):
        raise InputError(f"{flag} {path}: cannot be read; give a file that this user may read")


main.add_command(build_command)
main.add_command(engines_group)
main.add_command(verify_bundle_command)


if __name__ == "__main__":
    main()
