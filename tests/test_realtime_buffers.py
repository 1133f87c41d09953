"""Rings, resamplers, fades, the jitter buffer and the backlog, each alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moshi_mlx.frame import FRAME, RATE, Pcm
from moshi_mlx.realtime.capture import Backlog, Capture
from moshi_mlx.realtime.fade import FADE, Bridge
from moshi_mlx.realtime.jitter import JitterBuffer
from moshi_mlx.realtime.resample import Resampler
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


@pytest.mark.parametrize(
    "rates", [(48_000, 24_000), (44_100, 24_000), (16_000, 24_000), (24_000, 44_100), (24_000, 96_000)]
)
def test_a_resampler_is_the_same_for_any_blocks_on_time_and_flat(rates: tuple[int, int]) -> None:
    """A stream that depends on its blocks clicks at their seams; one that is late or dull is what soxr's streams
    were.
    """
    source, target = rates
    random = np.random.default_rng(0)
    frequency = 0.42 * min(rates)
    sound = np.sin(2 * np.pi * frequency * np.arange(source // 2) / source).astype(np.float32)
    whole = Resampler(source, target).process(sound)
    stream, pieces, at = Resampler(source, target), [], 0
    while at < len(sound):
        count = int(random.integers(0, 500))
        pieces.append(stream.process(sound[at : at + count]))
        at += count
        complete = min(at, len(sound)) / source - sum(map(len, pieces)) / target
        assert complete <= stream.delay + 1 / target  # nothing is held back beyond the filter
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)
    expected = np.sin(2 * np.pi * frequency * np.arange(len(whole)) / target)
    np.testing.assert_allclose(whole[200:-200], expected[200:-200], atol=0.01)  # the gain is 1, and time has not moved
    assert stream.delay < 0.0015


def test_a_resampler_keeps_out_what_would_alias() -> None:
    """A 14 kHz whistle must not reach the model as 10 kHz."""
    sound = np.sin(2 * np.pi * 14_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(Resampler(48_000, 24_000).process(sound)[200:]).max() < 1e-3


def test_equal_rates_pass_through() -> None:
    """A resampler at equal rates must neither delay nor change."""
    sound = np.random.default_rng(0).normal(size=999).astype(np.float32)
    resampler = Resampler(RATE, RATE)
    assert np.array_equal(resampler.process(sound), sound)
    assert resampler.delay == 0


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans(), st.floats(-1, 1)), min_size=1, max_size=20))
def test_a_bridge_leaves_no_step(stretches: list[tuple[int, bool, float]]) -> None:
    """Joining constant stretches of any height, cut while an older fade still runs, must never jump: that is a
    click.
    """
    bridge, line = Bridge(RATE), [np.zeros(1, np.float32)]
    for length, _, height in stretches:
        samples = np.full(length, height, np.float32)
        bridge.join(samples, cut=True)
        line.append(samples)
    assert np.abs(np.diff(np.concatenate(line))).max() <= 2 / (RATE * FADE) + 1e-6


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


def _frames(*levels: float) -> Pcm:
    return np.repeat(np.array(levels, np.float32), FRAME)


def test_a_backlog_drops_silent_frames_first_then_the_oldest() -> None:
    """Dropping the oldest first lost words while the pauses between them were kept."""
    backlog = Backlog()
    backlog.append(_frames(0.1, 0, 0.3, 0.4, 0, 0.6, 0.7, 0.8, 0.9))
    assert (backlog.dropped_silent, backlog.dropped) == (2 * FRAME, 0)
    backlog.append(_frames(0.95, 0.99))
    assert backlog.dropped > 0
    taken = []
    while backlog.frames:
        frame, cut = backlog.take()
        taken.append((float(frame[-1]), cut))
    assert taken[0][1]  # the beginning was cut away, so it must be faded
    assert [level for level, _ in taken] == sorted(level for level, _ in taken)
    assert backlog.appended == FRAME * backlog.taken + backlog.dropped + backlog.dropped_silent


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 9_000), st.none()), max_size=60))
def test_any_schedule_keeps_the_backlog_bounded_and_its_books(schedule: list[int | None]) -> None:
    """None takes a frame, a number appends samples: bounded and exact in any order."""
    backlog = Backlog()
    for samples in schedule:
        if samples is not None:
            backlog.append(np.random.default_rng(samples).normal(size=samples).astype(np.float32))
        elif backlog.frames:
            backlog.take()
        assert backlog.waiting <= 7 * FRAME
        assert backlog.appended == FRAME * backlog.taken + backlog.dropped + backlog.dropped_silent + backlog.waiting
