"""The page of a benchmark: tables, goals and plots of a result; the samples are in the JSON beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltxrt.engines.storage.files import atomic_write
from ltxrt.parity.bench import plots as bench_plots
from ltxrt.parity.bench import results as bench_results
from ltxrt.parity.bench import svg as bench_svg
from ltxrt.parity.bench.results import (
    OURS,
    REFERENCE,
    Measurement,
    Profile,
    Result,
    Samples,
    Section,
    Spread,
)

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
class Goal:
    """What was wanted, what was measured, and whether that is enough."""

    wanted: str
    measured: str
    reached: bool


def write(result: Result, output: Path) -> list[Path]:
    """The Markdown page, the JSON beside it and the plots in a folder of its name; all their paths."""
    folder = output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    plots = bench_plots.draw(result)
    paths = [output, output.with_suffix(".json")]
    for name, svg in plots.items():
        paths.append(folder / f"{name}.svg")
        _write_text(paths[-1], svg)
    bench_results.write(result, paths[1])
    _write_text(output, page(result, folder.name, list(plots)))
    return paths


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(result: Result, folder: str, plots: Sequence[str]) -> str:
    """The Markdown of a result whose plots lie in `folder` beside it."""
    blocks = [
        "# Benchmarks",
        f"Made on {result.created} by\n\n    {result.command}",
        table(["machine", ""], [*result.machine.items(), *result.settings.items()]),
        table(["package", "version"], list(result.versions.items())),
        METHOD,
    ]
    found = goals(result)
    if found:
        rows = [(g.wanted, g.measured, "yes" if g.reached else "no") for g in found]
        blocks += ["## Goals", table(["goal", "measured", "reached"], rows)]
    for section in result.sections:
        blocks += [f"## {section.title}", section.about, *_section(result, section)]
        names = [p for p in plots if p.split("-")[0] == section.name.split("-")[0]]
        blocks += [f"![{name}]({folder}/{name}.svg)" for name in names]
    return "\n\n".join([*blocks, "## Skipped", _skipped(result)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def goals(result: Result) -> list[Goal]:
    """The project's goals that this run says something about."""
    return [*_speed_goals(result), *_peak_goals(result), *_cold_goals(result)]


def _speed_goals(result: Result) -> Iterator[Goal]:
    section = result.section("transformer")
    for row in section.measurements if section else ():
        ours, theirs = row.of(OURS), row.of(REFERENCE)
        if ours and theirs and row.size and row.size >= SPEED_FROM:
            found = bench_results.ratio(ours, theirs)
            wanted = f"a step of {row.size} tokens ≥ {SPEED_GOAL} × as fast as diffusers eager"
            yield Goal(wanted, _times(found), found.median >= SPEED_GOAL)


def _peak_goals(result: Result) -> Iterator[Goal]:
    section, peak = result.section("transformer"), peak_rate(result)
    for profile in section.profiles if section and peak else ():
        part = _rate(profile) / peak
        wanted = f"matrix part of a step of {profile.size} tokens ≥ {PEAK_GOAL:.0%} of the peak"
        yield Goal(wanted, f"{part:.0%}", part >= PEAK_GOAL)


def _cold_goals(result: Result) -> Iterator[Goal]:
    section = result.section("cold-start")
    for row in section.measurements if section else ():
        ours, theirs, own = row.of(OURS), row.of(REFERENCE), row.of("ltxrt")
        if ours and theirs:
            found = bench_results.ratio(ours, theirs)
            yield Goal(
                f"cold start ≥ {COLD_GOAL:g} × as fast as diffusers", _times(found), found.median >= COLD_GOAL
            )
        if own:
            median = bench_results.spread(own.values).median
            yield Goal(f"{row.name} in less than {HELP_GOAL} s", f"{median:.3f} s", median < HELP_GOAL)


def peak_rate(result: Result) -> float:
    """GFLOP/s of the best single matrix product, 0 where none was measured."""
    rows = [row for section in result.sections for row in section.rows("GFLOP/s")]
    return max((value for row in rows for one in row.samples for value in one.values), default=0.0)


def _rate(profile: Profile) -> float:
    return 2e-9 * profile.operations / profile.matrix_seconds if profile.matrix_seconds else 0.0


def _section(result: Result, section: Section) -> Iterator[str]:
    if section.others is not None:
        yield f"Other processes took {section.others:.2f} cores meanwhile."
    for unit in dict.fromkeys(row.unit for row in section.measurements):
        yield _measured(section.rows(unit))
    if section.rows("GFLOP/s"):
        yield f"Peak, the best single product of the whole run: {peak_rate(result):.0f} GFLOP/s."
    if section.name == "transformer":
        yield from _arithmetic(section, peak_rate(result))
        yield from _growth(section)
        for profile in section.profiles:
            yield from _profiled(profile, peak_rate(result))


def _measured(measurements: Sequence[Measurement]) -> str:
    """A row per piece of work, a column per contender that has been there, and ours against the reference."""
    names = _present(measurements)
    compared = any(row.of(OURS) and row.of(REFERENCE) for row in measurements)
    differs = any(one.difference is not None for row in measurements for one in row.samples)
    extra = ["diffusers / ltxrt"] * compared + ["differs by"] * differs
    rows = []
    for row in measurements:
        cells = [_value(row.of(name), row.unit) for name in names]
        rows.append([row.name, *cells, *[_compared(row)] * compared, *[_differs(row)] * differs])
    return table(["", *names, *extra], rows)


def _present(measurements: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(s.contender for m in measurements for s in m.samples if s.values))


def _value(samples: Samples | None, unit: str) -> str:
    if samples is None:
        return "–"
    found, scale, name = bench_results.spread(samples.values), *_unit(samples.values, unit)
    middle, low, high = (bench_svg.number(v * scale) for v in (found.median, found.lowest, found.highest))
    return f"{middle} {name} ({low}–{high})"


def _unit(values: Sequence[float], unit: str) -> tuple[float, str]:
    """What to multiply by, and the unit's name then."""
    if unit == "bytes":
        return 1e-6, "MB"
    return (1e3, "ms") if unit == "s" and max(values) < 1 else (1.0, unit)


def _compared(row: Measurement) -> str:
    ours, theirs = row.of(OURS), row.of(REFERENCE)
    return _times(bench_results.ratio(ours, theirs)) if ours and theirs else "–"


def _times(found: Spread) -> str:
    return f"{found.median:.2f} × ({found.lowest:.2f}–{found.highest:.2f})"


def _differs(row: Measurement) -> str:
    ours = row.of(OURS)
    return "–" if ours is None or ours.difference is None else f"{ours.difference:.1e}"


def _arithmetic(section: Section, peak: float) -> Iterator[str]:
    """What each contender makes of the operations, and how much faster the machine allows one to be."""
    names, rows, limits = _present(section.rows("s")), [], []
    for row in section.rows("s"):
        operations = 2e-9 * (row.operations or 0)
        rates = {}
        for name in names:
            samples = row.of(name)
            rates[name] = operations / bench_results.spread(samples.values).median if samples else 0.0
        cells = [f"{rate:.0f}{f' ({rate / peak:.0%})' if peak else ''}" for rate in rates.values()]
        rows.append([row.name, f"{operations:.1f}", *cells])
        reference = row.of(REFERENCE)
        if peak and reference:  # its fastest turn, which other work on the machine disturbed least
            limits.append(f"{peak * min(reference.values) / operations:.2f} at {row.size} tokens")
    yield "GFLOP/s of the whole step, by the matrix part's operations (share of the peak):"
    yield table(["", "GFLOP", *names], rows)
    if limits:
        yield (
            "Nothing that makes these operations in fp32 at the peak, and takes no time for anything else, "
            f"could be more than this many times as fast as {REFERENCE}'s fastest turn: {', '.join(limits)}."
        )


def _growth(section: Section) -> Iterator[str]:
    rows = [row for row in section.measurements if row.size and row.operations]
    grown = bench_results.exponent([r.size or 0 for r in rows], [float(r.operations or 0) for r in rows])
    if grown is None:
        return
    cells = [("operations", f"{grown:.2f}")]
    for name in _present(rows):
        found = [(row.size or 0, samples) for row in rows if (samples := row.of(name))]
        medians = [bench_results.spread(samples.values).median for _, samples in found]
        fitted = bench_results.exponent([size for size, _ in found], medians)
        cells.append((name, "–" if fitted is None else f"{fitted:.2f}"))
    yield "Time grows as tokens to the power of (least squares of the logarithms):"
    yield table(["", "exponent"], cells)


def _profiled(profile: Profile, peak: float) -> Iterator[str]:
    total = sum(profile.operators.values())
    share = profile.matrix_seconds / total if total else 0.0
    rate = _rate(profile)
    of_peak = f", {rate / peak:.0%} of the peak" if peak else ""
    yield (
        f"Where ours goes at {profile.name} (ONNX Runtime's profile, mean of {profile.steps}): the matrix "
        f"part takes {share:.1%} of the operators' time and runs at {rate:.0f} GFLOP/s{of_peak}."
    )
    rows = [(n, f"{1e3 * s:.1f} ms", f"{s / total:.1%}") for n, s in profile.operators.items()]
    yield table(["operator", "time", "share"], rows[:10])


def _skipped(result: Result) -> str:
    """Who was not measured and why, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for section in result.sections:
        for one in (s for m in section.measurements for s in m.samples if s.skipped):
            places = reasons.setdefault((one.contender, one.skipped), [])
            if section.name not in places:
                places.append(section.name)
    rows = [(name, ", ".join(places), why) for (name, why), places in reasons.items()]
    return table(["contender", "in", "reason"], rows) if rows else "Nothing."
