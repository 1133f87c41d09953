"""A fake PortAudio, as far as the package uses it, and three devices."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from moshi_mlx.realtime import DeviceInfo

MIC = DeviceInfo(0, "MacBook Microphone", "Core Audio", 1, 0, 48_000, 10, 0, True, False)
SPEAKER = DeviceInfo(1, "MacBook Speakers", "Core Audio", 0, 2, 44_100, 0, 10, False, True)
HEADSET = DeviceInfo(2, "Ann's AirPods", "Core Audio", 1, 2, 16_000, 20, 20, False, False)
ALL = [MIC, SPEAKER, HEADSET]


class FakePortAudio:
    """sounddevice as far as AudioDevice uses it; `callbacks` calls what was opened."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.devices = list(ALL)
        self.refreshed = 0
        self.opened: list[Any] = []
        self.refuses_mono = False
        self.up = True
        self.fails = 0  # so many starts will fail
        self.hangs = threading.Event()
        self.hangs.set()

    def _terminate(self) -> None:
        assert not [one for one in self.opened if not one.closed], "PortAudio was terminated under a live stream"

        if not self.up:
            raise self.PortAudioError("PortAudio not initialized")
        self.up = False

    def _initialize(self) -> None:
        if self.fails:
            self.fails -= 1
            raise self.PortAudioError("unanticipated host error")
        self.refreshed += 1
        self.up = True

    def query_hostapis(self) -> list[dict[str, str]]:
        return [{"name": "Core Audio"}]

    def query_devices(self, kind: str | None = None) -> Any:
        listed = [
            {
                "name": one.name,
                "hostapi": 0,
                "index": number,
                "max_input_channels": one.inputs,
                "max_output_channels": one.outputs,
                "default_samplerate": float(one.rate),
                "default_low_input_latency": 0.01,
                "default_low_output_latency": 0.01,
            }
            for number, one in enumerate(self.devices)
        ]
        return next(one for one in listed if one[f"max_{kind}_channels"]) if kind else listed

    def InputStream(self, **settings: Any) -> Any:
        return self._stream(settings)

    def OutputStream(self, **settings: Any) -> Any:
        return self._stream(settings)

    def _stream(self, settings: dict[str, Any]) -> Any:
        if self.refuses_mono and settings["channels"] == 1 and settings["device"] != 0:
            raise self.PortAudioError("invalid number of channels")
        stream = SimpleNamespace(**settings, closed=False, started=False)
        stream.latency = 0.01
        stream.start = lambda: setattr(stream, "started", True)
        stream.abort = lambda ignore_errors: self.hangs.wait(10)
        stream.close = lambda ignore_errors: setattr(stream, "closed", True)
        self.opened.append(stream)
        return stream
