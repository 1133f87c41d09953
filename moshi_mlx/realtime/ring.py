"""What two threads share: a ring of samples and a signal. Neither side ever waits for the other.

`Ring` is for one writer and one reader. Each owns one counter, and moves it after the copy, so no lock is needed.
"""

from __future__ import annotations

import threading

import numpy as np

from ..frame import Pcm


class Ring:
    """A bounded first-in, first-out line of float32 samples in memory allocated once.

    written: samples ever accepted; consumed: samples ever read or skipped. Both only grow.
    """

    def __init__(self, capacity: int) -> None:
        self._data = np.zeros(capacity, np.float32)
        self.capacity = capacity
        self.written = 0
        self.consumed = 0

    @property
    def available(self) -> int:
        """Samples that can be read now."""
        return self.written - self.consumed

    def write(self, samples: Pcm) -> int:
        """Writer: appends (n,) samples, any stride; returns how many fitted."""
        count = min(len(samples), self.capacity - self.available)
        start = self.written % self.capacity
        first = min(count, self.capacity - start)
        self._data[start : start + first] = samples[:first]
        self._data[: count - first] = samples[first:count]
        self.written += count
        return count

    def read(self, out: Pcm) -> int:
        """Reader: fills the beginning of out (n,); returns how many samples there were."""
        count = min(len(out), self.available)
        start = self.consumed % self.capacity
        first = min(count, self.capacity - start)
        out[:first] = self._data[start : start + first]
        out[first:count] = self._data[: count - first]
        self.consumed += count
        return count

    def skip(self, count: int) -> int:
        """Reader: passes over up to count samples; returns how many there were."""
        count = min(count, self.available)
        self.consumed += count
        return count


class Signal:
    """Wakes one waiting thread; setting it never waits, so a callback may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """For one thread only: two setters could release twice."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Waits up to timeout seconds, at 0 not at all; True when it was set, which clears it."""
        return self._lock.acquire(timeout=timeout)
