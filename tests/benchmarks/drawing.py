"""A plot as SVG: axes, ticks, a line for each series with its name in a legend."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from tests.benchmarks.frame import Plot

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 700, 40, 340
COLOURS = ("#1668b8", "#d1495b", "#2e933c", "#8a5a00", "#7a3e9d", "#4a4a4a", "#00838f", "#c2185b")


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    is_log: bool
    begin: float  # where `low` is drawn
    end: float

    @classmethod
    def of(cls, values: Iterable[float], begin: float, end: float, *, is_log: bool) -> _Axis:
        found = list(values)
        if is_log:  # which has no place for what is not more than nothing
            found = [value for value in found if value > 0] or [1.0]
            low, high = 10 ** math.floor(math.log10(min(found))), 10 ** math.ceil(math.log10(max(found)))
            return cls(low, high if high > low else low * 10, True, begin, end)
        high = max(max(found), 0.0) or 1.0
        step = _step(high)
        return cls(0.0, step * math.ceil(high / step), False, begin, end)

    def place(self, value: float) -> float:
        if self.is_log:
            share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        if self.is_log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _step(self.high)
        return [step * count for count in range(round(self.high / step) + 1)]


def draw(plot: Plot) -> str:
    """Return the plot as the text of an SVG file."""
    points = [point for line in plot.lines.values() for point in line]
    across = _Axis.of([x for x, _ in points], LEFT, RIGHT, is_log=plot.is_x_log)
    up = _Axis.of([y for _, y in points], BOTTOM, TOP, is_log=plot.is_y_log)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(WIDTH / 2, 20, plot.title, size=14),
        _text((LEFT + RIGHT) / 2, BOTTOM + 34, plot.x),
        f'<g transform="rotate(-90 16 {(TOP + BOTTOM) / 2})">{_text(16, (TOP + BOTTOM) / 2, plot.y)}</g>',
        *_grid(across, up),
    ]
    for number, (name, line) in enumerate(plot.lines.items()):
        parts += _line([(across.place(x), up.place(y)) for x, y in line], COLOURS[number % len(COLOURS)])
        parts += _legend(number, len(plot.lines), name)
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts: list[str] = []
    for tick in across.ticks():
        x = across.place(tick)
        parts += [_stroke(x, TOP, x, BOTTOM), _text(x, BOTTOM + 16, f"{tick:,g}")]
    for tick in up.ticks():
        y = up.place(tick)
        parts += [_stroke(LEFT, y, RIGHT, y), _text(LEFT - 6, y + 4, f"{tick:,g}", anchor="end")]
    return parts


def _line(points: list[tuple[float, float]], colour: str) -> list[str]:
    path = " ".join(f"{x},{y}" for x, y in points)
    dots = [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _legend(number: int, total: int, name: str) -> list[str]:
    x = LEFT + number * (RIGHT - LEFT) / total
    colour = COLOURS[number % len(COLOURS)]
    return [
        f'<rect x="{x:.0f}" y="{HEIGHT - 16}" width="10" height="10" fill="{colour}"/>',
        _text(x + 14, HEIGHT - 7, name, anchor="start"),
    ]


def _stroke(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _step(high: float) -> float:
    """Return a round distance that divides the axis into about five."""
    rough = high / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
