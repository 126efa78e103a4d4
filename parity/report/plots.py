"""Plots of the parity report: matplotlib figures as inline SVG, in the page's own colours, light and dark.

The same report gives the same bytes. Nothing that a report says is laid out here, since matplotlib would read
`$` as mathematics: names stand in the captions, and what hovering over a point shows is added to the SVG.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter

WIDTH, HEIGHT = 600, 296  # of a drawing, whose unit is a point of 1/72 inch
AREA = (68 / WIDTH, 46 / HEIGHT, 508 / WIDTH, 238 / HEIGHT)  # the axes: left, bottom, width, height
SMALLEST, LARGEST = -15, 9  # decades that a log axis shows at most
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}  # matplotlib's name → in a caption
COLOURS = 8
# What matplotlib writes → what the page's style gives it.
SERIES = {f"#0000c{i}": f"var(--c{i})" for i in range(COLOURS)}
TEXT, GRID, CARD = "#0000d0", "#0000d1", "#0000d2"
THEME = {**SERIES, TEXT: "var(--dim)", GRID: "var(--line)", CARD: "var(--card)"}
STYLE = {
    "svg.fonttype": "none", "font.size": 12, "text.color": TEXT, "axes.labelcolor": TEXT,
    "font.family": "DejaVu Sans", "grid.color": GRID, "axes.axisbelow": True,
    "xtick.labelcolor": TEXT, "ytick.labelcolor": TEXT,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"{x}tick.{kind}.size": 0 for x in "xy" for kind in ("major", "minor")},
}  # fmt: skip
NAMESPACE = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Curve:
    """Values over `x`, with a marker and a label each; without `x`, levels over equal parts of the axis."""

    y: Sequence[float]
    x: Sequence[float] | None = None
    marker: int = 0
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Series:
    """One colour of a plot: its curves, and its limit as a dashed line."""

    name: str
    colour: int
    curves: tuple[Curve, ...]
    limit: float | None = None


@dataclass(frozen=True)
class Drawing:
    """A plot with its title, and the caption's parts: series as (colour, name), markers as (sign, case)."""

    title: str
    svg: Markup
    series: tuple[tuple[int, str], ...]
    markers: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def draw(
    title: str,
    series: Sequence[Series],
    axis: tuple[str, Literal["number", "percent", "count"]],
    name: str,
    cases: Iterable[str] = (),
) -> Drawing:
    """Curves over a logarithmic axis called `name`, against `axis`; `cases` are named by their markers.

    Values that have no place on it lie on an edge: 0 on the lower one, NaN and infinities on the upper.
    """
    values = np.array([y for one in series for curve in one.curves for y in curve.y])
    limits = [one.limit for one in series if one.limit is not None]
    low, high = decades([*values, *(limit for limit in limits if limit > 0)])
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor="none")
        axes = figure.add_axes(AREA, facecolor="none")
        _scale(axes, axis, name, low, high)
        labels: dict[str, Sequence[str]] = {}
        for number, one in enumerate(series):
            _plot(axes, one, low, high, labels, str(number))
        svg = _svg(figure, f"{name} against {axis[0]}: " + ", ".join(one.name for one in series), labels)
    notes = ["┅ tolerance"] if limits else []
    notes += ["On the lower edge: 0"] if (values <= 0).any() else []
    notes += ["On the upper edge: NaN or infinite"] if not np.isfinite(values).all() else []
    keys = tuple((one.colour % COLOURS, one.name) for one in series)
    return Drawing(title, svg, keys, tuple(zip(itertools.cycle(MARKERS.values()), cases)), tuple(notes))


def decades(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten that enclose the values, one at least; a zero gets a decade below the others."""
    values = list(values)
    logs = [math.log10(value) for value in values if math.isfinite(value) and value > 0] or [-8.0]
    low = max(SMALLEST, math.floor(min(logs)) - (0 in values))
    return min(low, LARGEST - 1), min(LARGEST, max(low + 1, math.ceil(max(logs))))


def _scale(axes: Any, axis: tuple[str, str], name: str, low: int, high: int) -> None:
    axes.set(xlabel=axis[0], ylabel=name, yscale="log", ylim=(10.0**low, 10.0**high))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low <= 2 else (1,), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _scientific(value)))
    axes.yaxis.minorticks_off()
    axes.grid(clip_on=False)
    if axis[1] == "count":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xlim(0, 1)
    if axis[1] == "percent":
        axes.xaxis.set_major_formatter(PercentFormatter(1))


def _scientific(value: float) -> str:
    """A mark's label, as 10⁻³ or 2·10⁻³."""
    factor, power = f"{value:.0e}".split("e")
    return ("" if factor == "1" else f"{factor}·") + "10" + str(int(power)).translate(SUPERSCRIPT)


def _plot(axes: Any, one: Series, low: int, high: int, labels: dict[str, Sequence[str]], number: str) -> None:
    """A series: dashed limit, lines, then markers over the lines. Nothing is clipped, all has its place.

    Lines are called what the caption says, points by their labels: `labels` has them by group.
    """
    style = {"color": list(SERIES)[one.colour % COLOURS], "clip_on": False}

    def placed(values: Sequence[float]) -> Any:
        return np.clip(np.nan_to_num(np.asarray(values, float), nan=np.inf), 10.0**low, 10.0**high)

    if one.limit is not None and one.limit > 0:
        axes.axhline(
            placed([one.limit])[0], linestyle=(0, (7, 5)), linewidth=1.4, gid=f"limit-{number}", **style
        )
        labels[f"limit-{number}"] = [f"{one.name}: tolerance {one.limit:.2e}"]
    for curve in one.curves:
        if curve.x is None:
            edges = np.linspace(0, 1, len(curve.y) + 1)
            axes.stairs(placed(curve.y), edges, baseline=None, linewidth=1.6, gid=f"curve-{number}", **style)
        else:
            axes.plot(curve.x, placed(curve.y), linewidth=1.6, alpha=0.45, gid=f"curve-{number}", **style)
        labels[f"curve-{number}"] = [one.name]
    for curve in (curve for curve in one.curves if curve.x is not None):
        gid, marker = f"points-{len(labels)}", list(MARKERS)[curve.marker % len(MARKERS)]
        labels[gid] = curve.labels
        axes.plot(
            curve.x, placed(curve.y), marker, markersize=8, markeredgecolor=CARD, markeredgewidth=0.8,
            gid=gid, **style,
        )  # fmt: skip


def _svg(figure: Figure, name: str, labels: Mapping[str, Sequence[str]]) -> Markup:
    """A figure as an SVG element of an HTML page, its points with their labels.

    matplotlib's own names of groups are taken away (several figures stand in one page), and namespaces,
    which HTML has built in.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = written.getvalue()
    for colour, variable in THEME.items():
        text = text.replace(colour, variable)
    root = ElementTree.fromstring(text.encode())
    for element in root.iter():
        element.tag = element.tag.removeprefix(NAMESPACE)
        for key in [key for key in element.attrib if key.startswith("{")]:
            element.set(key.partition("}")[2], element.attrib.pop(key))
        kind = element.attrib.pop("id", "") if element.tag == "g" else ""
        if kind.partition("-")[0] in ("points", "curve", "limit"):
            element.set("class", kind.partition("-")[0])
        marks = element.iter(f"{NAMESPACE}use") if kind.startswith("points") else iter((element,))
        for mark, label in zip(marks, labels.get(kind, ())):
            title = ElementTree.Element("title")
            title.text = label
            mark.insert(0, title)
    root.attrib = {"class": "plot", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": name}
    return Markup(ElementTree.tostring(root, encoding="unicode"))
