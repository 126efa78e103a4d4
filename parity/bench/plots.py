"""The plots of a result, as SVG through matplotlib: the same result gives the same bytes.

They stand on light and on dark pages, which an image cannot know: they have no background, and every colour
has enough contrast with both. What hovering over a mark shows is added to the SVG.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from ltxrt.parity.bench import report
from ltxrt.parity.bench.report import OURS, REFERENCE, Measurement, Result, Samples, Section

TITLE = "title: "  # before what a group of the SVG is to be titled
LARGEST = 6  # operators with a colour of their own
INK, FAINT = "#7a828e", "#7a828e40"  # text, and the lines behind the marks
COLOURS = ("#3b82d6", "#d9690f", "#22945a", "#d0508f", "#8a6bd8", "#9a7d0a", "#1c93a3", "#7a828e")
NAMESPACE = "http://www.w3.org/2000/svg"
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
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        INK,
    ),
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
    return _titled(written.getvalue())


def _titled(text: str) -> str:
    """An SVG whose groups that are called TITLE and a text get it as their title, and ids without it."""
    if TITLE not in text:
        return text
    for prefix, address in (("", NAMESPACE), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, address)
    root = ElementTree.fromstring(text)
    for element in root.iter():
        if element.get("id", "").startswith(TITLE):
            title = ElementTree.Element(f"{{{NAMESPACE}}}title")
            title.text = element.attrib.pop("id").removeprefix(TITLE)
            element.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


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
        axes.plot(*zip(*points), label=name, ls="--" if arithmetic else "-", gid=TITLE + name)
        colour = axes.lines[-1].get_color()
        for size, seconds in () if arithmetic else points:
            shown = f"{TITLE}{name}: {report.number(seconds)} s at {size:g} tokens"
            axes.plot([size], [seconds], "o", color=colour, gid=shown)
    axes.set_xticks(sorted({size for points in lines.values() for size, _ in points}))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(which="both", color=FAINT)
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
        bars = axes.barh(range(len(rows)), widths, left=left, label=name, height=0.65)
        for bar, row, value in zip(bars, rows, values):
            bar.set_gid(f"{TITLE}{row}, {name}: {report.number(value)} {unit}")
        left = [a + b for a, b in zip(left, widths)]
    for place, (end, total) in enumerate(zip(left, totals)):
        axes.annotate(
            f"{report.number(total)} {unit}", (end, place), (4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 0), ncols=4)
    return figure
