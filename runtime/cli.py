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
    from ltxrt.engines.bundle import Bundle
    from ltxrt.runtime.pipeline import Event, Video

PATH = click.Path(path_type=Path)

# Options whose default is the bundle's preset: flag, type, help.
FROM_PRESET: tuple[tuple[str, Any, str], ...] = (
    ("--negative-prompt", str, "What it must not show."),
    ("--height", int, "Pixels, a multiple of 32."),
    ("--width", int, "Pixels, a multiple of 32."),
    ("--num-frames", int, "Frames, 8k+1."),
    ("--frame-rate", float, "Frames per second."),
    ("--steps", int, "Denoising steps."),
    ("--timesteps", str, "Explicit sigmas instead of steps: 1,0.9875,0.725"),
    ("--guidance-scale", float, "1 turns guidance off."),
    ("--stochastic/--no-stochastic", bool, "Predict the clean video and noise it afresh in each step."),
    ("--image-noise-scale", float, "Noise on the given image, times sigma squared."),
    ("--decode-timestep", float, "What the decoder is told of its input's noise."),
    ("--decode-noise-scale", float, "Noise mixed in for the decoder to remove."),
    ("--max-tokens", int, "Length at which a prompt is cut."),
)


def _preset_options(command: Any) -> Any:
    for flag, kind, text in reversed(FROM_PRESET):
        option = click.option(flag, type=kind, default=None, help=f"{text} [default: the bundle's preset]")
        command = option(command)
    return command


@ltxrt_command("ltx-run", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--bundle", type=PATH, required=True, metavar="DIR", help="Folder made by ltx-export onnx.")
@click.option("--prompt", help="What the video shows.")
@click.option("--output", type=PATH, metavar="FILE", help=".mp4, .webm, .gif, or a name for a folder of PNG.")
@click.option(
    "--image", type=PATH, metavar="FILE", help="First frame; cropped and scaled to the video's size."
)
@click.option("--image-strength", type=float, default=1.0, show_default=True, help="0 ignores the image.")
@_preset_options
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same video.")
@click.option(
    "--reference", default="official", show_default=True, help="official or diffusers: whose habits."
)
@click.option("--precision", metavar="P | COMPONENT=P,…", help="Which of the bundle's precisions to run.")
@click.option("--backend", default="onnxruntime", show_default=True, help="What runs the engines.")
@click.option("--threads", type=int, help="CPU threads. [default: all cores]")
@click.option("--list-presets", is_flag=True, help="Show the bundle's presets and stop.")
@click.version_option(package_name="ltxrt")
def main(bundle: Path, output: Path | None, list_presets: bool, **options: Any) -> None:
    """Make a video from a bundle. Needs no torch."""
    from ltxrt.engines.bundle import read_bundle

    if list_presets:
        click.echo(_presets(read_bundle(bundle)))
        return
    for name, value in (("--prompt", options["prompt"]), ("--output", output)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    _generate(bundle, Path(output or ""), options)


def _generate(bundle: Path, output: Path, options: dict[str, Any]) -> None:
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.runtime.pipeline import Pipeline
    from ltxrt.runtime.request import Request
    from ltxrt.runtime.video import check_output

    check_output(output)
    where = {key: options.pop(key) for key in ("backend", "threads")}
    pipeline = Pipeline(read_bundle(bundle), precision=_precisions(options.pop("precision")), **where)
    request = Request(**{**options, "timesteps": _timesteps(options["timesteps"])})
    start = time.monotonic()
    console = Console()
    video = pipeline.generate(request, console)
    console.finish()
    if video.truncated:
        over = f"{video.truncated} tokens over {video.settings.max_tokens}"
        click.echo(f"warning: the prompt is {over}; its end was cut off", err=True)
    _write(video, output, bundle)
    click.echo(f"{output}: {len(video.frames)} frames in {time.monotonic() - start:.1f} s")


def _presets(bundle: Bundle) -> str:
    """The presets as text, a field a line."""
    lines = [f"LTX-Video {bundle.version}"]
    for name, preset in bundle.presets.items():
        lines.append(f"{name}:")
        lines += [f"  {field.replace('_', '-')}: {value}" for field, value in vars(preset).items()]
    return "\n".join(lines)


def _timesteps(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--timesteps {text!r}: must be numbers with commas, as in 1,0.9875,0.725"
        ) from error


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
        "stochastic": str(settings.stochastic),
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
