"""Whether the memory that `ltx-run --explain` estimates is what a run takes.

    python -m ltxrt.parity.proofs.memory --bundle bundle --size 256x384x25 --size 480x704x49

Each run has a process of its own, which is this one for a single size. Its peak resident memory, less that
before the run, is compared with the estimate. On the CPU; weights that are mapped from the disk count as far
as they were read.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ltxrt.engines.cli_base import ltxrt_command, say
from ltxrt.engines.description import memory_size
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.families import component_names
from ltxrt.parity.check.inputs import parse_size
from ltxrt.parity.environment import module, peak_memory
from ltxrt.runtime.cli import main as ltx_run
from ltxrt.runtime.ltxv import Pipeline, explain
from ltxrt.runtime.request.options import precisions
from ltxrt.runtime.request.request import Request


@dataclass(frozen=True)
class Measured:
    """Bytes: what a run was estimated to take at most, in which stage, and what it took."""

    stage: str
    estimated: int
    taken: int


@ltxrt_command("memory")
@click.option("--bundle", type=click.Path(path_type=Path), required=True, metavar="DIR")
@click.option("--size", "sizes", multiple=True, required=True, metavar="HxWxF", help="Repeatable.")
@click.option("--steps", type=click.IntRange(1), default=1, show_default=True)
@click.option("--precision", help="As of ltx-run.")
def main(bundle: Path, sizes: Sequence[str], steps: int, precision: str | None) -> None:
    """Compare estimates of memory with the peaks of runs."""
    for text in sizes:
        if len(sizes) == 1:
            found = measure(bundle, text, steps, precision)
            both = f"estimated {memory_size(found.estimated)}, took {memory_size(found.taken)}"
            say(f"{text}: {both} ({found.taken / found.estimated:.2f}); {found.stage}")
            continue
        options = ["--bundle", bundle, "--size", text, "--steps", steps]
        options += ["--precision", precision] if precision else []
        command = module("ltxrt.parity.proofs.memory", *options)
        if subprocess.run(command, check=False).returncode != 0:
            raise LtxrtError(f"a run of {text} failed; its message is above")


def measure(bundle: Path, size: str, steps: int, precision: str | None = None) -> Measured:
    """The estimate and the peak of a video, made in this process, which has done nothing before."""
    height, width, frames = parse_size(size)
    chosen = precisions(precision, component_names())
    with Pipeline(bundle, backend="cpu", precision=chosen) as pipeline:
        request = Request("waves", height=height, width=width, num_frames=frames, steps=steps)
        found = explain(pipeline.plan(request), pipeline.engines)
    import onnxruntime  # noqa: F401  # its code is no part of the estimate

    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        video = ["--height", height, "--width", width, "--num-frames", frames, "--steps", steps]
        video += ["--precision", precision] if precision else []
        output = Path(folder) / "video.mp4"
        arguments = ["--bundle", bundle, "--backend", "cpu", "--prompt", "waves", "--output", output, *video]
        ltx_run.main(list(map(str, arguments)), standalone_mode=False)
    return Measured(found.largest, found.peak, peak_memory() - before)


if __name__ == "__main__":
    main()
