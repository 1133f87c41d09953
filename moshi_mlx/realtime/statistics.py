"""What the loop measured: the numbers of the screen and of the log.

`Meter` is written by the engine's thread alone; `Statistics` is a frozen copy for everybody else. Times are milliseconds unless the
name says otherwise, levels are dBFS (RMS of a frame; −120 is silence).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..frame import FRAME_MS, Pcm, Reply

FLOOR_DB = -120.0  # the level of silence
_WINDOW = 7_500  # frames over which percentiles are taken: ten minutes
_EVENTS = 1_000  # events kept for the log


@dataclass(frozen=True, slots=True)
class Exchange:
    """One frame of the conversation, as the hook gets it. All arrays belong to the receiver.

    user: float32 (1920,), what the model heard (after echo cancellation; zeros while muted); reply: what it answered.
    seconds: on the device's clock since the audio opened; step_ms: the model's time; lag_ms: after this frame's sound was queued.
    dropped_ms: captured sound thrown away since the frame before, because the model was behind.
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

    lag_ms = capture_ms (captured, not stepped) + playback_ms (stepped, not played); device_ms (what the sound system says it adds) comes on
    top. target_ms is the lag to be expected from the frame, the model's time, the device's blocks and the jitter margin (margin_ms).
    frame_p50 … frame_max: the model's time a frame, misses: frames that took longer than 80 ms. wait_ms: mean idle time before a frame;
    resample_ms and echo_ms: mean cost a frame.
    underruns: the model's sound was late (underrun_ms of silence were played instead); overruns: the capture ring was full (overrun_ms
    lost). flags: what PortAudio reported, by kind; on macOS its input overflow is often a false alarm. callback_errors must be 0.
    dropped_silent_ms, dropped_ms: captured sound not shown to the model, silent and other. skipped_ms: Moshi's sound not played;
    inserted_ms: silence added to Moshi's sound (jitter margin).
    input_zero_s: for how long the microphone has given exact zeros (a missing permission). notice: the last thing worth telling.
    """

    state: str  # "starting" | "running" | "paused" | "reopening" | "stopped" | "failed"
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
