"""What a terminal may be given: text from outside without its control characters, and never read as style."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
JOINER = "\u200d"  # invisible, but it builds emoji


def leave_stdout() -> None:
    """Lets what is still printed go nowhere: the reader has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def data_console() -> Console:
    """A console that shows names and texts as they are: "[b]" in a file's name is no style."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def with_bar(items: Iterable[T], total: int | None = None, doing: str = "") -> Iterable[T]:
    """The items, with a bar on stderr where a person looks. total: None is their length, if they have one."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, doing, total, console=console, transient=True, disable=not console.is_terminal)


def clean(text: str, keep: str = "") -> str:
    """Text from outside, safe for a terminal: no control and no direction characters, each white space a blank, but
    those to keep.
    """
    return "".join(_shown(letter) if letter not in keep else letter for letter in text)


def _shown(letter: str) -> str:
    if letter.isspace():
        return " "
    return "" if _is_control(letter) else letter


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn") and letter != JOINER
