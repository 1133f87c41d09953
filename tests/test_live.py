"""A chat without its terminal: keys, transcript, recording, and that the model stays on one thread."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_kit import Echo, make, until

from moshi_mlx.cli.live import Live
from moshi_mlx.cli.stepper import Memory
from moshi_mlx.realtime import FileDevice
from moshi_mlx.recording.folder import open_recording


def test_a_file_conversation_is_told_and_recorded(tmp_path: Path) -> None:
    """The end of a file left the recording without its pages, or the last words out."""
    live = make(tmp_path, Echo(), 2.0, folder=tmp_path / "rec")
    live.talk.start()
    until(lambda: not live.talk.running)
    view = live.view("linux", {})
    assert view.context == 250
    assert live.end(1.0)
    live.finish(lambda: False, print)
    assert [line.who for line in live.transcript.lines()].count("you") == 1
    said = " ".join(line.text for line in live.transcript.lines() if line.who == "moshi")
    assert said.split() == ["hello"] * 3
    recording = open_recording(tmp_path / "rec")
    assert recording.info.finished
    assert recording.frames == 25
    assert (tmp_path / "rec" / "player.html").exists()
    assert any("25 frames" in line for line in live.summary())


def test_the_model_lives_on_one_thread(tmp_path: Path) -> None:
    """MLX's streams and random state belong to a thread: a step, a reset or a memory reading elsewhere fails on a
    Mac.
    """
    threads: set[int] = set()
    stepper = Echo()
    stepper.threads.clear()

    def measured() -> Memory:
        threads.add(threading.get_ident())
        return Memory(5_100_000_000, 0, 5_400_000_000)

    live = make(tmp_path, stepper, 1.0)
    live._measure = measured
    live.talk.start()
    until(lambda: not live.talk.running)
    assert live.view("linux", {}).memory == "5.1 GB (cache 0.0, peak 5.4)"
    live.end(1.0)
    assert len(stepper.threads) == 1
    assert threads == stepper.threads
    assert threading.get_ident() not in threads


def test_a_real_model_lives_on_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with MLX itself: loading, the self-test, warming up, stepping and measuring, each evaluation's
    thread.
    """
    import mlx.core as mx

    from moshi_mlx.cli.options import add_kv_bits, add_model, add_sampling
    from moshi_mlx.cli.stepper import SessionFactory, facts_of, memory

    threads: set[str] = set()
    for name in ("eval", "get_active_memory", "quantized_matmul", "load"):
        right = getattr(mx, name)

        def noted(*args: Any, right: Callable[..., Any] = right, **known: Any) -> Any:
            threads.add(threading.current_thread().name)
            return right(*args, **known)

        monkeypatch.setattr(mx, name, noted)
    parser = argparse.ArgumentParser()
    add_model(parser)
    add_kv_bits(parser)
    add_sampling(parser)
    live = make(tmp_path, Echo(), 0.4)
    factory = SessionFactory(parser.parse_args(["--seed", "1"]))
    factory.on_ready = lambda session, progress: live.ready(facts_of(session), None)
    device = FileDevice(tmp_path / "in.wav", None)
    real = Live(device, factory, echo=lambda output: ("off", "a file"), live=False, measure=memory)
    real.talk.start()
    until(lambda: not real.talk.running, 60.0)
    real.talk.check()
    assert real.view("linux", {}).memory
    assert real.end(1.0)
    assert threads == {"moshi-engine"}
    assert live.facts is not None
    assert live.facts.seed == 1


def test_a_recording_knows_its_underruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crackle was on the screen and in the log, but nobody could find it in the recording."""
    live = make(tmp_path, Echo(), 0.4, folder=tmp_path / "rec")
    live.talk.start()
    until(lambda: not live.talk.running)
    calm = live.talk.statistics()
    monkeypatch.setattr(live.talk, "statistics", lambda: replace(calm, underruns=2, overruns=1, lag_ms=150.0))
    live.view("linux", {})
    live.view("linux", {})
    assert live.end(1.0)
    xruns = open_recording(tmp_path / "rec").events("xrun")
    assert [event.values for event in xruns] == [{"underruns": 2, "overruns": 1, "lag_ms": 150.0}]


def test_what_is_over_is_told_for_a_while_and_what_lasts_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "reopened Microphone, Loudspeaker" stood on the screen for the rest of the conversation."""
    live = make(tmp_path, Echo(), 0.4)
    live.talk.start()
    until(lambda: not live.talk.running)
    calm = live.talk.statistics()

    def notices(state: str, notice: str) -> list[str]:
        told = replace(calm, state=state, notice=notice)
        monkeypatch.setattr(live.talk, "statistics", lambda: told)
        return [live.view("linux", {}).notice for _ in range(100)]

    lost, back = notices("reopening", "no device"), notices("running", "reopened it")
    assert set(lost) == {"no device"}
    assert back[0] == "reopened it"
    assert back[-1] == ""
    assert live.end(1.0)


def test_a_full_disk_ends_the_recording_not_the_talk(tmp_path: Path) -> None:
    """The conversation died with its recording, or nobody was told."""
    stepper = Echo()
    live = make(tmp_path, stepper, 30.0, realtime=True, folder=tmp_path / "rec")
    live.talk.start()
    until(lambda: stepper.frame > 2)
    assert live._recorder is not None
    live._recorder._fail("no space left")
    at = stepper.frame
    until(lambda: stepper.frame > at + 2)
    view = live.view("linux", {})
    assert not view.recording
    assert "no space left" in view.notice
    live.press("b")
    assert all(line.text != "bookmark" for line in live.transcript.lines())  # it would be kept nowhere
    assert live.end(2.0)
    assert any("no space left" in line for line in live.summary())


def test_pages_are_left_when_it_is_hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after an hour waited for the player page; and a disk full of pages was told as a crash."""
    live = make(tmp_path, Echo(), 0.5, folder=tmp_path / "rec")
    live.talk.start()
    until(lambda: not live.talk.running)
    assert live.end(1.0)
    monkeypatch.setattr("moshi_mlx.cli.live.finish", lambda folder: time.sleep(60))
    began = time.monotonic()
    live.finish(lambda: True, print)
    assert time.monotonic() - began < 5
    assert any("record" in line and "--finish" in line for line in live.summary())
    assert open_recording(tmp_path / "rec").frames == 7

    def full(folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("moshi_mlx.cli.live.finish", full)
    live.finish(lambda: False, print)
    assert any("no space left" in line for line in live.summary())


def test_memory_has_a_unit_that_fits() -> None:
    """The tiny model's memory read "0.0 GB"."""
    assert str(Memory(1_200_000, 300_000, 1_500_000)) == "1.2 MB (cache 0.3, peak 1.5)"
