"""What the user says in a demonstration, and when: sound files, pauses, and waiting for what Moshi does.

A script is a text file. A line is one of

    hello.wav                 says it (a path beside the script; its words may stand in hello.txt, for the page)
    pause 1.5 s               is silent so long
    wait 1 s                  waits until Moshi has answered and been silent for so long
    interrupt after 1.2 s     waits until Moshi has been speaking for so long; the next line then cuts in

Empty lines and lines that begin with # say nothing. Times are rounded to frames of 80 ms. `wait` and `interrupt`
end after 30 s, whatever Moshi does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..frame import FRAME, FRAME_RATE, MoshiError, Pcm

LONGEST = 3_600.0  # seconds a line may take
MAX_LINES = 10_000
MAX_WORDS_BYTES = 10_000
PATIENCE = 4.0  # seconds in which Moshi may begin to answer before the script goes on
MONOLOGUE = 30.0  # seconds after which the script no longer waits for Moshi
LAST_SILENCE = 1.5  # seconds for which Moshi is silent when a turn, or the recording, is over
HOLD = 0.4  # seconds of quiet inside Moshi's speech that do not end it
SILENCE = np.zeros(FRAME, np.float32)
LOUD = 10 ** (-38 / 20)  # of full scale; the silence of a small codec hums at −46 dB

_TIMED = re.compile(r"(pause|wait|interrupt\s+after)\s+(\d+(?:\.\d+)?)\s*s?", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """One line of a script. kind: say, pause, wait or interrupt. For say: its sound, and what is said in it."""

    kind: str
    seconds: float = 0.0
    name: str = ""
    words: str = ""
    frames: Sequence[Pcm] = ()


# gives (the user's frame, what begins to be said with it or ""), is sent Moshi's frame
Performance = Generator[tuple[Pcm, str], Pcm, None]


def say(path: Path, read: Callable[[Path], Sequence[Pcm]]) -> Line:
    """A sound file as a line; `read` gives its frames. Its words are those of a text file of the same name."""
    beside = path.with_suffix(".txt")
    words = ""
    if beside.is_file() and beside.stat().st_size <= MAX_WORDS_BYTES:
        words = " ".join(beside.read_text(encoding="utf-8", errors="replace").split())
    return Line("say", name=path.name, words=words, frames=read(path))


def parse_script(path: Path, read: Callable[[Path], Sequence[Pcm]]) -> list[Line]:
    """Reads a script. Raises MoshiError that names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MoshiError(f"the script {path} cannot be read: {error}") from None
    lines: list[Line] = []
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.strip()
        if not words or words.startswith("#"):
            continue
        if number > MAX_LINES:
            raise MoshiError(f"{path} has more than {MAX_LINES} lines: make several scripts of it")
        if timed := _TIMED.fullmatch(words):
            kind, seconds = timed[1].split()[0].lower(), float(timed[2])
            longest, why = LONGEST, ""
            if kind != "pause":
                longest, why = MONOLOGUE, ", after which a script no longer waits for Moshi"
            if seconds > longest:
                raise MoshiError(f"{path}, line {number}: {seconds:g} s is longer than {longest:g} s{why}: name less")
            lines.append(Line(kind, seconds))
        elif (path.parent / words).is_file():
            lines.append(say(path.parent / words, read))
        else:
            raise MoshiError(
                f"{path}, line {number}: {words!r} is no sound file beside the script, and none of "
                "'pause 2 s', 'wait 1 s', 'interrupt after 1.2 s'"
            )
    if not any(line.kind == "say" for line in lines):
        raise MoshiError(f"{path} says nothing: name a sound file in it")
    return lines


def in_turn(said: Sequence[Line]) -> list[Line]:
    """Several sound files as a polite conversation: after each, Moshi answers and has been silent for a while."""
    return [line for item in said for line in (item, Line("wait", LAST_SILENCE))]


def perform(lines: Sequence[Line]) -> Performance:
    """Plays a script frame by frame: `next` it once, then `send` it Moshi's sound for each frame it gave."""
    for line in lines:
        if line.kind == "say":
            for number, pcm in enumerate(line.frames):
                yield pcm, "" if number else line.words or line.name
        elif line.kind == "pause":
            for _ in range(round(line.seconds * FRAME_RATE)):
                yield SILENCE, ""
        else:
            yield from _watch(line)


def _watch(line: Line) -> Performance:
    """Silence until Moshi has spoken, or been silent, for so long; or until it is clear that it will not."""
    length = max(1, round(line.seconds * FRAME_RATE))  # 0 s is as soon as it happens
    talking = quiet = 0  # frames that the present speech, or silence, has lasted
    answered = False
    for _ in range(round(MONOLOGUE * FRAME_RATE)):
        heard = yield SILENCE, ""
        loud = bool(np.std(heard) >= LOUD)
        quiet = 0 if loud else quiet + 1
        talking = talking + 1 if loud or (talking and quiet <= HOLD * FRAME_RATE) else 0
        answered |= loud
        gives_up = quiet >= PATIENCE * FRAME_RATE and (line.kind == "interrupt" or not answered)
        if gives_up or (talking if line.kind == "interrupt" else answered and quiet) >= length:
            return
