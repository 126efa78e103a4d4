"""Which plots a result has: time by tokens, where time goes, starts and memory."""

from __future__ import annotations

from collections.abc import Callable

from ltxrt.parity.bench import results as bench_results
from ltxrt.parity.bench import svg
from ltxrt.parity.bench.results import OURS, REFERENCE, Measurement, Result, Section

LARGEST = 6  # operators with a colour of their own


def draw(result: Result) -> dict[str, str]:
    """SVG by name; each name begins with its section's."""
    makers: dict[str, Callable[[Section], dict[str, str]]] = {
        "transformer": _transformer,
        "components": _plain,
        "videos": _stages,
        "cold-start": _plain,
        "memory": _plain,
    }
    plots: dict[str, str] = {}
    for section in result.sections:
        if section.name in makers:
            plots |= makers[section.name](section)
    return plots


def _transformer(section: Section) -> dict[str, str]:
    plots = {"transformer-tokens": _tokens(section)} if _lines(section) else {}
    if section.profiles:
        rows = {profile.name: _grouped(profile.operators) for profile in section.profiles}
        title = "A step of ours by operator: share of the time"
        plots["transformer-operators"] = svg.bars(title, rows, "s", shares=True)
    return plots


def _tokens(section: Section) -> str:
    drawn = [svg.Line(name, points) for name, points in _lines(section).items()]
    return svg.lines("Transformer step by tokens", "tokens", "seconds", [*drawn, *_arithmetic(section)])


def _lines(section: Section) -> dict[str, tuple[tuple[float, float], ...]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in section.measurements:
        for one in (s for s in row.samples if s.values and row.size):
            point = (float(row.size or 0), bench_results.spread(one.values).median)
            found.setdefault(one.contender, []).append(point)
    return {name: tuple(points) for name, points in found.items()}


def _arithmetic(section: Section) -> list[svg.Line]:
    """The operations' growth, laid through ours at the largest size."""
    rows = [r for r in section.measurements if r.size and r.operations and r.of(OURS)]
    if not rows:
        return []
    last = rows[-1]
    ours = last.of(OURS)
    top = bench_results.spread(ours.values).median if ours else 0.0
    points = [(float(r.size or 0), top * (r.operations or 0) / (last.operations or 1)) for r in rows]
    return [svg.Line("growth of the operations", tuple(points), dashed=True)]


def _grouped(operators: dict[str, float]) -> dict[str, float]:
    names = list(operators)
    kept = {n: operators[n] for n in names[:LARGEST]}
    rest = sum(operators[n] for n in names[LARGEST:])
    return {**kept, "others": rest} if rest else kept


def _plain(section: Section) -> dict[str, str]:
    """A bar for each contender of each measurement."""
    rows, unit = {}, "s"
    for row in section.measurements:
        for one in (s for s in row.samples if s.values):
            scale, unit = (1e-6, "MB") if row.unit == "bytes" else (1.0, row.unit)
            label = f"{_label(row)}: {_short(one.contender)}"
            rows[label] = {_short(one.contender): scale * bench_results.spread(one.values).median}
    return {section.name: svg.bars(section.title, rows, unit)} if rows else {}


def _stages(section: Section) -> dict[str, str]:
    """A bar for each contender of each video, in its stages; what is between them is `between`."""
    rows = {}
    for row in section.measurements:
        for one in (s for s in row.samples if s.values):
            stages = bench_results.stage_shares(one)
            left = bench_results.spread(one.values).median - sum(stages.values())
            label = f"{_label(row)}: {_short(one.contender)}"
            rows[label] = {**stages, "between": max(left, 0.0)}
    return {section.name: svg.bars("Whole videos by stage", rows, "s")} if rows else {}


def _label(row: Measurement) -> str:
    """A measurement's name without its size, which stands last."""
    whole, _, _ = row.name.rpartition(", ")
    return (whole or row.name).removesuffix(" model")


def _short(contender: str) -> str:
    return {OURS: "ltxrt", REFERENCE: "diffusers"}.get(contender, contender)
