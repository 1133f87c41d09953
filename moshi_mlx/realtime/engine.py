"""The model's thread and the verbs of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from ..frame import StepperFactory
from .statistics import Exchange, Statistics


class Device(Protocol):
    """What the loop asks of a sound device."""


class Conversation:
    """One conversation between a device and a model, on a thread of its own.

    echo: "off", "duck" (half duplex) or "cancel" (needs the extra `echo`: MoshiError at once when it is absent).
    on_exchange: called on the engine's thread after each frame; an exception in it ends the conversation as a failure.
    """

    def __init__(
        self,
        device: Device,
        factory: StepperFactory,
        *,
        echo: str = "off",
        on_exchange: Callable[[Exchange], None] | None = None,
    ) -> None: ...

    def start(self) -> None:
        """Starts the thread: makes the stepper, then opens the audio, then steps. Returns at once; `statistics().stage` tells where it is."""

    def stop(self, timeout: float = 5.0) -> bool:
        """Ends the conversation and closes the device; False when the thread did not end in time (a daemon, it cannot hold the process)."""
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end (of a file, or a failure); True when it has ended."""
        return True

    def check(self) -> None:
        """Raises MoshiError with the reason if the conversation failed; its cause is the original exception."""

    @property
    def running(self) -> bool:
        """True from `start` until the conversation has stopped, ended or failed."""
        return False

    def mute(self, on: bool) -> None:
        """The model hears silence and goes on talking."""

    def push_to_talk(self, on: bool) -> None:
        """Switches the mode in which the model hears the microphone only while `talk(True)` holds."""

    def talk(self, down: bool) -> None:
        """The push-to-talk key goes down or up."""

    def pause(self, on: bool) -> None:
        """Stops the clock on both sides: nothing is heard, nothing is played, nothing is stepped; then it goes on where it was."""

    def reset(self) -> None:
        """Starts the model's conversation anew between two frames; what it has said and not played is dropped."""

    def reopen(self) -> None:
        """Closes and opens the device, looking up the devices anew; the conversation goes on."""

    def statistics(self) -> Statistics:
        """A snapshot of everything that is measured."""
        raise NotImplementedError

    def __enter__(self) -> Conversation:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
