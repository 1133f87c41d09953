"""Listens to the microphone, plays a chime, and finds the chime in what the microphone heard: a conversation
without a model.

It goes through the same loop as a chat, so the round trip it measures is the one that a chat has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..frame import FRAME, RATE, Codes, MoshiError, Pcm, Reply
from ..realtime import Conversation, Statistics
from ..realtime.device import Device
from ..realtime.statistics import level

LISTEN = 3.0  # seconds
CHIME_SECONDS = 0.6
AFTER = 1.4  # seconds in which the chime may come back
CLEAR = 8.0  # times the median of the correlation, for the chime to count as heard
PATIENCE = 8.0  # seconds beyond its own length that a check may take
PERIOD = 0.1  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. level, peak: of the microphone, dBFS and 0 to 1. zeros: not one sample was anything else.

    round_trip_ms: from handing the chime over to hearing it again; None where it was not played or not heard.
    """

    input_name: str
    output_name: str
    input_rate: int
    output_rate: int
    level: float
    peak: float
    zeros: bool
    round_trip_ms: float | None
    device_ms: float
    underruns: int


class Chimer:
    """A stepper that listens, then plays the chime if it is to, then listens for it."""

    def __init__(self, listen: float, chime: bool) -> None:
        self._start = round(listen * RATE / FRAME)
        after = round((CHIME_SECONDS + AFTER) * RATE / FRAME) if chime else 0
        self.last = self._start + after
        self._sound = np.pad(make_chime(), (0, -len(make_chime()) % FRAME)) if chime else np.zeros(0, np.float32)
        self.heard: list[Pcm] = []

    def step(self, pcm: Pcm) -> Reply:
        frame = len(self.heard)
        self.heard.append(pcm.copy())
        at = (frame - self._start) * FRAME
        part = self._sound[at : at + FRAME] if at >= 0 else self._sound[:0]
        out = np.zeros(FRAME, np.float32)
        out[: len(part)] = part
        codes: Codes = np.zeros(0, np.int32)
        return Reply(frame, out, "", 0, None, codes)

    def reset(self) -> None:
        self.heard.clear()

    def quiet(self) -> Pcm:
        """What the microphone heard before the chime."""
        return np.asarray(np.concatenate([*self.heard[: self._start], np.zeros(1, np.float32)]), np.float32)

    def round_trip(self) -> float | None:
        """Milliseconds from the end of the frame that asked for the chime to its return; None if it did not return."""
        if not len(self._sound) or len(self.heard) < self.last:
            return None
        at = find(make_chime(), np.concatenate(self.heard[self._start + 1 :]))
        return None if at is None else 1000 * at / RATE


def make_chime() -> Pcm:
    """A gentle rising tone, 400 to 4,000 Hz, which no voice and no hum resembles."""
    t = np.arange(round(CHIME_SECONDS * RATE)) / RATE
    phase = 2 * np.pi * (400 * t + (4000 - 400) / (2 * CHIME_SECONDS) * t**2)
    return np.asarray(0.3 * np.sin(phase) * np.sin(np.pi * t / CHIME_SECONDS) ** 2, np.float32)


def find(pattern: Pcm, heard: Pcm) -> int | None:
    """The sample at which the pattern (n,) begins in heard (m,); None if it is not in there clearly."""
    size = len(pattern) + len(heard)
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(pattern, size)), size)
    strength = np.abs(product[: len(heard)])
    best = int(strength.argmax())
    return best if strength[best] > CLEAR * np.median(strength) + 1e-6 else None


def check(
    device: Device,
    listen: float = LISTEN,
    chime: bool = True,
    show: Callable[[Statistics], None] = lambda now: None,
) -> Checked:
    """Runs a check; `show` gets the numbers ten times a second. MoshiError if the devices cannot be opened."""
    chimer = Chimer(listen, chime)
    end = time.monotonic() + chimer.last * FRAME / RATE + PATIENCE
    with Conversation(device, lambda progress: chimer) as talk:
        while talk.running and len(chimer.heard) < chimer.last and time.monotonic() < end:
            show(talk.statistics())
            time.sleep(PERIOD)
        now = talk.statistics()
    talk.check()
    if not chimer.heard:
        raise MoshiError(f"{now.input_name} delivers no sound at all: unplug it, or choose another with --input")
    heard = np.concatenate([*chimer.heard, np.zeros(1, np.float32)])
    return Checked(
        input_name=now.input_name,
        output_name=now.output_name,
        input_rate=now.input_rate,
        output_rate=now.output_rate,
        level=round(level(chimer.quiet()), 1),
        peak=round(float(np.abs(heard).max()), 4),
        zeros=not heard.any(),
        round_trip_ms=chimer.round_trip(),
        device_ms=now.device_ms,
        underruns=now.underruns,
    )
