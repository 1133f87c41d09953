"""The terminal as the chat uses it: few bytes, and never waited for."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest
from chat_kit import busy, numbers
from rich.text import Text

from moshi_mlx.cli.screen import View, render
from moshi_mlx.cli.terminal import BEGIN, END, LEAVE, Painter


class TestPainter:
    @staticmethod
    def painted(painter: Painter, read: int, lines: list[Text]) -> str:
        painter.paint(lines)
        return os.read(read, 1 << 20).decode() if painter.written else ""

    def test_only_what_changed_is_written(self) -> None:
        """A full redraw ten times a second is 20 kB/s and flickers."""
        read, write = os.pipe()
        painter = Painter(write, colour=True)
        lines = [Text(f"line {row}") for row in range(24)]
        first = self.painted(painter, read, lines)
        assert first.startswith(BEGIN)
        assert first.endswith(END)
        before = painter.written
        painter.paint(lines)
        assert painter.written == before
        lines[3] = Text("changed", "red")
        second = self.painted(painter, read, lines)
        assert "changed" in second
        assert "line 4" not in second
        assert len(second) < 60

    def test_colourless_sends_no_colour(self) -> None:
        """NO_COLOR was not honoured."""
        read, write = os.pipe()
        sent = self.painted(Painter(write, colour=False), read, [Text("x", "bold red")])
        assert "31m" not in sent

    def test_a_live_screen_is_few_bytes_a_second(self) -> None:
        """Flicker and a busy terminal: bytes a second were unbounded."""
        read, write = os.pipe()
        painter = Painter(write, colour=True)
        painter.size()
        base = busy()
        for tick in range(20):
            now = numbers(**{**base.now.as_dict(), "seconds": tick / 10, "input_level": -60.0 + 2 * tick})
            fields = {name: getattr(base, name) for name in base.__slots__}
            painter.paint(render(View(**{**fields, "now": now}), 80, 24))
            os.read(read, 1 << 20)
            if tick == 0:
                first = painter.written
        assert (painter.written - first) / 1.9 < 10_000

    def test_a_terminal_that_takes_nothing_is_not_waited_for(self) -> None:
        """A terminal stopped with Ctrl-S froze the chat, its keys and its end."""
        _, write = os.pipe()
        os.set_blocking(write, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, b"x" * 4096)
        os.set_blocking(write, True)
        painter = Painter(write, colour=True)
        painter.paint([Text("hello")])
        waits = painter.written
        painter.paint([Text("there")])
        painter.leave()
        assert painter.written == waits + len(LEAVE)

    def test_a_terminal_that_takes_some_is_not_waited_for(self) -> None:
        """A stalled ssh has room for a few bytes: it seemed ready, and the chat slept in the middle of a picture."""
        ours, theirs = os.openpty()
        painter, began = Painter(theirs, colour=True), time.monotonic()
        for number in range(400):
            painter.paint([Text(f"{number} {row}" * 9) for row in range(40)])
        painter.leave()
        assert time.monotonic() - began < 8
        got = b""
        while not got.endswith(LEAVE.encode()):  # what waited comes first, and whole
            got += os.read(ours, 1 << 16)
            painter.leave()
        assert b"0 39" in got

    def test_a_picture_comes_at_once_to_a_terminal_that_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A picture that is larger than the terminal's buffer came in pieces, one with each view."""
        monkeypatch.setattr("moshi_mlx.cli.terminal.PICTURE", 10.0)  # a busy machine reads slowly
        ours, theirs = os.openpty()
        got: list[bytes] = []

        def read() -> None:
            while not b"".join(got).endswith(END.encode()):
                got.append(os.read(ours, 1 << 10))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        Painter(theirs, colour=True).paint([Text("x" * 400) for _ in range(100)])
        reader.join(10)
        assert not reader.is_alive()
