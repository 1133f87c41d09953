"""The microphone's side: what the callback does, and the line of frames that wait for the model."""

from __future__ import annotations

import numpy as np

from ..frame import FRAME, Pcm
from .fade import PIECE, Bridge
from .jitter import SILENCE
from .ring import Ring, Signal

_MOST_FRAMES = 6  # whole frames that may wait
_LOOKBACK = 6  # frames, half a second: what waits for all of it stands, and is dropped


class Capture:
    """`write` belongs to the callback, all else to the engine's thread. Samples at the device's rate, mono.

    captured = consumed by the reader + waiting + overrun + paused_samples.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.ring = Ring(2 * rate)
        self.signal = Signal()
        self.wake_at = 1  # samples that must wait before the signal is set
        self.paused = False
        self.captured = self.overrun = self.overruns = self.paused_samples = 0
        self.callbacks = self.block = self.errors = 0
        self._scratch = np.zeros(PIECE, np.float32)
        self._bridge = Bridge(rate)
        self._cut = False  # samples were left out before the next

    def write(self, block: Pcm) -> None:
        """Takes a block (n, channels), whatever happens; the mean of the channels is kept."""
        self.callbacks += 1
        self.block = max(self.block, len(block))
        try:
            self.captured += len(block)
            if self.paused:
                self.paused_samples += len(block)
                self._cut = True
            else:
                self._mix(block)
            if self.ring.available >= self.wake_at:
                self.signal.set()
        except Exception:
            self.errors += 1

    def _mix(self, block: Pcm) -> None:
        channels, lost = block.shape[1], 0
        for start in range(0, len(block), PIECE):
            piece = self._scratch[: min(PIECE, len(block) - start)]
            piece[:] = block[start : start + len(piece), 0]
            for channel in range(1, channels):
                np.add(piece, block[start : start + len(piece), channel], out=piece)
            if channels > 1:
                np.multiply(piece, np.float32(1 / channels), out=piece)
            self._bridge.join(piece, self._cut)
            missing = len(piece) - self.ring.write(piece)
            self._cut = missing > 0
            lost += missing
        self.overrun += lost
        self.overruns += lost > 0


class Backlog:
    """Captured sound at 24 kHz that waits to be stepped: a bounded line of frames and the beginning of one more.

    appended = 1,920 × taken + dropped_silent + dropped + waiting.
    """

    def __init__(self) -> None:
        self._line = np.zeros((_MOST_FRAMES + 1) * FRAME, np.float32)
        self._cuts = [False] * (_MOST_FRAMES + 2)  # for each frame in the line: it does not continue the one before
        self._standing: list[int] = []  # whole frames left waiting after each of the last takes
        self.waiting = self.appended = self.dropped = self.dropped_silent = self.taken = 0

    @property
    def frames(self) -> int:
        """Whole frames that wait."""
        return self.waiting // FRAME

    def append(self, pcm: Pcm) -> None:
        """Adds (n,) samples; where they do not fit, frames are dropped."""
        self.appended += len(pcm)
        for start in range(0, len(pcm), FRAME):
            piece = pcm[start : start + FRAME]
            if self.waiting + len(piece) > len(self._line):
                self._drop(1)
            self._line[self.waiting : self.waiting + len(piece)] = piece
            self.waiting += len(piece)

    def take(self) -> tuple[Pcm, bool]:
        """The frame to step next, a new array, and whether it does not continue the one before. Needs `frames` ≥ 1.

        First drops what has stood for half a second.
        """
        if len(self._standing) == _LOOKBACK:
            self._drop(min(*self._standing, self.frames - 1))  # one stays to be taken
        frame, cut = self._line[:FRAME].copy(), self._cuts[0]
        self._remove(0)
        self.taken += 1
        self._standing = [*self._standing[1 - _LOOKBACK :], self.frames]
        return frame, cut

    def clear(self) -> None:
        """Drops everything."""
        self.dropped += self.waiting
        self.waiting = 0
        self._cuts = [True] + [False] * (_MOST_FRAMES + 1)
        self._standing = []

    def _drop(self, count: int) -> None:
        """Drops whole frames: silent ones first, then the oldest."""
        for _ in range(count):
            levels = np.sqrt(np.mean(np.square(self._line[: self.frames * FRAME].reshape(-1, FRAME)), axis=1))
            silent = np.flatnonzero(levels < SILENCE)
            index = int(silent[0]) if len(silent) else 0
            if len(silent):
                self.dropped_silent += FRAME
            else:
                self.dropped += FRAME
            self._remove(index)
            self._cuts[index] = True
        self._standing = [max(0, one - count) for one in self._standing]

    def _remove(self, index: int) -> None:
        start = index * FRAME
        self._line[start : self.waiting - FRAME] = self._line[start + FRAME : self.waiting].copy()
        self.waiting -= FRAME
        self._cuts = [*self._cuts[:index], *self._cuts[index + 1 :], False]
