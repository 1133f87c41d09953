"""What the loop measured: the numbers of the screen and of the log.

`Meter` is written by the engine's thread alone; `Statistics` is a frozen copy for everybody else. Times are
milliseconds unless the name says otherwise, levels are dBFS (RMS of a frame; −120 is silence).
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..frame import FRAME_MS, FRAME_RATE, Pcm, Reply

FLOOR_DB = -120.0  # the level of silence
_WINDOW = 7_500  # frames over which percentiles are taken: ten minutes
_EVENTS = 1_000  # events kept for the log
_LATELY = 60  # frames, about five seconds


@dataclass(frozen=True, slots=True)
class Exchange:
    """One frame of the conversation, as the hook gets it. All arrays belong to the receiver.

    user: float32 (1920,), what the model heard (after echo cancellation; zeros while muted); reply: what it answered.
    seconds: from the first opening of the audio to the step's beginning; step_ms: the model's time; lag_ms: after this
    frame's sound was queued. dropped_ms: captured sound thrown away since the frame before, because the model was
    behind.
    """

    reply: Reply
    user: Pcm
    seconds: float
    step_ms: float
    lag_ms: float
    dropped_ms: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot. Counters run from the start of the conversation, percentiles over its last ten minutes.

    lag_ms = capture_ms (captured, not stepped) + playback_ms (stepped, not played); device_ms (what the sound system
    says it adds) comes on top. target_ms is the lag to be expected from the frame, the model's time, the device's
    blocks and the jitter margin (margin_ms). frame_p50 … frame_max: the model's time a frame, frame_mean: its mean over
    the last five seconds, misses: frames that took longer than 80 ms. wait_ms: mean idle time before a frame;
    resample_ms and echo_ms: mean cost a frame. underruns: the model's sound was late (underrun_ms of silence were
    played instead); overruns: the capture ring was full (overrun_ms lost). flags: what PortAudio reported, by kind; on
    macOS its input overflow is often a false alarm. callback_errors must be 0. dropped_silent_ms, dropped_ms: captured
    sound not shown to the model, silent and other. skipped_ms: Moshi's sound not played; inserted_ms: silence added to
    Moshi's sound (jitter margin). input_zero_s: for how long the microphone has given exact zeros (a missing
    permission); input_heard: it has given others before. notice: the last thing worth telling.
    """

    state: str  # "new" | "starting" | "running" | "paused" | "reopening" | "stopped" | "failed"
    stage: str  # of the start-up: the factory's own, then "audio", then "ready"
    stage_done: float | None
    error: str | None
    notice: str
    frames: int
    seconds: float
    lag_ms: float
    target_ms: float
    margin_ms: float
    capture_ms: float
    playback_ms: float
    device_ms: float
    frame_mean: float
    frame_p50: float
    frame_p95: float
    frame_p99: float
    frame_max: float
    misses: int
    wait_ms: float
    resample_ms: float
    echo_ms: float
    underruns: int
    underrun_ms: float
    overruns: int
    overrun_ms: float
    flags: dict[str, int]
    callback_errors: int
    dropped_silent_ms: float
    dropped_ms: float
    skipped_ms: float
    inserted_ms: float
    input_level: float
    output_level: float
    input_zero_s: float
    input_heard: bool
    muted: bool
    paused: bool
    push_to_talk: bool
    talking: bool
    echo: str  # "off" | "duck" | "cancel"
    echo_resets: int
    input_name: str
    output_name: str
    input_rate: int
    output_rate: int
    input_block: int
    output_block: int
    reopened: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counts:
    """The counters of one opened device; they add up over a conversation. The names are explained in `Statistics`."""

    underruns: int = 0
    underrun_ms: float = 0.0
    overruns: int = 0
    overrun_ms: float = 0.0
    callback_errors: int = 0
    dropped_silent_ms: float = 0.0
    dropped_ms: float = 0.0
    skipped_ms: float = 0.0
    inserted_ms: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


class Meter:
    """What the engine's thread measures over a conversation; others only read."""

    def __init__(self) -> None:
        self.frames = self.misses = self.echo_resets = self.reopened = 0
        self.resample_s = self.echo_s = self.wait_s = 0.0
        self.longest_ms = 0.0
        self.epoch: float | None = None  # when the audio was first opened, on the device's clock
        self.input_level = self.output_level = FLOOR_DB
        self.input_zero_s = 0.0
        self.input_heard = False
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._steps = np.zeros(_WINDOW, np.float32)  # ms, a ring

    def event(self, kind: str, seconds: float, detail: str = "") -> None:
        """Notes something for the log."""
        self.events.append({"event": kind, "frame": self.frames, "seconds": round(seconds, 3), "detail": detail})

    def heard(self, raw: Pcm, rate: int) -> None:
        """Takes what the microphone gave, before anything is done to it."""
        sounds = bool(raw.any())
        self.input_heard |= sounds
        self.input_zero_s = 0.0 if sounds else self.input_zero_s + len(raw) / rate

    def stepped(self, step_ms: float, user: Pcm, reply: Pcm) -> None:
        """Takes a frame's measures."""
        self._steps[self.frames % _WINDOW] = step_ms
        self.frames += 1
        self.misses += step_ms > FRAME_MS
        self.longest_ms = max(self.longest_ms, step_ms)
        self.input_level, self.output_level = level(user), level(reply)

    @property
    def recent_ms(self) -> float:
        """The longest model time of the last second."""
        return float(self._last(round(FRAME_RATE)).max(initial=0.0))

    @property
    def mean_ms(self) -> float:
        """The mean model time of the last five seconds."""
        return float(self._last(_LATELY).mean()) if self.frames else 0.0

    @property
    def keeping_up(self) -> bool:
        """Whether the model's mean time over the last second is below a frame."""
        return bool(self._last(round(FRAME_RATE)).mean() < FRAME_MS) if self.frames else True

    def percentiles(self) -> tuple[float, float, float]:
        """p50, p95 and p99 of the model's time, ms."""
        kept = self._steps[: min(self.frames, _WINDOW)]
        p50, p95, p99 = np.percentile(kept, (50, 95, 99)) if len(kept) else (0.0, 0.0, 0.0)
        return float(p50), float(p95), float(p99)

    def _last(self, frames: int) -> Pcm:
        count = min(self.frames, frames)
        return self._steps[np.arange(self.frames - count, self.frames) % _WINDOW]


def level(pcm: Pcm) -> float:
    """RMS in dBFS, not below FLOOR_DB."""
    power = float(np.mean(np.square(pcm)))
    return max(FLOOR_DB, 10 * float(np.log10(power))) if power > 0 else FLOOR_DB


def json_lines(summary: Statistics, meter: Meter) -> str:
    """The log of a conversation: a line for each event kept, then one with the summary."""
    lines = [*meter.events, {"event": "summary", **summary.as_dict()}]
    return "".join(json.dumps(line) + "\n" for line in lines)
