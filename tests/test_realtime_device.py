"""Sound devices: the choice among them, a fake PortAudio, and the real one on a sound server without hardware."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pulse
import pytest

from moshi_mlx.frame import MoshiError
from moshi_mlx.realtime import AudioDevice, Conversation, DeviceInfo, Statistics, list_devices
from moshi_mlx.realtime import device as device_module
from moshi_mlx.realtime.device import choose_device
from tools.soak_realtime import EchoingStepper

MIC = DeviceInfo(0, "MacBook Microphone", "Core Audio", 1, 0, 48_000, 10, 0, True, False)
SPEAKER = DeviceInfo(1, "MacBook Speakers", "Core Audio", 0, 2, 44_100, 0, 10, False, True)
HEADSET = DeviceInfo(2, "Ann's AirPods", "Core Audio", 1, 2, 16_000, 20, 20, False, False)
ALL = [MIC, SPEAKER, HEADSET]


def test_a_device_is_chosen_by_number_part_of_its_name_or_default() -> None:
    """Names differ by apostrophes and case; a loudspeaker must never be taken for a microphone."""
    assert choose_device(ALL, None, "input") is MIC
    assert choose_device(ALL, None, "output") is SPEAKER
    assert choose_device(ALL, "airpods", "input") is HEADSET
    assert choose_device(ALL, "2", "output") is HEADSET
    assert choose_device(ALL, 1, "output") is SPEAKER
    assert choose_device([replace(MIC, default_input=False)], None, "input").name == MIC.name
    for wanted in ("Speakers", 1, "nothing"):
        with pytest.raises(MoshiError, match="choose one of 0 MacBook Microphone, 2 Ann's AirPods"):
            choose_device(ALL, wanted, "input")
    with pytest.raises(MoshiError, match="there is no audio input"):
        choose_device([SPEAKER], None, "input")


class FakePortAudio:
    """sounddevice as far as AudioDevice uses it; `callbacks` calls what was opened."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.devices = list(ALL)
        self.refreshed = 0
        self.opened: list[Any] = []
        self.refuses_mono = False
        self.hangs = threading.Event()
        self.hangs.set()

    def _terminate(self) -> None:
        assert not [one for one in self.opened if not one.closed], "PortAudio was terminated under a live stream"

    def _initialize(self) -> None:
        self.refreshed += 1

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


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    fake = FakePortAudio()
    monkeypatch.setattr(device_module, "_sounddevice", lambda: fake)
    return fake


def test_two_streams_open_at_their_own_rates_and_flags_are_counted_apart(portaudio: FakePortAudio) -> None:
    """A headset opened at 24 kHz garbles; PortAudio's overflow on macOS is no proof that we were late."""
    device, heard, played = AudioDevice("airpods", "speakers"), [], []
    device.open()
    device.start(heard.append, played.append)
    speaker, microphone = portaudio.opened
    assert (speaker.samplerate, microphone.samplerate) == (44_100, 16_000)
    assert (speaker.device, microphone.device) == (1, 2)
    assert speaker.started
    assert microphone.started
    status = SimpleNamespace(input_underflow=False, input_overflow=True, output_underflow=False, output_overflow=False)
    when = SimpleNamespace(currentTime=100.0, inputBufferAdcTime=99.9, outputBufferDacTime=100.2)
    for _ in range(300):
        speaker.callback(np.zeros((9, 1), np.float32), 9, when, None)
    microphone.callback(np.zeros((7, 1), np.float32), 7, when, status)
    assert device.output_latency == pytest.approx(0.2, abs=0.01)  # what is measured, not what was promised
    assert (len(heard[0]), len(played[0])) == (7, 9)
    assert device.flags == {"input_underflow": 0, "input_overflow": 1, "output_underflow": 0, "output_overflow": 0}
    assert device.close(1)
    assert speaker.closed
    assert microphone.closed


def test_a_device_that_refuses_mono_is_opened_in_stereo(portaudio: FakePortAudio) -> None:
    """Some interfaces take only the channels that they have; opening failed with "invalid number of channels"."""
    portaudio.refuses_mono = True
    device = AudioDevice()
    device.open()
    device.start(lambda block: None, lambda block: None)
    assert [stream.channels for stream in portaudio.opened] == [2, 1]
    device.close(1)
    portaudio.devices[1] = replace(SPEAKER, outputs=1)
    device.open()
    with pytest.raises(MoshiError, match="cannot open MacBook Microphone and MacBook Speakers"):
        device.start(lambda block: None, lambda block: None)


def test_reopening_looks_devices_up_anew_and_falls_back_to_the_default(portaudio: FakePortAudio) -> None:
    """PortAudio's list is as old as its start: without a restart, plugged-in headphones are never found."""
    device = AudioDevice(output="airpods")
    device.open()
    device.start(lambda block: None, lambda block: None)
    assert portaudio.refreshed == 0
    device.close(1)
    portaudio.devices.remove(HEADSET)
    device.open()
    assert portaudio.refreshed == 1
    assert device.output_name == "MacBook Speakers"
    assert "airpods" in device.notice
    with pytest.raises(MoshiError, match="airpods"):
        AudioDevice(
            output="airpods"
        ).open()  # at the start nobody is asked to talk to another device than the one chosen


def test_a_stream_that_hangs_does_not_hold_up_the_end(portaudio: FakePortAudio) -> None:
    """PortAudio can hang in stop (PortAudio#1174): Ctrl-C must end the program all the same."""
    device = AudioDevice()
    device.open()
    device.start(lambda block: None, lambda block: None)
    portaudio.hangs.clear()
    begin = time.monotonic()
    assert not device.close(0.05)
    assert time.monotonic() - begin < 5
    portaudio.hangs.set()


def test_without_portaudio_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """sounddevice raises OSError at import on a Linux without PortAudio; not everybody knows its Debian name."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr("builtins.__import__", _no_portaudio(__import__))
    with pytest.raises(MoshiError, match="libportaudio2"):
        list_devices()


def _no_portaudio(real: Any) -> Any:
    def without(name: str, *rest: Any) -> Any:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, *rest)

    return without


RATE = 48_000
PATTERN = 3.0  # seconds of what is played into the microphone


def _played() -> np.ndarray[Any, Any]:
    """Silence, a click, silence, a tone of one second that fades in and out."""
    sound = np.zeros(round(PATTERN * RATE), np.float32)
    sound[RATE // 2 : RATE // 2 + 48] = 0.9
    window = np.minimum(1, np.minimum(np.arange(RATE), np.arange(RATE)[::-1]) / 2_400)
    sound[RATE * 3 // 2 : RATE * 5 // 2] = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) * window
    return sound


class Listener(threading.Thread):
    """Records a monitor with the time at which each piece came."""

    def __init__(self, source: str, environment: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.pieces: list[tuple[float, np.ndarray[Any, Any]]] = []
        command = ["parec", f"--device={source}", "--format=float32le", "--rate=48000", "--channels=1"]
        self.process = subprocess.Popen([*command, "--latency-msec=10"], env=environment, stdout=subprocess.PIPE)
        self.start()

    def run(self) -> None:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            self.pieces.append((time.monotonic(), np.frombuffer(data[: len(data) // 4 * 4], np.float32)))

    def stop(self) -> None:
        self.process.terminate()
        self.join(5)
        self.process.wait(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def take(self, threshold: float) -> tuple[float, np.ndarray[Any, Any]]:
        """When the first loud sample came, and all from it on; forgets what it gave."""
        pieces, self.pieces = self.pieces, []
        sound = np.concatenate([one for _, one in pieces])
        first = int(np.argmax(np.abs(sound) > threshold))
        ends = np.cumsum([len(one) for _, one in pieces])
        index = int(np.searchsorted(ends, first, side="right"))
        return pieces[index][0] - (ends[index] - first) / RATE, sound[first:]


def _flaws(sound: np.ndarray[Any, Any]) -> list[str]:
    """What is wrong with a recording that begins with the click."""
    tone = sound[RATE : 2 * RATE]  # a second after it
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
    peak = int(np.argmax(spectrum))
    level = float(np.sqrt(np.mean(tone[4_800:-4_800] ** 2)))
    return [
        *([f"its pitch is {peak} Hz"] if abs(peak - 440) > 2 else []),
        *(["it has gaps"] if spectrum[peak - 5 : peak + 6].sum() < 0.9 * spectrum.sum() else []),
        *([f"its level is {level:.3f}"] if abs(level - 0.212) > 0.01 else []),
    ]


def _talk(environment: dict[str, str]) -> None:
    """The body of the test below, in a process whose PortAudio knows the sound server.

    This machine may be busy, so a pass may fail, but never without the counters telling; one of six must be clean.
    """
    lags: list[float] = []
    talk = Conversation(
        AudioDevice(latency=0.05),
        lambda report: EchoingStepper(time.sleep, lambda: 0.02),
        on_exchange=lambda one: lags.append(one.lag_ms),
    )
    microphone, loudspeaker = Listener("mic.monitor", environment), Listener("spk.monitor", environment)
    player = ["paplay", "--device=mic", "--raw", "--format=float32le", f"--rate={RATE}", "--channels=1"]
    told = []
    with talk:
        while talk.running and talk.statistics().frames < 25:
            time.sleep(0.05)
        for _ in range(6):
            lags.clear()
            before = talk.statistics()
            subprocess.run(player, env=environment, input=_played().tobytes(), check=True, timeout=30)
            time.sleep(1)
            now = talk.statistics()
            heard_at, heard = microphone.take(0.4)
            played_at, played = loudspeaker.take(0.1)
            flaws, alibi = _flaws(played), [*_flaws(heard), *_troubles(before, now)]
            block = 1_000 * (now.input_block / now.input_rate + now.output_block / now.output_rate)
            measured, claimed = 1_000 * (played_at - heard_at), float(np.mean(lags)) + now.device_ms
            told.append(f"measured {measured:.0f}, claimed {claimed:.0f} ± {block:.0f} ms; {flaws}, {alibi}")
            assert not flaws or alibi, told
            if not flaws and abs(measured - claimed) <= block:
                break
        else:
            raise AssertionError("\n".join(told))
    talk.check()
    microphone.stop()
    loudspeaker.stop()
    print("\n".join(told))
    assert talk.statistics().callback_errors == 0


def _troubles(before: Statistics, now: Statistics) -> list[str]:
    """What the counters say went wrong in between."""
    names = (
        "underruns",
        "overruns",
        "dropped_ms",
        "dropped_silent_ms",
        "skipped_ms",
        "inserted_ms",
        "reopened",
        "flags",
    )
    return [name for name in names if getattr(now, name) != getattr(before, name)]


def test_a_tone_goes_through_real_portaudio_complete_and_as_late_as_the_counters_say() -> None:
    """Everything above is a fake; this is PortAudio, a sound server, two real streams and their threads."""
    if missing := pulse.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"missing: {missing}")
        pytest.skip(f"needs {', '.join(missing)}: apt-get install libportaudio2 {' '.join(pulse.PACKAGES)}")
    with pulse.sound_system() as environment:
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    _talk(dict(os.environ))
