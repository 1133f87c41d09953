"""The keys of a chat."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chat_kit import Echo, make, until

from moshi_mlx.cli.live import HELD
from moshi_mlx.recording.folder import open_recording


def test_keys_do_what_they_say(tmp_path: Path) -> None:
    """Keys: mute and talk did not come back, reset broke a recording's frame numbers, a mark was lost."""
    stepper = Echo()
    live = make(tmp_path, stepper, 30.0, realtime=True, folder=tmp_path / "rec")
    live.talk.start()
    until(lambda: stepper.frame > 3)
    live.press("M")  # with Caps Lock, and below on a Russian keyboard
    until(lambda: stepper.heard[-1] == 0)
    assert live.view("linux", {}).now.muted
    time.sleep(HELD)
    live.press("ь")
    until(lambda: stepper.heard[-1] > 0)
    live.talk.push_to_talk(True)
    until(lambda: stepper.heard[-1] == 0)
    live.press(" ")
    until(lambda: stepper.heard[-1] > 0)
    live.talk.push_to_talk(False)
    live.press("p")
    until(lambda: live.view("linux", {}).now.state == "paused")
    stood = len(stepper.heard)
    time.sleep(0.2)
    assert len(stepper.heard) <= stood + 1
    live.press("p")
    live.press("b")
    before = len(stepper.heard)
    live.press("r")
    until(lambda: stepper.frame < before and len(stepper.heard) > before + 2)
    live.press("d")
    until(lambda: live.view("linux", {}).now.reopened == 1)
    live.press("h")
    assert live.view("linux", {}).help
    live.press("x")
    assert not live.quit
    live.press("q")
    assert live.quit
    assert live.end(2.0)
    recording = open_recording(tmp_path / "rec")
    assert next(event.label for event in recording.events("mark")).startswith("bookmark at 00:0")
    assert len(recording.events("reset")) == 1
    assert recording.frames == len(stepper.heard)
    assert [line.text for line in live.transcript.lines() if line.who == "note"] == ["bookmark", "a new conversation"]


def test_a_key_that_is_held_is_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holding the space bar to talk switched the microphone thirty times a second, and left it as chance would."""
    live = make(tmp_path, Echo(), 0.4)
    clock = [100.0]
    monkeypatch.setattr("moshi_mlx.cli.live.time.monotonic", lambda: clock[0])
    live.talk.push_to_talk(True)

    def talking(after: float, key: str = "") -> bool:
        clock[0] += after
        if key:
            live.press(key)
        return live.view("linux", {}).now.talking

    assert talking(0, " ")
    assert talking(0.5, " ")
    assert all(talking(0.033, " ") for _ in range(30))
    assert not talking(0.25)  # let go
    assert talking(1, " ")  # a tap
    assert talking(3)
    talking(0, " ")
    assert not talking(0.25)  # and another
    live.press("m")
    assert all(talking(0.033, "m") is False for _ in range(30))
    assert live.view("linux", {}).now.muted
