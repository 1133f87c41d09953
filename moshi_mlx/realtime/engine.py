"""The model's thread.

It makes the stepper, opens the device when the model is warm, and steps until told otherwise. It keeps the
process punctual: a short switch interval, and no garbage collection during a frame.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..frame import MoshiError, Stepper, StepperFactory, gpu_failure
from .capture import Capture
from .device import Device
from .echo import make_echo
from .jitter import JitterBuffer
from .loop import Loop
from .ring import Signal
from .statistics import Counts, Exchange, Meter

_TICK = 0.1  # seconds after which the engine looks around at the latest
_FIRST = 10.0  # seconds within which both streams must call back; a Bluetooth headset that changes its profile stalls
_DEAD = 1.0  # seconds without a callback after which a stream is dead
_RETRY = 1.0  # seconds between two attempts to open a device again
_CLOSE = 2.0  # seconds a device may take to close
_SWITCH = 0.0005  # seconds a thread may keep the interpreter while another waits
_COLLECT = 25  # frames between two collections of young objects; every tenth is a full one


@dataclass(slots=True)
class Wishes:
    """What other threads ask of the engine: plain flags, looked at between two frames."""

    stop: bool = False
    reset: bool = False
    reopen: bool = False
    mute: bool = False
    pause: bool = False
    push_to_talk: bool = False
    talk: bool = False


class Engine:
    """Runs one conversation. Its public attributes are for others to read, `wishes` for others to write."""

    def __init__(
        self,
        device: Device,
        factory: StepperFactory,
        echo: str | Callable[[str], str],
        on_exchange: Callable[[Exchange], None] | None,
    ) -> None:
        self._device, self._factory, self._on_exchange = device, factory, on_exchange
        self._choose_echo = echo if callable(echo) else None
        self.echo_mode = "off" if callable(echo) else echo
        self._echo = make_echo(self.echo_mode)
        self.wishes = Wishes()
        self.meter = Meter()
        # The counters of the devices closed before, and the loop of the one that is open: one value, so that a reader
        # on another thread never counts a device twice, or not at all.
        self.opened: tuple[Counts, Loop | None] = (Counts(), None)
        self.state, self.stage = "new", ""
        self.stage_done: float | None = None
        self.error: BaseException | None = None
        self.notice = ""
        self._noted = Counts()  # as of the last frame

    def run(self) -> None:
        """The thread's body, from making the stepper to closing the device. It raises nothing: see `error`."""
        try:
            stepper = self._factory(self._report)
            with _punctual():
                self._talk(stepper)
            self.state = "stopped"
        except _Stopped:
            self.state = "stopped"
        except BaseException as error:
            self.error, self.state = error, "failed"
            self.meter.event("failed", self.seconds(), self.reason())
        finally:
            self._close()

    def _talk(self, stepper: Stepper) -> None:
        self._report("audio", None)
        loop = self._open(stepper)
        self._report("ready", 1.0)
        while not self.wishes.stop and self.meter.frames != self._device.frames:
            if self.wishes.reset:
                self.wishes.reset = False
                stepper.reset()
                loop.flush()
                self.meter.event("reset", self.seconds())
            if self.wishes.reopen or self._watchdog.dead(self._device.now()):
                loop = self._reopen(stepper)
            loop.hearing = not self.wishes.mute and (self.wishes.talk or not self.wishes.push_to_talk)
            loop.pause(self.wishes.pause)
            self.state = "paused" if self.wishes.pause else "running"
            exchange = None if self.wishes.pause else loop.turn()
            if exchange is None:
                begin = self._device.now()
                self._device.wait(loop.capture.signal, _TICK)
                self.meter.wait_s += 0.0 if self.wishes.pause else self._device.now() - begin
            else:
                self._after(exchange, loop)
        loop.playback.draining = True
        while not self.wishes.stop and loop.playback.waiting and not self._watchdog.dead(self._device.now()):
            self._device.wait(loop.capture.signal, _TICK)

    def _after(self, exchange: Exchange, loop: Loop) -> None:
        """What follows a frame: the hook, the log, and garbage when there is time."""
        if self._on_exchange is not None:
            self._on_exchange(exchange)
        counts = loop.counts()
        for kind in ("underruns", "overruns"):
            if getattr(counts, kind) > getattr(self._noted, kind):
                self.meter.event(
                    kind[:-1], self.seconds(), f"lag {exchange.lag_ms:.0f} ms, model {exchange.step_ms:.0f} ms"
                )
        if exchange.dropped_ms:
            self.meter.event("dropped", self.seconds(), f"{exchange.dropped_ms:.0f} ms of the microphone")
        self._noted = counts
        if self.meter.frames % _COLLECT == 0:
            gc.collect(2 if self.meter.frames % (10 * _COLLECT) == 0 else 0)

    def _close(self) -> None:
        """The end of the device; what fails in it is the conversation's failure, unless that has one already."""
        try:
            if not self._device.close(_CLOSE):
                self.notice = "the audio device did not close in time"
        except Exception as error:
            self.error, self.state = self.error or error, "failed"

    def _open(self, stepper: Stepper) -> Loop:
        self._device.open()
        if self._choose_echo is not None:
            self.echo_mode = self._choose_echo(self._device.output_name)
            self._echo = make_echo(self.echo_mode)
        loop = Loop(self._device, stepper, self.meter, self._echo)
        self._device.start(loop.capture.write, loop.playback.fill)
        self.notice = self._device.notice or self.notice
        now = self._device.now()
        self.meter.epoch = now if self.meter.epoch is None else self.meter.epoch
        self._watchdog = Watchdog(loop, now)
        self._noted = Counts()
        self.opened = self.opened[0], loop
        return loop

    def _reopen(self, stepper: Stepper) -> Loop:
        self.wishes.reopen = False
        self.state = "reopening"
        self.meter.event("reopen", self.seconds())
        if self.loop is not None:
            self._device.close(_CLOSE)
            self.opened = self.counts(), None
        while True:
            try:
                loop = self._open(stepper)
            except MoshiError as error:
                self.notice = str(error)
                self._rest(_RETRY)
            else:
                self.notice = self._device.notice or f"reopened {self._device.input_name}, {self._device.output_name}"
                self.meter.reopened += 1
                self.meter.event("reopened", self.seconds(), f"{self._device.input_name}, {self._device.output_name}")
                return loop

    def _rest(self, seconds: float) -> None:
        """Waits, but not on when it is to stop."""
        end = self._device.now() + seconds
        while (left := end - self._device.now()) > 0:
            if self.wishes.stop:
                raise _Stopped
            self._device.wait(Signal(), min(_TICK, left))

    def _report(self, stage: str, done: float | None) -> None:
        if self.wishes.stop:
            raise _Stopped
        self.stage, self.stage_done = stage, done

    @property
    def loop(self) -> Loop | None:
        """That of the open device."""
        return self.opened[1]

    def counts(self) -> Counts:
        """The counters of the whole conversation."""
        past, loop = self.opened
        return past + loop.counts() if loop is not None else past

    def seconds(self) -> float:
        """Since the audio was first opened."""
        return self._device.now() - self.meter.epoch if self.meter.epoch is not None else 0.0

    def reason(self) -> str:
        """Why it failed, in one line; empty if it did not."""
        if self.error is None or isinstance(self.error, MoshiError):
            return str(self.error or "")
        what = gpu_failure(self.error) or f"{type(self.error).__name__}: {self.error}"
        return f"the conversation failed in frame {self.meter.frames}: {what}"


class Watchdog:
    """Tells from the heartbeat of both callbacks whether a stream has died. It must be asked every few ticks."""

    def __init__(self, loop: Loop, now: float) -> None:
        self._sides: tuple[Capture | JitterBuffer, ...] = (loop.capture, loop.playback)
        self._seen = [0, 0]
        self._beat = [now, now]
        self._asked = now

    def dead(self, now: float) -> bool:
        """Whether a side has not called back for too long. Where nobody asked for as long, the whole process stood
        (Ctrl-Z, a closed lid), the callbacks with it: they get their time anew."""
        if now - self._asked > _DEAD:
            self._beat = [now, now]
        self._asked = now
        for index, side in enumerate(self._sides):
            if side.callbacks != self._seen[index]:
                self._seen[index], self._beat[index] = side.callbacks, now
            patience = max(_DEAD, 4 * side.block / side.rate) if all(self._seen) else _FIRST
            if now - self._beat[index] > patience:
                return True
        return False


class _Stopped(Exception):
    """The conversation was told to stop while it was busy."""


@contextmanager
def _punctual() -> Iterator[None]:
    """Keeps other threads and the garbage collector from delaying a frame. The model made before is left out of
    every collection.
    """
    interval, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(_SWITCH)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
        if collecting:
            gc.enable()
