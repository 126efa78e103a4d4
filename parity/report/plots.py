"""Plots of the parity report: inline SVG with a logarithmic error, from points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ltxrt.parity.report.page import Markup, element, join

COLOURS = 8
LEFT, TOP, WIDTH, HEIGHT = 58, 26, 518, 226  # the plotting area in the drawing
DRAWING = (600, 296)
SMALLEST, LARGEST = -15, 9  # decades that a log axis shows at most
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MARKERS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.9L4.6,3.4H-4.6z",
    "M0,-5.2L5.2,0L0,5.2L-5.2,0z",
    "M0,4.9L4.6,-3.4H-4.6z",
    "M-1.6,-4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
)


@dataclass(frozen=True)
class Point:
    """A value of a curve; marker: index into MARKERS; label: what hovering over it shows."""

    x: float
    y: float
    marker: int = 0
    label: str = ""


@dataclass(frozen=True)
class Series:
    """One colour of a plot: its curves, and its limit as a dashed line; `steps`: points are levels."""

    name: str
    colour: int
    curves: tuple[tuple[Point, ...], ...]
    limit: float | None = None
    steps: bool = False


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: its ends, its name, and where it is marked."""

    low: float
    high: float
    name: str
    ticks: tuple[tuple[float, str], ...]


def positive(values: Iterable[float]) -> list[float]:
    """The values that a log axis can show."""
    return [value for value in values if math.isfinite(value) and value > 0]


def decades(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten that enclose the values, one at least; a zero gets a decade below the others."""
    values = list(values)
    logs = [math.log10(value) for value in positive(values)] or [-8.0]
    low = max(SMALLEST, math.floor(min(logs)) - (0 in values))
    return min(low, LARGEST - 1), min(LARGEST, max(low + 1, math.ceil(max(logs))))


def log_ticks(low: int, high: int) -> list[tuple[float, str]]:
    """Where a log axis from 10^low to 10^high is marked: each decade, with 2 and 5 where there are few."""
    stride = math.ceil((high - low) / 7)
    factors = (1, 2, 5) if high - low <= 2 else (1,)
    marks = [(factor, power) for power in range(low, high + 1, stride) for factor in factors]
    inside = [(factor, power) for factor, power in marks if power < high or factor == 1]
    return [(factor * 10.0**power, scientific(factor, power)) for factor, power in inside]


def scientific(factor: int, power: int) -> str:
    """A mark's label, as 10⁻³ or 2·10⁻³."""
    return ("" if factor == 1 else f"{factor}·") + "10" + str(power).translate(SUPERSCRIPT)


def spaced(low: float, high: float, shown: Callable[[float], str]) -> tuple[tuple[float, str], ...]:
    """Five marks from low to high."""
    return tuple((x, shown(x)) for x in (low + (high - low) * i / 4 for i in range(5)))


def plot(series: Sequence[Series], axis: Axis, name: str) -> Markup:
    """Curves over a log axis called `name`. Zeros lie on its lower edge; what is not finite is left out."""
    drawn = [p.y for one in series for curve in one.curves for p in curve if math.isfinite(p.y)]
    low, high = decades([*drawn, *positive(one.limit for one in series if one.limit is not None)])

    def across(x: float) -> float:
        return round(LEFT + WIDTH * (x - axis.low) / ((axis.high - axis.low) or 1), 1)

    def down(y: float) -> float:
        level = math.log10(y) if y > 0 else low
        return round(TOP + HEIGHT * (1 - (min(max(level, low), high) - low) / (high - low)), 1)

    layers = [frame(axis, name, log_ticks(low, high), across, down)]
    layers += [curves(one, across, down) for one in series]
    view = f"0 0 {DRAWING[0]} {DRAWING[1]}"
    label = f"{name} against {axis.name}: " + ", ".join(one.name for one in series)
    svg = element("svg", *layers, class_="plot", viewBox=view, role="img", aria_label=label)
    return element("div", svg, class_="scroll")


def frame(
    axis: Axis,
    name: str,
    ticks: Sequence[tuple[float, str]],
    across: Callable[[float], float],
    down: Callable[[float], float],
) -> Markup:
    """The grid of a plot and what stands around it."""
    right, bottom = LEFT + WIDTH, TOP + HEIGHT
    parts = [element("text", name, x=4, y=13)]
    for y, label in ticks:
        parts.append(element("line", class_="grid", x1=LEFT, x2=right, y1=down(y), y2=down(y)))
        parts.append(element("text", label, x=LEFT - 8, y=down(y) + 4, text_anchor="end"))
    for x, label in axis.ticks:
        parts.append(element("line", class_="grid", x1=across(x), x2=across(x), y1=TOP, y2=bottom))
        parts.append(element("text", label, x=across(x), y=bottom + 17, text_anchor="middle"))
    parts.append(element("text", axis.name, x=LEFT + WIDTH / 2, y=bottom + 37, text_anchor="middle"))
    return join(parts)


def curves(one: Series, across: Callable[[float], float], down: Callable[[float], float]) -> Markup:
    """A series: dashed limit, lines, then markers over the lines."""
    parts = []
    if one.limit is not None and positive([one.limit]):
        y = down(one.limit)
        parts.append(element("line", class_="limit", x1=LEFT, x2=LEFT + WIDTH, y1=y, y2=y))
    for curve in one.curves:
        places = [(across(p.x), down(p.y)) for p in curve if finite(p)]
        if places:
            parts.append(levels(places, len(curve)) if one.steps else line(places))
    for p in (p for curve in one.curves for p in curve if finite(p) and not one.steps):
        place = f"translate({across(p.x)} {down(p.y)})"
        shape = MARKERS[p.marker % len(MARKERS)]
        parts.append(element("path", element("title", p.label), class_="point", d=shape, transform=place))
    return element("g", *parts, style=colour(one))


def finite(p: Point) -> bool:
    """Whether a point has a place."""
    return math.isfinite(p.x) and math.isfinite(p.y)


def colour(one: Series) -> str:
    """The style that gives an element the series' colour, light or dark."""
    return f"--c: var(--c{one.colour % COLOURS})"


def line(places: Sequence[tuple[float, float]]) -> Markup:
    """A line from place to place."""
    return element("path", class_="curve faint", d="M" + "L".join(f"{x},{y}" for x, y in places))


def levels(places: Sequence[tuple[float, float]], count: int) -> Markup:
    """A line that holds each value over its piece of the axis; places are the pieces' middles."""
    half = WIDTH / count / 2
    path = "M" + "L".join(f"{x - half:.1f},{y}H{x + half:.1f}" for x, y in places)
    return element("path", class_="curve", d=path)


def key(content: Markup, text: str, style: str = "--c: var(--dim)") -> Markup:
    """An entry of a legend."""
    return element("span", element("svg", content, class_="key", width=26, height=14, style=style), text)


def legend(series: Sequence[Series], cases: dict[str, int]) -> Markup:
    """What colours, markers and dashes of a plot mean."""
    stroke = element("line", x1=1, x2=25, y1=7, y2=7, class_="curve")
    parts = [key(stroke, one.name, colour(one)) for one in series]
    for case, marker in cases.items():
        shape = element("path", class_="point", d=MARKERS[marker % len(MARKERS)], transform="translate(13 7)")
        parts.append(key(shape, case))
    if any(one.limit is not None for one in series):
        parts.append(key(element("line", x1=1, x2=25, y1=7, y2=7, class_="limit"), "tolerance"))
    if any(p.y == 0 for one in series for curve in one.curves for p in curve):
        parts.append(element("span", "On the lower edge: 0"))
    return element("figcaption", *parts)


def figure(title: str, drawing: Markup, caption: Markup) -> Markup:
    """A plot with its title and its legend."""
    return element("figure", element("h3", title), drawing, caption)
