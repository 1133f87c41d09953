"""The policy of one opened device: microphone → resample → echo → backlog → model → resample → jitter buffer, on the
engine's thread.

Nothing here waits. `pump` moves what was captured, `turn` steps one frame. A reopened device gets a new `Loop`.
"""

from __future__ import annotations

from math import ceil, floor
from time import perf_counter

import numpy as np

from ..frame import FRAME, FRAME_MS, RATE, MoshiError, Pcm, Stepper
from .capture import Backlog, Capture
from .device import Device
from .echo import BLOCK, Echo
from .fade import PIECE, Bridge
from .jitter import JitterBuffer
from .pairing import Pairing
from .resample import Resampler
from .ring import Ring
from .statistics import Counts, Exchange, Meter

_WAKE = 0.02  # seconds of sound for which the engine wakes: most is resampled and treated before the frame is whole
_RESERVE = RATE // 50  # samples of what was played that the pairing keeps back, beyond the device's blocks
_SEEN = 0.1  # seconds by which an echo may come after what was played, as the treatment sees the two
_FARTHEST = 1.0  # seconds of a device's way that are believed


class Loop:
    """One way of the sound through the model, for as long as the device stays open.

    hearing: whether the model hears the microphone in the next frame (False while muted).
    """

    def __init__(self, device: Device, stepper: Stepper, meter: Meter, echo: Echo | None) -> None:
        self.capture = Capture(device.input_rate)
        self.playback = JitterBuffer(device.output_rate)
        self.backlog = Backlog()
        self.hearing = True
        self._device, self._stepper, self._meter, self._echo = device, stepper, meter, echo
        self._in = Resampler(device.input_rate, RATE)
        self._out = Resampler(RATE, device.output_rate)
        self._delay = self._in.delay + (echo.delay if echo is not None else 0.0)  # seconds, of the microphone's way
        self._raw = np.zeros(device.input_rate // 4, np.float32)
        self._mic: Pcm = np.zeros(0, np.float32)  # 24 kHz, not yet through the echo treatment
        self._bridge = Bridge(RATE)
        self._heard = True
        self._stepping = False
        self._dropped = 0
        self._overruns = 0
        self._held = 0  # samples of `_mic` that wait for the loudspeaker
        self._paired = False  # the pairing started after both streams had, and after a pause
        self._pairing = Pairing()
        self._played = Resampler(device.output_rate, RATE)
        if echo is not None:
            self.playback.reference = Ring(2 * device.output_rate)

    def pump(self) -> None:
        """Brings what was captured into the backlog: all of it at once, for it is paired with all that was played."""
        begin = perf_counter()
        fresh: list[Pcm] = []
        while got := self.capture.ring.read(self._raw):
            raw = self._raw[:got]
            self._meter.heard(raw, self.capture.rate)
            fresh.append(self._in.process(raw))
        if not fresh:
            return
        pcm = np.concatenate(fresh)
        self._meter.resample_s += perf_counter() - begin
        if self._echo is None:
            self.backlog.append(pcm)
        else:
            begin = perf_counter()
            self._treat(self._echo, pcm)
            self._meter.echo_s += perf_counter() - begin

    def turn(self) -> Exchange | None:
        """Steps one frame if one is whole; None if not."""
        self.pump()
        if self.backlog.frames == 0:
            self.capture.wake_at = self._wanted()
            return None
        user, cut = self.backlog.take()
        if not self.hearing:
            user[:] = 0
        cut, self._heard = cut or self.hearing != self._heard, self.hearing
        for start in range(0, FRAME, PIECE):
            self._bridge.join(user[start : start + PIECE], cut and start == 0)
        self._stepping = True
        seconds = self._device.now()
        reply = self._stepper.step(user)
        step_ms = 1_000 * (self._device.now() - seconds)
        self._stepping = False
        if reply.pcm.shape != (FRAME,) or not np.isfinite(reply.pcm).all():
            raise MoshiError(
                f"frame {reply.frame} is no sound: the weights are damaged, get them again (moshi-mlx models)"
            )
        self._meter.stepped(step_ms, user, reply.pcm)
        begin = perf_counter()
        pcm = self._out.process(np.clip(reply.pcm, -1, 1).astype(np.float32))
        self._meter.resample_s += perf_counter() - begin
        self.playback.push(pcm, self._burst(), self._meter.keeping_up)
        dropped = self.backlog.dropped + self.backlog.dropped_silent
        lost, self._dropped = dropped - self._dropped, dropped
        seconds -= self._meter.epoch or 0.0
        return Exchange(reply, user, seconds, step_ms, self.lag_ms(), 1_000 * lost / RATE)

    def pause(self, on: bool) -> None:
        """Stops and starts the clocks of both sides. Afterwards the echo is paired anew: the two stop and start at
        moments of their own, and the reference goes on in between."""
        if self.capture.paused and not on:
            self._paired = False
        self.capture.paused = self.playback.paused = on

    def flush(self) -> None:
        """Forgets what waits on both sides."""
        self.pump()
        self.backlog.clear()
        self.playback.flush()

    @property
    def capture_ms(self) -> float:
        """Captured and not stepped."""
        waiting = len(self._mic) + self.backlog.waiting + self._stepping * FRAME
        return 1_000 * (self.capture.ring.available / self.capture.rate + waiting / RATE + self._delay)

    @property
    def playback_ms(self) -> float:
        """Stepped and not played."""
        return self.playback.ms(self.playback.waiting) + 1_000 * self._out.delay

    def lag_ms(self) -> float:
        """Captured and not stepped, stepped and not played."""
        return self.capture_ms + self.playback_ms

    def target_ms(self) -> float:
        """The lag to be expected: the frame, the model's time, a block of each side, the margin and the filters."""
        blocks = 1_000 * self.capture.block / self.capture.rate + self.playback.ms(self.playback.block)
        delays = 1_000 * (self._delay + self._held / RATE + self._out.delay)
        return FRAME_MS + self._meter.recent_ms + blocks + self.playback.margin + delays

    def counts(self) -> Counts:
        """What this device's time has added to the counters of the conversation."""
        capture, playback, backlog = self.capture, self.playback, self.backlog
        return Counts(
            underruns=playback.underruns,
            underrun_ms=playback.ms(playback.starved),
            overruns=capture.overruns,
            overrun_ms=1_000 * capture.overrun / capture.rate,
            callback_errors=capture.errors + playback.errors,
            dropped_silent_ms=1_000 * backlog.dropped_silent / RATE,
            dropped_ms=1_000 * backlog.dropped / RATE,
            skipped_ms=playback.ms(playback.skipped + playback.lost),
            inserted_ms=playback.ms(playback.inserted),
        )

    def _treat(self, echo: Echo, pcm: Pcm) -> None:
        """Passes microphone sound at 24 kHz through the echo treatment, in whole blocks."""
        self._mic = np.concatenate([self._mic, pcm])
        ring = self.playback.reference
        assert ring is not None
        while got := ring.read(self._raw):
            self._pairing.add(self._played.process(self._raw[:got]))
        if self.capture.overruns > self._overruns or self._pairing.lost or not self._paired:
            self._overruns = self.capture.overruns
            self._paired = self.playback.callbacks > 0
            self._start_pairing()
            echo.reset()
            self._meter.echo_resets += self._paired
        whole = max(0, len(self._mic) - self._held) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self.backlog.append(echo.process(self._mic[start : start + BLOCK], self._pairing.take()))
        self._mic = self._mic[whole:]

    def _start_pairing(self) -> None:
        """By what is kept back of the reference, the echo seems earlier. Where the way through the device is no longer
        than that, the microphone waits: an echo before its cause is removed by no canceller. Where it is long, as with
        Bluetooth, more is kept back: the treatments look at 300 ms."""
        device, block = self._device, self.capture.block / self.capture.rate
        reserve = _RESERVE + ceil((block + self.playback.block / self.playback.rate) * RATE)
        way = min(_FARTHEST, device.input_latency + device.output_latency)
        reserve = max(reserve, floor((way - _SEEN) * RATE))
        self._held = max(0, reserve - floor((way - block) * RATE)) if way else 0
        self._pairing.start(len(self._mic) - self._held, reserve)

    def _burst(self) -> int:
        """The microphone's block in the loudspeaker's samples."""
        return ceil(self.capture.block * self.playback.rate / self.capture.rate)

    def _wanted(self) -> int:
        """Microphone samples that complete the frame, but no more than what is worth waking for."""
        missing = (FRAME - self.backlog.waiting - len(self._mic) + self._held) / RATE
        return max(1, ceil(min(missing, _WAKE) * self.capture.rate))
