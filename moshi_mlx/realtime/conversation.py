"""A live conversation: the verbs and the numbers, for any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType

from ..frame import MoshiError, StepperFactory
from .device import Device
from .engine import Engine
from .statistics import Exchange, Statistics, json_lines


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
        self._device = device
        self._engine = Engine(device, factory, echo, on_exchange)
        self._wishes = self._engine.wishes
        self._thread = threading.Thread(target=self._engine.run, name="moshi-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread and returns at once: it makes the stepper, then opens the audio, then steps;
        `statistics().stage` tells.
        """
        self._engine.state = "starting"
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Ends the conversation and closes the device; False when that took too long (the thread cannot hold up the
        process's end).
        """
        self._wishes.stop = True
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end; True when it has come. On the engine's own thread it does not wait."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self.running

    def check(self) -> None:
        """Raises MoshiError with the reason if the conversation failed; its cause is the original exception."""
        error = self._engine.error
        if isinstance(error, MoshiError):
            raise error
        if error is not None:
            raise MoshiError(self._engine.reason()) from error

    @property
    def running(self) -> bool:
        """True from `start` until the conversation has stopped, ended or failed."""
        return self._thread.is_alive()

    def mute(self, on: bool) -> None:
        """The model hears silence and goes on talking."""
        self._wishes.mute = on

    def push_to_talk(self, on: bool) -> None:
        """Switches the mode in which the model hears the microphone only while the key is down."""
        self._wishes.push_to_talk = on

    def talk(self, down: bool) -> None:
        """The push-to-talk key goes down or up."""
        self._wishes.talk = down

    def pause(self, on: bool) -> None:
        """Stops the clock on both sides: nothing is heard, nothing is played, nothing is stepped; then it goes on
        where it was.
        """
        self._wishes.pause = on

    def reset(self) -> None:
        """Starts the model's conversation anew between two frames; what waits on both sides is dropped."""
        self._wishes.reset = True

    def reopen(self) -> None:
        """Closes and opens the device, looking up the devices anew; the conversation goes on."""
        self._wishes.reopen = True

    def statistics(self) -> Statistics:
        """A snapshot of everything that is measured, from any thread."""
        engine, device, wishes = self._engine, self._device, self._wishes
        meter, loop, counts = engine.meter, engine.loop, engine.counts()
        p50, p95, p99 = meter.percentiles()
        frames = max(1, meter.frames)
        return Statistics(
            state=engine.state,
            stage=engine.stage,
            stage_done=engine.stage_done,
            error=engine.reason() or None,
            notice=engine.notice,
            frames=meter.frames,
            seconds=engine.seconds(),
            lag_ms=loop.lag_ms() if loop else 0.0,
            target_ms=loop.target_ms() if loop else 0.0,
            margin_ms=loop.playback.margin if loop else 0.0,
            capture_ms=loop.capture_ms if loop else 0.0,
            playback_ms=loop.playback_ms if loop else 0.0,
            device_ms=1_000 * (device.input_latency + device.output_latency),
            frame_mean=meter.mean_ms,
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
            input_heard=meter.input_heard,
            muted=wishes.mute,
            paused=wishes.pause,
            push_to_talk=wishes.push_to_talk,
            talking=wishes.talk,
            echo=engine.echo_mode,
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
        return json_lines(self.statistics(), self._engine.meter)

    def __enter__(self) -> Conversation:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
