"""What sound devices there are, and which of them a person means.

PortAudio learns of new devices only when it is terminated and initialized again, which must not happen while a stream
lives: `refresh` does it when an `AudioDevice` is opened.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..frame import MoshiError

BLUETOOTH = ("airpod", "buds", "beats", "bluetooth", "bluez", "hands-free", "handsfree", "wh-1000", "wf-1000")
BLUETOOTH_RATE = 16_000  # Hz: no built-in microphone runs as low, a headset's profile for talking does
BUILT_IN = ("macbook", "imac", "built-in", "studio display")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device as `moshi-mlx devices` lists it. latency in milliseconds, the lowest that the system promises."""

    number: int
    name: str
    host: str
    inputs: int
    outputs: int
    rate: int
    input_latency: float
    output_latency: float
    default_input: bool
    default_output: bool


def list_devices(refresh: bool = False) -> list[DeviceInfo]:
    """All devices. refresh: looks for new ones, which must not be done while a stream is open."""
    sd = portaudio()
    if refresh:
        try:
            with contextlib.suppress(sd.PortAudioError):  # it is down already where it could not be started last time
                sd._terminate()
            sd._initialize()
        except sd.PortAudioError as error:
            raise MoshiError(f"the sound system does not answer: {error}; try again, or restart it") from error
    hosts = sd.query_hostapis()
    first_input, first_output = _default(sd, "input"), _default(sd, "output")
    return [
        DeviceInfo(
            number=number,
            name=one["name"],
            host=hosts[one["hostapi"]]["name"],
            inputs=one["max_input_channels"],
            outputs=one["max_output_channels"],
            rate=round(one["default_samplerate"]),
            input_latency=1_000 * one["default_low_input_latency"],
            output_latency=1_000 * one["default_low_output_latency"],
            default_input=number == first_input,
            default_output=number == first_output,
        )
        for number, one in enumerate(sd.query_devices())
    ]


def of_kind(devices: Sequence[DeviceInfo], kind: str) -> list[DeviceInfo]:
    """The inputs, or the outputs: macOS lists a headset as one of each, by the same name."""
    return [one for one in devices if (one.inputs if kind == "input" else one.outputs) > 0]


def choose_device(devices: Sequence[DeviceInfo], wanted: str | int | None, kind: str) -> DeviceInfo:
    """The device of a kind ("input" or "output") by number, by a part of its name, or the default. MoshiError says
    what there is.
    """
    usable = of_kind(devices, kind)
    if wanted is None:
        chosen = [one for one in usable if (one.default_input if kind == "input" else one.default_output)] or usable[:1]
    elif isinstance(wanted, int) or wanted.isdecimal():
        chosen = [one for one in usable if one.number == int(wanted)]
    else:
        exact = [one for one in usable if one.name.lower() == wanted.lower()]
        chosen = exact or [one for one in usable if wanted.lower() in one.name.lower()]
    if chosen:
        return chosen[0]
    if not usable:
        raise MoshiError(f"there is no audio {kind} device: connect one, or see moshi-mlx devices")
    names = ", ".join(f"{one.number} {one.name}" for one in usable)
    raise MoshiError(f"no audio {kind} device is called {wanted!r}: choose one of {names}")


def is_bluetooth(name: str, rate: int) -> bool:
    """Whether a microphone is one of Bluetooth, by its name or its rate (0: not known)."""
    return any(word in name.casefold() for word in BLUETOOTH) or 0 < rate <= BLUETOOTH_RATE


def built_in(devices: list[DeviceInfo], chosen: DeviceInfo) -> DeviceInfo | None:
    """A Mac's own microphone where the default is one of Bluetooth: to open that one takes its headset from stereo to
    the sound of a telephone, and changes the rate of a loudspeaker stream that runs.
    """
    if chosen.host != "Core Audio" or not is_bluetooth(chosen.name, 0):  # some of USB run as low as Bluetooth does
        return None
    own = [one for one in devices if one.inputs and any(word in one.name.casefold() for word in BUILT_IN)]
    return own[0] if own and not _lid_closed() else None


def _lid_closed() -> bool:
    """Whether this is a Mac whose lid is shut: its microphone is listed then, runs, and gives exact zeros."""
    ask = ["/usr/sbin/ioreg", "-r", "-k", "AppleClamshellState", "-d", "1"]
    try:
        told = subprocess.run(ask, capture_output=True, timeout=2, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b'"AppleClamshellState" = Yes' in told


def _default(sd: Any, kind: str) -> int:
    try:
        return int(sd.query_devices(kind=kind)["index"])
    except (sd.PortAudioError, ValueError):
        return -1


def portaudio() -> Any:
    """The package, where PortAudio is installed."""
    try:
        import sounddevice
    except OSError as error:  # the wheel for Linux brings no PortAudio
        raise MoshiError("PortAudio is missing: install it (Debian, Ubuntu: apt-get install libportaudio2)") from error
    return sounddevice
