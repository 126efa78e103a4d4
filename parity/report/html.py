"""The parity report as one HTML page: plots are inline SVG, it needs no script, no network, no other file.

Only an end-to-end run's strip and video lie beside it. Everything in a report comes from a bundle that nobody
vouches for, so all text goes through the template `report.html`, which escapes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote

from ltxrt.engines.errors import MissingPackageError
from ltxrt.parity.check.results import FAILED, PASSED, SKIPPED, Call, Check, EndToEnd, Metrics, Report

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from ltxrt.parity.report.plots import Curve, Drawing, Series, draw
except ModuleNotFoundError as error:
    raise MissingPackageError(error.name or "jinja2", "parity") from error

SIGNS = {PASSED: "✓", FAILED: "✗", SKIPPED: "–"}
ORDER = {FAILED: 1, PASSED: 2, SKIPPED: 3}  # of rows: what needs a look comes first, unknown before all
WORST = 10  # calls in the table of the worst
PROBLEMS = 3  # problems of its calls that a check's row repeats
Row = TypeVar("Row", Check, EndToEnd)


def render(report: Report) -> str:
    """The page, complete from doctype to the end. Lone surrogates, which UTF-8 cannot write, become "?"."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "error": optional(lambda value: f"{value:.2e}"),
        "cosine": optional(cosine),
        "fixed": optional(lambda value, digits=1: f"{value:.{digits}f}"),
        "decibels": lambda value: "equal" if value is None else f"{value:.1f}",
        "beside": beside,
    }
    environment.globals.update(SIGNS=SIGNS, FAILED=FAILED)
    status, summary = verdict(report)
    colours = {
        name: number for number, name in enumerate(dict.fromkeys(row.precision for row in _rows(report)))
    }
    tolerances = [(c.title, c.precision, c.tolerance) for c in report.checks if c.tolerance]
    page = environment.get_template("report.html").render(
        report=report,
        status=status,
        summary=summary,
        causes=causes(report),
        checks=[(c, worst(c), reasons(c)) for c in ordered(report.checks) if c.status != SKIPPED],
        skipped=skipped(report.checks),
        figures={
            "Error by timestep": by_timestep(report, colours),
            "Error by token": by_token(report, colours),
        },
        worst=worst_calls(report),
        runs=[
            (run, by_step(run, colours[run.precision]))
            for run in ordered(report.end_to_end)
            if run.status != SKIPPED
        ],
        skipped_runs=skipped(report.end_to_end),
        tolerances=list(dict.fromkeys(tolerances)),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _rows(report: Report) -> list[Check | EndToEnd]:
    return [*report.checks, *report.end_to_end]


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Rows by what needs a look."""
    return sorted(rows, key=lambda row: ORDER.get(row.status, 0))


def verdict(report: Report) -> tuple[str, str]:
    """The status that the page shows and a sentence to it: a pass that nothing backs is none."""
    statuses = [row.status for row in _rows(report)]
    if not statuses:
        return (SKIPPED if report.status == SKIPPED else FAILED), "Nothing was checked."
    summary = f"Checks: {counted(check.status for check in report.checks) or 'none'}."
    if report.end_to_end:
        summary += f" End to end: {counted(entry.status for entry in report.end_to_end)}."
    if report.status == PASSED and (PASSED not in statuses or set(statuses) - {PASSED, SKIPPED}):
        return FAILED, f"{summary} The report calls itself passed, which these do not support."
    return (report.status if report.status in SIGNS else FAILED), summary


def counted(statuses: Iterable[str]) -> str:
    """Statuses as "2 passed, 1 failed"."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())


def worst(check: Check) -> Metrics | None:
    """The worst of each metric over a check's calls, NaN if there is one: `max` would hide it."""
    found = [call.metrics for call in check.calls if call.metrics]
    if not found:
        return None
    psnrs = [m.psnr for m in found if m.psnr is not None]
    snrs = [m.snr for m in found if m.snr is not None]
    return Metrics(
        max((m.relative_l2 for m in found), key=nan_as(math.inf)),
        min((m.cosine for m in found), key=nan_as(-math.inf)),
        min(psnrs, key=nan_as(-math.inf), default=None),
        min(snrs, key=nan_as(-math.inf), default=None),
        max((m.largest for m in found), key=nan_as(math.inf)),
    )


def nan_as(other: float) -> Callable[[float], float]:
    """A key to compare by in which NaN is `other`."""
    return lambda value: other if math.isnan(value) else value


def reasons(check: Check) -> list[str]:
    """Why a check failed or was skipped: its own problems, else the first different ones of its calls."""
    if check.problems:
        return list(check.problems)
    found = list(dict.fromkeys(problem for call in check.calls for problem in call.problems))
    rest = len(found) - PROBLEMS
    if not found and check.status != PASSED:
        return ["No reason was given."]
    return found[:PROBLEMS] + ([f"And {rest} more among its calls."] if rest > 0 else [])


def causes(report: Report) -> list[tuple[str, list[str]]]:
    """What failed, each with its reasons and where the error begins: what the page opens with."""
    begins: dict[tuple[str, str], list[str]] = {}
    for one in report.culprits:
        place = f"{one.block}: " if one.block else ""
        sentence = (
            f"The error begins at {place}{one.operator} ({one.relative_l2:.2e}, allowed {one.band:.2e})."
        )
        begins.setdefault((one.component, one.precision), []).append(sentence)
    found = []
    for row in (row for row in _rows(report) if row.status not in (PASSED, SKIPPED)):
        if isinstance(row, Check):
            sentences = [*reasons(row), *begins.get((row.component, row.precision), [])]
            found.append((f"{row.title} {row.precision} on {row.backend}", sentences))
        else:
            sentences = list(row.problems) or ["No reason was given."]
            found.append((f"End to end {row.precision} on {row.backend}", sentences))
    return found


def skipped(rows: Iterable[Check | EndToEnd]) -> dict[str, list[str]]:
    """What was skipped, by its reason."""
    found: dict[str, list[str]] = {}
    for row in (row for row in rows if row.status == SKIPPED):
        what = f"{row.title} {row.precision}" if isinstance(row, Check) else row.precision
        for reason in row.problems or ("No reason was given.",):
            found.setdefault(reason, []).append(f"{what} on {row.backend}")
    return found


def worst_calls(report: Report) -> list[tuple[Check, Call, float]]:
    """The calls that come closest to what is allowed, or exceed it most, with error / allowed."""
    every = [(check, call, excess(check, call)) for check in report.checks for call in check.calls]
    known = [(check, call, ratio) for check, call, ratio in every if ratio is not None]
    return sorted(known, key=lambda item: item[2], reverse=True)[:WORST]


def excess(check: Check, call: Call) -> float | None:
    """A call's relative error in units of what is allowed; None where nothing says what is."""
    if check.tolerance is None:
        return None
    found, allowed = size_of_error(call), check.tolerance.relative_l2
    return found / allowed if allowed > 0 else (math.inf if found else 0.0)


def size_of_error(call: Call) -> float:
    """A call's relative error to compare by: a call that gave none, or no number, is the worst."""
    return nan_as(math.inf)(call.metrics.relative_l2) if call.metrics else math.inf


def where(call: Call) -> str:
    """Which call it is, in words."""
    step = "" if call.step is None else f", step {call.step}"
    return f"{call.case}, {call.size}{step}"


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """The checks that share a plot: those that differ in nothing but precision."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(f"{check.title} on {check.backend} against {check.reference}", []).append(check)
    return groups


def timed(check: Check) -> list[tuple[Call, Metrics, float]]:
    """The calls of a check that have a place in the plot by timestep."""
    found = [(c, c.metrics, c.timestep) for c in check.calls if c.metrics and c.timestep is not None]
    return [(call, metrics, timestep) for call, metrics, timestep in found if 0 <= timestep <= 1]


def by_timestep(report: Report, colours: dict[str, int]) -> list[Drawing]:
    """Relative error over the timesteps, a plot for each component on each backend."""
    figures = []
    for title, checks in grouped(check for check in report.checks if timed(check)).items():
        cases: dict[str, int] = {}
        series = [timestep_series(check, cases, colours[check.precision]) for check in checks]
        figures.append(draw(title, series, ("timestep (1 is noise)", "number"), "relative L2", cases))
    return figures


def timestep_series(check: Check, cases: dict[str, int], colour: int) -> Series:
    """A check's errors over the timesteps, a curve for each run; `cases` counts the runs' markers."""
    runs: dict[tuple[str, str, int], list[tuple[float, float, str]]] = {}
    for call, metrics, timestep in sorted(timed(check), key=lambda item: item[2]):
        label = f"{check.precision}, {where(call)}: {metrics.relative_l2:.2e} at timestep {timestep:.4g}"
        cases.setdefault(call.case, len(cases))
        point = (timestep, metrics.relative_l2, label)
        runs.setdefault((call.case, call.size, call.batch), []).append(point)
    curves = []
    for (case, _, _), points in runs.items():
        x, y, labels = zip(*points)
        curves.append(Curve(y, x, cases[case], labels))
    limit = check.tolerance.relative_l2 if check.tolerance else None
    name = check.precision if limit is None else f"{check.precision} (tolerance {limit:.2e})"
    return Series(name, colour, tuple(curves), limit)


def by_token(report: Report, colours: dict[str, int]) -> list[Drawing]:
    """Relative error along the tokens of each check's worst call, a plot for each component and backend."""
    figures = []
    able = [check for check in report.checks if any(call.by_token for call in check.calls)]
    for title, checks in grouped(able).items():
        series = []
        for check in checks:
            call = max((call for call in check.calls if call.by_token), key=size_of_error)
            name = f"{check.precision}: {where(call)}"
            series.append(Series(name, colours[check.precision], (Curve(call.by_token),)))
        figures.append(draw(title, series, ("position along the tokens", "percent"), "relative error"))
    return figures


def by_step(run: EndToEnd, colour: int) -> Drawing | None:
    """How the latents of the two samplers part, step by step."""
    if not run.cosine_by_step:
        return None
    apart = [max(0.0, 1 - value) if math.isfinite(value) else value for value in run.cosine_by_step]
    labels = [f"step {step}: {value:.2e}" for step, value in enumerate(apart, 1)]
    curve = Curve(apart, range(1, len(apart) + 1), 0, labels)
    series = Series(run.precision, colour, (curve,))
    return draw("Latents after each step", [series], ("step", "count"), "1 − cosine")


def optional(shown: Callable[..., str]) -> Callable[..., str]:
    """A filter of a number that may be missing."""
    return lambda value, *options: "–" if value is None else shown(value, *options)


def cosine(value: float) -> str:
    """A cosine, rounded down: one that is written as 1 is 1."""
    return f"{math.floor(round(value * 1e7, 3)) / 1e7:.7f}" if math.isfinite(value) else str(value)


def beside(name: str) -> str:
    """The address of a file beside the report, which whatever a report says leads nowhere else."""
    return "./" + quote(PurePosixPath(name).name, safe="", errors="replace")
