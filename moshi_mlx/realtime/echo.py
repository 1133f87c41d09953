"""What keeps Moshi from hearing itself on loudspeakers: echo cancellation, a half-duplex gate, or nothing.

All work on blocks of 10 ms at 24 kHz: a block of the microphone and the block of what was played that belongs to it
(`Pairing`).
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from typing import Any, Protocol

import numpy as np

from ..frame import RATE, MoshiError, Pcm
from .adaptive import AdaptiveFilter
from .jitter import SILENCE

BLOCK = RATE // 100  # samples: 10 ms
MODES = ("off", "duck", "cancel")
_ROOM = 32  # blocks for which what was played can still be heard
_LATE = 222  # samples by which WebRTC's result comes later (measured)
_LETS_THROUGH = 0.05  # share of the linear result's power above which WebRTC's result says that somebody talks
_ALL_ECHO = 0.001  # share of the microphone's power below which WebRTC's result says that all of it was echo
_HOLD = 5  # blocks
_TAIL = 30  # blocks for which the gate stays shut after the last loud one: the device's latency and the room


class Echo(Protocol):
    """One way to treat the echo. delay: seconds by which its result is later than the microphone."""

    delay: float

    def process(self, microphone: Pcm, played: Pcm) -> Pcm:
        """Takes two blocks (240,), which it leaves alone; gives what the model shall hear, (240,)."""

    def reset(self) -> None:
        """What was played and what was heard no longer belong together: forget."""


class Duck:
    """Half duplex: the microphone is shut while Moshi can be heard, and for a tail afterwards."""

    delay = 0.0

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
    """WebRTC's echo canceller (the extra package `livekit`), with a linear one beside it for when both talk.

    WebRTC's removes 45 dB and more, but gates whoever talks at the same time (measured: a correlation of 0.6 is left),
    cuts below 100 Hz and rounds to 16 bits. The linear one leaves 20 dB less undone and the near end alone. So the
    model hears the linear one while WebRTC's lets through some of what it left, which is what is no echo, and while
    nothing was played; and WebRTC's at all other times.
    """

    delay = _LATE / RATE

    def __init__(self) -> None:
        try:
            from livekit import rtc
        except ImportError as error:
            raise MoshiError(f"echo cancellation needs livekit: {how_to_get()}, or use --echo duck") from error
        self._rtc: Any = rtc
        self.reset()

    def reset(self) -> None:
        self._webrtc = self._rtc.AudioProcessingModule(echo_cancellation=True)
        self._filter = AdaptiveFilter(BLOCK)
        self._line: Pcm = np.zeros(2 * BLOCK, np.float32)  # the linear one's results: WebRTC's come later
        self._played = np.zeros(_ROOM, np.float32)  # power of the last blocks that were played
        self._strong, self._weak = 0.0, 0.0  # smoothed power of the two results
        self._heard, self._left = 0.0, 0.0  # smoothed power of pure echo, before and after the linear one
        self._hold = 0  # blocks for which somebody is still taken to talk
        self._gain = 1.0

    def process(self, microphone: Pcm, played: Pcm) -> Pcm:
        weak = self._delayed(self._filter.process(microphone, played))
        strong = self._cancel(microphone, played)
        self._played = np.concatenate([[_power(played)], self._played[:-1]])
        self._strong = _smooth(self._strong, _power(strong))
        self._weak = _smooth(self._weak, _power(weak))
        silent = float(self._played.max()) < SILENCE**2 / 100
        if self._strong > _LETS_THROUGH * self._weak:
            self._hold = _HOLD
        elif self._strong < _ALL_ECHO * _power(microphone):
            self._heard += 0.01 * (_power(microphone) - self._heard)
            self._left += 0.01 * (_power(weak) - self._left)
        learnt = self._left < self._heard / 4
        gain = 1.0 if silent or (self._hold and learnt) else 0.0
        self._hold = max(0, self._hold - 1)
        slope = np.linspace(self._gain, gain, BLOCK, dtype=np.float32)
        self._gain = gain
        return weak if slope.all() and gain == 1.0 else slope * weak + (1 - slope) * strong

    def _delayed(self, block: Pcm) -> Pcm:
        self._line = np.concatenate([self._line[BLOCK:], block])
        return self._line[BLOCK - _LATE : 2 * BLOCK - _LATE]

    def _cancel(self, microphone: Pcm, played: Pcm) -> Pcm:
        self._webrtc.process_reverse_stream(self._frame(played))
        frame = self._frame(microphone)
        self._webrtc.process_stream(frame)
        return np.frombuffer(frame.data, np.int16).astype(np.float32) / np.float32(32_768)

    def _frame(self, block: Pcm) -> Any:
        data = np.clip(np.round(block * 32_768), -32_768, 32_767).astype(np.int16)
        return self._rtc.AudioFrame(bytearray(data.tobytes()), RATE, 1, BLOCK)


def how_to_get() -> str:
    """The command that installs livekit into the environment that runs, activated or not; one made by uv has no pip."""
    python = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {python} livekit"
    return f"{python} -m pip install livekit"


def _power(block: Pcm) -> float:
    return float(np.mean(np.square(block)))


def _smooth(old: float, new: float) -> float:
    return 0.8 * old + 0.2 * new


def make_echo(mode: str) -> Echo | None:
    """The treatment called `mode`; None for "off". MoshiError for a name unknown and for a package that is missing."""
    if mode not in MODES:
        raise MoshiError(f"echo mode {mode!r} is unknown: use one of {', '.join(MODES)}")
    return {"off": lambda: None, "duck": Duck, "cancel": Cancel}[mode]()
