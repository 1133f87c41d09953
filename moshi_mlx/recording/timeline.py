"""The timeline picture: who speaks when, in rows of equal length, as an SVG that follows the reader's light or dark
theme.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from .activity import Span
from .turns import SIDES, SPEAKERS, TurnTaking
from .words import Word

WIDTH, MARGIN, RIGHT = 1_200, 76, 24  # pixels; labels stand in the left margin
LANE, LANES_APART, ROW, HEAD, FOOT = 26, 8, 134, 74, 46
MAX_ROWS = 60
LETTER = 6.4  # width of a letter of a word, about

STYLE = """
svg{--bg:#fbfaf7;--ink:#22252b;--soft:#6d7380;--line:#dfdcd4;--user:#2f6fde;--moshi:#d9622b;--both:#8a3ffc}
@media (prefers-color-scheme:dark){
svg{--bg:#14161b;--ink:#ecebe6;--soft:#989fac;--line:#2c3039;--user:#6fa3ff;--moshi:#ff9a66;--both:#c4a1ff}}
text{font:12px ui-sans-serif,system-ui,sans-serif;fill:var(--soft)}
.title{font-size:19px;font-weight:650;fill:var(--ink)}.name{font-weight:600;fill:var(--ink)}
.user{fill:var(--user)}.moshi{fill:var(--moshi)}.both{fill:var(--both);opacity:.2}
.word{font-size:11px;fill:var(--ink)}.delay{fill:var(--moshi);font-weight:600;font-size:11px}
.cut{fill:var(--both);font-weight:700;font-size:13px}.grid{stroke:var(--line)}
"""


def timeline_svg(turns: TurnTaking, words: Sequence[Word] = (), title: str = "") -> str:
    """Turn-taking, with Moshi's words where there are some → the text of an SVG file."""
    row = next(length for length in (20, 30, 60, 120, 300, 600, 3_600, 1e9) if turns.seconds <= length * MAX_ROWS)
    rows = max(1, math.ceil(turns.seconds / row))
    height = HEAD + rows * ROW + FOOT
    figures = turns.summary()
    overlap, moshi = figures["overlaps"], figures["moshi"]
    says = f"{clock(turns.seconds)} · {overlap['seconds_per_minute']:.1f} s of overlap a minute"
    if moshi["response_p50"] is not None:
        says += f" · Moshi responds within {moshi['response_p50'] * 1_000:.0f} ms (median of {moshi['responses']})"
    name = escape(title or "Conversation")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-labelledby="title says">',
        f'<title id="title">{name}</title><desc id="says">{escape(says)}</desc><style>{STYLE}</style>',
        f'<rect width="{WIDTH}" height="{height}" fill="var(--bg)"/>',
        f'<text class="title" x="{MARGIN}" y="34">{name}</text><text x="{MARGIN}" y="55">{escape(says)}</text>',
    ]
    for index in range(rows):
        parts += _row(turns, words, index * row, row, HEAD + index * ROW)
    foot = height - 16
    legend = (("user", "user speaks"), ("moshi", "Moshi speaks"), ("both", "both at once"))
    for index, (css, text) in enumerate(legend):
        x = MARGIN + 150 * index
        parts.append(f'<rect class="{css}" x="{x}" y="{foot - 10}" width="16" height="11" rx="3"/>')
        parts.append(f'<text x="{x + 22}" y="{foot}">{text}</text>')
    parts.append(f'<text class="cut" x="{MARGIN + 450}" y="{foot}">✕</text>')
    parts.append(f'<text x="{MARGIN + 468}" y="{foot}">interruption</text>')
    return "\n".join([*parts, "</svg>\n"])


def _row(turns: TurnTaking, words: Sequence[Word], begin: float, length: float, top: float) -> Iterator[str]:
    scale = (WIDTH - MARGIN - RIGHT) / length

    def x(seconds: float) -> float:
        return MARGIN + (seconds - begin) * scale

    def within(spans: Sequence[Span]) -> list[Span]:
        return [(max(a, begin), min(b, begin + length)) for a, b in spans if a < begin + length and b > begin]

    lanes = {side: top + 22 + number * (LANE + LANES_APART) for number, side in enumerate(SIDES)}
    bottom = lanes["moshi"] + LANE
    step = 1 if length <= 30 else length / 15
    for tick in range(round(length / step) + 1):
        at = x(begin + tick * step)
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top + 16}" y2="{bottom + 4}"/>'
        if tick % 5 == 0 and tick * step < length:
            yield f'<text x="{at + 3:.1f}" y="{top + 13}">{clock(begin + tick * step)}</text>'
    for side, y in lanes.items():
        label = SPEAKERS[side]
        yield f'<text class="name" x="{MARGIN - 12}" y="{y + 18}" text-anchor="end">{label}</text>'
        for start, end in within(turns.units[side]):
            width = max((end - start) * scale, 1)
            yield f'<rect class="{side}" x="{x(start):.1f}" y="{y}" width="{width:.1f}" height="{LANE}" rx="5"/>'
    for start, end in within([(item.start, item.end) for item in turns.of_kind("between", "within")]):
        width = max((end - start) * scale, 1)
        yield f'<rect class="both" x="{x(start):.1f}" y="{top + 16}" width="{width:.1f}" height="{bottom - top - 12}"/>'
    for cut in turns.interruptions:
        if begin <= cut.at < begin + length:
            yield f'<text class="cut" x="{x(cut.at):.1f}" y="{lanes[cut.side] - 3}" text-anchor="middle">✕</text>'
    for response in turns.responses:
        if response.side == "moshi" and begin <= response.at < begin + length and response.delay > 0:
            tag, y = f"{response.delay * 1_000:.0f} ms", lanes["moshi"] + 17
            yield f'<text class="delay" x="{x(response.at) - 4:.1f}" y="{y}" text-anchor="end">{tag}</text>'
    free = [0.0, 0.0]  # two rows; words that still run into each other are left out: the page shows them all
    for word in words:
        at = x(word.start)
        row = next((number for number, taken in enumerate(free) if at >= taken), None)
        if begin <= word.start < begin + length and row is not None:
            yield f'<text class="word" x="{at:.1f}" y="{bottom + 18 + 15 * row}">{escape(word.text)}</text>'
            free[row] = at + LETTER * (len(word.text) + 1)


def clock(seconds: float) -> str:
    """A time as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
