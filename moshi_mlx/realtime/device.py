"""Sound devices: what the loop asks of one, and the real one on PortAudio. Always two streams, for a Mac's microphone
and loudspeaker are two devices.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..frame import MoshiError, Pcm
from .listing import DeviceInfo, built_in, choose_device, list_devices, portaudio
from .ring import Signal

Block = Callable[[Pcm], None]  # a callback's work on a block (n, channels)
_BLOCK = {"low": 0.02, "high": 0.04}  # seconds between two callbacks of Core Audio
_FLAGS = ("input_underflow", "input_overflow", "output_underflow", "output_overflow")


class Device(Protocol):
    """A microphone, a loudspeaker and a clock. All methods but `now` are called on the engine's thread.

    Rates are whole samples a second, latencies seconds that the sound system adds; they hold from `open` on. frames:
    how many frames there are to step, None without an end. notice: something worth telling about the last opening.
    """

    input_name: str
    output_name: str
    input_rate: int
    output_rate: int
    input_latency: float
    output_latency: float
    frames: int | None
    flags: dict[str, int]
    notice: str

    def open(self) -> None:
        """Finds the devices and their rates. MoshiError when there is none."""

    def start(self, capture: Block, fill: Block) -> None:
        """Starts the streams: capture gets blocks of the microphone, fill completes blocks for the loudspeaker, on
        threads of their own.
        """

    def close(self, timeout: float) -> bool:
        """Stops the streams; False when one did not stop in time. Closing twice is harmless."""

    def now(self) -> float:
        """Seconds of this device's clock."""

    def wait(self, signal: Signal, timeout: float) -> None:
        """Returns when the signal is set, or after timeout seconds of this device's clock."""


class AudioDevice:
    """The microphone and the loudspeaker of this computer, each at its own rate, with the blocks that it likes best.

    input, output: a number, a part of a name, or None for the default. When a chosen device has vanished, a reopened
    AudioDevice takes the default one and says so in `notice`. latency: "low", "high" or seconds. seen: the devices
    that it was chosen from, if some time ago: numbers mean those, and one that has vanished since is replaced at once.
    """

    frames: int | None = None

    def __init__(
        self,
        input: str | int | None = None,
        output: str | int | None = None,
        latency: str | float = "low",
        seen: Sequence[DeviceInfo] = (),
    ) -> None:
        self.input_name = self.output_name = ""
        self.input_rate = self.output_rate = 0
        self.input_latency = self.output_latency = 0.0
        self.flags = dict.fromkeys(_FLAGS, 0)
        self.notice = ""
        self._wanted = {"input": input, "output": output}
        self._numbered = {  # the names of what was chosen by its number
            kind: choose_device(seen, wanted, kind).name
            for kind, wanted in self._wanted.items()
            if seen and str(wanted).isdecimal()
        }
        self._latency = latency
        self._streams: list[Any] = []
        self._closing: threading.Thread | None = None
        self._seen = bool(seen)

    def open(self) -> None:
        if self._closing is not None and self._closing.is_alive():  # PortAudio must not be restarted under a stream
            raise MoshiError(f"{self.input_name} and {self.output_name} do not close yet; unplug one if that goes on")
        self.notice = ""
        devices = list_devices(refresh=True)  # the list is as old as the program, which may have fetched a model since
        self._input, self._output = self._choose(devices, "input"), self._choose(devices, "output")
        self.input_name, self.output_name = self._input.name, self._output.name
        self.input_rate, self.output_rate = self._input.rate, self._output.rate
        self._seen = True

    def start(self, capture: Block, fill: Block) -> None:
        flags = self.flags

        def heard(block: Pcm, count: int, when: Any, status: Any) -> None:
            if status:
                _count(flags, status)
            capture(block)
            self.input_latency = _nearer(self.input_latency, when.currentTime, -when.inputBufferAdcTime)

        def played(block: Pcm, count: int, when: Any, status: Any) -> None:
            if status:
                _count(flags, status)
            fill(block)
            self.output_latency = _nearer(self.output_latency, -when.currentTime, when.outputBufferDacTime)

        sd = portaudio()
        try:
            self._streams.append(self._stream(sd.OutputStream, self._output, _channels(self._output, "output"), played))
            self._streams.append(self._stream(sd.InputStream, self._input, _channels(self._input, "input"), heard))
            self.output_latency, self.input_latency = (float(stream.latency) for stream in self._streams)
            for stream in self._streams:
                stream.start()
        except (sd.PortAudioError, ValueError) as error:
            self.close(1.0)
            names = f"{self.input_name} and {self.output_name}"
            raise MoshiError(f"cannot open {names}: {error}; see moshi-mlx devices --test") from error

    def close(self, timeout: float) -> bool:
        streams, self._streams = self._streams, []
        if self._closing is None or not self._closing.is_alive():
            self._closing = threading.Thread(target=_close, args=(streams,), daemon=True)
            self._closing.start()
        self._closing.join(timeout)
        return not self._closing.is_alive()

    def now(self) -> float:
        return time.monotonic()

    def wait(self, signal: Signal, timeout: float) -> None:
        signal.wait(timeout)

    def _choose(self, devices: list[DeviceInfo], kind: str) -> DeviceInfo:
        wanted, name = self._wanted[kind], self._numbered.get(kind)
        if name is not None and not any(one.name == name and str(one.number) == str(wanted) for one in devices):
            wanted = name  # the numbers change when something is plugged in
        try:
            chosen = choose_device(devices, wanted, kind)
            if wanted is None and kind == "input" and (better := built_in(devices, chosen)) is not None:
                self.notice = (
                    f"{better.name} listens: {chosen.name} would lower the sound quality of both directions "
                    f"(--input {shlex.quote(chosen.name)} takes it)"
                )
                chosen = better
            if str(wanted).isdecimal():
                self._numbered[kind] = chosen.name
            return chosen
        except MoshiError as error:
            if not self._seen or wanted is None:
                raise
            self.notice = f"{error}; using the default"
            return choose_device(devices, None, kind)

    def _stream(self, make: Any, device: DeviceInfo, channels: Sequence[int], callback: Any) -> Any:
        """Opens with the first number of channels that the device takes: some refuse what they do not have."""
        like = {"device": device.number, "samplerate": device.rate, "dtype": "float32", "callback": callback}
        like |= _timing(device, self._latency)
        for count in channels:
            try:
                return make(channels=count, **like)
            except portaudio().PortAudioError as error:
                refused = error
        raise refused


def _channels(device: DeviceInfo, kind: str) -> Sequence[int]:
    """Numbers of channels to try: mono, then stereo. A microphone of several inputs on a Mac the other way round: the
    mono of Core Audio is the first input, and the voice may be on the second.
    """
    most = device.inputs if kind == "input" else device.outputs
    wished = (2, 1) if kind == "input" and device.host == "Core Audio" else (1, 2)
    return [count for count in wished if count <= most] or [1]


def _timing(device: DeviceInfo, latency: str | float) -> dict[str, Any]:
    """What PortAudio is asked for. On Core Audio its "low" is a callback every 64 samples, more often than a step
    lets go of the interpreter, and it counts seconds after it has taken off the hardware's own, which are more than
    most people ask for. So there the block is named, and the rest left to the system.
    """
    if device.host != "Core Audio":
        return {"latency": latency, "blocksize": 0}
    seconds = _BLOCK[latency] if isinstance(latency, str) else latency
    return {"latency": "low", "blocksize": max(1, round(seconds * device.rate))}


def _count(flags: dict[str, int], status: Any) -> None:
    for name in _FLAGS:
        flags[name] += bool(getattr(status, name))


def _nearer(old: float, *times: float) -> float:
    """A latency, smoothed: the sum of two times, one negative. It starts as what the stream promises; a system that
    tells no times (zeros) does not change it."""
    new = sum(times)
    return old + (new - old) / 50 if all(times) and 0 <= new < 1 else old


def _close(streams: list[Any]) -> None:
    for stream in streams:
        stream.abort(ignore_errors=True)
        stream.close(ignore_errors=True)
