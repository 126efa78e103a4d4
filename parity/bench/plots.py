"""The plots of a result, as SVG through matplotlib: the same result gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from ltxrt.parity.bench import report
from ltxrt.parity.bench.report import OURS, REFERENCE, Measurement, Result, Samples, Section

LARGEST = 6  # operators with a colour of their own
SHORT = {OURS: "ltxrt", REFERENCE: "diffusers"}
# Text stays text, `$` begins no formula, and identifiers are hashed with a fixed salt, not a random one.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ltxrt",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def draw(result: Result) -> dict[str, str]:
    """SVG by name; each name begins with its section's."""
    with matplotlib.rc_context(STYLE):
        figures = {name: figure for section in result.sections for name, figure in _figures(section).items()}
        return {name: svg(figure) for name, figure in figures.items()}


def svg(figure: Figure) -> str:
    """Without metadata: the date would make every file another one."""
    written = io.StringIO()
    figure.savefig(
        written,
        format="svg",
        bbox_inches="tight",
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    return written.getvalue()


def _figures(section: Section) -> dict[str, Figure]:
    """A section's figures; those without anything to show are left out."""
    if section.name == "transformer":
        lines = report.medians(section.measurements)
        shares = {profile.name: _grouped(profile.operators) for profile in section.profiles}
        found = {"transformer-tokens": _lines(lines | _arithmetic(section))} if lines else {}
        title = "A step of ltxrt by operator: share of the time"
        return found | ({"transformer-operators": _bars(title, shares, "s", shares=True)} if shares else {})
    if section.name not in ("components", "videos", "cold-start", "memory"):
        return {}
    bars, unit = {}, "s"
    for row in section.measurements:
        scale, unit = report.unit_scale(row.unit)
        for one in row.measured():
            label = f"{_label(row)}: {SHORT.get(one.contender, one.contender)}"
            bars[label] = {name: scale * value for name, value in _parts(one).items()}
    title = "Whole videos by stage" if section.name == "videos" else section.title
    return {section.name: _bars(title, bars, unit)} if bars else {}


def _arithmetic(section: Section) -> dict[str, list[tuple[float, float]]]:
    """The growth of the operations, scaled to ltxrt's time at the largest size."""
    rows = [row for row in section.measurements if row.size and row.operations and row.of(OURS)]
    ours = rows[-1].of(OURS) if rows else None
    if ours is None:
        return {}
    per_operation = ours.median / (rows[-1].operations or 1)
    return {
        "growth of the operations": [(row.size or 0, per_operation * (row.operations or 0)) for row in rows]
    }


def _grouped(operators: Mapping[str, float]) -> dict[str, float]:
    """The largest operators, and the sum of the others."""
    names = list(operators)
    rest = {"others": sum(operators[n] for n in names[LARGEST:])} if names[LARGEST:] else {}
    return {n: operators[n] for n in names[:LARGEST]} | rest


def _parts(samples: Samples) -> dict[str, float]:
    """The median by stage, and what lies between the stages; without stages the whole."""
    stages = report.stage_medians(samples)
    if not stages:
        return {SHORT.get(samples.contender, samples.contender): samples.median}
    return {**stages, "between": max(samples.median - sum(stages.values()), 0.0)}


def _label(row: Measurement) -> str:
    """A measurement's name without its size, which stands last."""
    return (row.name.rpartition(", ")[0] or row.name).removesuffix(" model")


def _lines(lines: Mapping[str, list[tuple[float, float]]]) -> Figure:
    figure = Figure(figsize=(7.2, 4))
    axes = figure.add_subplot(
        xscale="log", yscale="log", title="Transformer step by tokens", xlabel="tokens", ylabel="seconds"
    )
    for name, points in lines.items():
        arithmetic = name.startswith("growth")
        axes.plot(*zip(*points), label=name, marker="" if arithmetic else "o", ls="--" if arithmetic else "-")
    axes.set_xticks(sorted({size for points in lines.values() for size, _ in points}))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(which="both", color="#e8e8e8")
    axes.legend()
    return figure


def _bars(title: str, rows: Mapping[str, Mapping[str, float]], unit: str, shares: bool = False) -> Figure:
    """A horizontal bar per row, stacked from its parts; with `shares` all bars are equally long."""
    figure = Figure(figsize=(7.2, 1.1 + 0.34 * len(rows)))
    axes = figure.add_subplot(title=title)
    totals = [sum(parts.values()) for parts in rows.values()]
    left = [0.0] * len(rows)
    names = dict.fromkeys(name for parts in rows.values() for name in parts)
    for name in sorted(names, key="between".__eq__):  # which comes last
        values = [parts.get(name, 0.0) for parts in rows.values()]
        widths = [v / (total or 1.0) for v, total in zip(values, totals)] if shares else values
        axes.barh(range(len(rows)), widths, left=left, label=name, height=0.65)
        left = [a + b for a, b in zip(left, widths)]
    for place, (end, total) in enumerate(zip(left, totals)):
        axes.text(end, place, f"  {report.number(total)} {unit}", va="center")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 0), ncols=4)
    return figure
