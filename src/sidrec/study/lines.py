"""Line charts as SVG, written by hand: equal numbers are equal bytes, a chart is a few kB, and nothing is installed.

A figure is panels side by side, each with its own scale; text is data and escaped.
"""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INK, GRID = "#1f2933", "#dbe7f3"
COLOURS = ("#2563a8", "#d97706", "#2f855a", "#7c3aed", "#c53030", "#52606d")
# Pixels: of a panel's plot, and of what stands around it.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 300, 190, 64, 40, 44, 24
_LEGEND = 17
_TICKS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of points in rising `x`; hollow points are those in `hollow` by place."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    hollow: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines on one scale; whole numbers of `x` are ticks."""

    title: str
    x_title: str
    lines: tuple[Line, ...]


def svg(panels: Sequence[Panel], *, title: str) -> str:
    """Return the figure."""
    rows = max((len(panel.lines) for panel in panels), default=0)
    width = len(panels) * (_LEFT + _WIDTH) + _GAP
    height = _TOP + _HEIGHT + _BOTTOM + _LEGEND * rows + 24
    parts = [part for place, panel in enumerate(panels) for part in _panel(panel, place * (_LEFT + _WIDTH) + _LEFT)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{INK}">'
    )
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="#ffffff"/>', _text(12, 18, title, 13), *parts, "</svg>\n"]
    )


def _panel(panel: Panel, left: float) -> Iterator[str]:
    top, bottom = _TOP, _TOP + _HEIGHT
    xs = [x for line in panel.lines for x in line.x]
    low, high = _span([y for line in panel.lines for y in line.y])
    first, last = _span(xs)

    def across(x: float) -> float:
        return left + 8 + (x - first) / (last - first) * (_WIDTH - 40)

    def down(y: float) -> float:
        return bottom - 8 - (y - low) / (high - low) * (_HEIGHT - 28)

    yield _text(left, top - 2, panel.title, 12)
    for tick in range(_TICKS + 1):
        value = low + (high - low) * tick / _TICKS
        yield f'<path d="M{left} {down(value):.1f}h{_WIDTH - 24}" stroke="{GRID}"/>'
        yield _text(left - 6, down(value) + 4, f"{value:.3g}", 10, anchor="end")
    for x in sorted({x for x in xs if x == math.floor(x)}):
        yield _text(across(x), bottom + 12, f"{x:g}", 10, anchor="middle")
    yield _text(left + _WIDTH / 2 - 20, bottom + 28, panel.x_title, 11, anchor="middle")
    for place, line in enumerate(panel.lines):
        colour = COLOURS[place % len(COLOURS)]
        points = [(across(x), down(y)) for x, y in zip(line.x, line.y, strict=True)]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for number, (x, y) in enumerate(points):
            fill = "#ffffff" if number in line.hollow else colour
            said = html.escape(f"{line.name}: {line.x[number]:g}, {line.y[number]:.4g}")
            place_of = f'cx="{x:.1f}" cy="{y:.1f}" r="3.5"'
            yield f'<circle {place_of} fill="{fill}" stroke="{colour}"><title>{said}</title></circle>'
        legend = bottom + _BOTTOM + _LEGEND * place
        yield f'<path d="M{left} {legend}h18" stroke="{colour}" stroke-width="2"/>'
        yield _text(left + 24, legend + 4, line.name, 11)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest value, apart where they are one."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{html.escape(text)}</text>'
