"""What other threads ask of a conversation: mute, push to talk, pause, reset; and a device that is opened again."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from realtime_kit import Run

from moshi_mlx.frame import RATE, Pcm, Reply, Stepper
from moshi_mlx.realtime import Conversation, VirtualDevice
from moshi_mlx.realtime.capture import Capture
from moshi_mlx.realtime.engine import Watchdog
from moshi_mlx.realtime.jitter import JitterBuffer
from tools.soak_realtime import EchoingStepper, steepest, tone


def test_mute_and_push_to_talk_feed_silence_and_keep_stepping() -> None:
    """Muting that stops the model lets the GPU go cold, and the first words after it come late."""
    run = Run()
    run.device.at(2, lambda: run.talk.mute(True))
    run.device.at(4, lambda: run.talk.mute(False))
    run.device.at(6, lambda: run.talk.push_to_talk(True))
    run.device.at(8, lambda: run.talk.talk(True))
    run.until(10)
    loud = {round(one.seconds): float(np.abs(one.user).max()) > 0.2 for one in run.exchanges if one.seconds % 1 < 0.08}
    assert [loud[second] for second in (1, 3, 5, 7, 9)] == [True, False, True, False, True]
    assert len(run.exchanges) > 122
    assert max(float(np.abs(np.diff(one.user)).max()) for one in run.exchanges) < steepest(RATE, 1)


def test_pause_stops_the_clock_on_both_sides() -> None:
    """After a pause it goes on where it was: what was said meanwhile is not heard, the lag is as before."""
    run = Run()
    run.device.at(3, lambda: run.talk.pause(True))
    states: list[str] = []
    run.device.at(7, lambda: states.append(run.talk.statistics().state))
    run.device.at(13, lambda: run.talk.pause(False))
    run.until(16)
    assert states == ["paused"]
    assert not [one for one in run.exchanges if 3.2 < one.seconds < 12.9]
    assert run.level(4, 12) == 0
    assert run.exchanges[-1].lag_ms == pytest.approx(run.exchanges[20].lag_ms, abs=45)
    assert run.talk.statistics().underruns == 0
    assert run.talk.statistics().dropped_ms == 0
    assert np.abs(np.diff(run.played())).max() < steepest(48_000)


def test_reset_starts_anew_without_a_click_or_an_underrun() -> None:
    """A reset that leaves the old conversation's sound in a buffer says half a sentence more."""
    run = Run()
    run.device.at(3, run.talk.reset)
    run.until(5)
    assert run.stepper.resets == 1
    assert 0 in [one.reply.frame for one in run.exchanges if one.seconds > 2]
    assert run.talk.statistics().dropped_ms > 0  # what the user had said to the old conversation
    assert run.talk.statistics().underruns == 0
    assert np.abs(np.diff(run.played())).max() < steepest(48_000)


def test_a_vanished_device_is_reopened_and_the_conversation_kept() -> None:
    """Unplugged headphones killed the stream for ever; the model's state must survive them."""
    run = Run(gone=[(3, 6.5)])
    notices: list[tuple[str, str]] = []
    run.device.at(6, lambda: notices.append((run.talk.statistics().state, run.talk.statistics().notice)))
    run.until(10)
    assert notices[0][0] == "reopening"
    assert "gone" in notices[0][1]
    statistics = run.talk.statistics()
    assert statistics.reopened == 1
    assert statistics.notice.startswith("reopened")
    assert [one.reply.frame for one in run.exchanges] == list(range(len(run.exchanges)))
    assert run.stepper.resets == 0
    assert run.level(9, 10) > 0.2


def test_the_model_is_made_and_stepped_on_one_thread_and_warm_before_the_device_opens() -> None:
    """MLX arrays of another thread fail; a device opened during a 20 s load overflows before the first step."""
    threads: list[threading.Thread] = []
    stages: list[str] = []

    def factory(report: Callable[[str, float | None], None]) -> Stepper:
        report("load", 0.5)
        stages.append(talk.statistics().stage)
        assert not opened
        threads.append(threading.current_thread())
        return stepper

    class Device(VirtualDevice):
        def open(self) -> None:
            opened.append(True)
            stages.append(talk.statistics().stage)

    class Noting(EchoingStepper):
        def step(self, pcm: Pcm) -> Reply:
            threads.append(threading.current_thread())
            assert not gc.isenabled()  # nothing is collected during a frame
            assert sys.getswitchinterval() < 0.001
            return super().step(pcm)

    opened: list[bool] = []
    device = Device(tone(48_000), lambda block: None)
    stepper = Noting(device.sleep, lambda: 0.01)
    talk = Conversation(device, factory)
    device.at(1, talk.stop)
    before = sys.getswitchinterval()
    talk.start()
    assert talk.wait(20)
    talk.check()
    assert stages == ["load", "audio"]
    assert len(threads) > 5
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    assert gc.isenabled()
    assert sys.getswitchinterval() == before


def test_stopping_while_the_model_loads_ends_it_at_its_next_stage() -> None:
    """Ctrl-C during a download must not wait for the whole of it."""
    entered, release = threading.Event(), threading.Event()

    def factory(report: Callable[[str, float | None], None]) -> Stepper:
        entered.set()
        release.wait(10)
        report("warm up", None)
        raise AssertionError("it went on")

    talk = Conversation(VirtualDevice(tone(48_000), lambda block: None), factory)
    talk.start()
    assert entered.wait(10)
    assert not talk.stop(0.01)
    release.set()
    assert talk.wait(10)
    talk.check()
    assert talk.statistics().state == "stopped"


def test_an_end_while_no_device_is_there_comes_at_once() -> None:
    """The engine slept a second between two attempts, as long as the chat waits for it: q or Ctrl-C while the device
    was lost ended with "failed"."""
    run = Run(gone=[(1, 30)])
    run.device.at(5.05, run.talk.stop)
    run.talk.start()
    assert run.talk.wait(60)
    assert run.device.now() < 5.3
    assert run.talk.statistics().state == "stopped"


def test_a_process_that_stood_still_does_not_take_its_streams_for_dead() -> None:
    """Ctrl-Z, then fg: the callbacks had stood as the loop had, and each return cost a reopened device."""
    capture, playback = Capture(48_000), JitterBuffer(48_000)
    watchdog = Watchdog(SimpleNamespace(capture=capture, playback=playback), 0.0)  # type: ignore[arg-type]

    def lives(at: float, beats: bool = True) -> bool:
        capture.callbacks += beats
        playback.callbacks += beats
        return not watchdog.dead(at)

    assert all(lives(tick / 10) for tick in range(20))
    assert lives(60.0, beats=False)  # nobody asked since 1.9
    assert all(lives(60 + tick / 10, beats=False) for tick in range(10))
    assert not lives(61.1, beats=False)


def test_a_headset_may_take_its_time_to_begin() -> None:
    """A Bluetooth microphone changes the headset's profile, and the loudspeaker stands meanwhile: each was reopened
    before it could begin, for ever."""
    capture, playback = Capture(48_000), JitterBuffer(48_000)
    watchdog = Watchdog(SimpleNamespace(capture=capture, playback=playback), 0.0)  # type: ignore[arg-type]
    playback.callbacks = 1
    assert not any(watchdog.dead(tick / 10) for tick in range(60))
    capture.callbacks = playback.callbacks = 2
    assert not any(watchdog.dead(6 + tick / 10) for tick in range(10))
    assert watchdog.dead(7.1)


def test_a_closed_device_is_counted_once_at_any_moment() -> None:
    """Past counters and loop were two values that changed one after the other: who looked in between, on another
    thread, saw each underrun twice. Here: they are one value, and nothing goes back or counts double."""
    run = Run(lambda now: 0.3 if 1 < now < 1.1 else 0.04, gone=[(3, 6)])
    seen: list[int] = []
    close = run.device.close

    def closing(timeout: float) -> bool:
        seen.append(run.talk.statistics().underruns)
        return close(timeout)

    run.device.close = closing  # type: ignore[method-assign]
    for tenth in range(20, 90):
        run.device.at(tenth / 10, lambda: seen.append(run.talk.statistics().underruns))
    run.until(9)
    assert seen[0] > 0
    assert seen == sorted(seen)
    past, loop = run.talk._engine.opened
    assert loop is not None
    assert past.underruns + loop.counts().underruns == seen[-1]
