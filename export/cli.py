"""`ltx-export`: checkpoints to bundles. Imports torch only in the command that needs it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli import build_command, engines_group, verify_bundle_command
from ltxrt.engines.cli_base import LtxrtGroup, ltxrt_command, say
from ltxrt.engines.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from ltxrt.export.ltxv.open import Checkpoint

COMPONENTS = (
    "text_encoder",
    "transformer",
    "vae_encoder",
    "vae_decoder",
    "latent_upsampler",
    "temporal_upsampler",
)
PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "fp8-fp16")
PATH = click.Path(path_type=Path)


@ltxrt_command("ltx-export", cls=LtxrtGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ltxrt")
def main() -> None:
    """Turn an LTX-Video checkpoint into a bundle of ONNX graphs that runs without torch."""


@main.command("inspect")
@click.argument("checkpoint", type=PATH)
def inspect_command(checkpoint: Path) -> None:
    """Say what a checkpoint is: version, components, sizes, dtypes, licence. Works without torch."""
    from ltxrt.export.ltxv.inspect import describe

    say(describe(checkpoint))


@main.command("onnx")
@click.argument("checkpoint", type=PATH)
@click.option("--output", type=PATH, required=True, metavar="BUNDLE", help="The bundle's folder.")
@click.option("--text-encoder", type=PATH, metavar="DIR", help="T5 folder with its tokenizer.")
@click.option("--vae", type=PATH, metavar="FILE", help="VAE file or folder, if not in CHECKPOINT.")
@click.option(
    "--upsampler",
    "upsamplers",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Latent upsampler, spatial or temporal; repeatable.",
)
@click.option(
    "--component",
    "chosen",
    type=click.Choice(COMPONENTS),
    multiple=True,
    help="Export only this; repeatable. Default: everything the checkpoint has.",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    metavar="P | COMPONENT=P,…",
    help=f"One of {', '.join(PRECISIONS)} for all components, or a list for single ones.",
)
@click.option("--scales", type=PATH, metavar="FILE", help="For fp8: made by ltx-parity calibrate.")
@click.option("--fp8-attention", is_flag=True, help="For fp8: self-attention's inputs as well.")
@click.option("--uncalibrated", is_flag=True, help="fp8 without --scales: for trying what compiles.")
@click.option("--model-version", metavar="NAME", help="Release, where the file does not tell.")
def onnx_command(chosen: tuple[str, ...], **options: Any) -> None:
    """Export CHECKPOINT (a .safetensors file or a diffusers folder) to ONNX graphs in BUNDLE.

    Batch, tokens, frames, height, width and text length stay dynamic. Weights are streamed: memory does not
    grow with the model.
    """
    _check_readable("--scales", options["scales"])
    try:
        from ltxrt.export.write import Plan, export_bundle
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "torch", "export") from error
    from ltxrt.export.ltxv import components
    from ltxrt.export.ltxv.open import open_checkpoint

    checkpoint = open_checkpoint(
        options["checkpoint"],
        options["vae"],
        options["text_encoder"],
        options["model_version"],
        options["upsamplers"],
    )
    names = tuple(dict.fromkeys(chosen)) or components.available(checkpoint)
    precisions = parse_precisions(options["precision"], names)
    _check_fp8(precisions, options["scales"], options["uncalibrated"])
    if options["fp8_attention"] and not any(p.startswith("fp8") for p in precisions.values()):
        raise InputError(
            "--fp8-attention is for --precision transformer=fp8 or fp8-fp16; add it or leave it out"
        )
    _announce(checkpoint, names, whole=not chosen)
    start = time.monotonic()
    export_bundle(
        Plan(checkpoint, options["output"], precisions, options["scales"], options["fp8_attention"]),
        Console(),
    )
    say(f"{options['output']}: {', '.join(names)} in {time.monotonic() - start:.0f} s")


def parse_precisions(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """`fp16`, or `transformer=fp16,vae_decoder=fp32` with fp32 for what is not named."""
    if "=" not in text:
        chosen = dict.fromkeys(names, text)
    else:
        items = [item.partition("=")[::2] for item in text.split(",")]
        pairs = dict(items)
        if len(pairs) < len(items):
            raise InputError(f"--precision {text!r}: names a component twice; give each one precision")
        unknown = [n for n in pairs if n not in names]
        if unknown:
            raise InputError(f"--precision names {unknown[0]!r}; exported here are {', '.join(names)}")
        chosen = {n: pairs.get(n, "fp32") for n in names}
    for name, precision in chosen.items():
        if precision not in PRECISIONS:
            raise InputError(f"--precision {precision!r} for {name}: must be one of {', '.join(PRECISIONS)}")
    return chosen


def _check_fp8(precisions: dict[str, str], scales: Path | None, uncalibrated: bool) -> None:
    """FP8 is the transformer's, and needs to know how large its activations are."""
    chosen = [name for name, precision in precisions.items() if precision.startswith("fp8")]
    for name in chosen:
        if name != "transformer":
            raise InputError(
                f"--precision {name}={precisions[name]}: only the transformer is quantised to FP8"
            )
    if chosen and (scales is None) is not uncalibrated:
        raise InputError(
            "--precision transformer=fp8 takes --scales FILE, made by ltx-parity calibrate, or "
            "--uncalibrated to try what compiles; give one of them"
        )
    if scales is not None and not chosen:
        raise InputError(
            "--scales is for --precision transformer=fp8 or fp8-fp16; add it or leave --scales out"
        )


def _check_readable(flag: str, path: Path | None) -> None:
    """Refuse a file that is not there at once: what it is for comes late."""
    if path is None:
        return
    if not path.is_file():
        raise InputError(f"{flag} {path}: no such file; give one that ltx-parity calibrate made")
    if not os.access(path, os.R_OK):
        raise InputError(f"{flag} {path}: cannot be read; give a file that this user may read")


def _announce(checkpoint: Checkpoint, names: tuple[str, ...], whole: bool) -> None:
    """The release, and what of it is not exported; `whole` where everything there is was asked for."""
    row = checkpoint.version
    sure = "" if row.certain else " (the file does not tell; --model-version says it)"
    say(f"LTX-Video {row.name}{sure}; {row.licence}", err=True)
    from ltxrt.export.ltxv.inspect import FP8_WARNING, is_fp8

    if (
        checkpoint.transformer is not None
        and "transformer" in names
        and is_fp8(checkpoint.transformer.weights)
    ):
        say(FP8_WARNING, err=True)
    two_passes = len(row.presets["default"].passes) > 1
    expected = COMPONENTS[:5] if two_passes else COMPONENTS[:4]
    missing = [n for n in expected if n not in names]
    if missing:
        say(f"not exported: {', '.join(missing)}", err=True)
    if whole and "text_encoder" in missing:
        say("a video needs the text encoder: give --text-encoder DIR", err=True)
    if whole and "latent_upsampler" in missing:
        say(
            "the default preset of this release has two passes and needs the latent upsampler between them: "
            "give --upsampler FILE, or run with --preset single-pass",
            err=True,
        )


main.add_command(build_command)
main.add_command(engines_group)
main.add_command(verify_bundle_command)


class Console:
    """Stages and byte counts on stderr, each stage with its time."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.text = ""
        self.shown = 0.0

    def stage(self, text: str) -> None:
        now = time.monotonic()
        if self.text and now - self.start > 1:
            say(f"  {now - self.start:.0f} s", err=True)
        self.text, self.start, self.shown = text, now, now
        say(text, err=True)

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.shown < 2:
            return
        self.shown = now
        rate = done / max(now - self.start, 1e-3)
        line = f"  {done / 1e9:.2f} of {total / 1e9:.2f} GB, {now - self.start:.0f} s, {rate / 1e6:.0f} MB/s"
        say(line, err=True)


if __name__ == "__main__":
    main()
