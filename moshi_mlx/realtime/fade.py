"""The short fade at every cut: whatever is joined to whatever, the line goes on where it was."""

from __future__ import annotations

import numpy as np

from ..frame import Pcm

FADE = 0.005  # seconds
PIECE = 1_024  # samples a call at most, so that nothing allocated grows with a device's block


class Bridge:
    """Joins stretches of sound without a step: after a cut the difference to the last sample is added and fades out
    linearly.

    The slope it adds is at most 2 / (rate × FADE) a sample. The memory is allocated once.
    """

    def __init__(self, rate: int) -> None:
        length = max(1, round(rate * FADE))
        self._ramp = np.linspace(1, 0, length, endpoint=False, dtype=np.float32)
        self._added = np.zeros(PIECE, np.float32)
        self._left = 0  # samples of the ramp still to come
        self._height = np.float32(0)
        self._last = np.float32(0)

    def join(self, samples: Pcm, cut: bool) -> None:
        """Changes samples (n,) in place, n ≤ PIECE; cut: they do not continue the ones before."""
        if len(samples) == 0:
            return
        if cut:
            self._height = self._last - samples[0]
            self._left = len(self._ramp)
        if self._left:
            count = min(self._left, len(samples))
            start = len(self._ramp) - self._left
            added = self._added[:count]
            np.multiply(self._ramp[start : start + count], self._height, out=added)
            np.add(samples[:count], added, out=samples[:count])
            np.clip(samples[:count], -1, 1, out=samples[:count])
            self._left -= count
        self._last = samples[-1]
