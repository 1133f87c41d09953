"""Moshi's words and when they are heard, from the pieces of its inner monologue; and the four files made of them.

A word starts with a piece that begins with a space; it is heard from the frame of its first piece + 1 (on the
recording's timeline, where user frame n lies beside Moshi's frame n) until the next word, or until Moshi falls silent,
for the monologue says only where words begin. All times are seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from ..frame import FRAME_RATE
from .activity import Span
from .folder import Piece
from .recorder import TEXT_LEAD

FRAME_SECONDS = 1 / FRAME_RATE
LONGEST_WORD = 1.5
LONGEST_BREAK = 1.0  # a piece that comes later than this after the last one begins a word even without a space
CUE_GAP, CUE_SECONDS, CUE_LETTERS = 0.8, 6.0, 72  # where subtitles are cut


@dataclass(frozen=True)
class Word:
    """A word, heard from start to end."""

    text: str
    start: float
    end: float


Cue = Sequence[Word]


def words_of(pieces: Sequence[Piece], speech: Sequence[Span] = ()) -> list[Word]:
    """Pieces → words. `speech`: when Moshi's lane is heard (units of `activity`), which bounds the words' ends."""
    texts: list[str] = []
    frames: list[int] = []
    apart, last = True, 0  # whether the next letter begins a word
    for piece in pieces:
        text = " ".join(piece.text.split())
        apart |= piece.text[:1].isspace() or (piece.frame - last) * FRAME_SECONDS > LONGEST_BREAK
        if text and apart:
            texts.append(text)
            frames.append(piece.frame)
        elif text:
            texts[-1] += text
        apart = apart and not text
        last = piece.frame
    starts = [(frame + TEXT_LEAD) * FRAME_SECONDS for frame in frames]
    words = []
    spans = iter(speech)
    span = next(spans, None)
    for text, start, following in zip(texts, starts, [*starts[1:], math.inf], strict=False):
        while span is not None and span[1] <= start:
            span = next(spans, None)
        silent = span[1] if span is not None and span[0] < start + LONGEST_WORD else start + LONGEST_WORD
        end = max(start + FRAME_SECONDS, min(silent, start + LONGEST_WORD))
        words.append(Word(text, round(start, 3), round(min(end, following) if following > start else end, 3)))
    return words


def cues_of(words: Sequence[Word]) -> Sequence[Cue]:
    """Words → subtitles: cut at silence, at the end of a sentence, and before they grow too long to read."""
    cues: list[list[Word]] = []
    for word in words:
        cue = cues[-1] if cues else []
        full = not cue or word.start - cue[-1].end > CUE_GAP or cue[-1].text[-1] in ".?!…"
        if (
            full
            or word.end - cue[0].start > CUE_SECONDS
            or sum(len(item.text) + 1 for item in cue) + len(word.text) > CUE_LETTERS
        ):
            cues.append([word])
        else:
            cue.append(word)
    return cues


def to_txt(words: Sequence[Word]) -> str:
    """One line a subtitle, with the time it begins at."""
    return "".join(f"[{_clock(cue[0].start, '.')}] {_plain(cue)}\n" for cue in cues_of(words))


def to_srt(words: Sequence[Word]) -> str:
    """SubRip."""
    cues = _timed(words)
    return "\n".join(
        f"{n}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_plain(cue)}\n"
        for n, (start, end, cue) in enumerate(cues, 1)
    )


def to_vtt(words: Sequence[Word]) -> str:
    """WebVTT with a time stamp before every word but the first of a subtitle."""
    blocks = ["WEBVTT\n"]
    for start, end, cue in _timed(words):
        text = _escape(cue[0].text)
        at = start
        for word in cue[1:]:
            stamp = f"<{_clock(word.start, '.')}>" if at < word.start < end else ""
            text += f" {stamp}{_escape(word.text)}"
            at = max(at, word.start)
        blocks.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n<v Moshi>{text}</v>\n")
    return "\n".join(blocks)


def to_json(words: Sequence[Word], speech: Mapping[str, Sequence[Span]]) -> str:
    """The words, and when each side speaks."""
    data = {
        "words": [asdict(word) for word in words],
        "speech": {side: [list(span) for span in spans] for side, spans in speech.items()},
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _timed(words: Sequence[Word]) -> Iterator[tuple[float, float, Cue]]:
    """Subtitles that neither overlap nor have no length (words that share a frame would)."""
    cues = cues_of(words)
    start = 0.0
    for cue, following in zip(cues, [*(cue[0].start for cue in cues[1:]), math.inf], strict=False):
        start = max(start, cue[0].start)
        end = max(min(max(cue[-1].end, start + FRAME_SECONDS), following), start + 0.001)
        yield start, end, cue
        start = end


def _clock(seconds: float, mark: str) -> str:
    whole = round(seconds * 1_000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1_000 % 60:02}{mark}{whole % 1_000:03}"


def _plain(cue: Cue) -> str:
    return " ".join(word.text for word in cue).replace("-->", "→")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
