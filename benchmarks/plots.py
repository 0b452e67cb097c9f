"""Charts as SVG, written by hand: nothing to install, and a diff can read them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import pairwise
from math import floor, log10

import msgspec

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 60
_COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5aa8", "#b8860b", "#5b6770", "#d1467e", "#2aa198")
_BAR, _LABEL = 26, 230  # height of a bar with its gap; room for its name
Box = tuple[float, float, float, float]  # least and greatest x, least and greatest y


class Chart(msgspec.Struct, frozen=True):
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    marks: str = "o-"  # or "bars": a bar each, of its only point; or "histogram": columns that stand side by side


def svg(chart: Chart, title: str) -> str:
    if chart.marks == "bars":
        return _bars(chart, title)
    box = _box(chart)
    parts = [*_axes(chart, box), *_columns(chart, box)] if chart.marks == "histogram" else [*_axes(chart, box), *_lines(chart, box)]
    return _document(HEIGHT, title, parts)


def steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most so many and one."""
    span = (high - low) or 1.0
    unit = 10.0 ** floor(log10(span / most))
    step = next(unit * factor for factor in (1, 2, 5, 10, 20) if span / (unit * factor) <= most)
    first = -floor(-low / step)
    return [number * step for number in range(first, floor(high / step + 1e-9) + 1)]


def _document(height: float, title: str, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" font-size="11">'
    back = f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>'
    return "\n".join([head, back, _text(10, 20, title, size=13), *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _box(chart: Chart) -> Box:
    """A line's y begins at nought; where all is below it, it ends there."""
    points = [point for series in chart.series.values() for point in series] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    high = max(0.0, *ys) or 1.0
    right = max(xs) + (_width(chart) if chart.marks == "histogram" else 0.0)
    return min(xs), right if right > min(xs) else min(xs) + 1.0, min(0.0, *ys), high * 1.05


def _place(box: Box, x: float, y: float) -> tuple[float, float]:
    across = (x - box[0]) / (box[1] - box[0]) * (WIDTH - _LEFT - _RIGHT)
    up = (y - box[2]) / (box[3] - box[2]) * (HEIGHT - _TOP - _BOTTOM)
    return _LEFT + across, HEIGHT - _BOTTOM - up


def _axes(chart: Chart, box: Box) -> list[str]:
    parts = []
    for y in steps(box[2], box[3]):
        _, at = _place(box, box[0], y)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, at + 4, f"{y:,g}", "end"))
    for x in steps(box[0], box[1]):
        at, _ = _place(box, x, box[2])
        parts.append(_text(at, HEIGHT - _BOTTOM + 16, f"{x:,g}", "middle"))
    parts.append(_text(WIDTH / 2, HEIGHT - _BOTTOM + 32, chart.x, "middle"))
    parts.append(_text(10, _TOP - 6, chart.y))
    return parts + _legend(list(chart.series))


def _legend(names: list[str]) -> list[str]:
    parts, x = [], float(_LEFT)
    for number, name in enumerate(names):
        parts.append(f'<rect x="{x:.1f}" y="{HEIGHT - 16}" width="10" height="10" fill="{_colour(number)}"/>')
        parts.append(_text(x + 14, HEIGHT - 7, name, size=10))
        x += 30 + 5.6 * len(name)
    return parts


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _lines(chart: Chart, box: Box) -> list[str]:
    parts = []
    for number, points in enumerate(chart.series.values()):
        places = [_place(box, x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_colour(number)}"/>')
        if "o" in chart.marks and len(places) <= 200:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{_colour(number)}"/>' for x, y in places]
    return parts


def _width(chart: Chart) -> float:
    """Of a histogram's column: the least distance of two."""
    xs = sorted({x for series in chart.series.values() for x, _ in series})
    return min((b - a for a, b in pairwise(xs)), default=1.0)


def _columns(chart: Chart, box: Box) -> list[str]:
    parts, width, series = [], _width(chart), chart.series
    for number, points in enumerate(series.values()):
        for x, y in points:
            left, top = _place(box, x + width * number / len(series), y)
            right, bottom = _place(box, x + width * (number + 0.92) / len(series), 0.0)
            size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
            parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{_colour(number)}"/>')
    return parts


def _bars(chart: Chart, title: str) -> str:
    """One for each series. Logarithmic where the longest is over fifty times the shortest, and that is said."""
    values = {name: points[0][1] for name, points in chart.series.items()}
    positive = [value for value in values.values() if value > 0] or [1.0]
    is_log = max(positive) > 50 * min(positive)
    room, base = WIDTH - _LABEL - 90, min(positive) / 2
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = _TOP + number * _BAR
        share = log10(max(value, base) / base) / log10(max(positive) / base) if is_log else value / max(positive)
        parts.append(_text(_LABEL - 8, y + 14, name, "end"))
        parts.append(f'<rect x="{_LABEL}" y="{y}" width="{room * share:.1f}" height="{_BAR - 8}" fill="{_colour(number)}"/>')
        parts.append(_text(_LABEL + room * share + 6, y + 14, f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"))
    height = _TOP + len(values) * _BAR + 30
    parts.append(_text(_LABEL, height - 10, chart.x + (", logarithmic" if is_log else "")))
    return _document(height, title, parts)
