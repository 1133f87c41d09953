"""Signals that end a command: none is lost, and none leaves anything half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Endings:
    """While entered, what would end the process sets `asked` to the signal's number and, while `at_once`, raises
    KeyboardInterrupt; without that, all can be closed in order. Ctrl-Z sets `suspended`.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = True
        self.suspended = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Endings:
        for number in (*ENDING, signal.SIGTSTP):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self.suspended = True
        else:
            self.asked = number
            if self.at_once:
                raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """While entered, what would end the process raises KeyboardInterrupt, as Ctrl-C does, so that files are tidied."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
