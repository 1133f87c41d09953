"""The loudspeaker's side: an adaptive jitter buffer between the model, which gives frames in bursts, and the callback,
which takes blocks.

What the law looks at is the *low mark*: the least that lay in the buffer after a read. It is the true reserve for any
block size. The law keeps the low mark of the last second at the *margin*: a reserve that stands above it is skipped,
oldest first (a small one only while all that waits is silent, so that a device's drifting clock costs no speech); one
that sinks below half of it is refilled in a silence. An underrun raises the margin by what was missing; it falls back
by itself. Every cut is faded.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from ..frame import FRAME_MS, FRAME_RATE, Pcm
from .fade import PIECE, Bridge
from .ring import Ring

BASE_MARGIN = 20.0  # ms of reserve to begin with
MOST_MARGIN = 240.0  # ms
SILENCE = 0.003  # a stretch whose RMS is below (−50 dBFS) is silent
_GENTLE, _FIRM = 10.0, 40.0  # ms above the margin that are skipped in silence, in speech
_BURST = 2 * FRAME_MS  # what may pile up beyond the target before it is cut at once
_PUSHES = round(FRAME_RATE)  # pushes the law looks back on: one second
_CALM = 0.998  # the margin's excess over BASE_MARGIN decays by this a push: half in half a minute


class JitterBuffer:
    """Bounded; `push` belongs to the engine's thread, `fill` to the callback. Sounds are at the device's rate.

    Of all samples: written = read + skipped + waiting, and written + lost = model + inserted; played = read + starved +
    quiet.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.margin = BASE_MARGIN
        self.paused = False
        self.draining = False  # no more pushes will come: play the rest, do not wait for a whole block
        # counted by the engine
        self.model = self.inserted = self.lost = 0
        # counted by the callback
        self.read = self.skipped = self.starved = self.quiet = 0
        self.underruns = self.callbacks = self.block = self.errors = 0
        self.reference: Ring | None = None  # where what was played is copied to
        self._ring = Ring(2 * rate)
        self._scratch = np.zeros(PIECE, np.float32)
        self._out, self._in = Bridge(rate), Bridge(rate)
        self._cut = False  # what is written next does not continue what was written last
        self._skip_to = 0  # position up to which the callback shall skip; moved by the engine
        self._low: int | None = None  # low mark since the last push
        self._lows: deque[int] = deque(maxlen=_PUSHES)
        self._flowing = False  # the sample played last came from the ring
        self._expected = True  # an empty ring is no underrun: nothing was pushed yet, or it was flushed
        self._seen_starved = self._seen_underruns = 0
        self._loud_until = 0  # position after the last frame that was not silent

    @property
    def waiting(self) -> int:
        """Samples that will be played."""
        return self._ring.written - max(self._ring.consumed, self._skip_to)

    def ms(self, samples: int) -> float:
        """Samples of this device in milliseconds."""
        return 1_000 * samples / self.rate

    # the engine's side

    def push(self, pcm: Pcm, burst: int, keeping_up: bool) -> None:
        """Queues a frame (n,) and may change it. burst: samples by which the microphone's blocks delay a frame;
        keeping_up: the model's mean time is below a frame, so that an underrun is jitter, which a larger margin
        cures."""
        self.model += len(pcm)
        low, self._low = self._low, None
        if low is not None:
            self._lows.append(low)
        late = self._learn(keeping_up)
        reserve = self._samples(self.margin) + self.block + burst
        silent = bool(np.sqrt(np.mean(np.square(pcm))) < SILENCE) and self._loud_until <= self._ring.consumed
        if self._expected and not self.draining:
            self._insert(reserve)
            self._expected = False
        elif late:
            self._insert(self._samples(BASE_MARGIN))
        elif self.waiting > reserve + self._samples(_BURST):
            self._skip(self.waiting - reserve)
        elif len(self._lows) == _PUSHES:
            self._regulate(silent)
        if not silent:
            self._loud_until = self._ring.written + len(pcm)
        self._write(pcm)

    def flush(self) -> None:
        """Drops what waits; the silence that follows is no underrun."""
        self._expected = self._cut = True
        self._skip_to = self._ring.written
        self._lows.clear()

    def _learn(self, keeping_up: bool) -> bool:
        """Adapts the margin; True after an underrun."""
        self.margin = BASE_MARGIN + (self.margin - BASE_MARGIN) * _CALM
        late = self.underruns > self._seen_underruns
        if late and keeping_up:
            missing = self.ms(self.starved - self._seen_starved)
            self.margin = min(MOST_MARGIN, self.margin + min(missing, FRAME_MS))
        if late:
            self._lows.clear()
        self._seen_starved, self._seen_underruns = self.starved, self.underruns
        return late

    def _regulate(self, silent: bool) -> None:
        excess = min(self._lows) - self._samples(self.margin)
        if excess > self._samples(_GENTLE if silent else _FIRM):
            self._skip(excess)
        elif silent and excess < -self._samples(self.margin / 2):
            self._insert(-excess)
            self._lows.clear()

    def _skip(self, count: int) -> None:
        self._skip_to = max(self._ring.consumed, self._skip_to) + count
        self._lows.clear()

    def _insert(self, count: int) -> None:
        self.inserted += count
        self._cut = True
        self._write(np.zeros(count, np.float32))
        self._cut = True

    def _write(self, samples: Pcm) -> None:
        for start in range(0, len(samples), PIECE):
            self._in.join(samples[start : start + PIECE], self._cut)
            self._cut = False
        missing = len(samples) - self._ring.write(samples)
        self.lost += missing
        self._cut = missing > 0

    def _samples(self, ms: float) -> int:
        return round(ms * self.rate / 1_000)

    # the callback's side

    def fill(self, out: Pcm) -> None:
        """Fills out (n, channels) with sound, whatever happens."""
        self.callbacks += 1
        self.block = max(self.block, len(out))
        try:
            for start in range(0, len(out), PIECE):
                piece = self._scratch[: min(PIECE, len(out) - start)]
                self._play(piece, len(out) - start)
                for channel in range(out.shape[1]):
                    out[start : start + len(piece), channel] = piece
        except Exception:
            self.errors += 1
            out[:] = 0

    def _play(self, piece: Pcm, wanted: int) -> None:
        """Fills a piece of a block of which `wanted` samples are still to come."""
        jumped = self._ring.skip(max(0, self._skip_to - self._ring.consumed))
        self.skipped += jumped
        got = 0
        if not self.paused and (self._flowing or self.draining or self._ring.available >= wanted):
            got = self._ring.read(piece)
        self.read += got
        self._out.join(piece[:got], cut=jumped > 0 or not self._flowing)
        if got < len(piece):
            piece[got:] = 0
            self._out.join(piece[got:], cut=self._flowing or got > 0)
            self._rest(len(piece) - got, was_flowing=self._flowing or got > 0)
        self._flowing = got == len(piece)
        if not self.paused:
            self._low = min(self._ring.available, self._ring.available if self._low is None else self._low)
        if self.reference is not None:
            self.reference.write(piece)

    def _rest(self, count: int, was_flowing: bool) -> None:
        if self.paused or self.draining or self._expected:
            self.quiet += count
            return
        self.starved += count
        self.underruns += was_flowing
