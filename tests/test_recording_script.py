"""Scripts: what a user says and when, against a Moshi that speaks at known moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from moshi_mlx.frame import FRAME, FRAME_RATE, MoshiError, Pcm
from moshi_mlx.recording.script import MONOLOGUE, PATIENCE, Line, in_turn, parse_script, perform, say

LOUD = np.sin(np.arange(FRAME)).astype(np.float32) * 0.1
QUIET = np.full(FRAME, 0.001, np.float32)
HELLO = Line("say", name="hello.wav", words="Hello", frames=[LOUD] * 3)


def played(lines: Sequence[Line], speaks: set[int]) -> list[tuple[bool, str]]:
    """(whether the user speaks, what it begins to say) for each frame, with a Moshi that speaks in the frames given."""
    script = perform(lines)
    frames = []
    pcm, said = next(script)
    while True:
        frames.append((bool(pcm.any()), said))
        try:
            pcm, said = script.send(LOUD if len(frames) - 1 in speaks else QUIET)
        except StopIteration:
            return frames


def begins(frames: list[tuple[bool, str]]) -> list[int]:
    return [n for n, (_, said) in enumerate(frames) if said]


def test_pauses_and_words() -> None:
    """Guards against words that are told with every frame of a sound, or a pause of another length."""
    frames = played([HELLO, Line("pause", 0.8), HELLO], set())
    assert [loud for loud, _ in frames] == [True] * 3 + [False] * 10 + [True] * 3
    assert begins(frames) == [0, 13]


def test_wait_is_for_the_end_of_the_answer() -> None:
    """Guards against cutting into an answer at its first breath, or before it began."""
    answer = set(range(8, 20)) | set(range(24, 30))  # a breath of 4 frames
    assert begins(played([HELLO, Line("wait", 0.8), HELLO], answer)) == [0, 40]


def test_interrupt_counts_from_when_moshi_began() -> None:
    """Guards against counting from the question's end, and against a short "hm" starting the count for good."""
    speech = {6} | set(range(20, 60))
    assert begins(played([HELLO, Line("interrupt", 1.2), HELLO], speech)) == [0, 35]


@pytest.mark.parametrize(("kind", "most"), [("wait", MONOLOGUE), ("interrupt", 9)])
def test_a_silent_moshi_holds_nothing_up(kind: str, most: float) -> None:
    """Guards against waiting for ever for a model that says nothing, or that never stops."""
    silent = len(played([Line(kind, 1.0), HELLO], set()))
    assert silent == PATIENCE * FRAME_RATE + 3
    endless = len(played([Line(kind, 9.0), HELLO], set(range(1_000))))
    assert endless == round(most * FRAME_RATE) + 3


def read(path: Path) -> list[Pcm]:
    return [LOUD]


def test_parsing(tmp_path: Path) -> None:
    """Guards against a line that is skipped or misread in silence."""
    (tmp_path / "a.wav").touch()
    (tmp_path / "pause 2.wav").touch()
    (tmp_path / "a.txt").write_text("What is\nMoshi?")
    script = tmp_path / "s.txt"
    script.write_text("# a comment\n\na.wav\n  Pause 1.5 s\nINTERRUPT  after 2\nwait 0.5s\npause 2.wav\n")
    lines = parse_script(script, read)
    assert [(line.kind, line.seconds, line.words) for line in lines] == [
        ("say", 0, "What is Moshi?"),
        ("pause", 1.5, ""),
        ("interrupt", 2, ""),
        ("wait", 0.5, ""),
        ("say", 0, ""),
    ]
    polite = in_turn([say(tmp_path / "a.wav", read)] * 2)
    assert [line.kind for line in polite] == ["say", "wait", "say", "wait"]


def test_the_longest_times(tmp_path: Path) -> None:
    """Guards against a limit meant for waiting that is also one for silence, or that refuses what it names."""
    (tmp_path / "a.wav").touch()
    (tmp_path / "s.txt").write_text("a.wav\npause 3600 s\nwait 30 s\ninterrupt after 30 s\n")
    assert [line.seconds for line in parse_script(tmp_path / "s.txt", read)] == [0, 3_600, 30, 30]


@pytest.mark.parametrize("seconds", [0.0, 0.03])
@pytest.mark.parametrize("kind", ["interrupt", "wait"])
def test_as_soon_as_it_happens(kind: str, seconds: float) -> None:
    """An "interrupt after 0 s" cut in before Moshi said a word."""
    frames = played([Line(kind, seconds)], set(range(20, 40)))
    assert len(frames) == (21 if kind == "interrupt" else 41)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("b.wav", "line 1: 'b.wav' is no sound file"),
        ("pause two s", "line 1"),
        ("pause 1 s", "says nothing"),
        ("", "says nothing"),
        ("\n\npause 99999 s", "line 3"),
        ("\nwait 30.1 s", "line 2: 30.1 s is longer than 30 s, after which a script no longer waits for Moshi"),
        ("interrupt after 45 s", "line 1: 45 s is longer than 30 s, after which"),
        ("/etc\n", "line 1"),
    ],
)
def test_a_faulty_script_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    """Guards against a typing error that becomes a traceback, or a demo that lacks a line."""
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(MoshiError, match=says):
        parse_script(tmp_path / "s.txt", read)
    with pytest.raises(MoshiError, match="cannot be read"):
        parse_script(tmp_path / "none.txt", read)
