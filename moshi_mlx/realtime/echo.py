"""What keeps Moshi from hearing itself on loudspeakers: echo cancellation, a half-duplex gate, or nothing.

All work on blocks of 10 ms at 24 kHz: a block of the microphone and the block of what was played that belongs to it
(`Pairing`).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..frame import RATE, MoshiError, Pcm
from .jitter import SILENCE

BLOCK = RATE // 100  # samples: 10 ms
MODES = ("off", "duck", "cancel")
_LOOKBACK = 100  # blocks, one second, after which the reserve is looked at
_TAIL = 30  # blocks for which the gate stays shut after the last loud one: the device's latency and the room


class Echo(Protocol):
    """One way to treat the echo."""

    def process(self, microphone: Pcm, played: Pcm) -> Pcm:
        """Takes two blocks (240,), which it leaves alone; gives what the model shall hear, (240,)."""

    def reset(self) -> None:
        """What was played and what was heard no longer belong together: forget."""


class Duck:
    """Half duplex: the microphone is shut while Moshi can be heard, and for a tail afterwards."""

    def __init__(self) -> None:
        self._shut = 0  # blocks left
        self._gain = 1.0

    def process(self, microphone: Pcm, played: Pcm) -> Pcm:
        self._shut = _TAIL if np.sqrt(np.mean(np.square(played))) >= SILENCE else max(0, self._shut - 1)
        gain = 0.0 if self._shut else 1.0
        slope = np.linspace(self._gain, gain, BLOCK, dtype=np.float32)
        self._gain = gain
        return microphone * slope

    def reset(self) -> None:
        self._shut = _TAIL


class Cancel:
    """WebRTC's echo canceller, from the extra package `livekit`."""

    def __init__(self) -> None:
        try:
            from livekit import rtc
        except ImportError as error:
            remedy = "pip install 'moshi-live[echo]', or use --echo duck"
            raise MoshiError(f"echo cancellation needs livekit: {remedy}") from error
        self._rtc: Any = rtc
        self.reset()

    def process(self, microphone: Pcm, played: Pcm) -> Pcm:
        self._apm.process_reverse_stream(self._frame(played))
        frame = self._frame(microphone)
        self._apm.process_stream(frame)
        return np.frombuffer(frame.data, np.int16).astype(np.float32) / np.float32(32_768)

    def reset(self) -> None:
        self._apm = self._rtc.AudioProcessingModule(echo_cancellation=True)

    def _frame(self, block: Pcm) -> Any:
        data = np.clip(np.round(block * 32_768), -32_768, 32_767).astype(np.int16)
        return self._rtc.AudioFrame(bytearray(data.tobytes()), RATE, 1, BLOCK)


def make_echo(mode: str) -> Echo | None:
    """The treatment called `mode`; None for "off". MoshiError for a name unknown and for a package that is missing."""
    if mode not in MODES:
        raise MoshiError(f"echo mode {mode!r} is unknown: use one of {', '.join(MODES)}")
    return {"off": lambda: None, "duck": Duck, "cancel": Cancel}[mode]()


class Pairing:
    """Gives each block of the microphone the block of what was played that belongs to it, though both arrive in bursts.
    24 kHz.

    Both streams tick alike, so one start decides: `reserve` samples of what was played are kept back, by which the echo
    seems later than it is, and it never comes before its cause. What is missing for a block is replaced by silence and
    dropped when it comes. Where the clocks drift, the reserve is put right in a silence.
    """

    def __init__(self) -> None:
        self._played: Pcm = np.zeros(0, np.float32)
        self._reserve = 0
        self._debt = 0  # samples that were replaced by silence and are still to come
        self._low = RATE
        self._taken = 0

    def add(self, played: Pcm) -> None:
        """Adds what was played since."""
        paid = min(self._debt, len(played))
        self._debt -= paid
        self._played = np.concatenate([self._played, played[paid:]])[-RATE:]

    def start(self, waiting: int, reserve: int) -> None:
        """Pairs the newest of both: `waiting` samples of the microphone are still to be processed."""
        self._reserve, self._debt = reserve, 0
        self._resize(waiting + reserve)

    def take(self) -> Pcm:
        """The next block (240,)."""
        block, self._played = self._played[:BLOCK], self._played[BLOCK:]
        missing = BLOCK - len(block)
        self._debt += missing
        self._low = min(self._low, len(self._played) - self._debt)
        self._taken += 1
        if self._taken >= _LOOKBACK and np.sqrt(np.mean(np.square(self._played))) < SILENCE:
            if not 0 < self._low < 2 * self._reserve:
                self._resize(len(self._played) + self._reserve - self._low)
            self._taken, self._low = 0, RATE
        return np.concatenate([block, np.zeros(missing, np.float32)])

    def _resize(self, size: int) -> None:
        """Leaves out the oldest or puts silence before it."""
        missing = max(0, size - len(self._played))
        kept = self._played[len(self._played) + missing - size :]
        self._played = np.concatenate([np.zeros(missing, np.float32), kept])
