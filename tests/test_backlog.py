"""The line of frames that wait for the model."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moshi_mlx.frame import FRAME, Pcm
from moshi_mlx.realtime.capture import Backlog


def test_a_frame_is_left_to_take_after_standing_ones_were_dropped() -> None:
    """`take` dropped what had stood for half a second even when that was the last whole frame, then took half of one:
    a chat on a busy machine ended with "could not broadcast"."""
    backlog = Backlog()
    sound = np.full(FRAME, 0.1, np.float32)
    backlog.append(np.full(2 * FRAME + 480, 0.1, np.float32))
    for _ in range(6):
        backlog.append(sound)
        backlog.take()
    backlog.take()  # two have stood all the time, and nothing came since
    assert backlog.waiting == 480
    assert backlog.appended == FRAME * backlog.taken + backlog.dropped + backlog.dropped_silent + backlog.waiting


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
