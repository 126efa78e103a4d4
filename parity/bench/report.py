"""What a benchmark measured, as data, and the page made of it: tables and goals. JSON holds the samples."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ltxrt.engines.storage.files import atomic_write

SCHEMA = 1
REFERENCE = "diffusers eager"
OURS = "ltxrt onnxruntime"
SPEED_GOAL, SPEED_FROM = 2.2, 1000  # times diffusers eager, from so many tokens on
PEAK_GOAL = 0.9  # of the machine's matrix product
COLD_GOAL, HELP_GOAL = 12.0, 0.3
METHOD = (
    "Every contender runs in a process of its own with the same number of threads and the same inputs. After "
    "a warm-up they take turns (A B A B …). Cells are medians, with the lowest and highest in brackets; "
    "ratios are those of the medians, with the lowest and highest of the ratios turn by turn. `differs by` "
    "is the relative L2 distance of an output from diffusers'. Everything is fp32."
)


@dataclass(frozen=True)
class Samples:
    """A contender's measurements of one piece of work, in the order in which they were made.

    skipped: why there are none; difference: relative L2 distance of its output from the reference's, None
    where there is nothing to compare; stages: seconds by stage of each repetition, where work has stages.
    """

    contender: str
    values: tuple[float, ...] = ()
    skipped: str = ""
    difference: float | None = None
    stages: tuple[dict[str, float], ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Measurement:
    """One piece of work by every contender. unit: "s", "bytes" or "GFLOP/s".

    size: what grows from one measurement of a section to the next (tokens), if anything does; operations:
    multiply-adds of the matrix products.
    """

    name: str
    unit: str
    samples: tuple[Samples, ...]
    size: int | None = None
    operations: int | None = None

    def of(self, contender: str) -> Samples | None:
        """The contender's samples, None where it has no values."""
        return next((s for s in self.measured() if s.contender == contender), None)

    def measured(self) -> list[Samples]:
        """The samples of the contenders that have values."""
        return [s for s in self.samples if s.values]


@dataclass(frozen=True)
class Profile:
    """Where one step of ltxrt spends its time: seconds by operator type, the mean of a few steps."""

    name: str
    size: int
    steps: int
    operators: dict[str, float]
    matrix_seconds: float
    operations: int

    @property
    def rate(self) -> float:
        """GFLOP/s of the matrix products."""
        return 2e-9 * self.operations / self.matrix_seconds if self.matrix_seconds else 0.0


@dataclass(frozen=True)
class Section:
    """Measurements that belong together; about: how they were made, in a few sentences.

    others: how many cores other processes of the machine took meanwhile, on average; None where unknown.
    """

    name: str
    title: str
    about: str
    measurements: tuple[Measurement, ...]
    profiles: tuple[Profile, ...] = ()
    others: float | None = None

    def rows(self, unit: str) -> list[Measurement]:
        """The measurements in that unit."""
        return [row for row in self.measurements if row.unit == unit]


@dataclass(frozen=True)
class Result:
    """Everything that one run of the benchmark found."""

    schema: int
    command: str
    created: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    sections: tuple[Section, ...] = ()

    def rows(self, section: str) -> tuple[Measurement, ...]:
        """The measurements of a section, none where it was not run."""
        return next((s.measurements for s in self.sections if s.name == section), ())

    @property
    def peak(self) -> float:
        """GFLOP/s of the best single matrix product, 0 where none was measured."""
        rows = [row for section in self.sections for row in section.rows("GFLOP/s")]
        return max((value for row in rows for one in row.samples for value in one.values), default=0.0)


class Spread(NamedTuple):
    """The middle of some samples, and how far they lie apart."""

    median: float
    lowest: float
    highest: float

    def times(self) -> str:
        return f"{self.median:.2f} × ({self.lowest:.2f}–{self.highest:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Samples, theirs: Samples) -> Spread:
    """How many times ours theirs is: the medians' ratio, with the ratios turn by turn as its spread.

    Both of a turn ran one right after the other, so that a slow minute of the machine is in both.
    """
    turns = [b / a for a, b in zip(ours.values, theirs.values)]
    return Spread(theirs.median / ours.median, min(turns), max(turns))


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The p of value ~ size^p for (size, value), by least squares of the logarithms; None for one size."""
    if len({size for size, _ in points}) < 2:
        return None
    logs = [(math.log(size), math.log(value)) for size, value in points]
    return statistics.linear_regression(*zip(*logs)).slope


def stage_medians(samples: Samples) -> dict[str, float]:
    """Median seconds of each stage, in the order in which they ran."""
    names = dict.fromkeys(name for one in samples.stages for name in one)
    return {n: statistics.median([one.get(n, 0.0) for one in samples.stages]) for n in names}


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
    blocks = [
        "# Benchmarks",
        f"Made on {result.created} by\n\n    {result.command}",
        table(["machine", ""], [*result.machine.items(), *result.settings.items()]),
        table(["package", "version"], result.versions.items()),
        METHOD,
    ]
    reached = [(wanted, measured, "yes" if met else "no") for wanted, measured, met in goals(result)]
    if reached:
        blocks += ["## Goals", table(["goal", "measured", "reached"], reached)]
    for section in result.sections:
        blocks += [f"## {section.title}", section.about, *_section(section, result.peak)]
        own = [p for p in plots if p.stem.split("-")[0] == section.name.split("-")[0]]
        blocks += [f"![{p.stem}]({p.parent.name}/{p.name})" for p in own]
    return "\n\n".join([*blocks, "## Skipped", _skipped(result)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def goals(result: Result) -> Iterator[tuple[str, str, bool]]:
    """The project's goals that this run says something about: wanted, measured, and whether it is enough."""
    for row in result.rows("transformer"):
        found = _compared(row)
        if found and row.size and row.size >= SPEED_FROM:
            wanted = f"a step of {row.size} tokens ≥ {SPEED_GOAL} × as fast as diffusers eager"
            yield wanted, found.times(), found.median >= SPEED_GOAL
    for profile in (p for section in result.sections for p in section.profiles if result.peak):
        part = profile.rate / result.peak
        wanted = f"matrix products of a step of {profile.size} tokens ≥ {PEAK_GOAL:.0%} of the peak"
        yield wanted, f"{part:.0%}", part >= PEAK_GOAL
    for row in result.rows("cold-start"):
        if found := _compared(row):
            wanted = f"cold start ≥ {COLD_GOAL:g} × as fast as diffusers"
            yield wanted, found.times(), found.median >= COLD_GOAL
        if own := row.of("ltxrt"):
            yield f"{row.name} in less than {HELP_GOAL} s", f"{own.median:.3f} s", own.median < HELP_GOAL


def _compared(row: Measurement) -> Spread | None:
    """How many times as fast (or as small) as the reference ours is."""
    ours, theirs = row.of(OURS), row.of(REFERENCE)
    return ratio(ours, theirs) if ours and theirs else None


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
    names = _present(rows)
    columns: dict[str, list[str]] = {n: [_value(row.of(n), row.unit) for row in rows] for n in names}
    ratios = [_compared(row) for row in rows]
    if any(ratios):
        columns["diffusers / ltxrt"] = [found.times() if found else "–" for found in ratios]
    if any(one.difference is not None for row in rows for one in row.samples):
        ours = [row.of(OURS) for row in rows]
        differences = [one.difference if one else None for one in ours]
        columns["differs by"] = ["–" if d is None else f"{d:.1e}" for d in differences]
    return table(["", *columns], zip([row.name for row in rows], *columns.values()))


def _present(rows: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(s.contender for row in rows for s in row.measured()))


def _value(samples: Samples | None, unit: str) -> str:
    if samples is None:
        return "–"
    scale, name = (1e3, "ms") if unit == "s" and max(samples.values) < 1 else unit_scale(unit)
    middle, low, high = (number(value * scale) for value in spread(samples.values))
    return f"{middle} {name} ({low}–{high})"


def unit_scale(unit: str) -> tuple[float, str]:
    """What to multiply by, and the unit's name then."""
    return (1e-6, "MB") if unit == "bytes" else (1.0, unit)


def number(value: float) -> str:
    """Three digits, and never a power of ten for what is large."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _arithmetic(measurements: Sequence[Measurement], peak: float) -> Iterator[str]:
    """The rate of each contender, and how much faster the machine allows one to be."""
    names, rows, limits = _present(measurements), [], []
    for row in measurements:
        operations = 2e-9 * (row.operations or 0)
        found = [row.of(name) for name in names]
        rates = [operations / samples.median if samples else 0.0 for samples in found]
        cells = [f"{rate:.0f}{f' ({rate / peak:.0%})' if peak else ''}" for rate in rates]
        rows.append([row.name, f"{operations:.1f}", *cells])
        reference = row.of(REFERENCE)
        if peak and reference:  # its fastest turn, which other work on the machine disturbed least
            limits.append(f"{peak * min(reference.values) / operations:.2f} at {row.size} tokens")
    yield "GFLOP/s of the whole step, counting its matrix products only (share of the peak):"
    yield table(["", "GFLOP", *names], rows)
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


def medians(rows: Sequence[Measurement]) -> dict[str, list[tuple[float, float]]]:
    """By contender: (size, median) of the rows that have a size."""
    sized = [row for row in rows if row.size]
    return {
        name: [(row.size or 0, found.median) for row in sized if (found := row.of(name))]
        for name in _present(sized)
    }


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
