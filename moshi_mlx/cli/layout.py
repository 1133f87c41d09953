"""Text in lines of so many cells: wrapped, packed, spread, cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text


def at_most(said: str, style: str, width: int, most: int) -> list[Text]:
    """A text in so many lines at most."""
    lines = wrap(Text(said, style), width) if said else []
    if len(lines) > most:
        lines[most - 1].append(" …")
    return lines[:most]


def wrap(text: Text, width: int) -> list[Text]:
    """Lines of at most `width` cells, broken between words where that is possible."""
    lines: list[Text] = [Text()]
    for word in text.plain.split():
        while cell_len(word) > width:
            head = set_cell_size(word, width).rstrip() or word[0]
            lines.append(Text(head))
            word = word[len(head) :]
        gap = 1 if lines[-1] else 0
        if lines[-1].cell_len + gap + cell_len(word) > width:
            lines.append(Text())
            gap = 0
        lines[-1].append(" " * gap + word)
    lines = [line for line in lines if line] or [Text()]
    for line in lines:
        line.stylize(text.style)
    return lines


def pack(fields: Sequence[Text], width: int) -> list[Text]:
    """Fields in lines, none broken."""
    lines: list[Text] = []
    for field in fields:
        if lines and lines[-1].cell_len + 3 + field.cell_len <= width:
            lines[-1].append(" · ", "dim").append_text(field)
        else:
            lines.append(field.copy())
    return lines


def spread(left: Text, right: Text, width: int) -> Text:
    """A line with one text at each end; the left one is cut if both do not fit."""
    room = width - right.cell_len - 1
    left = fit(left, room)
    return left.append(" " * (width - left.cell_len - right.cell_len)).append_text(right)


def fit(line: Text, width: int) -> Text:
    """The line, cut to `width` cells."""
    line = line.copy()
    line.truncate(max(0, width), overflow="ellipsis")
    return line
