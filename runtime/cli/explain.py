"""`ltx-run --explain`: what requests would run and take, as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.description import duration, memory_size
from ltxrt.engines.terminal import result
from ltxrt.runtime.cli import encoding, outputs
from ltxrt.runtime.cli.again import Again
from ltxrt.runtime.cli.given import firsts, keep_for_several, pool_options, requested
from ltxrt.runtime.families import family

HEADINGS = ("stage", "engine", "largest call", "weights", "activations", "arrays", "time")
EXISTING = outputs.Existing(overwrite=True, skip=False)  # nothing is written


def show(bundle: Path, output: Path | None, options: dict[str, Any]) -> None:
    """Explain every request that the options ask for. Raises InputError as a run would, but for outputs that
    exist."""
    pool = pool_options(options)
    again = Again(options.pop("from_"), options.pop("sources"))
    kind, preview = encoding.taken(options), options.pop("preview")
    for name in ("overwrite", "skip_existing", "no_metadata"):
        options.pop(name)  # about outputs alone
    opened = read_bundle(bundle)
    model = family(opened.family)
    asked = requested(options, lambda given: again.fields(given, opened))
    if output is not None:
        kind = again.encoding(output, kind)
        videos = outputs.named(output, asked, EXISTING, kind)
        if preview is not None:
            outputs.check_preview(preview, videos, opened, EXISTING)
    again.choose_engines(pool, opened)
    if len(asked) > 1:
        keep_for_several(pool, model)
    with model.Pipeline(opened, **pool) as pipeline:
        for one in firsts(asked):
            with one.named():
                plan = pipeline.plan(one.request)
                if output is not None:
                    preset = plan.settings.preset
                    kind.check_size(output, preset.height, preset.width, preset.num_frames)
            found = model.explain(plan, pipeline.engines)
            result("\n".join(lines(found, model.notes(plan))), found.to_json())


def lines(found: Any, notes: Sequence[str]) -> Iterator[str]:
    """An explanation for people."""
    plan = found.plan
    settings = plan.settings
    video, rate = settings.video, settings.preset.frame_rate
    yield f"{found.model} on {found.backend} ({found.place}), preset {settings.request.preset}"
    yield f"  video   {video} at {rate:g}/s, {video.num_frames / rate:.1f} s"
    for number, one in enumerate(plan.passes, 1):
        forwards = sorted({len(step.branches) for step in one.guidance})
        batch = "1 forward each" if forwards == [1] else f"{' or '.join(map(str, forwards))} forwards each"
        work = f"{one.shape.tokens + one.own_tokens} tokens, {len(one.sigmas)} steps"
        yield f"  pass {number}  {one.size}: {work}, {batch}"
    yield ""
    yield from _table([HEADINGS, *(_row(stage) for stage in found.stages)])
    yield ""
    yield f"memory  {_memory(found)}"
    yield f"time    {_time(found.seconds)}"
    yield from (f"problem: {stage.name}: {stage.problem}" for stage in found.stages if stage.problem)
    yield from notes


def _row(stage: Any) -> tuple[str, ...]:
    call = " ".join(f"{symbol}={value}" for symbol, value in stage.sizes.items())
    times = f" ({stage.calls}×)" if stage.calls > 1 else ""
    activations = "unknown" if stage.activations is None else memory_size(stage.activations)
    seconds = "" if stage.seconds is None else duration(stage.seconds)
    engine = stage.engine or f"{stage.component} {stage.precision}: none"
    return (
        stage.name,
        engine,
        call + times,
        memory_size(stage.weights),
        activations,
        memory_size(stage.arrays),
        seconds,
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()


def _memory(found: Any) -> str:
    need = f"{memory_size(found.peak)} in {found.where} at most (estimated; {found.largest})"
    if found.available is None:
        return f"{need}; how much there is could not be found out"
    verdict = "it fits" if found.fits else "it does NOT fit"
    return f"{need}; {memory_size(found.available)} of {memory_size(found.total)} are available: {verdict}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not measured here yet; a run of this bundle on this backend measures it"
    return f"about {duration(seconds)}, as measured here before"
