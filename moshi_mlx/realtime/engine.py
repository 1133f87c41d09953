"""The model's thread and the verbs of a conversation.

The thread makes the stepper, opens the device when the model is warm, and steps until told otherwise. It keeps the
process punctual: a short switch interval, and no garbage collection during a frame.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import TracebackType

from ..frame import MoshiError, Stepper, StepperFactory
from .capture import Capture
from .device import Device
from .echo import make_echo
from .jitter import JitterBuffer
from .loop import Loop
from .ring import Signal
from .statistics import Counts, Exchange, Meter, Statistics, json_lines

_TICK = 0.1  # seconds after which the engine looks around at the latest
_FIRST = 4.0  # seconds within which a stream must call back first; Bluetooth takes its time
_DEAD = 1.0  # seconds without a callback after which a stream is dead
_RETRY = 1.0  # seconds between two attempts to open a device again
_CLOSE = 2.0  # seconds a device may take to close
_SWITCH = 0.0005  # seconds a thread may keep the interpreter while another waits
_COLLECT = 25  # frames between two collections of young objects; every tenth is a full one


class Conversation:
    """One conversation between a device and a model, on a thread of its own.

    echo: "off", "duck" (half duplex) or "cancel" (needs the extra `echo`: MoshiError at once when it is absent); or a
    function from the output's name to one of these, asked each time the device is opened.
    on_exchange: called on the engine's thread after each frame; it must not block; an exception in it ends the
    conversation as failed.
    """

    def __init__(
        self,
        device: Device,
        factory: StepperFactory,
        *,
        echo: str | Callable[[str], str] = "off",
        on_exchange: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._device, self._factory, self._on_exchange = device, factory, on_exchange
        self._echo_for = echo if callable(echo) else None
        self._echo_mode = "off" if callable(echo) else echo
        self._echo = make_echo(self._echo_mode)
        self._meter = Meter()
        self._loop: Loop | None = None
        self._thread = threading.Thread(target=self._run, name="moshi-engine", daemon=True)
        self._stopping = self._resetting = self._reopening = False
        self._muted = self._paused = self._push_to_talk = self._talking = False
        self._state, self._stage = "new", ""
        self._stage_done: float | None = None
        self._noted = Counts()  # as of the last frame
        self._error: BaseException | None = None
        self._notice = ""
        self._opened_at: float | None = None

    def start(self) -> None:
        """Starts the thread and returns at once: it makes the stepper, then opens the audio, then steps;
        `statistics().stage` tells.
        """
        self._state = "starting"
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Ends the conversation and closes the device; False when that took too long (the thread cannot hold up the
        process's end).
        """
        self._stopping = True
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end; True when it has come. On the engine's own thread it does not wait."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self.running

    def check(self) -> None:
        """Raises MoshiError with the reason if the conversation failed; its cause is the original exception."""
        if isinstance(self._error, MoshiError):
            raise self._error
        if self._error is not None:
            raise MoshiError(self._reason()) from self._error

    @property
    def running(self) -> bool:
        """True from `start` until the conversation has stopped, ended or failed."""
        return self._thread.is_alive()

    def mute(self, on: bool) -> None:
        """The model hears silence and goes on talking."""
        self._muted = on

    def push_to_talk(self, on: bool) -> None:
        """Switches the mode in which the model hears the microphone only while the key is down."""
        self._push_to_talk = on

    def talk(self, down: bool) -> None:
        """The push-to-talk key goes down or up."""
        self._talking = down

    def pause(self, on: bool) -> None:
        """Stops the clock on both sides: nothing is heard, nothing is played, nothing is stepped; then it goes on
        where it was.
        """
        self._paused = on

    def reset(self) -> None:
        """Starts the model's conversation anew between two frames; what waits on both sides is dropped."""
        self._resetting = True

    def reopen(self) -> None:
        """Closes and opens the device, looking up the devices anew; the conversation goes on."""
        self._reopening = True

    def statistics(self) -> Statistics:
        """A snapshot of everything that is measured, from any thread."""
        device, meter, loop = self._device, self._meter, self._loop
        counts = meter.past + loop.counts() if loop else meter.past
        p50, p95, p99 = meter.percentiles()
        frames = max(1, meter.frames)
        return Statistics(
            state=self._state,
            stage=self._stage,
            stage_done=self._stage_done,
            error=self._reason() if self._error else None,
            notice=self._notice,
            frames=meter.frames,
            seconds=self._seconds(),
            lag_ms=loop.lag_ms() if loop else 0.0,
            target_ms=loop.target_ms() if loop else 0.0,
            margin_ms=loop.playback.margin if loop else 0.0,
            capture_ms=loop.capture_ms if loop else 0.0,
            playback_ms=loop.playback_ms if loop else 0.0,
            device_ms=1_000 * (device.input_latency + device.output_latency),
            frame_p50=p50,
            frame_p95=p95,
            frame_p99=p99,
            frame_max=meter.longest_ms,
            misses=meter.misses,
            wait_ms=1_000 * meter.wait_s / frames,
            resample_ms=1_000 * meter.resample_s / frames,
            echo_ms=1_000 * meter.echo_s / frames,
            **asdict(counts),
            flags=dict(device.flags),
            input_level=meter.input_level,
            output_level=meter.output_level,
            input_zero_s=meter.input_zero_s,
            muted=self._muted,
            paused=self._paused,
            push_to_talk=self._push_to_talk,
            talking=self._talking,
            echo=self._echo_mode,
            echo_resets=meter.echo_resets,
            input_name=device.input_name,
            output_name=device.output_name,
            input_rate=device.input_rate,
            output_rate=device.output_rate,
            input_block=loop.capture.block if loop else 0,
            output_block=loop.playback.block if loop else 0,
            reopened=meter.reopened,
        )

    def json_lines(self) -> str:
        """The log of the conversation: the events, then a line with the summary."""
        return json_lines(self.statistics(), self._meter)

    def __enter__(self) -> Conversation:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # the engine's thread

    def _run(self) -> None:
        try:
            stepper = self._factory(self._report)
            with _punctual():
                self._talk(stepper)
            self._state = "stopped"
        except _Stopped:
            self._state = "stopped"
        except BaseException as error:
            self._error, self._state = error, "failed"
            self._meter.event("failed", self._seconds(), self._reason())
        finally:
            if not self._device.close(_CLOSE):
                self._notice = "the audio device did not close in time"

    def _talk(self, stepper: Stepper) -> None:
        self._report("audio", None)
        loop = self._open(stepper)
        self._opened_at = self._device.now()
        self._report("ready", 1.0)
        while not self._stopping and self._meter.frames != self._device.frames:
            if self._resetting:
                self._resetting = False
                stepper.reset()
                loop.flush()
                self._meter.event("reset", self._seconds())
            if self._reopening or self._watchdog.dead(self._device.now()):
                loop = self._reopen(stepper)
            loop.hearing = not self._muted and (self._talking or not self._push_to_talk)
            loop.pause(self._paused)
            self._state = "paused" if self._paused else "running"
            exchange = None if self._paused else loop.turn()
            if exchange is None:
                begin = self._device.now()
                self._device.wait(loop.capture.signal, _TICK)
                self._meter.wait_s += 0.0 if self._paused else self._device.now() - begin
            else:
                self._after(exchange, loop)
        loop.playback.draining = True
        while not self._stopping and loop.playback.waiting and not self._watchdog.dead(self._device.now()):
            self._device.wait(loop.capture.signal, _TICK)

    def _after(self, exchange: Exchange, loop: Loop) -> None:
        """What follows a frame: the hook, the log, and garbage when there is time."""
        if self._on_exchange is not None:
            self._on_exchange(replace(exchange, seconds=exchange.seconds - (self._opened_at or 0.0)))
        counts = loop.counts()
        for kind in ("underruns", "overruns"):
            if getattr(counts, kind) > getattr(self._noted, kind):
                self._meter.event(
                    kind[:-1], self._seconds(), f"lag {exchange.lag_ms:.0f} ms, model {exchange.step_ms:.0f} ms"
                )
        if exchange.dropped_ms:
            self._meter.event("dropped", self._seconds(), f"{exchange.dropped_ms:.0f} ms of the microphone")
        self._noted = counts
        if self._meter.frames % _COLLECT == 0:
            gc.collect(2 if self._meter.frames % (10 * _COLLECT) == 0 else 0)

    def _open(self, stepper: Stepper) -> Loop:
        self._device.open()
        mode = self._echo_for(self._device.output_name) if self._echo_for else self._echo_mode
        if mode != self._echo_mode:
            self._echo_mode, self._echo = mode, make_echo(mode)
        loop = Loop(self._device, stepper, self._meter, self._echo)
        self._device.start(loop.capture.write, loop.playback.fill)
        self._notice = self._device.notice or self._notice
        self._watchdog = Watchdog(loop, self._device.now())
        self._noted = Counts()
        self._loop = loop
        return loop

    def _reopen(self, stepper: Stepper) -> Loop:
        self._reopening = False
        self._state = "reopening"
        self._meter.event("reopen", self._seconds())
        if self._loop is not None:
            self._device.close(_CLOSE)
            self._meter.past, self._loop = self._meter.past + self._loop.counts(), None
        while True:
            if self._stopping:
                raise _Stopped
            try:
                loop = self._open(stepper)
            except MoshiError as error:
                self._notice = str(error)
                self._device.wait(Signal(), _RETRY)
            else:
                self._meter.reopened += 1
                self._meter.event("reopened", self._seconds(), f"{self._device.input_name}, {self._device.output_name}")
                return loop

    def _report(self, stage: str, done: float | None) -> None:
        if self._stopping:
            raise _Stopped
        self._stage, self._stage_done = stage, done

    def _seconds(self) -> float:
        return self._device.now() - self._opened_at if self._opened_at is not None else 0.0

    def _reason(self) -> str:
        if self._error is None or isinstance(self._error, MoshiError):
            return str(self._error or "")
        return f"the conversation failed in frame {self._meter.frames}: {type(self._error).__name__}: {self._error}"


class Watchdog:
    """Tells from the heartbeat of both callbacks whether a stream has died."""

    def __init__(self, loop: Loop, now: float) -> None:
        self._sides: tuple[Capture | JitterBuffer, ...] = (loop.capture, loop.playback)
        self._seen = [0, 0]
        self._beat = [now, now]

    def dead(self, now: float) -> bool:
        """Whether a side has not called back for too long."""
        for index, side in enumerate(self._sides):
            if side.callbacks != self._seen[index]:
                self._seen[index], self._beat[index] = side.callbacks, now
            patience = max(_DEAD, 4 * side.block / side.rate) if side.callbacks else _FIRST
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
