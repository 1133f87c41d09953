"""What was played, next to what was heard: the two streams of a device, brought together block by block for the echo
treatment.
"""

from __future__ import annotations

import numpy as np

from ..frame import RATE, Pcm
from .echo import BLOCK
from .jitter import SILENCE

_LOOKBACK = 100  # blocks, one second, after which the reserve is looked at
_MOST = 3 * RATE  # samples that may wait: the two seconds that a stalled engine finds in its rings, and the reserve


class Pairing:
    """Gives each block of the microphone the block of what was played that belongs to it, though both arrive in bursts.
    24 kHz.

    Both streams tick alike, so one start decides: `reserve` samples of what was played are kept back, so that a block
    is there when it is wanted; by so much the echo seems earlier than it is (see `Loop`). What is missing for a block
    is replaced by silence and dropped when it comes. Where the clocks drift, the reserve is put right in a silence.
    Where what is missing never comes, the pairing is `lost`, and only a new start helps.
    """

    def __init__(self) -> None:
        self._played: Pcm = np.zeros(0, np.float32)
        self._reserve = 0
        self._debt = 0  # samples that were replaced by silence and are still to come
        self._low = _MOST
        self._taken = 0
        self._starved = 0  # blocks in a row in which something was missing

    @property
    def lost(self) -> bool:
        """For a second no block was whole: what was played is shorter than what was heard, and stays so."""
        return self._starved >= _LOOKBACK

    def add(self, played: Pcm) -> None:
        """Adds what was played since."""
        paid = min(self._debt, len(played))
        self._debt -= paid
        self._played = np.concatenate([self._played, played[paid:]])[-_MOST:]

    def start(self, waiting: int, reserve: int) -> None:
        """Pairs the newest of both: `waiting` samples of the microphone are to be processed at once, or so many fewer
        than none, where more must come first."""
        self._reserve, self._debt, self._starved = reserve, 0, 0
        self._taken, self._low = 0, _MOST
        self._resize(max(0, waiting + reserve))

    def take(self) -> Pcm:
        """The next block (240,)."""
        block, self._played = self._played[:BLOCK], self._played[BLOCK:]
        missing = BLOCK - len(block)
        self._debt += missing
        self._starved = self._starved + 1 if missing else 0
        self._low = min(self._low, len(self._played) - self._debt)
        self._taken += 1
        silent = missing == 0 and not any(np.any(np.abs(one) > SILENCE) for one in (block, self._played))
        if self._taken >= _LOOKBACK and silent:
            if not 0 < self._low < 2 * self._reserve:
                self._resize(len(self._played) + self._reserve - self._low)
            self._taken, self._low = 0, _MOST
        return np.concatenate([block, np.zeros(missing, np.float32)])

    def _resize(self, size: int) -> None:
        """Leaves out the oldest or puts silence before it."""
        missing = max(0, size - len(self._played))
        kept = self._played[len(self._played) + missing - size :]
        self._played = np.concatenate([np.zeros(missing, np.float32), kept])
