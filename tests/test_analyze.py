"""Voice activity and turn-taking on constructed signals, exact to 20 ms; the timeline picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_kit import tones

from moshi_mlx.frame import MoshiError
from moshi_mlx.recording.activity import find_speech, measure_levels
from moshi_mlx.recording.timeline import timeline_svg
from moshi_mlx.recording.turns import TurnTaking, analyze_levels, take_turns
from moshi_mlx.recording.words import Word

EXACT = 0.02  # seconds


def analyzed(
    path: Path, user: list, moshi: list, seconds: float = 12, rate: int = 24_000, noise: float = 0.0
) -> TurnTaking:
    lanes = [tones(seconds, spans, rate, noise) for spans in (user, moshi)]
    soundfile.write(path, np.stack(lanes, axis=1), rate, subtype="PCM_16")
    return analyze_levels(measure_levels([path]))


@pytest.mark.parametrize(
    ("rate", "noise"), [(24_000, 0.0), (24_000, 1e-3), (16_000, 1e-4), (44_100, 0.0), (22_050, 0.0)]
)
def test_units_are_exact(tmp_path: Path, rate: int, noise: float) -> None:
    """Guards against units that are late by the smoothing of a detector, and against a rate that ten milliseconds do
    not divide.
    """
    user = [(0.503, 2.018), (5.111, 5.4), (6.0, 8.777)]
    moshi = [(2.5, 4.9), (8.2, 11.3)]
    turns = analyzed(tmp_path / "a.wav", user, moshi, rate=rate, noise=noise)
    for side, known in (("user", user), ("moshi", moshi)):
        assert len(turns.units[side]) == len(known)
        assert np.abs(np.array(turns.units[side]) - known).max() <= EXACT


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(8, 200), st.integers(23, 120)), min_size=1, max_size=8))
def test_any_units_are_found_to_20_ms(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, int, int]]
) -> None:
    """Guards against bridging or dropping that depends on where a unit falls between two blocks."""
    known: list[list[tuple[float, float]]] = [[], []]
    at = [0.3, 0.3]
    for lane, length, silence in plan:
        start = at[lane]
        known[lane].append((start, start + length * 0.0107))
        at[lane] = start + length * 0.0107 + silence * 0.0103
    path = tmp_path_factory.mktemp("units") / "a.wav"
    turns = analyzed(path, known[0], known[1], seconds=max(at) + 0.3)
    for side, spans in zip(("user", "moshi"), known, strict=True):
        assert len(turns.units[side]) == len(spans)
        assert not spans or np.abs(np.array(turns.units[side]) - spans).max() <= EXACT


def test_pauses_gaps_overlaps_and_responses(tmp_path: Path) -> None:
    """Guards against a pause counted as a gap, and an overlap counted on the wrong side or twice."""
    user = [(0.5, 2.0), (2.6, 3.5), (6.0, 9.0)]
    moshi = [(4.0, 6.5), (8.6, 11.0)]
    turns = analyzed(tmp_path / "a.wav", user, moshi)
    found = [(item.kind, item.side, item.start, item.end) for item in turns.stretches]
    known = [
        ("pause", "user", 2.0, 2.6),
        ("gap", "moshi", 3.5, 4.0),
        ("between", "user", 6.0, 6.5),
        ("between", "moshi", 8.6, 9.0),
    ]
    assert [item[:2] for item in found] == [item[:2] for item in known]
    assert np.abs(np.array([item[2:] for item in found]) - [item[2:] for item in known]).max() <= EXACT
    assert [(item.side, pytest.approx(item.delay, abs=EXACT)) for item in turns.responses] == [
        ("moshi", 0.5),
        ("user", -0.5),
        ("moshi", -0.4),
    ]
    figures = turns.summary()
    assert figures["overlaps"]["count"] == 2
    assert figures["overlaps"]["seconds"] == pytest.approx(0.9, abs=2 * EXACT)
    assert figures["overlaps"]["seconds_per_minute"] == pytest.approx(0.9 * 5, abs=0.2)
    assert figures["moshi"]["response_p50"] == pytest.approx(0.05, abs=EXACT)
    assert figures["user"]["speaking_share"] == pytest.approx(5.4 / 12, abs=0.005)


def test_interruptions_and_who_yields() -> None:
    """Guards against a talker who goes on being counted as one who yields, and the reverse after a short "stop!"."""
    units = {"user": [(2.0, 3.0), (6.0, 6.5), (10.0, 11.5)], "moshi": [(0.0, 2.4), (4.0, 6.9), (9.0, 15.0)]}
    turns = take_turns(units, 16)
    assert [(item.side, item.at, item.yields, pytest.approx(item.after)) for item in turns.interruptions] == [
        ("user", 2.0, "moshi", 0.4),
        ("user", 6.0, "moshi", 0.9),
        ("user", 10.0, "user", 1.5),
    ]
    figures = turns.summary()["user"]
    assert (figures["interruptions"], figures["other_yields"], figures["backchannels"]) == (3, 2, 0)
    assert figures["other_yields_p50"] == pytest.approx(0.65)


def test_a_breath_is_no_yielding() -> None:
    """Guards against an interruption that Moshi ignored and that counts as honoured, because it took a breath."""
    turns = take_turns({"user": [(2.0, 3.2)], "moshi": [(0.0, 2.6), (2.85, 9.0)]}, 10)
    assert [(item.side, item.at, item.yields) for item in turns.interruptions] == [("user", 2.0, "user")]
    turns = take_turns({"user": [(2.0, 2.3), (2.6, 5.0)], "moshi": [(0.0, 3.1)]}, 10)
    assert [(item.side, item.at, item.yields) for item in turns.interruptions] == [("user", 2.0, "moshi")]
    turns = take_turns({"user": [(2.0, 2.3), (2.6, 5.0)], "moshi": [(0.0, 4.0)]}, 10)  # an "mm" before cutting in
    assert [(item.side, item.at, item.yields) for item in turns.interruptions] == [("user", 2.6, "moshi")]


def test_backchannels_take_no_floor() -> None:
    """Guards against a "mm-hm" that counts as an interruption, or that shortens the response times."""
    units = {"user": [(0.0, 4.0), (4.3, 8.0)], "moshi": [(2.0, 2.4), (3.9, 4.2), (8.5, 10.0)]}
    turns = take_turns(units, 12)
    assert turns.backchannels == {"user": [], "moshi": [(2.0, 2.4), (3.9, 4.2)]}
    assert turns.interruptions == []
    assert [(item.side, pytest.approx(item.delay)) for item in turns.responses] == [("moshi", 0.5)]
    assert [item.kind for item in turns.stretches] == ["within", "between", "gap", "gap"]


def test_a_change_of_turns_with_a_short_overlap_is_no_interruption() -> None:
    """Guards against every early answer being called an interruption."""
    turns = take_turns({"user": [(0.0, 3.0)], "moshi": [(2.85, 5.0)]}, 6)
    assert turns.interruptions == []
    assert turns.responses[0].delay == pytest.approx(-0.15)


def test_clicks_offsets_and_silence(tmp_path: Path) -> None:
    """Guards against a click or a microphone's constant offset being taken for speech."""
    lanes = np.zeros((48_000, 2), np.float32)
    lanes[:, 1] = 0.2  # offset
    lanes[20_000:20_400, 0] = 0.5
    lanes[20_100:20_200, 0] = -0.5
    soundfile.write(tmp_path / "a.wav", lanes, 24_000)
    turns = analyze_levels(measure_levels([tmp_path / "a.wav"]))
    assert turns.units == {"user": [], "moshi": []}
    assert turns.summary()["moshi"]["response_p50"] is None


def test_the_floor_follows_a_noisy_lane() -> None:
    """Guards against a fan that speaks for the whole recording."""
    level = np.full(1_000, -57.0, np.float32)
    level[300:400] = -30
    assert find_speech(level, 0.01) == [(3.0, 4.0)]


def test_the_floor_is_not_that_of_a_muted_microphone() -> None:
    """Guards against a room that speaks throughout, because a third of the lane is digital silence."""
    level = np.full(3_000, -50.0, np.float32) + np.random.default_rng(0).normal(0, 0.5, 3_000).astype(np.float32)
    level[1_000:1_100] = -25
    level[1_500:2_500] = -120
    assert find_speech(level, 0.01) == [(10.0, 11.0)]


def test_a_codec_that_hums_is_not_speaking(tmp_path: Path) -> None:
    """Guards against a Moshi that speaks without end: the tiny codec's silence is a steady −46 dB."""
    lanes = np.stack([tones(9, [(1, 2)]), tones(9, [(2.5, 5)])], axis=1)
    hum = np.sin(2 * np.pi * 100 * np.arange(len(lanes)) / 24_000) * 0.005 * np.sqrt(2)
    soundfile.write(tmp_path / "a.wav", lanes + hum[:, None], 24_000)
    turns = analyze_levels(measure_levels([tmp_path / "a.wav"]))
    assert turns.units["moshi"] == [pytest.approx((2.5, 5), abs=EXACT)]
    assert turns.responses[0].delay == pytest.approx(0.5, abs=EXACT)


def test_mono_and_damaged_files_are_refused(tmp_path: Path) -> None:
    """Guards against a traceback, or figures made from one channel."""
    soundfile.write(tmp_path / "mono.wav", np.zeros(100), 24_000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF but no more")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 2)), 24_000)
    for name, says in (
        ("mono.wav", "needs two"),
        ("bad.wav", "convert it"),
        ("empty.wav", "no sound"),
        ("no", "cannot"),
    ):
        with pytest.raises(MoshiError, match=says):
            measure_levels([tmp_path / name])


def test_the_timeline_is_well_formed_and_complete() -> None:
    """Guards against text that breaks the XML, and units that fall between two rows of the picture."""
    units = {"user": [(0.0, 21.0)], "moshi": [(14.0, 24.0), (39.0, 41.0)]}
    words = [Word('<b>&"', 14.0, 15.0), Word("next", 39.5, 40.0)]
    svg = timeline_svg(take_turns(units, 42), words, "A <title> & more")
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    bars = [item for item in root.iter(f"{space}rect") if item.get("class") == "moshi"]
    assert len(bars) == 2 + 2 + 1  # both units cross a row's end; one more in the legend
    texts = [item.text for item in root.iter(f"{space}text")]
    assert "A <title> & more" in texts
    assert '<b>&"' in texts
    assert "✕" in texts
