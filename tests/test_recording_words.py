"""Words, their times and the transcript files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_kit import dialogue

from moshi_mlx.recording.finish import finish
from moshi_mlx.recording.folder import Piece
from moshi_mlx.recording.words import Word, cues_of, to_srt, to_txt, to_vtt, words_of

FRAME_SECONDS = 0.08
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
pieces = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([" ", ""]), texts | st.sampled_from(["-->", "<b>", "&", "\n\n", "1"]))
)


def test_a_word_is_heard_one_frame_after_its_token() -> None:
    """Guards against times taken from the step alone, or from the piece that ends a word."""
    words = words_of([Piece(9, " Hel"), Piece(10, "lo"), Piece(10, ","), Piece(14, " you"), Piece(15, ".")])
    assert [word.text for word in words] == ["Hello,", "you."]
    for word, step in zip(words, (9, 14), strict=True):
        assert abs(word.start - (step + 1) * FRAME_SECONDS) <= FRAME_SECONDS
        assert word.start == pytest.approx((step + 1) * FRAME_SECONDS)
    assert words[0].end == words[1].start


def test_a_word_ends_when_moshi_falls_silent() -> None:
    """Guards against a last word that stays lit until the next answer."""
    words = words_of([Piece(9, " one"), Piece(12, " two"), Piece(99, " three")], [(0.7, 1.5), (8.0, 8.3)])
    assert [word.end for word in words] == pytest.approx([1.04, 1.5, 8.3])


def test_text_without_spaces_is_cut_at_silence() -> None:
    """Guards against an hour of Japanese as a single word."""
    assert [word.text for word in words_of([Piece(0, "a"), Piece(1, " "), Piece(2, "b")])] == ["a", "b"]
    assert [word.text for word in words_of([Piece(0, "はい"), Piece(3, "そう"), Piece(40, "では")])] == [
        "はいそう",
        "では",
    ]


@settings(max_examples=60, deadline=None)
@given(pieces)
def test_subtitles_pass_strict_parsers(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, str, str]]
) -> None:
    """Guards against text that breaks a subtitle file, and subtitles that overlap, run backwards or have no length."""
    frame, made = 0, []
    for step, space, text in drawn:
        frame += step
        made.append(Piece(frame, space + text))
    words = words_of(made)
    cues = cues_of(words)
    parsed = list(srt.parse(to_srt(words), ignore_errors=False))
    assert len(parsed) == len(cues)
    assert [item.index for item in parsed] == list(range(1, len(cues) + 1))
    for item, following in itertools.pairwise(parsed):
        assert item.start < item.end <= following.start
    path = tmp_path_factory.mktemp("vtt") / "a.vtt"
    path.write_text(to_vtt(words), encoding="utf-8")
    captions = webvtt.read(str(path))
    assert len(captions) == len(cues)
    for caption, item in zip(captions, parsed, strict=True):
        assert caption.voice == "Moshi"
        assert caption.start_in_seconds == item.start.seconds
    assert to_txt(words).count("\n") == len(cues)


def test_the_time_stamps_inside_a_vtt_cue_are_in_order() -> None:
    """Guards against a player that shows a word before it is said: stamps lie inside their cue and rise."""
    text = to_vtt([Word("a", 1.0, 1.1), Word("b", 1.0, 1.2), Word("c<", 1.2, 1.4), Word("d", 1.4, 1.5)])
    assert "00:00:01.000 --> 00:00:01.500\n<v Moshi>a b <00:00:01.200>c&lt; <00:00:01.400>d</v>" in text


def test_the_files_of_a_dialogue(tmp_path: Path) -> None:
    """Guards against a transcript file that misses words that another has."""
    folder = dialogue(tmp_path / "r")
    found = finish(folder)
    data = json.loads((folder / "transcript.json").read_text())
    assert [Word(**word) for word in data["words"]] == list(found.words)
    assert data["speech"]["user"][0] == pytest.approx([0.8, 2.4], abs=0.02)
    said = " ".join(word.text for word in found.words)
    assert " ".join(item.content for item in srt.parse((folder / "transcript.srt").read_text())) == said
    assert (folder / "transcript.txt").read_text().startswith("[00:00:02.880] Full duplex means")
    assert found.turns.summary()["user"]["interruptions"] == 1
