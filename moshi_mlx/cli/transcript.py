"""The conversation as lines: what Moshi said, and that the user spoke (no model here writes down what).

Pieces arrive ahead of their sound; each has the time at which it will be heard, and shows then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from .console import clean

SPEECH_DB = -45.0  # a user frame above this is speech, for the display, if it is also so much above the room
ABOVE_ROOM = 10.0  # dB
ROOM_DB = (-60.0, -25.0)  # the room's level: at first, and at most
ROOM_RISES = 0.1  # dB a frame, until a quieter frame tells better
MUTED_DB = -90.0  # a frame below this tells nothing of the room
LONGEST_PAUSE = 2.0  # seconds of silence that end a line of Moshi's
USER_GAP = 0.8  # seconds of quiet that end a user's turn
USER_LEAST = 0.24  # seconds: shorter sounds are no turn
KEPT = 500  # lines
LINE_MOST = 2_000  # characters of one line


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame for the display: when its user sound was taken and when its text is heard (seconds), the text, the
    user's level in dBFS; whether a new conversation begins with it.
    """

    seconds: float
    due: float
    text: str
    level: float
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line. who: "moshi", "you" (text tells how long) or "note"."""

    seconds: float
    who: str
    text: str


class Transcript:
    """Collects frames into lines; `closed` lines do not change any more, `lines()` adds the one that grows."""

    def __init__(self) -> None:
        self.closed: deque[Line] = deque(maxlen=KEPT)
        self.count = 0  # lines ever closed
        self._open: Line | None = None
        self._last = 0.0  # when Moshi's newest piece was heard
        self._began: float | None = None  # of the user's turn
        self._loud = 0.0  # last loud user frame
        self._room = ROOM_DB[0]
        self._waiting: Line | None = None  # a turn of the user's in the middle of a word of Moshi's
        self._due: deque[Heard] = deque()

    def add(self, heard: Heard) -> None:
        """Takes a frame, in order."""
        if heard.anew:
            self._due.clear()  # what of the old conversation was not heard yet never will be
            self.note(heard.seconds, "a new conversation")
        self._listen(heard)
        if heard.text:
            self._due.append(heard)

    def advance(self, now: float) -> None:
        """Shows what is heard by `now`, in seconds."""
        while self._due and self._due[0].due <= now:
            piece = self._due.popleft()
            self._say(piece.due, piece.text)
        if self._open is not None and now - self._last > LONGEST_PAUSE:
            self._close()

    def note(self, seconds: float, text: str) -> None:
        """Adds a line of the program's own: a mark, a reset."""
        self._close()
        self._append(Line(seconds, "note", text))

    def finish(self) -> None:
        """Shows everything and closes the last lines."""
        self.advance(float("inf"))
        self._close()
        self._end_turn()

    def lines(self) -> list[Line]:
        """All lines, oldest first."""
        return [*self.closed, *([self._open] if self._open is not None else [])]

    def _say(self, seconds: float, text: str) -> None:
        if self._waiting is not None and text.startswith(" "):
            self._close()
        if self._open is None:
            self._open = Line(seconds, "moshi", "")
            text = text.lstrip()
        self._open = replace(self._open, text=self._open.text + clean(text))
        self._last = seconds
        if len(self._open.text) > LINE_MOST:
            self._close()

    def _listen(self, heard: Heard) -> None:
        if heard.level > MUTED_DB:
            self._room = min(heard.level, self._room + ROOM_RISES, ROOM_DB[1])
        if heard.level > max(SPEECH_DB, self._room + ABOVE_ROOM):
            self._began = heard.seconds if self._began is None else self._began
            self._loud = heard.seconds
        elif self._began is not None and heard.seconds - self._loud > USER_GAP:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._began is not None and self._loud - self._began >= USER_LEAST:
            line = Line(self._began, "you", f"spoke {self._loud - self._began:.1f} s")
            if self._open is None or self._open.seconds > line.seconds:
                self._append(line)
            else:
                self._waiting = line
        self._began = None

    def _close(self) -> None:
        if self._open is not None and self._open.text.strip():
            self._append(self._open)
        self._open = None
        if self._waiting is not None:
            self._append(self._waiting)
            self._waiting = None

    def _append(self, line: Line) -> None:
        self.closed.append(line)
        self.count += 1
