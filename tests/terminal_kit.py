"""A terminal for tests: a command on a pseudo-terminal of its own, with keys, signals, and a look at the terminal's
modes.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
CHAT = (sys.executable, "-m", "moshi_mlx.cli.main", "chat")
QUESTION = ROOT / "examples" / "question.wav"


class Terminal:
    """Runs a command as the leader of a session on a new terminal; `output` is all it wrote."""

    def __init__(
        self, command: Sequence[str], columns: int = 80, lines: int = 24, environ: Mapping[str, str] | None = None
    ) -> None:
        self._own, self._theirs = pty.openpty()
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.modes = termios.tcgetattr(self._theirs)
        self.output = b""
        self.process = subprocess.Popen(
            command,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            cwd=ROOT,
            env={**(environ or os.environ), "TERM": "xterm-256color"},
            preexec_fn=self._take,
        )

    @staticmethod
    def _take() -> None:
        """In the child: a session of its own, with this terminal in control, so that Ctrl-C is a signal (which is
        ignored in what a shell has put into the background; SIGHUP, under nohup).
        """
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def read(self, seconds: float) -> None:
        """Takes what is written for so long."""
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0:
            if select.select([self._own], [], [], rest)[0]:
                self.output += os.read(self._own, 1 << 16)

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Reads until a text was written; AssertionError with the output if it does not come."""
        until = time.monotonic() + seconds
        while text.encode() not in self.output:
            shown = self.output[-4000:].decode(errors="replace")
            assert time.monotonic() < until, shown
            assert self.process.poll() is None, shown
            self.read(0.05)

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self._own, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """The window changes its size."""
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def hang_up(self) -> None:
        """The window is closed."""
        for end in (self._own, self._theirs):
            os.close(end)
        self._own = self._theirs = -1

    def end(self, seconds: float) -> int:
        """Reads until the command has ended; its status."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, self.output[-2000:].decode(errors="replace")
            self.read(0.02)
        self.read(0.05)
        return self.process.returncode

    def restored(self) -> bool:
        """Whether modes, cursor, line wrap and the screen are as they were."""
        pairs = ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?7l", b"\x1b[?7h"))
        shown = all(self.output.rfind(on) <= self.output.rfind(off) for on, off in pairs)
        return shown and termios.tcgetattr(self._theirs) == self.modes

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._own >= 0:
            self.hang_up()
