"""Loss against bytes a frame, as an SVG drawing: no library, readable in any browser and on any model page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 480
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 56, 64
COLOURS = {"uniform": "#3b6fb6", "mixed": "#d1782a", "auto": "#2c8c5a"}


@dataclass(frozen=True)
class Point:
    """family: a key of COLOURS; the points of "uniform" and of "auto" are joined. x: bytes, y: nats."""

    family: str
    label: str
    x: float
    y: float


def drawing(title: str, points: Sequence[Point]) -> str:
    """The drawing. y is logarithmic; a loss of zero is drawn at the lower edge."""
    unit, name = (1e9, "GB") if max(p.x for p in points) > 5e8 else (1e6, "MB")
    low, high = _span([p.x / unit for p in points])
    least = min((p.y for p in points if p.y > 0), default=1e-6)
    bottom = math.floor(math.log10(least))
    top = max(bottom + 1, math.ceil(math.log10(max(least, *(p.y for p in points)))))

    def place(p: Point) -> tuple[float, float]:
        level = math.log10(p.y) if p.y > 0 else bottom
        return (
            LEFT + (p.x / unit - low) / (high - low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (level - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM),
        )

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 24, title, size=15, weight="bold"),
    ]
    for power in range(bottom, top + 1):
        y = HEIGHT - BOTTOM - (power - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e3e3e3"/>')
        lines.append(_text(LEFT - 8, y + 4, f"{10.0**power:g}", anchor="end"))
    for value in _ticks(low, high):
        x = LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        lines.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#f0f0f0"/>')
        lines.append(_text(x, HEIGHT - BOTTOM + 18, f"{value:g}", anchor="middle"))
    lines.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, f"{name} of weights read a frame", anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    lines.append(
        f'<text transform="translate(18 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        "loss: KL against the source, nats a frame</text>"
    )
    for index, (family, colour) in enumerate(COLOURS.items()):
        own = sorted((p for p in points if p.family == family), key=lambda p: p.x)
        if not own:
            continue
        places = [place(p) for p in own]
        if family != "mixed":
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for p, (x, y) in zip(own, places, strict=True):
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
            below = family == "auto"  # its line falls to the right, so there is room on the left
            shift = 16 if below else -8
            anchor = "end" if x > WIDTH - 120 or (below and x > LEFT + 50) else "start"
            lines.append(_text(x + (-7 if anchor == "end" else 7), y + shift, p.label, anchor=anchor, colour=colour))
        lines.append(f'<circle cx="{WIDTH - 250 + 80 * index}" cy="40" r="4" fill="{colour}"/>')
        lines.append(_text(WIDTH - 242 + 80 * index, 44, family))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values take."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or high * 0.08 or 1.0
    return max(0.0, low - pad), high + pad


def _ticks(low: float, high: float) -> list[float]:
    """Four to eleven round numbers in a span."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * times for times in (5, 2, 1) if (high - low) / (power * times) >= 4)
    return [round(step * i, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
    colour: str = "#222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
