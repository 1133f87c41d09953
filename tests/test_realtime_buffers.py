"""What the callbacks touch: the ring, the signal, and what they do themselves."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moshi_mlx.frame import RATE
from moshi_mlx.realtime.capture import Capture
from moshi_mlx.realtime.jitter import JitterBuffer
from moshi_mlx.realtime.ring import Ring, Signal

Operations = st.lists(st.tuples(st.sampled_from(["write", "read", "skip"]), st.integers(0, 40)), max_size=60)


@given(Operations)
def test_a_ring_is_a_bounded_queue(operations: list[tuple[str, int]]) -> None:
    """Guards the wrap-around: a ring that loses, repeats or reorders samples at its seam crackles for ever."""
    ring, model, sent = Ring(29), [], 0
    for kind, count in operations:
        if kind == "write":
            samples = np.arange(sent, sent + count, dtype=np.float32)
            fitted = ring.write(samples)
            assert fitted == min(count, 29 - len(model))
            model += samples[:fitted].tolist()
            sent += fitted
        elif kind == "read":
            out = np.zeros(count, np.float32)
            got = ring.read(out)
            assert got == min(count, len(model))
            assert out[:got].tolist() == model[:got]
            model = model[got:]
        else:
            skipped = ring.skip(count)
            model = model[skipped:]
        assert ring.available == len(model)


def test_a_signal_wakes_once_and_setting_twice_is_harmless() -> None:
    """A callback that sets a set signal must not raise: the second release of a lock does."""
    signal = Signal()
    assert not signal.wait(0)
    signal.set()
    signal.set()
    assert signal.wait(0)
    assert not signal.wait(0)


def test_the_callbacks_allocate_the_same_for_any_block() -> None:
    """A callback whose memory grows with the block gets slower when the system is already late."""

    def peak(count: int) -> int:
        capture, playback = Capture(48_000), JitterBuffer(48_000)
        playback.reference = Ring(48_000)
        heard, played = np.zeros((count, 2), np.float32), np.zeros((count, 2), np.float32)
        capture.write(heard)
        playback.fill(played)
        tracemalloc.start()
        capture.write(heard)
        playback.fill(played)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(16_384) < peak(64) + 2_000


def test_a_callback_never_raises_and_always_fills() -> None:
    """An exception in a PortAudio callback ends the stream without a word; nonsense from the outside is counted
    instead.
    """
    capture, playback = Capture(RATE), JitterBuffer(RATE)
    capture.write(np.zeros(5, np.float32))  # no channels
    playback._ring = None  # type: ignore[assignment]
    out = np.full((64, 2), 7, np.float32)
    playback.fill(out)
    assert capture.errors == playback.errors == 1
    assert not out.any()


def test_stereo_is_mixed_and_overruns_are_counted() -> None:
    """A microphone on one channel of an interface must be heard; a full ring must say so."""
    capture = Capture(1_000)
    capture.write(np.column_stack([np.full(100, 0.5, np.float32), np.zeros(100, np.float32)]))
    heard = np.zeros(100, np.float32)
    capture.ring.read(heard)
    assert heard == pytest.approx(0.25)
    capture.write(np.zeros((3_000, 1), np.float32))
    assert (capture.overruns, capture.overrun) == (1, 1_000)
    assert capture.captured == capture.ring.consumed + capture.ring.available + capture.overrun
