"""Reading a recording: `open_recording(folder)` checks everything it gives, for a folder may come from anyone and may
end in mid-line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..frame import FRAME, MoshiError
from .codes import CODES_FILE, CodesRead, read_codes
from .info import SessionInfo, is_count, is_number, is_text, parse_object, read_info
from .recorder import EVENTS_FILE, TRANSCRIPT_FILE
from .script import MAX_WORDS_BYTES
from .wav import HEADER_BYTES, SAMPLE_BYTES, find_parts

MAX_LINE_BYTES = 1 << 16
MAX_LINES = 4_000_000  # 80 hours of frames


@dataclass(frozen=True)
class Piece:
    """A piece of Moshi's text and the step that gave it; its sound is in frame `frame` + 1."""

    frame: int
    text: str


@dataclass(frozen=True)
class Event:
    """Something that happened at a frame: a mark, an xrun, the measures of the frame."""

    frame: int
    kind: str
    values: dict[str, Any]

    @property
    def label(self) -> str:
        """What a person called it, or its kind."""
        label = self.values.get("label")
        return label if is_text(label, MAX_WORDS_BYTES) and label else self.kind


@dataclass(frozen=True)
class Recording:
    """A recording's folder, its description and the parts of its sound."""

    folder: Path
    info: SessionInfo
    parts: list[Path]

    @property
    def frames(self) -> int:
        """Frames of sound on disk."""
        return sum((path.stat().st_size - HEADER_BYTES) // SAMPLE_BYTES for path in self.parts) // FRAME

    def codes(self) -> CodesRead:
        """Both sides' codes and the text tokens."""
        return read_codes(self.folder / CODES_FILE)

    def pieces(self) -> list[Piece]:
        """Moshi's text in order."""
        pieces: list[Piece] = []
        for where, line in _lines(self.folder / TRANSCRIPT_FILE):
            frame, text = line.get("frame"), line.get("text")
            if not is_count(frame) or not is_text(text) or (pieces and frame < pieces[-1].frame):
                raise MoshiError(f"{where} is no line of a transcript: the file is damaged")
            pieces.append(Piece(frame, text))
        return pieces

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, in order; of one kind where it is given."""
        events: list[Event] = []
        for where, line in _lines(self.folder / EVENTS_FILE):
            frame, name = line.pop("frame", None), line.pop("kind", None)
            if not is_count(frame) or not is_text(name, 100):
                raise MoshiError(f"{where} is no event: the file is damaged")
            if kind in (None, name):
                values = {key: value for key, value in line.items() if is_number(value) or _is_kept(key, value)}
                events.append(Event(frame, name, values))
        return events


def _is_kept(key: str, value: object) -> bool:
    return is_text(value, MAX_WORDS_BYTES) if key == "label" else is_text(value)


def open_recording(folder: Path) -> Recording:
    """Opens a recording's folder. Raises MoshiError if it holds none, or none that can be read."""
    info = read_info(folder)
    parts = find_parts(folder)
    if not parts:
        raise MoshiError(f"{folder} holds no sound: its recording was stopped before it began")
    return Recording(folder, info, parts)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every whole line; a last line without its end was cut off and is left out."""
    if not path.is_file():
        raise MoshiError(f"{path} is missing: the recording is incomplete")
    with path.open("rb") as file:
        for number in range(1, MAX_LINES + 2):
            line = file.readline(MAX_LINE_BYTES)
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE_BYTES:
                    raise MoshiError(
                        f"{path}, line {number} is longer than {MAX_LINE_BYTES} bytes: the file is damaged"
                    )
                return
            if number > MAX_LINES:
                raise MoshiError(f"{path} has more than {MAX_LINES} lines: it is damaged")
            where = f"{path}, line {number}"
            yield where, parse_object(line, where)
