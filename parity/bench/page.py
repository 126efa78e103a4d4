"""The page of a benchmark's result: what was measured and what limits it, then tables and plots."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ltxrt.engines.storage.files import atomic_write
from ltxrt.parity.bench.report import (
    OURS,
    REFERENCE,
    Measurement,
    Profile,
    Result,
    Samples,
    Section,
    compared,
    exponent,
    medians,
    number,
    present,
    spread,
    unit_scale,
)

SPEED_GOAL, SPEED_FROM = 2.2, 1000  # times diffusers eager, from so many tokens on
PEAK_GOAL = 0.9  # of the machine's matrix product
COLD_GOAL, HELP_GOAL = 12.0, 0.3
READING = "reading the weights from the disk"  # the machine's speed, nobody's
METHOD = (
    "Every contender runs in a process of its own with the same number of threads and the same inputs. After "
    "a warm-up they take turns (A B A B …). Cells are medians, with the lowest and highest in brackets; "
    "ratios are those of the medians, with the lowest and highest of the ratios turn by turn. `differs by` "
    "is the relative L2 distance of an output from diffusers'. Everything is fp32."
)


def write(result: Result, output: Path) -> list[Path]:
    """The Markdown page, the JSON beside it and the plots in a folder of its name; all their paths."""
    from ltxrt.parity.bench import plots  # matplotlib, which only this needs

    folder = output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {folder / f"{name}.svg": svg for name, svg in plots.draw(result).items()}
    data = json.dumps(dataclasses.asdict(result), indent=1, allow_nan=False) + "\n"
    texts = {output: page(result, list(drawn)), output.with_suffix(".json"): data, **drawn}
    for path, text in texts.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def page(result: Result, plots: Sequence[Path] = ()) -> str:
    """The Markdown of a result; the files of its plots lie in a folder beside it."""
    blocks = ["# Benchmarks", *_measured_here(result), *_limits(result)]
    reached = [(wanted, measured, "yes" if met else "no") for wanted, measured, met in goals(result)]
    if reached:
        blocks += ["## Goals", table(["goal", "measured", "reached"], reached)]
    blocks += [
        "## How it was measured",
        f"Made on {result.created} by\n\n    {result.command}",
        table(["machine", ""], [*result.machine.items(), *result.settings.items()]),
        table(["package", "version"], result.versions.items()),
        METHOD,
    ]
    for section in result.sections:
        blocks += [f"## {section.title}", section.about, *_section(section, result.peak)]
        own = [p for p in plots if p.stem.split("-")[0] == section.name.split("-")[0]]
        blocks += [f"![{p.stem}]({p.parent.name}/{p.name})" for p in own]
    return "\n\n".join([*blocks, "## Skipped", _skipped(result)]) + "\n"


def _measured_here(result: Result) -> Iterator[str]:
    """What was compared on which machine, and everything that both did, in one table."""
    machine = [result.machine.get("CPU", "")]
    machine += [f"{result.machine[name]} {name}" for name in ("cores", "memory") if name in result.machine]
    threads = f", {result.settings['threads']} threads" if "threads" in result.settings else ""
    yield (
        f"ltxrt beside diffusers on one machine ({', '.join(filter(None, machine))}{threads}): everything in "
        "fp32, models of random weights. Medians, with the lowest and highest ratio of turns that ran one "
        "after the other:"
    )
    rows = [
        (section.title, row.name, _middle(row, OURS), _middle(row, REFERENCE), found.times())
        for section in result.sections
        for row in section.measurements
        if (found := compared(row)) and row.name != READING
    ]
    if rows:
        yield table(["", "", "ltxrt", "diffusers", "diffusers / ltxrt"], rows)


def _middle(row: Measurement, contender: str) -> str:
    samples = row.of(contender)
    return _value(samples, row.unit).partition(" (")[0] if samples else "–"


def _limits(result: Result) -> Iterator[str]:
    """Why it is not faster, and what the figures do not say."""
    points = []
    profiles = [profile for section in result.sections for profile in section.profiles]
    if profiles and result.peak:
        last = profiles[-1]
        share = last.matrix_seconds / (sum(last.operators.values()) or 1.0)
        points.append(
            f"A transformer step of {last.name} is matrix products for {share:.0%} of its time, and they run "
            f"at {last.rate / result.peak:.0%} of the best product that was measured on the machine."
        )
    steps = [row for row in result.rows("transformer") if row.unit == "s"]
    possible = dict(fastest(steps, result.peak))
    reached = {row.size: found.median for row in steps if row.size in possible and (found := compared(row))}
    if reached:
        points.append(
            "So no fp32 implementation could beat diffusers' step by more than "
            f"{_range(possible.values())} × here; ltxrt does by {_range(reached.values())} ×."
        )
    busy = max((section.others or 0.0 for section in result.sections), default=0.0)
    if any(section.others is not None for section in result.sections):
        points.append(f"Other processes took up to {busy:.2f} cores while a section was measured.")
    absent = dict.fromkeys(
        one.contender for s in result.sections for row in s.measurements for one in row.samples if one.skipped
    )
    if absent:
        points.append(f"Not measured: {'; '.join(absent)} ([why](#skipped)).")
    if points:
        yield "## What limits it"
        yield "\n".join(f"- {' '.join(point.split())}" for point in points)


def _range(values: Iterable[float]) -> str:
    found = sorted(f"{value:.2f}" for value in values)
    return found[0] if found[0] == found[-1] else f"{found[0]}–{found[-1]}"


def fastest(rows: Sequence[Measurement], peak: float) -> Iterator[tuple[int | None, float]]:
    """By size: how many times as fast as the reference's fastest turn, which other work on the machine
    disturbed least, products at the machine's peak and nothing else would be."""
    for row in rows:
        reference = row.of(REFERENCE)
        if peak and reference and row.operations:
            yield row.size, peak * min(reference.values) / (2e-9 * row.operations)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def goals(result: Result) -> Iterator[tuple[str, str, bool]]:
    """The project's goals that this run says something about: wanted, measured, and whether it is enough."""
    for row in result.rows("transformer"):
        found = compared(row)
        if found and row.size and row.size >= SPEED_FROM:
            wanted = f"a step of {row.size} tokens ≥ {SPEED_GOAL} × as fast as diffusers eager"
            yield wanted, found.times(), found.median >= SPEED_GOAL
    for profile in (p for section in result.sections for p in section.profiles if result.peak):
        part = profile.rate / result.peak
        wanted = f"matrix products of a step of {profile.size} tokens ≥ {PEAK_GOAL:.0%} of the peak"
        yield wanted, f"{part:.0%}", part >= PEAK_GOAL
    for row in result.rows("cold-start"):
        if found := compared(row):
            wanted = f"cold start ≥ {COLD_GOAL:g} × as fast as diffusers"
            yield wanted, found.times(), found.median >= COLD_GOAL
        if own := row.of("ltxrt"):
            yield f"{row.name} in less than {HELP_GOAL} s", f"{own.median:.3f} s", own.median < HELP_GOAL


def _section(section: Section, peak: float) -> Iterator[str]:
    if section.others is not None:
        yield f"Other processes used {section.others:.2f} cores on average meanwhile."
    for unit in dict.fromkeys(row.unit for row in section.measurements):
        yield _measured(section.rows(unit))
    if section.rows("GFLOP/s"):
        yield f"Peak, the best single product of the whole run: {peak:.0f} GFLOP/s."
    if section.name == "transformer":
        yield from _arithmetic(section.rows("s"), peak)
        yield from _growth(section.rows("s"))
    for profile in section.profiles:
        yield from _profiled(profile, peak)


def _measured(rows: Sequence[Measurement]) -> str:
    """A row per piece of work, a column per contender with values, and ours against the reference."""
    names = present(rows)
    columns: dict[str, list[str]] = {n: [_value(row.of(n), row.unit) for row in rows] for n in names}
    ratios = [compared(row) for row in rows]
    if any(ratios):
        columns["diffusers / ltxrt"] = [found.times() if found else "–" for found in ratios]
    if any(one.difference is not None for row in rows for one in row.samples):
        ours = [row.of(OURS) for row in rows]
        differences = [one.difference if one else None for one in ours]
        columns["differs by"] = ["–" if d is None else f"{d:.1e}" for d in differences]
    return table(["", *columns], zip([row.name for row in rows], *columns.values()))


def _value(samples: Samples | None, unit: str) -> str:
    if samples is None:
        return "–"
    scale, name = (1e3, "ms") if unit == "s" and max(samples.values) < 1 else unit_scale(unit)
    middle, low, high = (number(value * scale) for value in spread(samples.values))
    return f"{middle} {name} ({low}–{high})"


def _arithmetic(measurements: Sequence[Measurement], peak: float) -> Iterator[str]:
    """The rate of each contender, and how much faster the machine allows one to be."""
    names, rows = present(measurements), []
    for row in measurements:
        operations = 2e-9 * (row.operations or 0)
        found = [row.of(name) for name in names]
        rates = [operations / samples.median if samples else 0.0 for samples in found]
        cells = [f"{rate:.0f}{f' ({rate / peak:.0%})' if peak else ''}" for rate in rates]
        rows.append([row.name, f"{operations:.1f}", *cells])
    yield "GFLOP/s of the whole step, counting its matrix products only (share of the peak):"
    yield table(["", "GFLOP", *names], rows)
    limits = [f"{times:.2f} at {size} tokens" for size, times in fastest(measurements, peak)]
    if limits:
        yield (
            "An implementation that computes these products in fp32 at the peak, and takes no time for "
            f"anything else, would be this many times as fast as {REFERENCE}'s fastest turn: "
            f"{', '.join(limits)}."
        )


def _growth(rows: Sequence[Measurement]) -> Iterator[str]:
    points = {"operations": [(row.size or 0, float(row.operations or 0)) for row in rows]}
    if exponent(points["operations"]) is None:
        return
    fitted = {name: exponent(found) for name, found in (points | medians(rows)).items()}
    cells = [(name, "–" if power is None else f"{power:.2f}") for name, power in fitted.items()]
    yield "Time grows as tokens to the power of (least squares of the logarithms):"
    yield table(["", "exponent"], cells)


def _profiled(profile: Profile, peak: float) -> Iterator[str]:
    total = sum(profile.operators.values())
    share = profile.matrix_seconds / total if total else 0.0
    of_peak = f", {profile.rate / peak:.0%} of the peak" if peak else ""
    yield (
        f"ltxrt's time by operator at {profile.name} (ONNX Runtime's profile, mean of "
        f"{profile.steps} steps): matrix products take {share:.1%} of the operators' time and run at "
        f"{profile.rate:.0f} GFLOP/s{of_peak}."
    )
    rows = [(n, f"{1e3 * s:.1f} ms", f"{s / total:.1%}") for n, s in profile.operators.items()]
    yield table(["operator", "time", "share"], rows[:10])


def _skipped(result: Result) -> str:
    """Who was not measured and why, each reason once."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for section in result.sections:
        for one in (s for m in section.measurements for s in m.samples if s.skipped):
            reasons.setdefault((one.contender, one.skipped), {})[section.name] = None
    rows = [(name, ", ".join(sections), why) for (name, why), sections in reasons.items()]
    return table(["contender", "in", "reason"], rows) if rows else "Nothing."
