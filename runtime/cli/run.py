"""The requests of `ltx-run` as files: one video, or several with one load of the engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.cli_base import called, check_interrupted
from ltxrt.engines.errors import InterruptedRunError, LtxrtError, setting
from ltxrt.engines.progress import Progress, Report, of_parts, part
from ltxrt.engines.terminal import Job, note, on_interrupt, result, warn
from ltxrt.runtime import Stream
from ltxrt.runtime.cli import encoding, outputs
from ltxrt.runtime.cli.again import Again
from ltxrt.runtime.cli.given import Asked, firsts, keep_for_several, pool_options, requested
from ltxrt.runtime.families import Family, family
from ltxrt.runtime.media.overlap import behind
from ltxrt.runtime.media.write import Encoding, VideoWriter
from ltxrt.runtime.request import provenance

WAITING = 16  # decoded frames in the encoder's queue, each of at most some megabytes
PROMPTS_AT_ONCE = 100  # that are encoded before the first of their videos, and held meanwhile: up to 0.8 GB


def generate(bundle: Path, output: Path, options: dict[str, Any], report: Job) -> None:
    """Make the videos that the options ask for, and say what becomes of them."""
    pool = pool_options(options)
    existing = outputs.Existing(options.pop("overwrite"), options.pop("skip_existing"))
    again, kind = Again(options.pop("from_"), options.pop("sources")), encoding.taken(options)
    told = not options.pop("no_metadata")
    kind = again.encoding(output, kind)
    shown: Path | None = options.pop("preview")
    opened = read_bundle(bundle)
    model = family(opened.family)
    asked = requested(options, lambda given: again.fields(given, opened))
    videos = outputs.named(output, asked, existing, kind)
    if not videos:
        return
    if shown is not None:
        outputs.check_preview(shown, videos, opened, existing)
    again.choose_engines(pool, opened)
    if len(videos) > 1:
        keep_for_several(pool, model)
    with model.Pipeline(opened, **pool) as pipeline, on_interrupt(pipeline.interrupt):
        maker = Maker(model, pipeline, report, Writing(kind, told, shown))
        if len(videos) == 1:
            maker.make(*videos[0])
        else:
            _make_all(maker, *zip(*videos))


@dataclass(frozen=True)
class Writing:
    """How videos are written: their encoding, whether they say how they were made, and where they are
    previewed."""

    encoding: Encoding
    metadata: bool
    preview: Path | None = None


class Maker:
    """Makes videos one after another with one pipeline; says each note once."""

    def __init__(self, model: Family, pipeline: Any, job: Job, writing: Writing) -> None:
        self.model, self.pipeline, self.job, self.writing = model, pipeline, job, writing
        self._said: set[str] = set()

    def make(self, one: Asked, output: Path, label: str = "") -> None:
        """Make a video, and say what became of it; `label` names it among several."""
        start = time.monotonic()
        report = part(self.job, label)
        seed, inputs = one.request.seed, provenance.inputs(one.request)
        if one.drawn:
            self._note(f"note: the seed drawn is {seed}; {setting('seed')} {seed} makes this video again")
        prepared = self.pipeline.prepare(one.request)
        plan, engines = prepared.plan, self.pipeline.engines
        preset = plan.settings.preset
        self.writing.encoding.check_size(output, preset.height, preset.width, preset.num_frames)
        self.tell(one, prepared)
        if not label:
            self.job.expect(self.model.expected_seconds(plan, engines), self.model.timing_key(plan, engines))
        shown, watch = self.writing.preview, {}
        if shown is not None:
            watch = {"watch": self.model.previewing(plan, engines.bundle, shown)}
        stream = self.pipeline.stream(
            prepared, report=report, **watch, deep=self.writing.encoding.bit_depth > 8
        )
        metadata = self.model.metadata(plan, engines, inputs) if self.writing.metadata else {}
        count = _write(stream, output, metadata, self.writing.encoding, report)
        seconds = time.monotonic() - start
        data = {"output": str(output), "frames": count, "seed": seed, "seconds": round(seconds, 3)}
        result(f"{output}: {count} frame{'s' * (count != 1)} in {seconds:.1f} s", data)

    def tell(self, one: Asked, prepared: Any) -> None:
        """Say what its user should know before the work; nothing twice."""
        plan, engines = prepared.plan, self.pipeline.engines
        for line in (*self.model.notes(plan), *_first_only(plan, one), *_cut_off(prepared, one)):
            self._note(line)
        if engines.choice.automatic:
            self._note(engines.choice.sentence(engines.device), note)
        if (warning := self.model.shortage(plan, engines)) is not None:
            self._note(warning)

    def _note(self, line: str, show: Callable[[str], None] = warn) -> None:
        if line not in self._said:
            self._said.add(line)
            show(line)


def _make_all(maker: Maker, asked: Sequence[Asked], paths: Sequence[Path]) -> None:
    """Make several videos. What cannot be made is refused before any work; one that fails later is reported,
    and the others are made.
    """
    labels = [f"video {number}/{len(asked)}" for number in range(1, len(asked) + 1)]
    _expect(maker, asked, labels)
    failed = 0
    for begin in range(0, len(asked), PROMPTS_AT_ONCE):
        some = slice(begin, begin + PROMPTS_AT_ONCE)
        maker.pipeline.close()  # of the kept engines, before the text encoder is loaded
        maker.pipeline.encode_prompts(_plans(maker.pipeline, asked[some]), report=maker.job)
        for one, path, label in zip(asked[some], paths[some], labels[some]):
            failed += not _made(maker, one, path, label)
    if failed:
        raise LtxrtError(
            f"{failed} of {len(asked)} videos failed, for the reasons given above; the others were made"
        )


def _expect(maker: Maker, asked: Sequence[Asked], labels: Sequence[str]) -> None:
    """Plan all videos, which refuses some and warns of others, and expect the stages of each."""
    lines: dict[int, dict[str, float]] = {}
    key = ""
    for one in firsts(asked):
        check_interrupted()
        with one.named():
            prepared = maker.pipeline.prepare(one.request)
        maker.tell(one, prepared)
        lines[id(one.line)] = maker.model.expected_seconds(prepared.plan, maker.pipeline.engines)
        key = maker.model.timing_key(prepared.plan, maker.pipeline.engines)
    parts = ((label, lines[id(one.line)]) for one, label in zip(asked, labels))
    maker.job.expect(of_parts(parts, maker.model.BEFORE_ALL.values()), key)


def _plans(pipeline: Any, asked: Sequence[Asked]) -> Iterator[Any]:
    for one in firsts(asked):
        with one.named():
            yield pipeline.plan(one.request)


def _made(maker: Maker, one: Asked, path: Path, label: str) -> bool:
    """Whether the video was made. What failed is said; an interruption is raised."""
    try:
        with one.named():
            maker.make(one, path, label)
    except InterruptedRunError:
        raise
    except (LtxrtError, OSError, MemoryError) as error:
        check_interrupted()
        why = error.worded(setting) if isinstance(error, LtxrtError) else str(error) or "out of memory"
        warn(f"error: {path}: {why}")
        return False
    return True


def _first_only(plan: Any, one: Asked) -> list[str]:
    """A note on the given options that apply to the first of two passes alone."""
    if not one.first or len(plan.passes) == 1:
        return []
    context = click.get_current_context()
    flags = ", ".join(called(context, name) for name in one.first)
    return [f"note: {flags} hold for the first pass; --second-pass KEY=VALUE sets the second's"]


def _cut_off(prepared: Any, one: Asked) -> list[str]:
    """Warnings of prompts whose end is not read."""
    place = "" if one.line is None else f"{one.line.place}: "
    return [f"warning: {place}{line}" for line in prepared.cut_off]


def _write(stream: Stream, output: Path, metadata: dict[str, str], encoding: Encoding, report: Report) -> int:
    """Write the frames as they are decoded; returns their number."""
    preset, stage = stream.settings.preset, f"writing {output.name}"
    with (
        VideoWriter(output, preset.height, preset.width, preset.frame_rate, metadata, encoding) as writer,
        behind(writer.write, WAITING) as write,
    ):
        told = -1
        for chunk in stream.frames:
            for frame in chunk:
                write(frame)
                if told < writer.count < preset.num_frames:  # the last one is when the file is complete
                    told = writer.count
                    report(Progress(stage, told, preset.num_frames, "frame"))
    report(Progress(stage, writer.count, writer.count, "frame"))
    return writer.count
