"""The parity report as one HTML page: plots are inline SVG, it needs no script, no network, no other file.

Only an end-to-end run's strip and video lie beside it. Everything in a report comes from a bundle that nobody
vouches for, so text becomes markup in `element` alone, which escapes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from ltxrt.parity.check.results import (
    FAILED,
    PASSED,
    SKIPPED,
    Call,
    Check,
    Culprit,
    EndToEnd,
    Metrics,
    Report,
    Tolerance,
)
from ltxrt.parity.report.page import (
    POLICY,
    SIGNS,
    STYLE,
    Markup,
    Number,
    badge,
    decibels,
    element,
    error,
    optional,
    section,
    table,
    words,
)
from ltxrt.parity.report.plots import Axis, Point, Series, figure, legend, plot, spaced

ORDER = (FAILED, PASSED, SKIPPED)  # of rows: what needs a look comes first
WORST = 10  # calls in the table of the worst
PROBLEMS = 3  # problems of its calls that a check's row repeats


def palette(report: Report) -> dict[str, int]:
    """The colour of each precision, the same in all plots."""
    names = [check.precision for check in report.checks] + [entry.precision for entry in report.end_to_end]
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """The checks that share a plot: those that differ in nothing but precision."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(f"{check.component} on {check.backend} against {check.reference}", []).append(check)
    return groups


def timed(check: Check) -> list[tuple[Call, Metrics, float]]:
    """The calls of a check that have a place in the plot by timestep."""
    return [(c, c.metrics, c.timestep) for c in check.calls if c.metrics and c.timestep is not None]


def by_timestep(check: Check, cases: dict[str, int], number: int) -> Series:
    """A check's errors over the timesteps, a curve for each run."""
    runs: dict[tuple[str, str, int], list[Point]] = {}
    for call, metrics, timestep in timed(check):
        label = f"{check.precision}, {where(call)}: {error(metrics.relative_l2)} at timestep {timestep:.4g}"
        point = Point(timestep, metrics.relative_l2, cases.setdefault(call.case, len(cases)), label)
        runs.setdefault((call.case, call.size, call.batch), []).append(point)
    lines = tuple(tuple(sorted(run, key=lambda p: p.x)) for run in runs.values())
    limit = check.tolerance.relative_l2 if check.tolerance else None
    name = check.precision if limit is None else f"{check.precision} (tolerance {error(limit)})"
    return Series(name, number, lines, limit)


def timestep_figures(report: Report) -> Markup:
    """Relative error over the timesteps, a plot for each component on each backend."""
    colours, figures = palette(report), []
    for title, checks in grouped(check for check in report.checks if timed(check)).items():
        cases: dict[str, int] = {}
        series = [by_timestep(check, cases, colours[check.precision]) for check in checks]
        times = [t for check in checks for _, _, t in timed(check) if math.isfinite(t)]
        low, high = min([0.0, *times]), max([1.0, *times])
        axis = Axis(low, high, "timestep (1 is noise)", spaced(low, high, lambda x: f"{x:.4g}"))
        figures.append(figure(title, plot(series, axis, "relative L2"), legend(series, cases)))
    return element("div", *figures, class_="figures") if figures else Markup()


def token_figures(report: Report) -> Markup:
    """Relative error along the tokens of each check's worst call, a plot for each component and backend."""
    colours, figures = palette(report), []
    axis = Axis(0, 1, "position along the tokens", spaced(0, 1, lambda x: f"{x:.0%}"))
    able = [check for check in report.checks if any(call.by_token for call in check.calls)]
    for title, checks in grouped(able).items():
        series = []
        for check in checks:
            call = max((call for call in check.calls if call.by_token), key=lambda call: size_of_error(call))
            count = len(call.by_token)
            points = tuple(Point((i + 0.5) / count, y) for i, y in enumerate(call.by_token))
            name = f"{check.precision}: {where(call)}"
            series.append(Series(name, colours[check.precision], (points,), steps=True))
        figures.append(figure(title, plot(series, axis, "relative error"), legend(series, {})))
    return element("div", *figures, class_="figures") if figures else Markup()


def size_of_error(call: Call) -> float:
    """A call's relative error to compare by: a call that gave none, or no number, is the worst."""
    found = call.metrics.relative_l2 if call.metrics else math.nan
    return math.inf if math.isnan(found) else found


def where(call: Call) -> str:
    """Which call it is, in words."""
    step = "" if call.step is None else f", step {call.step}"
    return f"{call.case}, {call.size}{step}"


def counted(statuses: Iterable[str]) -> str:
    """Statuses as "2 passed, 1 failed"."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())


def verdict(report: Report) -> tuple[str, str]:
    """The status that the page shows and a sentence to it: a pass that nothing backs is none."""
    statuses = [check.status for check in report.checks] + [entry.status for entry in report.end_to_end]
    if not statuses:
        return (SKIPPED if report.status == SKIPPED else FAILED), "Nothing was checked."
    summary = f"Checks: {counted(check.status for check in report.checks) or 'none'}."
    if report.end_to_end:
        summary += f" End to end: {counted(entry.status for entry in report.end_to_end)}."
    if report.status == PASSED and (PASSED not in statuses or set(statuses) - {PASSED, SKIPPED}):
        return FAILED, f"{summary} The report calls itself passed, which these do not support."
    return (report.status if report.status in SIGNS else FAILED), summary


def header(report: Report) -> Markup:
    """Verdict, bundle, version and time."""
    status, summary = verdict(report)
    calls = sum(len(check.calls) for check in report.checks)
    seconds = sum(check.seconds for check in report.checks)
    return element(
        "header",
        element("h1", badge(status), report.bundle),
        element("p", summary, f" {calls} calls in {seconds:.1f} s."),
        *(element("p", f"Asked for, but did not run: {sentence}") for sentence in report.unmet),
        element("p", f"Model version {report.version}, checked {report.created}", class_="dim"),
        class_=status,
    )


def reasons(check: Check) -> list[str]:
    """Why a check failed or was skipped: its own problems, else the first different ones of its calls."""
    if check.problems:
        return list(check.problems)
    found = list(dict.fromkeys(problem for call in check.calls for problem in call.problems))
    rest = len(found) - PROBLEMS
    if not found and check.status != PASSED:
        return ["No reason was given."]
    return found[:PROBLEMS] + ([f"And {rest} more among its calls."] if rest > 0 else [])


def check_row(check: Check) -> list[str]:
    """A check's row: its worst numbers beside what is allowed."""
    metrics = [call.metrics for call in check.calls if call.metrics]
    psnrs = [m.psnr for m in metrics if m.psnr is not None]
    allowed = check.tolerance.relative_l2 if check.tolerance else None
    return [
        check.component,
        check.precision,
        check.backend,
        check.reference,
        badge(check.status),
        optional(largest(m.relative_l2 for m in metrics), error),
        optional(allowed, error),
        optional(smallest(m.cosine for m in metrics), cosine),
        decibels(smallest(psnrs)) if metrics else Number("–"),
        Number(len(check.calls)),
        Number(f"{check.seconds:.1f}"),
    ]


def largest(values: Iterable[float]) -> float | None:
    """The largest value, NaN if there is one: `max` would hide it. None of none."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value, default=None)


def smallest(values: Iterable[float]) -> float | None:
    """The smallest value, NaN if there is one. None of none."""
    return min(values, key=lambda value: -math.inf if math.isnan(value) else value, default=None)


def cosine(value: float) -> str:
    """A cosine, rounded down: one that is written as 1 is 1."""
    return f"{math.floor(round(value * 1e7, 3)) / 1e7:.7f}" if math.isfinite(value) else str(value)


def checks_section(report: Report) -> Markup:
    """The table of all checks; a sentence where there is none."""
    if not report.checks:
        return section("Checks", element("p", "No component was checked."))
    heads = ["component", "precision", "backend", "reference", "status", "worst relative L2", "allowed"]
    heads += ["worst cosine", "worst PSNR, dB", "calls", "seconds"]
    checks = sorted(
        report.checks, key=lambda check: ORDER.index(check.status) if check.status in ORDER else -1
    )
    rows = [check_row(check) for check in checks]
    return section("Checks", table(heads, rows, [reasons(check) for check in checks]))


def excess(check: Check, call: Call) -> float | None:
    """A call's relative error in units of what is allowed; None where nothing says what is."""
    if check.tolerance is None:
        return None
    found, allowed = size_of_error(call), check.tolerance.relative_l2
    return found / allowed if allowed > 0 else (math.inf if found else 0.0)


def call_row(check: Check, call: Call, ratio: float) -> list[str]:
    """A call's row in the table of the worst."""
    m = call.metrics
    step = "" if call.step is None else str(call.step)
    timestep = "" if call.timestep is None else f"{call.timestep:.4f}"
    name = [check.component, check.precision, check.backend, call.case, call.size]
    place = [Number(call.batch), Number(step), Number(timestep), Number(f"{ratio:.2f}")]
    if m is None:
        return [*name, *place, *[Number("–")] * 5]
    numbers = [error(m.relative_l2), Number(cosine(m.cosine)), decibels(m.psnr), decibels(m.snr)]
    return [*name, *place, *numbers, error(m.largest)]


def worst_section(report: Report) -> Markup:
    """The calls that come closest to what is allowed, or go furthest beyond it."""
    every = [(check, call, excess(check, call)) for check in report.checks for call in check.calls]
    known = [(check, call, ratio) for check, call, ratio in every if ratio is not None]
    worst = sorted(known, key=lambda item: item[2], reverse=True)[:WORST]
    heads = ["component", "precision", "backend", "case", "size", "batch", "step", "timestep"]
    heads += ["error / allowed", "relative L2", "cosine", "PSNR, dB", "SNR, dB", "largest"]
    note = "By relative L2 over what is allowed. Largest: the largest difference, in reference deviations."
    if not worst:
        return Markup()
    rows, notes = [call_row(*item) for item in worst], [call.problems for _, call, _ in worst]
    return section("Worst calls", element("p", note, class_="dim"), table(heads, rows, notes))


def beside(name: str) -> str:
    """The address of a file beside the report, which whatever a report says leads nowhere else."""
    return "./" + quote(PurePosixPath(name.encode("utf-8", "replace").decode("utf-8")).name, safe="")


def step_plot(entry: EndToEnd, number: int) -> Markup:
    """How the latents of the two samplers part, step by step."""
    count = len(entry.cosine_by_step)
    apart = [max(0.0, 1 - value) if math.isfinite(value) else value for value in entry.cosine_by_step]
    points = tuple(Point(i, y, 0, f"step {i}: {error(y)}") for i, y in enumerate(apart, 1))
    stride = math.ceil(count / 10)
    axis = Axis(1, count, "step", tuple((i, str(i)) for i in range(1, count + 1, stride)))
    series = [Series(entry.precision, number, (points,))]
    return figure("Latents after each step", plot(series, axis, "1 − cosine"), legend(series, {}))


def end_to_end_entry(entry: EndToEnd, number: int) -> Markup:
    """A run of the whole sampler: numbers, plot, frames side by side."""
    title = f"{entry.precision} on {entry.backend} against {entry.reference}"
    psnr = "equal" if entry.psnr is None else f"{entry.psnr:.1f} dB"
    parts = [element("h3", title), element("p", badge(entry.status), f" PSNR {psnr}, SSIM {entry.ssim:.4f}")]
    parts += [element("p", problem) for problem in entry.problems]
    if entry.cosine_by_step:
        parts.append(step_plot(entry, number))
    if entry.strip:
        text = f"Frames of the engines and of the reference, {title}"
        parts.append(element("img", class_="strip", src=beside(entry.strip), alt=text))
    if entry.video:
        parts.append(element("p", element("a", entry.video, href=beside(entry.video))))
    return element("div", *parts, class_="entry")


def end_to_end_section(report: Report) -> Markup:
    """All runs of the whole sampler."""
    colours = palette(report)
    runs = sorted(report.end_to_end, key=lambda run: ORDER.index(run.status) if run.status in ORDER else -1)
    entries = [end_to_end_entry(entry, colours[entry.precision]) for entry in runs]
    return section("End to end", *entries)


def culprit_row(culprit: Culprit) -> list[str]:
    """Where an error begins."""
    place = [culprit.component, culprit.precision, culprit.block or "outside of blocks"]
    return [*place, element("code", culprit.operator), error(culprit.relative_l2), error(culprit.band)]


def culprits_section(report: Report) -> Markup:
    """Where errors first leave the band."""
    heads = ["component", "precision", "block", "operator", "relative L2", "band"]
    rows = [culprit_row(culprit) for culprit in report.culprits]
    return section("Where the error begins", table(heads, rows)) if rows else Markup()


def pairs_section(title: str, heads: Sequence[str], pairs: dict[str, str]) -> Markup:
    """Names and values."""
    rows = [[name, element("code", value)] for name, value in pairs.items()]
    return section(title, element("div", table(heads, rows), class_="pairs")) if rows else Markup()


def tolerances_section(report: Report) -> Markup:
    """What was allowed and why."""
    found = [(c.component, c.precision, c.tolerance) for c in report.checks if c.tolerance]
    rows = [[component, precision, *allowed(t)] for component, precision, t in dict.fromkeys(found)]
    heads = ["component", "precision", "relative L2 up to", "cosine from", "PSNR from, dB", "reason"]
    return section("Tolerances", table(heads, rows)) if rows else Markup()


def allowed(tolerance: Tolerance) -> list[str]:
    """A tolerance's cells."""
    numbers = [error(tolerance.relative_l2), Number(f"{tolerance.cosine:.10g}"), decibels(tolerance.psnr)]
    return [*numbers, words([tolerance.reason])]


def render(report: Report) -> str:
    """The page, complete from doctype to the end."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Parity {verdict(report)[0]}: {report.bundle}"),
        element("style", Markup(STYLE)),
    )
    body = element(
        "main",
        header(report),
        checks_section(report),
        section("Error by timestep", timestep_figures(report)),
        section("Error by token", token_figures(report)),
        worst_section(report),
        end_to_end_section(report),
        culprits_section(report),
        pairs_section("Environment", ["name", "value"], report.environment),
        pairs_section("Graphs", ["graph", "hash"], report.graphs),
        tolerances_section(report),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"
