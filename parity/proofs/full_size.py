"""Models of full size with random weights: exported, run, timed and verified.

    python -m ltxrt.parity.proofs.full_size export|run|step|parity

`export` makes a checkpoint of a release's own sizes sparsely (large tensors are holes, so it costs no disk),
exports every component in a process of its own and prints time and peak memory. `run` fills the 2B model with
random numbers, exports it and makes a short video on the CPU; `step` times single transformer steps of it;
`parity` verifies it against torch.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import click
import numpy as np

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.cli_base import LtxrtGroup, ltxrt_command
from ltxrt.engines.errors import InputError
from ltxrt.parity.environment import measure, module, peak_memory
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.runtime.sampling.latents import VideoShape

PATH = click.Path(path_type=Path)
PARTS = ("transformer", "vae_encoder", "vae_decoder", "text_encoder")


@ltxrt_command("full_size", cls=LtxrtGroup)
def main() -> None:
    """Models of full size with random weights; most commands need tens of gigabytes of disk."""


@main.command("export")
@click.option(
    "--model-version", default="0.9.8-13b-dev", show_default=True, help="A release of the size to export."
)
@click.option("--component", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS)
@click.option("--precision", default="bf16", show_default=True)
@click.option("--target", help="Also compile each with TensorRT for RTX, as for sm89.")
@click.option("--profile", default="512x768x97", show_default=True, help="What to compile for.")
@click.option("--work", type=PATH, required=True, help="Scratch folder; removed again.")
def export_command(
    model_version: str, parts: tuple[str, ...], precision: str, target: str | None, profile: str, work: Path
) -> None:
    """Export full-size sparse checkpoints; print time, memory and size per component."""
    rows, compiled = [], []
    checkpoint, text_encoder = _checkpoint(work, model_version, "sparse", parts)
    for part in parts:
        bundle = work / "bundle"
        command = _export(checkpoint, text_encoder, bundle, part, precision)
        cost = measure(command)
        size = sum(f.stat().st_size for f in (bundle / "onnx").iterdir())
        rows.append((part, cost, size))
        if target is not None:
            build = ("build-engines", "--bundle", bundle, "--backend", "tensorrt_rtx", "--target", target)
            built = measure(module("ltxrt.export.cli", *build, "--component", part, "--profile", profile))
            compiled.append((part, built, sum(f.stat().st_size for f in bundle.rglob("*.engine"))))
        shutil.rmtree(bundle)
    shutil.rmtree(work)
    click.echo(f"\n| {model_version}, {precision} | written GB | seconds | peak GB |\n|---|---|---|---|")
    for part, cost, size in rows:
        click.echo(f"| {part} | {size / 1e9:.2f} | {cost.seconds:.0f} | {cost.peak_bytes / 1e9:.2f} |")
    for part, cost, size in compiled:
        click.echo(f"| {part} engine, {target}, {profile} | {size / 1e9:.2f} | {cost.seconds:.0f} | "
                   f"{cost.peak_bytes / 1e9:.2f} |")  # fmt: skip


@main.command("run")
@click.option("--model-version", default="0.9.5", show_default=True)
@click.option("--size", nargs=3, type=int, default=(256, 384, 25), show_default=True, help="H W F")
@click.option("--steps", type=int, default=2, show_default=True)
@click.option("--work", type=PATH, required=True, help="Scratch folder; kept, with the bundle and the video.")
def run_command(model_version: str, size: tuple[int, int, int], steps: int, work: Path) -> None:
    """Export the model with random weights in fp32 and make a short video on the CPU."""
    bundle = work / "bundle"
    if not (bundle / "bundle.json").is_file():
        checkpoint, text_encoder = _checkpoint(work, model_version, "random", PARTS)
        for part in PARTS:
            click.echo(f"{part}: {measure(_export(checkpoint, text_encoder, bundle, part, 'fp32'))}")
        shutil.rmtree(work / "checkpoint")
    height, width, frames = size
    sizes = ("--height", height, "--width", width, "--num-frames", frames, "--steps", steps)
    prompt = "a random model dreams of noise"
    output = work / "video.mp4"
    arguments = ("--bundle", bundle, "--backend", "cpu", "--prompt", prompt, *sizes, "--output", output)
    cost = measure(module("ltxrt.runtime.cli", *arguments))
    click.echo(f"{frames} frames of {width}×{height} in {steps} steps: {cost}")


@main.command("parity")
@click.option("--model-version", default="0.9.5", show_default=True)
@click.option("--precision", default="fp16", show_default=True)
@click.option("--size", default="128x192x17", show_default=True, metavar="HxWxF")
@click.option("--steps", type=int, default=2, show_default=True)
@click.option(
    "--work", type=PATH, required=True, help="Scratch folder; kept, with the bundle and its report."
)
def parity_command(model_version: str, precision: str, size: str, steps: int, work: Path) -> None:
    """Verify the model's graphs against torch: at full size, except T5 with 2 layers of full width."""
    checkpoint, text_encoder = _checkpoint(work, model_version, "random", PARTS, text_layers=2)
    for part in PARTS:
        cost = measure(_export(checkpoint, text_encoder, work / "bundle", part, precision))
        click.echo(f"export of {part} in {precision}: {cost}")
    arguments = (
        "check",
        "--bundle",
        work / "bundle",
        "--checkpoint",
        checkpoint,
        "--text-encoder",
        text_encoder,
    )
    run = measure(module("ltxrt.parity.cli", *arguments, "--size", size, "--steps", steps))
    click.echo(f"parity: {run}")


@main.command("step")
@click.option("--size", nargs=3, type=int, default=(256, 384, 25), show_default=True, help="H W F")
@click.option("--batch", type=int, default=1, show_default=True)
@click.option(
    "--calls", type=int, default=1, show_default=True, help="Number of calls to load the engine for."
)
@click.option("--work", type=PATH, required=True, help="The scratch folder of `run`.")
def step_command(size: tuple[int, int, int], batch: int, calls: int, work: Path) -> None:
    """Load the transformer that `run` exported and time single steps."""
    bundle = read_bundle(work / "bundle")
    if bundle.facts.vae is None:
        raise InputError(f"{work}: its bundle has no facts of a VAE; make it with the command `run`")
    height, width, frames = size
    tokens = VideoShape(frames, height, width).latent(bundle.facts.vae).tokens
    sizes = {"B": batch, "N": tokens, "K": 1, "T": 128}
    start = time.monotonic()
    with load_engine(bundle, "transformer", calls=calls) as engine:
        feed = engine.contract.sample(sizes, np.random.default_rng(0))
        click.echo(f"load: {time.monotonic() - start:.1f} s")
        for name in ("first step", "second step"):
            start = time.monotonic()
            engine(**feed)
            click.echo(f"{name}, {tokens} tokens, batch {batch}: {time.monotonic() - start:.1f} s")
    click.echo(f"peak resident memory: {peak_memory() / 1e9:.2f} GB")


def _checkpoint(
    work: Path, version: str, fill: str, parts: tuple[str, ...], text_layers: int = 24
) -> tuple[Path, Path]:
    models = synthetic_models.full(version)
    t5 = dataclasses.replace(models.text_encoder, layers=text_layers)
    folder = work / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    file, text_encoder = folder / f"ltxv-{version}.safetensors", folder / "t5"
    synthetic.write_official(file, models.transformer, models.vae, models.scheduler, "BF16", fill=fill)
    if "text_encoder" in parts:
        synthetic.write_text_encoder(text_encoder, t5, "BF16", fill=fill)
    return file, text_encoder


def _export(checkpoint: Path, text_encoder: Path, bundle: Path, part: str, precision: str) -> list[str]:
    extra: tuple[object, ...] = ("--text-encoder", text_encoder) if part == "text_encoder" else ()
    extra += ("--uncalibrated",) if precision.startswith("fp8") else ()
    choice = ("--component", part, "--precision", precision, "--output", bundle)
    return module("ltxrt.export.cli", "onnx", checkpoint, *extra, *choice)


if __name__ == "__main__":
    main()
