"""The real-time loop against everything that happens on a desk, on a virtual clock: an hour takes about half a minute.

Every ten minutes: a model that is too slow for half a minute, steps that take 300 ms now and then, callbacks that come
up to 120 ms late, a device that vanishes for three seconds; all the time two clocks that differ. Exit status 1 when the
lag does not come back to its target, a buffer outgrows its bound, a sample is unaccounted for, or the sound has a step.

    python tools/soak_realtime.py [--minutes 60] [--seed 0] [--ppm 300]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from moshi_mlx.frame import FRAME, Pcm, Reply
from moshi_mlx.realtime import Conversation, Exchange, VirtualDevice
from moshi_mlx.realtime.fade import FADE
from moshi_mlx.realtime.loop import Loop

RATE = 24_000
AMPLITUDE, TONE = 0.3, 220
SLACK = 40.0  # ms of lag above the target that the law lets stand while somebody speaks; here somebody always does
PERIOD = 600.0
CAUSES = ((60.0, 90.0), (120.0, 180.0), (240.0, 300.0), (400.0, 404.0))  # when something is wrong, seconds
GONE = (400.0, 403.0)


class EchoingStepper:
    """Answers what it hears, and takes as long as it is told; the clock is the device's."""

    def __init__(self, sleep: Callable[[float], None] = lambda seconds: None, cost: Callable[[], float] = lambda: 0.0):
        self.frame = 0
        self.resets = 0
        self._sleep, self._cost = sleep, cost

    def step(self, pcm: Pcm) -> Reply:
        self._sleep(self._cost())
        self.frame += 1
        return Reply(self.frame - 1, pcm.copy(), "", 3, None, np.zeros(8, np.int32))

    def reset(self) -> None:
        self.resets += 1
        self.frame = 0


def tone(rate: int) -> Callable[[int, int], Pcm]:
    """A microphone that hears a tone without end."""
    table = (AMPLITUDE * np.sin(2 * np.pi * TONE * np.arange(2 * rate) / rate)).astype(np.float32)
    return lambda start, count: table[start % rate : start % rate + count]


def steepest(rate: int, cuts: int = 3) -> float:
    """The largest step from sample to sample that the tone and a few fades at once can make."""
    return 2 * np.pi * TONE / rate * AMPLITUDE + cuts * 2 * AMPLITUDE / (rate * FADE)


def audit(loop: Loop) -> None:
    """Every sample is accounted for, and no buffer is beyond its bound. AssertionError if not."""
    capture, backlog, playback = loop.capture, loop.backlog, loop.playback
    ring, line = capture.ring, playback._ring
    assert capture.captured == ring.consumed + ring.available + capture.overrun + capture.paused_samples
    assert backlog.appended == FRAME * backlog.taken + backlog.dropped + backlog.dropped_silent + backlog.waiting
    assert line.written + playback.lost == playback.model + playback.inserted
    assert line.consumed == playback.read + playback.skipped
    assert 0 <= ring.available <= ring.capacity
    assert 0 <= backlog.waiting <= 7 * FRAME
    assert 0 <= line.available <= line.capacity
    assert capture.errors == playback.errors == 0


class Soak:
    """One run of so many seconds; `faults` lists what did not hold."""

    def __init__(self, seconds: float, seed: int = 0, ppm: float = 300.0) -> None:
        self.faults: list[str] = []
        self.worst = 0.0  # ms above the target in good times
        self.played = 0
        self._random = np.random.default_rng(seed)
        self._last = np.float32(0)
        self._sounded = 0.0
        spans = [(GONE[0] + k * PERIOD, GONE[1] + k * PERIOD) for k in range(int(seconds // PERIOD) + 1)]
        self._device = VirtualDevice(
            tone(RATE),
            self._sink,
            input_rate=RATE,
            output_rate=RATE,
            input_block=480,
            output_block=480,
            output_ppm=ppm,
            late=self._late,
            gone=spans,
        )
        stepper = EchoingStepper(self._device.sleep, self._cost)
        self.talk = Conversation(self._device, lambda report: stepper, on_exchange=self._look)
        self._device.at(seconds, self.talk.stop)

    def run(self) -> Soak:
        self.talk.start()
        self.talk.wait()
        self.talk.check()
        return self

    def _phase(self) -> float:
        return self._device.now() % PERIOD

    def _cost(self) -> float:
        phase = self._phase()
        if CAUSES[0][0] <= phase < CAUSES[0][1]:
            return 0.1
        if CAUSES[1][0] <= phase < CAUSES[1][1] and self._random.random() < 0.02:
            return 0.3
        return 0.04

    def _late(self) -> float:
        phase = self._phase()
        return float(self._random.uniform(0, 0.12)) if CAUSES[2][0] <= phase < CAUSES[2][1] else 0.0

    def _sink(self, block: Pcm) -> None:
        if self._device.now() - self._sounded > GONE[1] - GONE[0]:
            self._last = np.float32(0)  # the device was gone
        self._sounded = self._device.now()
        steps = np.abs(np.diff(block, prepend=self._last))
        self._last = block[-1]
        self.played += len(block)
        if steps.max() > steepest(RATE):
            self.faults.append(f"{self._device.now():.2f} s: a step of {steps.max():.3f} in the sound")

    def _look(self, exchange: Exchange) -> None:
        loop = self.talk._engine.loop
        assert loop is not None
        audit(loop)
        phase = self._phase()
        if any(start <= phase < end + 2 for start, end in CAUSES):
            return
        above = exchange.lag_ms - loop.target_ms()
        self.worst = max(self.worst, above)
        if above > SLACK:
            self.faults.append(f"{self._device.now():.2f} s: the lag is {above:.0f} ms above its target")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ppm", type=float, default=300.0, help="by how much the loudspeaker's clock is fast")
    options = parser.parse_args()
    soak = Soak(60 * options.minutes, options.seed, options.ppm).run()
    print(json.dumps({"worst_ms_above_target": soak.worst, "faults": soak.faults, **soak.talk.statistics().as_dict()}))
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
