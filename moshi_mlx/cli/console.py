"""What a terminal may be given: text from outside without its control characters, and never read as style."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

JOINER = "\u200d"  # invisible, but it builds emoji


def data_console() -> Console:
    """A console that shows names and texts as they are: "[b]" in a file's name is no style."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def clean(text: str) -> str:
    """Text from outside, safe for a terminal: no control and no direction characters, each white space a blank."""
    return "".join(
        " " if letter.isspace() else letter for letter in text if letter.isspace() or not _is_control(letter)
    )


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn") and letter != JOINER
