"""`finish(folder)`: from what a recorder wrote, or a killed one left, to the files that people open. It may be run
again at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..text_file import write_beside
from .activity import Levels, measure_levels
from .folder import Recording, open_recording
from .info import write_info
from .player import player_page
from .timeline import timeline_svg
from .turns import TurnTaking, analyze_levels
from .wav import find_parts, trim
from .words import Word, to_json, to_srt, to_txt, to_vtt, words_of


@dataclass(frozen=True)
class Understood:
    """A recording and what can be said of it."""

    recording: Recording
    levels: Levels
    turns: TurnTaking
    words: Sequence[Word]


def understand(folder: Path) -> Understood:
    """Opens and analyses a recording's folder; changes nothing in it. Raises MoshiError."""
    recording = open_recording(folder)
    levels = measure_levels(recording.parts)
    turns = analyze_levels(levels)
    return Understood(recording, levels, turns, words_of(recording.pieces(), turns.units["moshi"]))


def finish(folder: Path) -> Understood:
    """Writes transcript.txt, .srt, .vtt, .json, timeline.svg and player.html, and marks the recording as finished.

    Raises MoshiError if the folder holds no recording; OSError if it cannot be written.
    """
    for part in find_parts(folder):
        trim(part)
    found = understand(folder)
    words, recording = found.words, found.recording
    texts = {
        "transcript.txt": to_txt(words),
        "transcript.srt": to_srt(words),
        "transcript.vtt": to_vtt(words),
        "transcript.json": to_json(words, found.turns.units),
        "timeline.svg": timeline_svg(found.turns, words, recording.info.title),
        "player.html": player_page(recording, found.levels, found.turns, words),
    }
    for name, text in texts.items():
        write_beside(folder / name, text)
    write_info(folder, replace(recording.info, finished=True, frames=recording.frames))
    return found
