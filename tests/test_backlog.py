"""The line of frames that wait for the model."""

from __future__ import annotations

import numpy as np

from moshi_mlx.frame import FRAME
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
