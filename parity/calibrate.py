"""`ltx-parity calibrate`, also as `python -m ltxrt.parity.calibrate`: activation scales for FP8.

    ltx-parity calibrate --bundle B --prompts prompts.txt --output scales.json
    ltx-export onnx CHECKPOINT --component transformer --precision fp8 --scales scales.json --output B

What it does is in `ltxrt.parity.calibration`, which is loaded after the options are read.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import MissingPackageError
from ltxrt.engines.progress import Progress, Report
from ltxrt.engines.terminal import job, mode_options, result, warn

if TYPE_CHECKING:
    from ltxrt.engines.terminal import Job

PATH = click.Path(path_type=Path)


@ltxrt_command("calibrate")
@click.option("--bundle", type=PATH, required=True, metavar="DIR", help="With text encoder and transformer.")
@click.option("--prompts", type=PATH, required=True, metavar="FILE", help="A prompt a line.")
@click.option("--output", type=PATH, required=True, metavar="FILE", help="The scales; resumed if there.")
@click.option("--height", type=int, help="[default: the preset's]")
@click.option("--width", type=int, help="[default: the preset's]")
@click.option("--num-frames", type=int, help="[default: the preset's]")
@click.option("--steps", type=int, help="[default: the preset's]")
@click.option(
    "--preset",
    help="One of the bundle's.  [default: default, or single-pass where that lacks its latent upsampler]",
)
@click.option("--threads", type=int, help="CPU threads.  [default: all cores]")
@mode_options
def main(bundle: Path, prompts: Path, output: Path, threads: int | None, **options: Any) -> None:
    """Run the sampler over PROMPTS and keep the largest activations for FP8."""
    from ltxrt.engines.bundle import reading_bundle

    with job() as report:
        report(Progress("loading torch"))
        try:
            from ltxrt.parity import calibration
        except ModuleNotFoundError as error:
            raise MissingPackageError(error.name or "onnx", "export,cpu") from error
        with reading_bundle(bundle) as opened:
            done = calibration.run(opened, prompts, output, options, threads, warn, _estimating(report))
    data = {"scales": str(output), "projections": done.projections, "prompts": done.prompts}
    result(f"{output}: {done.projections} projections, {done.prompts} prompts", data)


def _estimating(report: Job) -> Report:
    """`report`, which expects as much of the steps to come as the first one took."""
    first: list[float] = []

    def estimating(progress: Progress) -> None:
        first.append(time.monotonic())
        if len(first) == 2 and progress.total:
            report.expect({progress.stage: (first[1] - first[0]) * progress.total})
        report(progress)

    return estimating


if __name__ == "__main__":
    main()
