"""Small SVG plots: lines on logarithmic axes, and bars in parts. Text is escaped; nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#5c677d", "#b08968", "#9d9d9d")
WIDTH, HEIGHT, ROW = 720, 400, 34
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 44, 84


@dataclass(frozen=True)
class Line:
    """Points (x, y), both positive; a dashed line has no marks."""

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, on the page from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times the powers of ten that lie on the axis."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
        return [s for s in steps if self.low <= s <= self.high]


def lines(title: str, x_label: str, y_label: str, drawn: Sequence[Line]) -> str:
    """Lines on two logarithmic axes; the marks of the x axis are the points' own."""
    xs = sorted({x for line in drawn for x, _ in line.points})
    ys = [y for line in drawn for _, y in line.points]
    across = Axis(xs[0] / 1.1, xs[-1] * 1.1, LEFT, WIDTH - RIGHT)
    up = Axis(min(ys) / 1.3, max(ys) * 1.3, HEIGHT - BOTTOM, TOP)
    parts = [_text(LEFT, 24, title, size=15)]
    for x in xs:
        parts += _tick(across.place(x), TOP, across.place(x), HEIGHT - BOTTOM)
        parts.append(_text(across.place(x), HEIGHT - BOTTOM + 18, f"{x:g}", anchor="middle"))
    for y in up.ticks():
        parts += _tick(LEFT, up.place(y), WIDTH - RIGHT, up.place(y))
        parts.append(_text(LEFT - 6, up.place(y) + 4, f"{y:g}", anchor="end"))
    for number, line in enumerate(drawn):
        points = [(across.place(x), up.place(y)) for x, y in line.points]
        parts += _line(points, COLOURS[number % len(COLOURS)], line.dashed)
    parts.append(_text(WIDTH / 2, HEIGHT - BOTTOM + 38, f"{x_label}; vertical: {y_label}", anchor="middle"))
    parts += _legend([line.name for line in drawn], HEIGHT - 20)
    return _page(HEIGHT, parts)


def bars(title: str, rows: Mapping[str, Mapping[str, float]], unit: str, shares: bool = False) -> str:
    """A horizontal bar per row, made of its parts; with `shares` each bar is as long as the page."""
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    longest = max((sum(parts.values()) for parts in rows.values()), default=0.0)
    left = 28 + 6.6 * max(map(len, rows), default=0)
    room, y, drawn = WIDTH - left - 90, 40.0, [_text(20, 24, title, size=15)]
    for label, parts in rows.items():
        total = sum(parts.values())
        scale = room / ((total if shares else longest) or 1.0)
        drawn.append(_text(left - 8, y + 16, label, anchor="end"))
        x = left
        for name, value in parts.items():
            drawn.append(_box(x, y, value * scale, colours[name], f"{name}: {number(value)} {unit}"))
            x += value * scale
        drawn.append(_text(x + 6, y + 16, f"{number(total)} {unit}"))
        y += ROW
    legend = _legend(names, y + 18) if len(names) > 1 else []
    return _page(int(y) + 34, drawn + legend)


def number(value: float) -> str:
    """Three digits, and never a power of ten for what is large."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _page(height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    style = f'height="{height}" font-family="sans-serif">'
    return "\n".join([head + style, ground, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="#222222">{escape(text)}</text>'


def _box(x: float, y: float, width: float, colour: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" height="22"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _tick(x1: float, y1: float, x2: float, y2: float) -> list[str]:
    return [f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e2e2e2"/>']


def _line(points: Sequence[tuple[float, float]], colour: str, dashed: bool) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    drawn = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    marks = [] if dashed else points
    return drawn + [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in marks]


def _legend(names: Sequence[str], y: float) -> list[str]:
    """Names with their colours, side by side; those that do not fit go without."""
    drawn, x = [], 20.0
    for number, name in enumerate(names):
        width = 24 + 7.0 * len(name)
        if x + width > WIDTH:
            break
        colour = COLOURS[number % len(COLOURS)]
        drawn.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="12" height="12" fill="{colour}"/>')
        drawn.append(_text(x + 16, y, name))
        x += width + 12
    return drawn
