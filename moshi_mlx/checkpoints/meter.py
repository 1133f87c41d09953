"""One line on stderr that tells how far a download is, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import TextIO


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Meter:
    """A `Progress`: draws over its own line in a terminal, elsewhere writes a line for every tenth."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._file = ""
        self._began, self._first, self._drawn, self._tenth = 0.0, 0, 0.0, -1

    def __call__(self, file: str, done: int, total: int) -> None:
        now = time.monotonic()
        if file != self._file:
            self._file, self._began, self._first, self._drawn, self._tenth = file, now, done, 0.0, -1
        whole = done >= total
        if self._out.isatty():
            if now - self._drawn >= 0.2 or whole:
                self._drawn = now
                self._out.write(f"\r\x1b[K{self.line(done, total, now - self._began)}{chr(10) if whole else ''}")
                self._out.flush()
        elif (tenth := 10 * done // max(total, 1)) > self._tenth:
            self._tenth = tenth
            self._out.write(self.line(done, total, now - self._began) + "\n")

    def line(self, done: int, total: int, seconds: float) -> str:
        """The line after so many seconds of this file."""
        text = f"{self._file}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        speed = (done - self._first) / seconds if seconds > 0 else 0.0
        if speed > 0:
            text += f" · {speed / 1e6:.1f} MB/s"
            if done < total:
                text += f" · {duration((total - done) / speed)} left"
        return text
