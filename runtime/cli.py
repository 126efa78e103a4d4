"""`ltx-run`: a bundle and a prompt to a video file. Heavy packages load after the options are read."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ltxrt.engines.cli_base import LtxrtGroup, check_interrupted, ltxrt_command, say
from ltxrt.runtime.request.options import BOTH_PASSES, PASS

if TYPE_CHECKING:
    from ltxrt.engines.bundle import Bundle
    from ltxrt.runtime.ltxv.pipeline import Event, Pipeline, Stream
    from ltxrt.runtime.request.request import Request

PATH = click.Path(path_type=Path)

# Options whose default is the bundle's preset: flag, type, help. Those of a pass are the first one's, but for
# BOTH_PASSES, and say so.
FROM_PRESET: tuple[tuple[str, Any, str], ...] = (
    ("--negative-prompt", str, "What it must not show."),
    ("--height", int, "Pixels, a multiple of 32."),
    ("--width", int, "Pixels, a multiple of 32."),
    ("--num-frames", int, "Frames, 8k+1."),
    ("--frame-rate", float, "Frames per second."),
    ("--steps", int, "Steps of the schedule; those skipped are among them."),
    ("--timesteps", str, "Explicit sigmas instead of steps: 1,0.9875,0.725"),
    ("--skip-initial", int, "Steps left out at the beginning; needs --input-video."),
    ("--skip-final", int, "Steps left out at the end; the last one kept goes to 0."),
    ("--guidance-scale", str, "1 is off; with commas, one for each of --guidance-timesteps."),
    ("--stg-scale", str, "Spatiotemporal guidance, of --skip-block-list; 0 is off."),
    ("--rescaling-scale", str, "Rescaling where spatiotemporal guidance runs; 1 is off."),
    ("--guidance-timesteps", str, "Sigmas from which each entry of those lists holds."),
    (
        "--skip-block-list",
        str,
        "Blocks that it perturbs; with ; a list for each timestep: ;11,25;28 begins with an empty one.",
    ),
    ("--stg-mode", str, "attention_values, attention_skip or transformer_block."),
    ("--cfg-star/--no-cfg-star", bool, "Project the negative velocity on the positive one."),
    (
        "--stochastic/--no-stochastic",
        bool,
        "Predict the clean video and noise it afresh in each step, of all passes.",
    ),
    ("--two-passes/--one-pass", bool, "A small first pass, upsampled for a second one; or one to the end."),
    ("--downscale-factor", float, "Size of the first of two passes."),
    ("--adain-factor", float, "How far upsampled latents take the first pass's statistics."),
    ("--tone-map", float, "Compression of the latents before decoding; 0 is off."),
    ("--image-noise-scale", float, "Noise on the given image, times sigma squared."),
    ("--decode-timestep", float, "What the decoder is told of its input's noise."),
    ("--decode-noise-scale", float, "Noise mixed in for the decoder to remove."),
    ("--max-tokens", int, "Length at which a prompt is cut."),
)
WAITING = 16  # decoded frames that wait for the encoder, each at most some megabytes
LISTS = ("timesteps", "guidance_scale", "stg_scale", "rescaling_scale", "guidance_timesteps")


def _preset_options(command: Any) -> Any:
    for flag, kind, text in reversed(FROM_PRESET):
        name = flag.partition("/")[0].removeprefix("--").replace("-", "_")
        of = "of the first pass; " if name in PASS and name not in BOTH_PASSES else ""
        option = click.option(flag, type=kind, default=None, help=f"{text} [{of}default: the preset's]")
        command = option(command)
    return command


@ltxrt_command(
    "ltx-run",
    cls=LtxrtGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--bundle", type=PATH, metavar="DIR", help="Folder made by ltx-export onnx.  [required]")
@click.option("--prompt", help="What the video shows.")
@click.option("--output", type=PATH, metavar="FILE", help=".mp4, .webm, .gif, or a name for a folder of PNG.")
@click.option(
    "--image", type=PATH, metavar="FILE", help="First frame; cropped and scaled to the video's size."
)
@click.option("--image-strength", type=float, help="0 ignores the image.  [default: 1]")
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="MEDIA[@FRAME[:STRENGTH]]",
    help="An image or video that is part of the video, from a frame on; may be repeated.",
)
@click.option("--input-video", type=PATH, metavar="FILE", help="A video to make another one of.")
@click.option("--denoise-strength", type=float, help="Share of the steps that --input-video goes through.")
@click.option(
    "--preparation",
    help="How images fit: official, plain, none, or steps: crop,blur,codec.  [default: --reference's]",
)
@click.option("--preset", help="One of the bundle's presets.  [default: default]")
@click.option("--config", type=PATH, metavar="FILE", help="Settings in YAML; official files are read too.")
@_preset_options
@click.option(
    "--second-pass",
    multiple=True,
    metavar="KEY=VALUE",
    help=f"A setting of the second pass; may be repeated. KEY is {', '.join(PASS).replace('_', '-')}.",
)
@click.option("--sampler", help="uniform or linear_quadratic, unshifted.  [default: the checkpoint's]")
@click.option("--guidance-rescale", type=float, help="diffusers' rescaling of guidance; 0 is off.")
@click.option("--seed", type=int, help="Same seed, same video.  [default: 0]")
@click.option(
    "--generator", help="Whose numbers the seed stands for: torch's on the cpu or on cuda.  [default: cpu]"
)
@click.option("--gpu", help="The GPU of --generator cuda, such as H100 or 'RTX 4090'.")
@click.option(
    "--noise", "noise_layout", help="Order of the noise: official or diffusers.  [default: --reference's]"
)
@click.option("--noise-dtype", help="f32, or bf16 as the official pipeline on a GPU.  [default: f32]")
@click.option(
    "--noise-file", "noise", type=PATH, metavar="FILE", help="The initial noise itself, a .npy array."
)
@click.option(
    "--reference", help="Whose habits: official, diffusers or diffusers-condition.  [default: official]"
)
@click.option(
    "--vae-memory",
    metavar="SIZE",
    help="What the autoencoder's activations may take; above it works in blended tiles.  [default: 8GiB]",
)
@click.option("--precision", metavar="P | COMPONENT=P,…", help="Which of the bundle's precisions to run.")
@click.option("--backend", default="onnxruntime", show_default=True, help="What runs the engines.")
@click.option("--device", type=int, default=0, show_default=True, help="Number of the GPU.")
@click.option("--threads", type=int, help="CPU threads. [default: all cores]")
@click.option("--keep-loaded", is_flag=True, help="Keep engines between passes; all stand in memory then.")
@click.option("--list-presets", is_flag=True, help="Show the bundle's presets and stop.")
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
@click.option("--bundle", type=PATH, metavar="DIR", help="Also look at a bundle's engines.")
@click.pass_context
def doctor_command(context: click.Context, /, bundle: Path | None) -> None:
    """Say what this machine can run, and how to get what is missing."""
    from ltxrt.engines.doctor import report

    for line in report(bundle or _before_doctor(context)):
        say(line)


def _before_doctor(context: click.Context) -> Path | None:
    """The --bundle given before the subcommand's name; what is of no use to doctor is refused there."""
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
    from ltxrt.engines.contract import COMPONENTS
    from ltxrt.runtime.ltxv.pipeline import Pipeline
    from ltxrt.runtime.media import conditions
    from ltxrt.runtime.media.write import check_not_read, check_output
    from ltxrt.runtime.request import provenance
    from ltxrt.runtime.request.options import precisions

    check_output(output)
    where = {key: options.pop(key) for key in ("backend", "device", "threads", "keep_loaded")}
    precision = precisions(options.pop("precision"), COMPONENTS)
    pipeline = Pipeline(read_bundle(bundle), precision=precision, **where)
    request, first = _request(options)
    check_not_read(output, conditions.files(request))
    start = time.monotonic()
    console = Console()
    inputs = provenance.given(request)
    stream = pipeline.stream(request, console)
    for line in (*pipeline.unproved(stream.settings), *_notes(pipeline, stream, first)):
        say(line, err=True)
    if stream.truncated:
        over = f"{stream.truncated} tokens over {stream.settings.preset.max_tokens}"
        click.echo(f"warning: the prompt is {over}; its end was cut off", err=True)
    metadata = provenance.metadata(
        stream.settings,
        pipeline.bundle,
        backend=pipeline.engines.backend,
        precisions=pipeline.precisions(stream.settings),
        threads=pipeline.engines.threads,
        inputs=inputs,
    )
    count = _write(stream, output, metadata)
    console.finish()
    say(f"{output}: {count} frames in {time.monotonic() - start:.1f} s")


def _notes(pipeline: Pipeline, stream: Stream, first: list[str]) -> list[str]:
    """Lines for people on what was asked for and has less effect than it may seem.

    `first` are the options given that the first of two passes alone follows.
    """
    from ltxrt.runtime.sampling.guidance_plan import unperturbed

    lines, passes = [], len(stream.settings.preset.passes)
    if first and passes > 1:
        flags = ", ".join(map(_flag, first))
        lines.append(f"note: {flags} hold for the first pass; --second-pass KEY=VALUE sets the second's")
    for number in range(passes):
        plan = pipeline.plan(stream.settings, number)
        if count := unperturbed(plan):
            lines.append(
                f"note: {count} of the {len(plan)} steps of pass {number + 1} have an stg-scale and no block "
                "to perturb; it has no effect there (--skip-block-list names blocks)"
            )
    return lines


def _request(options: dict[str, Any]) -> tuple[Request, list[str]]:
    """The options as a request; what a settings file says holds where no option says otherwise.

    And those of the options that the first of two passes alone follows.
    """
    from ltxrt.runtime.media import read as media
    from ltxrt.runtime.request import yaml_file
    from ltxrt.runtime.request.options import (
        blocks,
        first_only,
        from_file,
        merged,
        numbers,
        second_pass,
    )
    from ltxrt.runtime.request.request import Request
    from ltxrt.runtime.vae import tiling

    config = options.pop("config")
    second = options.pop("second_pass")
    values = {name: value for name, value in options.items() if value is not None}
    for name in LISTS:
        if name in values:
            values[name] = numbers(name, values[name])
    if "skip_block_list" in values:
        values["skip_block_list"] = blocks("skip_block_list", values["skip_block_list"])
    if "vae_memory" in values:
        values["vae_memory"] = tiling.parse_bytes(values["vae_memory"])
    values["conditions"] = tuple(media.parse(text) for text in values["conditions"])
    base = {} if config is None else from_file(yaml_file.read(config))
    others = second_pass(second)
    whole = merged(base, values, others)
    if "prompt" not in whole:
        raise click.UsageError("Missing option '--prompt'.")
    return Request(**whole), first_only(values, others)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _presets(bundle: Bundle) -> str:
    """The presets as text, a field a line."""
    lines = [f"LTX-Video {bundle.version}"]
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
    """A value as its option is written."""
    if not isinstance(value, tuple):
        return str(value)
    parts = (
        (value if not isinstance(value[0], tuple) else (",".join(map(str, v)) for v in value))
        if value
        else ()
    )
    return (";" if value and isinstance(value[0], tuple) else ",").join(map(str, parts))


def _write(stream: Stream, output: Path, metadata: dict[str, str]) -> int:
    """The frames as they come; how many there were."""
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
