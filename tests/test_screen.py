"""The chat screen, drawn from numbers: sizes, wide letters, what must never be cut off, and what a terminal is sent."""

from __future__ import annotations

import re

import pytest
from chat_kit import busy, numbers, view
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from moshi_mlx.cli.options import DEMONSTRATION, QUESTIONS
from moshi_mlx.cli.screen import View, clock, render
from moshi_mlx.cli.transcript import Heard, Line, Transcript
from tools.train_tiny.script import pairs

SIZES = ((80, 24), (120, 40), (50, 15))


def text_of(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_busy_screen_fits_and_keeps_what_matters(width: int, height: int) -> None:
    """At 50 columns lines wrapped by themselves, pushed the keys off the screen, or left no room for the
    conversation.
    """
    lines = render(busy(), width, height)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    shown = text_of(lines)
    for word in ("Moshi", "● live", "● rec", "1:01:52", "lag 1320 ms", "bookmark", "quit", "lighter checkpoint"):
        assert word in shown, word
    if width >= 80:
        for word in (
            "misses 212",
            "underruns 17",
            "dropped 12480 ms",
            "the last 04:00",
            "5.1 GB",
            "spoke 1.4 s",
            "reset",
        ):
            assert word in shown, word


@given(st.integers(1, 140), st.integers(1, 60), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_size_gives_as_many_lines_none_too_wide(width: int, height: int, help_page: bool) -> None:
    """A window dragged to a sliver ended the chat with an exception in the drawing."""
    busy_view = busy()
    lines = render(
        View(**{**{n: getattr(busy_view, n) for n in busy_view.__slots__}, "help": help_page}), width, height
    )
    assert len(lines) == height
    assert all(line.cell_len <= max(width, 1) for line in lines)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_newcomer_reads_what_the_demonstration_knows(width: int, height: int) -> None:
    """Who said anything else than what no page of the program told heard "Sorry, I did not understand." and thought
    it broken; and it claimed "a few dozen questions" of 324."""
    phrases = [question for pair in pairs() for question in pair.questions]
    assert f"{len(phrases)} questions" in DEMONSTRATION
    tried = re.findall('"(.+?)"', QUESTIONS)
    assert len(tried) == 3
    assert {words.lower() for words in tried} <= set(phrases)
    fresh = {"now": numbers(frames=3), "banner": f"{DEMONSTRATION}; …"}
    shown = " ".join(text_of(render(view(**fresh, known=QUESTIONS), width, height)).split())
    assert f"Speak: Moshi listens. Try {QUESTIONS}." in shown
    assert "Try" not in text_of(render(view(now=numbers(frames=3)), width, height))  # a real model knows more


def test_help_names_every_key_on_the_smallest_screen() -> None:
    """The help page was cut off below its fourth line where it was needed most."""
    shown = text_of(render(view(now=numbers(frames=3), help=True), 50, 15))
    for key in ("m ", "space", "p ", "r ", "b ", "d ", "h ", "q "):
        assert f"\n  {key}" in shown, key
    assert "…" not in shown


def test_advice_that_stands_hides_no_notice() -> None:
    """A Bluetooth microphone's advice stands for the whole conversation; behind it the disk ran full."""
    for height in (12, 40):
        shown = "\n".join(line.plain for line in render(view(notice="disk full", advice="a Bluetooth"), 80, height))
        assert "disk full" in shown
        assert "a Bluetooth" in shown


def test_states_are_words_not_only_colours() -> None:
    """On a colourless terminal muted and live looked alike."""
    for known, word in (
        ({"muted": True}, "muted"),
        ({"paused": True, "state": "paused"}, "paused"),
        ({"push_to_talk": True}, "space talks"),
        ({"push_to_talk": True, "talking": True}, "talking"),
        ({"state": "reopening"}, "reopening"),
    ):
        assert word in render(view(now=numbers(**known)), 80, 24)[0].plain


def test_the_start_shows_its_stages_with_progress() -> None:
    """A 5 GB load was a black screen."""
    start = view(now=numbers(state="starting", stage="load", stage_done=0.43), stages=["import", "load"])
    shown = text_of(render(start, 80, 24))
    for part in ("✓ import", "… load", "43%"):
        assert part in shown


def test_no_echo_mode_is_claimed_before_there_is_a_loudspeaker() -> None:
    for name, shown in (("", "echo …"), ("Headphones", "echo off")):
        now = numbers(output_name=name, echo="off")  # which would be read as what was chosen
        assert shown in " ".join(text_of(render(view(now=now, numbers=now), 120, 40)).split())


def test_control_characters_never_reach_the_terminal() -> None:
    """A model whose tokens are bytes, or a device with a strange name, could move the cursor or set the window's
    title.
    """
    evil = "\x1b]0;owned\x07\x1b[2J\u202eabc\r\n"
    transcript = Transcript()
    transcript.add(Heard(0.0, 0.1, evil, -90.0))
    transcript.finish()
    now = numbers(input_name=evil, output_name=evil, frames=5, notice=evil)
    shown = text_of(render(view(now=now, lines=transcript.lines(), title=evil, notice=evil), 80, 24))
    assert not set(shown) & set("\x1b\x07\r\u202e")


def test_clock_has_hours_only_when_there_are_any() -> None:
    """An hour-long talk showed 61:01 or 00:00:05."""
    assert (clock(5), clock(754.9), clock(3661)) == ("00:05", "12:34", "1:01:01")


def shown(frames: int, loud: range, pieces: dict[int, str], quiet: float = -90.0) -> list[tuple[str, str]]:
    """The lines (who, text) of so many frames: those in which the user is loud, Moshi's pieces by frame."""
    transcript = Transcript()
    for frame in range(frames):
        second = frame * 0.08
        transcript.add(Heard(second, second, pieces.get(frame, ""), -20.0 if frame in loud else quiet))
        transcript.advance(second)
    transcript.finish()
    return [(line.who, line.text) for line in transcript.lines()]


class TestTranscript:
    def test_words_show_when_their_sound_is_heard(self) -> None:
        """Text ran ahead of its sound by the whole lag."""
        transcript = Transcript()
        transcript.add(Heard(1.0, 1.3, "Hello", -90.0))
        transcript.advance(1.2)
        assert transcript.lines() == []
        transcript.advance(1.3)
        assert transcript.lines() == [Line(1.3, "moshi", "Hello")]

    def test_a_new_conversation_begins_without_words_of_the_old(self) -> None:
        """What Moshi was about to say stood below "a new conversation", though nobody heard it."""
        transcript = Transcript()
        transcript.add(Heard(1.0, 1.1, "The capital", -90))
        transcript.add(Heard(1.1, 1.5, " of France", -90))
        transcript.advance(1.2)
        transcript.add(Heard(1.3, 1.4, "", -90, anew=True))
        transcript.finish()
        assert [(line.who, line.text) for line in transcript.lines()] == [
            ("moshi", "The capital"),
            ("note", "a new conversation"),
        ]

    def test_turns_make_lines(self) -> None:
        """Everything Moshi ever said stood in one endless line."""
        said = shown(200, range(40, 60), {10: " Yes", 12: " sir", 100: " Next"})
        assert said == [("moshi", "Yes sir"), ("you", "spoke 1.5 s"), ("moshi", "Next")]

    def test_an_mm_hm_does_not_cut_a_word(self) -> None:
        """Moshi's line was closed in the middle of a word: The capital is To · kyo."""
        said = shown(80, range(13, 20), {10: " The cap", 22: "ital is To", 40: "kyo.", 41: " Yes."})
        assert said == [("moshi", "The capital is Tokyo."), ("you", "spoke 0.5 s"), ("moshi", "Yes.")]

    def test_lines_are_in_their_order(self) -> None:
        """An answer that began before a turn of the user's was known to be over stood above it."""
        assert [who for who, _ in shown(60, range(20), {25: " Sorry,"})] == ["you", "moshi"]

    def test_a_loud_room_is_no_user(self) -> None:
        """Above −45 dB the room itself was one endless turn, and nobody's turns were shown."""
        said = shown(1_000, range(600, 620), {}, quiet=-44.0)
        assert [text for _, text in said][-1:] == ["spoke 1.5 s"]
        assert len(said) <= 2

    def test_a_click_is_no_turn(self) -> None:
        """Every key press in the room made a line."""
        assert shown(50, range(10, 11), {}) == []

    def test_an_endless_talk_stays_bounded(self) -> None:
        """The display kept every word of an hour-long talk."""
        transcript = Transcript()
        for frame in range(20_000):
            transcript.add(Heard(frame * 3.0, frame * 3.0, "word", -90.0))
            transcript.advance(frame * 3.0)
        assert len(transcript.lines()) <= 501
