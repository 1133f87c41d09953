"""The loudspeaker's side: the jitter buffer's law and its books."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moshi_mlx.frame import FRAME, RATE, Pcm
from moshi_mlx.realtime.fade import FADE
from moshi_mlx.realtime.jitter import JitterBuffer


class Player:
    """A jitter buffer with a loudspeaker that checks what every law of it promises."""

    def __init__(self, rate: int = RATE) -> None:
        self.buffer = JitterBuffer(rate)
        self.total = 0
        self.last = np.float32(0)
        self.steepest = 0.0
        self.phase = 0

    def push(self, keeping_up: bool = True, silent: bool = False) -> None:
        time = np.arange(self.phase, self.phase + FRAME) / RATE
        self.phase += FRAME
        self.buffer.push((0.0 if silent else 0.3) * np.sin(2 * np.pi * 200 * time).astype(np.float32), 0, keeping_up)

    def play(self, count: int) -> Pcm:
        out = np.full((count, 2), np.nan, np.float32)
        self.buffer.fill(out)
        assert np.isfinite(out).all()
        assert np.array_equal(out[:, 0], out[:, 1])
        self.total += count
        self.steepest = max(self.steepest, float(np.abs(np.diff(out[:, 0], prepend=self.last)).max()))
        self.last = out[-1, 0]
        self.check()
        return out[:, 0]

    def check(self) -> None:
        b = self.buffer
        assert b._ring.written + b.lost == b.model + b.inserted
        assert b._ring.consumed == b.read + b.skipped
        assert self.total == b.read + b.starved + b.quiet
        assert 0 <= b._ring.available <= b._ring.capacity
        assert self.steepest <= 0.3 * 2 * np.pi * 200 / RATE + 4 * 0.6 / (RATE * FADE)
        assert b.errors == 0


Schedules = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.booleans()),
        st.tuples(st.just("play"), st.integers(1, 5_000)),
        st.tuples(st.just("pause"), st.booleans()),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(Schedules)
def test_any_schedule_keeps_the_books_and_the_sound_whole(schedule: list[tuple[str, object]]) -> None:
    """Bursts, starvation, pauses and resets in any order: no sample appears or vanishes uncounted, and nothing
    clicks.
    """
    player = Player()
    for kind, value in schedule:
        if kind == "push":
            player.push(keeping_up=bool(value), silent=False)
        elif kind == "play":
            assert isinstance(value, int)
            player.play(value)
        elif kind == "pause":
            player.buffer.paused = bool(value)
        else:
            player.buffer.flush()
        player.check()


def test_the_margin_grows_with_lateness_and_falls_back() -> None:
    """An underrun once meant late frames queued for ever; now the margin takes what was missing, and gives it back."""
    player = Player()
    for turn in range(40):
        player.push()
        player.play(FRAME if turn != 20 else 2 * FRAME)  # one frame comes 80 ms late
    assert player.buffer.underruns == 1
    grown = player.buffer.margin
    assert grown > 50
    for _ in range(2_000):
        player.push()
        player.play(FRAME)
    assert player.buffer.margin < 25
    assert player.buffer.underruns == 1


def test_a_model_that_is_too_slow_does_not_grow_the_margin() -> None:
    """No reserve helps against a model that cannot keep up; the lag would only be higher when it can again."""
    player = Player()
    for _ in range(50):
        player.push(keeping_up=False)
        player.play(FRAME + 480)
    assert player.buffer.underruns > 5
    assert player.buffer.margin == pytest.approx(20)


def test_a_burst_is_cut_to_the_target_at_once() -> None:
    """After a stall the model catches up in a burst: what is too much goes, oldest first, and the newest is heard
    soon.
    """
    player = Player()
    for _ in range(20):
        player.push()
        player.play(FRAME)
    for _ in range(8):
        player.push()
    player.play(480)
    assert player.buffer.ms(player.buffer.waiting) < 20 + 80 + 2 * 80
    assert player.buffer.skipped > 3 * FRAME


def test_a_flush_drops_what_waits_and_is_no_underrun() -> None:
    """After a reset the old conversation must not go on for what the buffer held."""
    player = Player()
    for _ in range(3):
        player.push()
        player.play(480)
    player.buffer.flush()
    assert player.buffer.waiting == 0
    heard = player.play(FRAME)
    assert not heard[round(RATE * FADE) :].any()
    assert player.buffer.underruns == 0


def test_drift_is_made_up_for_in_silence() -> None:
    """A loudspeaker 3,000 ppm slow or fast: the reserve is put right where nobody speaks, without one underrun."""
    for block in (FRAME - 6, FRAME + 6):
        player = Player()
        for turn in range(300):
            player.push(silent=turn % 10 < 4)
            player.play(block)
        assert player.buffer.underruns == 0
        assert player.buffer.ms(player.buffer.waiting) < 60


def test_a_device_that_stopped_leaves_the_buffer_bounded() -> None:
    """Nobody takes: what does not fit is counted as lost, nothing grows."""
    player = Player()
    for _ in range(200):
        player.push()
    player.check()
    assert player.buffer.lost > 0
    assert player.buffer.ms(player.buffer.waiting) <= 400
