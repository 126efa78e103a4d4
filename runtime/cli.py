"""`ltx-run`: a bundle and a prompt to a video file. Heavy packages load after the options are read."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.command import ltxrt_command
from ltxrt.engines.errors import InputError

if TYPE_CHECKING:
    from ltxrt.runtime.pipeline import Event, Video

PATH = click.Path(path_type=Path)
PRESET = "[default: the bundle's preset]"
ABOUT = {
    "num_frames": f"Frames, 8k+1. {PRESET}",
    "height": f"Pixels, a multiple of 32. {PRESET}",
    "width": f"Pixels, a multiple of 32. {PRESET}",
}


@ltxrt_command("ltx-run", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--bundle", type=PATH, required=True, metavar="DIR", help="Folder made by ltx-export onnx.")
@click.option("--prompt", required=True, help="What the video shows.")
@click.option(
    "--output", type=PATH, required=True, metavar="FILE", help=".mp4, .webm, .gif, or a folder for PNG."
)
@click.option("--negative-prompt", help=f"What it must not show. {PRESET}")
@click.option(
    "--image", type=PATH, metavar="FILE", help="First frame; cropped and scaled to the video's size."
)
@click.option("--height", type=int, help=ABOUT["height"])
@click.option("--width", type=int, help=ABOUT["width"])
@click.option("--num-frames", type=int, help=ABOUT["num_frames"])
@click.option("--frame-rate", type=float, help=f"Frames per second. {PRESET}")
@click.option("--steps", type=int, help=f"Denoising steps. {PRESET}")
@click.option("--guidance-scale", type=float, help=f"1 turns guidance off. {PRESET}")
@click.option("--image-strength", type=float, default=1.0, show_default=True, help="0 ignores the image.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same video.")
@click.option(
    "--reference", default="official", show_default=True, help="official or diffusers: whose habits."
)
@click.option("--precision", metavar="P | COMPONENT=P,…", help="Which of the bundle's precisions to run.")
@click.option("--backend", default="onnxruntime", show_default=True, help="What runs the engines.")
@click.option("--threads", type=int, help="CPU threads. [default: all cores]")
@click.version_option(package_name="ltxrt")
def main(bundle: Path, output: Path, **options: Any) -> None:
    """Make a video from a bundle. Needs no torch."""
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.runtime.pipeline import Pipeline
    from ltxrt.runtime.request import Request
    from ltxrt.runtime.video import check_output

    check_output(output)
    where = {key: options.pop(key) for key in ("backend", "threads")}
    pipeline = Pipeline(read_bundle(bundle), precision=_precisions(options.pop("precision")), **where)
    request = Request(**options)
    start = time.monotonic()
    console = Console()
    video = pipeline.generate(request, console)
    console.finish()
    if video.truncated:
        limit = video.settings.max_tokens
        click.echo(
            f"warning: the prompt is {video.truncated} tokens over {limit}; its end was cut off", err=True
        )
    _write(video, output, bundle)
    click.echo(f"{output}: {len(video.frames)} frames in {time.monotonic() - start:.1f} s")


def _precisions(text: str | None) -> dict[str, str]:
    from ltxrt.engines.contract import COMPONENTS

    if text is None:
        return {}
    if "=" not in text:
        return dict.fromkeys(COMPONENTS, text)
    pairs = dict(item.partition("=")[::2] for item in text.split(","))
    for name in pairs:
        if name not in COMPONENTS:
            raise InputError(f"--precision names {name!r}; components are {', '.join(COMPONENTS)}")
    return pairs


def _write(video: Video, output: Path, bundle: Path) -> None:
    from ltxrt.runtime.video import VideoWriter

    settings = video.settings
    metadata = {
        "prompt": settings.prompt,
        "negative_prompt": settings.negative_prompt if settings.guided else "",
        "seed": str(settings.seed),
        "bundle": bundle.resolve().name,
        "steps": str(settings.steps),
        "guidance_scale": str(settings.guidance_scale),
        "reference": settings.reference,
        "software": "ltxrt",
    }
    with VideoWriter(output, settings.height, settings.width, settings.frame_rate, metadata) as writer:
        for frame in video.frames:
            writer.write(frame)


class Console:
    """Shows events on stderr: a line per stage, and for the steps one line that is written over."""

    def __init__(self) -> None:
        self.started = self.previous = time.monotonic()
        self.stage = ""

    def __call__(self, event: Event) -> None:
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
