"""Signals that end a live command: none is lost, and none leaves anything half done."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
QUIET = (signal.SIGTERM, signal.SIGHUP)  # those that Python would let end the process without a word to anybody


class Ended(KeyboardInterrupt):
    """What would have ended the process. number: the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Endings:
    """While entered, what would end the process sets `asked` to the signal's number and, while `at_once`, raises
    `Ended`; without that, all can be closed in order. Ctrl-Z stops the process; while `shown`, it sets `suspended`, and
    who shows gives the terminal back first. What is ignored stays so (nohup).
    """

    def __init__(self, signals: Sequence[signal.Signals] = ALL) -> None:
        self.asked = 0
        self.at_once = True
        self.shown = False
        self.suspended = False
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Endings:
        for number in self._signals:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self.suspended = self.shown
            if not self.shown:
                os.kill(os.getpid(), signal.SIGSTOP)
        else:
            self.asked = number
            if self.at_once:
                raise Ended(number)
