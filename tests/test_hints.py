"""What a person is told: echo modes, the slow stage, permissions, Bluetooth."""

from __future__ import annotations

import pytest
from chat_kit import numbers
from realtime_kit import Run

from moshi_mlx.cli.hints import advice, bluetooth_hint, choose_echo, is_headphone, permission_hint, slow_stage


@pytest.mark.parametrize(
    ("name", "headphone"),
    [
        ("External Headphones", True),
        ("Anna's AirPods Pro", True),
        ("Kopfhörer", True),
        ("外部ヘッドフォン", True),
        ("Bose QC45", True),
        ("MacBook Pro Speakers", False),
        ("LG UltraFine Display Audio", False),
        ("default", False),
        ("Jabra Evolve2 65", True),
        ("Beats Studio Pro", True),
        ("Beats Pill", False),
        ("Jabra Speak 510 USB", False),
        ("Jabra SPEAK2 75", False),
        ("Anna's Beats Soundbar", False),
    ],
)
def test_headphones_are_known_by_name(name: str, headphone: bool) -> None:
    """Echo treatment on headphones takes away full duplex for nothing; none on loudspeakers lets Moshi talk to
    itself, and some bear the name of a brand of headphones.
    """
    assert is_headphone(name) is headphone


@pytest.mark.parametrize(
    ("wish", "output", "installed", "mode"),
    [
        ("auto", "MacBook Pro Speakers", True, "cancel"),
        ("auto", "MacBook Pro Speakers", False, "duck"),
        ("auto", "AirPods", True, "off"),
        ("auto", "AirPods", False, "off"),
        ("auto", "", True, "off"),
        ("duck", "AirPods", True, "duck"),
        ("off", "MacBook Pro Speakers", True, "off"),
    ],
)
def test_echo_follows_the_output(wish: str, output: str, installed: bool, mode: str) -> None:
    """`auto` chose cancel without the package, or ducked headphones."""
    chosen, reason = choose_echo(wish, output, installed)
    assert chosen == mode
    assert reason


def test_lag_names_the_slow_stage() -> None:
    """A lag meter that only says "slow" leaves a person to guess: model, sound processing, loudspeaker, a burst."""
    calm = {"frames": 100, "frame_mean": 40.0, "frame_p95": 50.0, "lag_ms": 150.0, "target_ms": 140.0}
    late = {**calm, "lag_ms": 900.0, "capture_ms": 800.0}
    assert slow_stage(numbers(**calm)) == ""
    assert "model takes 95 ms" in slow_stage(numbers(**{**calm, "frame_mean": 95.0}))
    assert "doctor" in slow_stage(numbers(**{**calm, "frame_mean": 95.0}))
    assert "some frames take 190 ms" in slow_stage(numbers(**{**late, "frame_p95": 190.0}))
    assert "catching up" in slow_stage(numbers(**late))
    assert "sound processing takes 30 ms" in slow_stage(numbers(**{**late, "echo_ms": 25.0, "resample_ms": 5.0}))
    assert "loudspeaker" in slow_stage(numbers(**{**late, "capture_ms": 100.0, "playback_ms": 800.0}))


def test_a_model_that_becomes_too_slow_is_named_soon() -> None:
    """A Mac that had got hot lost a fifth of the speech, and for five minutes, until the median tipped, nobody was
    told.
    """
    run = Run(lambda now: 0.05 if now < 60 else 0.1)
    told: list[str] = []
    for at in (59.0, 66.0):
        run.device.at(at, lambda: told.append(slow_stage(run.talk.statistics())))
    run.until(67)
    assert told[0] == ""
    assert "the model takes 99 ms" in told[1]


def test_exact_zeros_name_the_terminal_to_allow() -> None:
    """macOS gives a terminal without permission silence instead of an error."""
    hint = permission_hint("darwin", {"TERM_PROGRAM": "iTerm.app"})
    assert "allow it for iTerm" in hint
    assert "Privacy & Security › Microphone" in hint
    assert "this terminal" in permission_hint("darwin", {})
    assert "tmux kill-server" in permission_hint("darwin", {"TMUX": "/tmp/x", "TERM_PROGRAM": "tmux"})
    assert "over ssh" in permission_hint("darwin", {"SSH_CONNECTION": "a"})
    assert "muted or unplugged" in permission_hint("linux", {})
    assert "muted or unplugged" in permission_hint("darwin", {}, heard=True)  # a switch on the headset


def test_advice_comes_only_where_it_applies() -> None:
    """A file's silence and a muted microphone were taken for a missing permission."""
    zeros = {"input_zero_s": 3.0, "echo": "cancel", "output_name": "Speakers"}
    assert "exact zeros" in advice(numbers(**zeros), True, "darwin", {})
    assert advice(numbers(**zeros), False, "darwin", {}) == ""
    assert advice(numbers(**zeros, muted=True), True, "darwin", {}) == ""
    assert "hear itself" in advice(numbers(echo="off", output_name="Speakers"), True, "linux", {})
    assert advice(numbers(echo="off", output_name="AirPods"), True, "linux", {}) == ""
    assert advice(numbers(echo="off", output_name="Speakers", push_to_talk=True), True, "linux", {}) == ""


def test_bluetooth_microphones_are_called_by_their_cost() -> None:
    """A headset's microphone switches both directions to telephone quality, and people blame the model."""
    assert "Bluetooth" in bluetooth_hint("AirPods Max", 24_000)
    assert "Bluetooth" in bluetooth_hint("Some Headset", 16_000)
    assert bluetooth_hint("MacBook Pro Microphone", 48_000) == ""
    assert bluetooth_hint("default", 0) == ""
