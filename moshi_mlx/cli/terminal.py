"""The terminal as the chat uses it: a screen painted by differences, keys without echo, everything put back at the end.

Only lines that changed are written, inside a synchronized update, so nothing flickers and few bytes flow. A terminal
that takes no bytes just now is passed over until it does: nothing here waits for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"  # the other screen, no cursor, no wrapping
LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # shown at once, by terminals that can
TYPED_MOST = 8  # bytes at once; more is pasted text, not keys
KEPT_STDERR = 4_000  # bytes, the last ones
PATIENCE = 0.3  # seconds in which a terminal must take the last that is sent to it
PICTURE = 0.05  # seconds that a picture may take: some terminals take a kilobyte at a time, and read on at once
PIECE = 512  # bytes that a pipe takes without waiting, if it takes any


class Outlet:
    """Bytes for a terminal that are sent as far as it takes them; the rest waits here, not the caller."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = b""
        self._own: int | None = None
        with contextlib.suppress(OSError):  # opened anew, for a shell shares the modes of its own
            self._own = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def send(self, data: bytes, patience: float = 0.0) -> None:
        """Sends what waits, then this, for so many seconds."""
        self._rest += data
        self.flush(patience)

    def flush(self, patience: float = 0.0) -> bool:
        """Whether nothing waits any more, within so many seconds."""
        until = time.monotonic() + patience
        while self._rest:
            rest = max(0.0, until - time.monotonic())
            if not select.select([], [self.fd if self._own is None else self._own], [], rest)[1]:
                return False
            with contextlib.suppress(BlockingIOError):
                if self._own is None:
                    self._rest = self._rest[os.write(self.fd, self._rest[:PIECE]) :]
                else:
                    self._rest = self._rest[os.write(self._own, self._rest) :]
                continue
            if rest == 0:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """What still waits is given up."""
        if self._own is not None:
            os.close(self._own)
            self._own = None


class Painter:
    """Writes the lines that changed to a terminal."""

    def __init__(self, fd: int, colour: bool) -> None:
        self._outlet = Outlet(fd)
        self._console = Console(
            force_terminal=True,
            color_system="standard" if colour else None,
            width=10_000,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._shown: list[Text] = []
        self._size = os.terminal_size((0, 0))
        self.written = 0  # bytes

    def size(self) -> os.terminal_size:
        """Columns and lines now; what was painted is forgotten when they change."""
        size = shutil.get_terminal_size()
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._outlet.fd)
        if size != self._size:
            self._size, self._shown = size, []
        return size

    def paint(self, lines: Sequence[Text]) -> None:
        """Shows the lines from the top, all else empty."""
        if not self._outlet.flush():
            return
        old = self._shown
        parts = [] if old else ["\x1b[0m\x1b[2J"]
        for row, line in enumerate(lines):
            if row >= len(old) or line != old[row]:
                rest = "\x1b[K" if line.cell_len < self._size.columns else ""  # it would take the last letter
                parts.append(f"\x1b[{row + 1};1H{self._ansi(line)}\x1b[0m{rest}")
        parts += [f"\x1b[{row + 1};1H\x1b[K" for row in range(len(lines), len(old))]
        self._shown = list(lines)
        if parts:
            self.send(BEGIN + "".join(parts) + END)

    def enter(self) -> None:
        """Takes the terminal's other screen."""
        self._shown = []
        self.send(ENTER)

    def leave(self) -> None:
        """Puts back what stood there before; harmless on a terminal that has gone, and on one that takes nothing."""
        with contextlib.suppress(OSError):
            self.send(LEAVE)
            self._outlet.flush(PATIENCE)

    def close(self) -> None:
        """Nothing will be painted any more."""
        self._outlet.close()

    def send(self, text: str) -> None:
        """Writes text as it is."""
        data = text.encode("utf-8", "replace")
        self.written += len(data)
        self._outlet.send(data, PICTURE)

    def _ansi(self, line: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", no_wrap=True, crop=False, soft_wrap=True)
        return capture.get()


class Keyboard:
    """Single keys of a terminal between `enter` and `leave`. Ctrl-C stays a signal, Ctrl-S does not stop the output."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = []

    def enter(self) -> None:
        """Keys come one by one and unseen."""
        self._before = termios.tcgetattr(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~termios.IXON
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def leave(self) -> None:
        """As it was; harmless on a terminal that has gone."""
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
            termios.tcflush(self._fd, termios.TCIFLUSH)  # TCSAFLUSH would wait until the terminal has taken all output

    def read(self, timeout: float) -> str:
        """The keys pressed within `timeout` seconds; "" for none, for a control sequence and for pasted text. A
        terminal that has gone counts as "q".
        """
        if not select.select([self._fd], [], [], timeout)[0]:
            return ""
        try:
            data = os.read(self._fd, 1024)
        except OSError:
            data = b""
        if not data:
            return "q"
        return "" if data.startswith(b"\x1b") or len(data) > TYPED_MOST else data.decode("utf-8", "ignore")


@contextlib.contextmanager
def full_screen(fd: int, colour: bool) -> Iterator[Painter]:
    """A painter on the terminal's other screen; what stood there before is back at the end, however it comes."""
    painter = Painter(fd, colour)
    try:
        painter.enter()
        yield painter
    finally:
        painter.leave()
        painter.close()


@contextlib.contextmanager
def keyboard() -> Iterator[Keyboard | None]:
    """The keys of stdin, None where that is no terminal; its mode is as before at the end, however it comes."""
    if not sys.stdin.isatty():
        yield None
        return
    keys = Keyboard(sys.stdin.fileno())
    try:
        keys.enter()
        yield keys
    finally:
        keys.leave()


@contextlib.contextmanager
def kept_stderr(show: bool = True) -> Iterator[None]:
    """What is written to stderr meanwhile (sound libraries do) comes after, instead of across the screen, if at all."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(max(0, kept.seek(0, os.SEEK_END) - KEPT_STDERR))
            lines = dict.fromkeys(  # each once: some repeat for ever
                kept.read().decode("utf-8", "replace").splitlines()
            )
            outlet = Outlet(2)
            with contextlib.suppress(OSError):
                outlet.send("".join(f"{line}\n" for line in lines if show).encode(), PATIENCE)
            outlet.close()


def wants_screen(plain: bool) -> bool:
    """Whether stdout is a terminal on which lines can be painted."""
    return not plain and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "")


def wants_colour() -> bool:
    """https://no-color.org"""
    return not os.environ.get("NO_COLOR")
