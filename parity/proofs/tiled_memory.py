"""Memory of a tiled decode: a long video through a small autoencoder, with the bound that was computed for
it.

    python -m ltxrt.parity.proofs.tiled_memory

The bound comes from the graph (`export/graph/memory.py`), before anything runs; the peak is the process's.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import click

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import LtxrtError
from ltxrt.parity.environment import call, module, peak_memory
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.runtime.ltxv import decode
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.vae.tiling import parse_bytes

VERSION = "0.9.5"
MIB = 2**20


@ltxrt_command("tiled-memory")
@click.option("--num-frames", type=int, default=257, show_default=True)
@click.option("--height", type=int, default=704, show_default=True)
@click.option("--width", type=int, default=1216, show_default=True)
@click.option("--budget", "budgets", multiple=True, default=("256MiB", "512MiB", "1GiB"), show_default=True)
@click.option("--bundle", type=click.Path(path_type=Path), help="One bundle and budget, in this process.")
def main(num_frames: int, height: int, width: int, budgets: tuple[str, ...], bundle: Path | None) -> None:
    """Decode random latents in tiles under each budget, each in a process of its own."""
    size = {"num_frames": num_frames, "height": height, "width": width}
    if bundle is not None:
        _decode(bundle, size, parse_bytes(budgets[0]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = _make_bundle(Path(folder))
        for budget in budgets:
            options = [f"--{name.replace('_', '-')}={value}" for name, value in size.items()]
            command = module(
                "ltxrt.parity.proofs.tiled_memory", "--bundle", path, "--budget", budget, *options
            )
            if subprocess.run(command, check=False).returncode != 0:
                raise LtxrtError(f"decoding within {budget} failed; its message is above")


def _make_bundle(folder: Path) -> Path:
    models = synthetic_models.tiny(VERSION)
    checkpoint = folder / "random.safetensors"
    synthetic.write_official(checkpoint, models.transformer, models.vae, models.scheduler)
    command = module("ltxrt.export.cli", "onnx", checkpoint, "--component", "vae_decoder")
    call([*command, "--model-version", VERSION, "--output", str(folder / "bundle")])
    return folder / "bundle"


def _decode(path: Path, size: dict[str, int], budget: int) -> None:
    """Decode in this process, and print the bounds beside what was taken above the start."""
    bundle = read_bundle(path)
    memory = bundle.components["vae_decoder"]["fp32"].memory
    if memory is None:
        raise LtxrtError(f"{path}: does not record its decoder's memory; export it again")
    pipeline = Pipeline(bundle, backend="onnxruntime")
    request = Request("-", vae_memory=budget, **size)  # type: ignore[arg-type]
    plan = pipeline.plan(request, components=("vae_decoder",))
    vae, shape, tile = plan.model.vae, plan.passes[0].shape, plan.decoder_tile
    if tile is None:
        raise LtxrtError(f"{path}: has no decoder")
    generator = TorchCpuGenerator(0)
    latents = generator.randn(shape.grid(vae.latent_channels))
    before, start = peak_memory(), time.monotonic()
    pixels = pipeline.pixels(plan, latents, generator)
    frames = sum(len(chunk) for chunk in decode.frames(plan.settings, pixels))
    whole = memory.fixed_bytes + memory.bytes_per_cell * shape.tokens
    tiled = memory.fixed_bytes + memory.bytes_per_cell * tile.cells
    held = 3 * 4 * size["height"] * size["width"] * vae.temporal_compression * (tile.frames + 1)
    seconds = time.monotonic() - start
    click.echo(
        f"{frames} frames of {size['height']}x{size['width']}, budget {budget // MIB} MiB: tiles of "
        f"{tile.frames}x{tile.height}x{tile.width} of {shape.frames}x{shape.height}x{shape.width} cells; "
        f"activations computed {tiled // MIB} MiB (whole video: {whole // MIB} MiB), frames held at most "
        f"{held // MIB} MiB; peak above start {(peak_memory() - before) // MIB} MiB; {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
