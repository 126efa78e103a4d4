"""One request of `ltx-run` as one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.cli_base import called, check_interrupted, say
from ltxrt.engines.families import component_names
from ltxrt.engines.terminal import on_interrupt
from ltxrt.runtime import Stream
from ltxrt.runtime.cli.console import Console
from ltxrt.runtime.cli.given import requested
from ltxrt.runtime.families import family
from ltxrt.runtime.media.overlap import behind
from ltxrt.runtime.media.write import VideoWriter, check_not_read, check_output
from ltxrt.runtime.request import provenance
from ltxrt.runtime.request.options import precisions

WAITING = 16  # decoded frames in the encoder's queue, each of at most some megabytes


def generate(bundle: Path, output: Path, options: dict[str, Any]) -> None:
    """Make the video that the options ask for, and say what becomes of it."""
    check_output(output)
    where = {key: options.pop(key) for key in ("backend", "device", "threads", "keep_loaded")}
    precision = precisions(options.pop("precision"), component_names())
    opened = read_bundle(bundle)
    model = family(opened.family)
    pipeline = model.Pipeline(opened, precision=precision, **where)
    request, first = requested(options)
    check_not_read(output, request.files())
    start = time.monotonic()
    console = Console()
    inputs = provenance.inputs(request)
    with on_interrupt(pipeline.interrupt):
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


def _write(stream: Stream, output: Path, metadata: dict[str, str]) -> int:
    """Write the frames as they are decoded; returns their number."""
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
