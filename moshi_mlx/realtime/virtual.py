"""A device on a virtual clock: the callbacks run inside `wait` and `sleep`, in the order of their times, so a run is
exact and repeatable.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from ..frame import MoshiError, Pcm
from .device import Block
from .ring import Signal

Source = Callable[[int, int], Pcm]  # (first sample, count) → float32 (count,) of the microphone
Sink = Callable[[Pcm], None]  # takes a block (count,) of the loudspeaker, its own to keep


class VirtualDevice:
    """A microphone and a loudspeaker that tick when the clock is moved on.

    ppm: by how much a side's clock is fast. late: seconds by which a callback comes late, ≥ 0, asked for each. gone:
    spans of time, in seconds, in which the device does not exist; a stream that was open in one stays dead.
    """

    frames: int | None = None
    notice = ""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        input_rate: int = 48_000,
        output_rate: int = 48_000,
        input_block: int = 480,
        output_block: int = 480,
        input_ppm: float = 0.0,
        output_ppm: float = 0.0,
        late: Callable[[], float] | None = None,
        gone: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.input_name, self.output_name = "virtual microphone", "virtual loudspeaker"
        self.input_rate, self.output_rate = input_rate, output_rate
        self.input_latency = self.output_latency = 0.0
        self.flags: dict[str, int] = {}
        self._source, self._sink = source, sink
        self._input_block, self._output_block = input_block, output_block
        self._input_period = input_block / (input_rate * (1 + input_ppm * 1e-6))
        self._output_period = output_block / (output_rate * (1 + output_ppm * 1e-6))
        self._late, self._gone = late or (lambda: 0.0), tuple(gone)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._session = 0  # grows with each opening: the callbacks of an older one are dead
        self._position = 0  # of the microphone

    def open(self) -> None:
        if self._is_gone():
            raise MoshiError("the virtual device is gone: wait until it is back")

    def start(self, capture: Block, fill: Block) -> None:
        self._session += 1
        session, heard_at, played_at = self._session, self._now + self._input_period, self._now
        output = np.zeros((self._output_block, 1), np.float32)

        def heard() -> None:
            nonlocal heard_at
            if session != self._session or self._is_gone():
                return
            block = self._source(self._position, self._input_block)
            self._position += self._input_block
            capture(block[:, None])
            heard_at += self._input_period
            self.at(heard_at + self._late(), heard)

        def played() -> None:
            nonlocal played_at
            if session != self._session or self._is_gone():
                return
            fill(output)
            self._sink(output[:, 0].copy())
            played_at += self._output_period
            self.at(played_at + self._late(), played)

        self.at(heard_at + self._late(), heard)
        self.at(played_at + self._late(), played)

    def close(self, timeout: float) -> bool:
        self._session += 1
        return True

    def now(self) -> float:
        return self._now

    def wait(self, signal: Signal, timeout: float) -> None:
        end = self._now + timeout
        while not signal.wait(0):
            if self.next > end:
                self._now = end
                return
            self._step()

    def sleep(self, seconds: float) -> None:
        """Lets time pass while the caller (a model) is busy."""
        end = self._now + seconds
        while self.next <= end:
            self._step()
        self._now = max(self._now, end)

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Runs an action when the clock reaches a time."""
        self._order += 1
        heapq.heappush(self._events, (time, self._order, action))

    @property
    def next(self) -> float:
        """When the next callback is due; infinity without one."""
        return self._events[0][0] if self._events else inf

    def _step(self) -> None:
        time, _, action = heapq.heappop(self._events)
        self._now = max(self._now, time)
        action()

    def _is_gone(self) -> bool:
        return any(start <= self._now < end for start, end in self._gone)
