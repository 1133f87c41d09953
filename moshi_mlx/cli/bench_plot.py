"""Frame times as an SVG drawing and as a histogram of text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ..frame import FRAME_MS

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 40, 36
BINS, BAR = 12, 40
EIGHTHS = " ▏▎▍▌▋▊▉"


def drawing(title: str, times: Sequence[float]) -> str:
    """An SVG: milliseconds of each frame in order, and the 80 ms that a frame may take."""
    top = max(FRAME_MS, *times) * 1.1
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(index: float, value: float) -> str:
        return f"{LEFT + wide * index / max(1, len(times) - 1):.1f} {TOP + high * (1 - value / top):.1f}"

    path = "L".join(place(index, value) for index, value in enumerate(times))
    limit = f"M{place(0, FRAME_MS)}L{place(len(times) - 1, FRAME_MS)}"
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<path d="{limit}" stroke="#b63b3b" stroke-dasharray="4 3"/>',
        f'<path d="M{path}" fill="none" stroke="#3b6fb6"/>',
    ]
    for part in range(5):
        value = top * part / 4
        y = TOP + high * (1 - part / 4)
        rows.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{value:.0f}</text>')
    below = f"{len(times)} frames, milliseconds each; dashed: the {FRAME_MS:.0f} ms that a frame may take"
    rows.append(f'<text x="{LEFT + wide / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{below}</text>')
    return "\n".join([*rows, "</svg>"]) + "\n"


def histogram(times: Sequence[float]) -> list[str]:
    """Lines of text, one a range of milliseconds; ranges are cut at the 99th percentile, the last holds the rest."""
    low, high = float(min(times)), float(np.percentile(times, 99))
    if high <= low:
        high = low + 1e-3
    edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.minimum(times, high), edges)
    lines = []
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        eighths = round(8 * BAR * int(count) / int(counts.max()))
        bar = "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
        lines.append(f"{start:8.1f} to {end:6.1f} ms {count:6}  {bar}".rstrip())
    return lines
