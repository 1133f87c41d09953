"""The real PortAudio, on a sound server without hardware."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pulse
from needs import needs

from moshi_mlx.realtime import AudioDevice, Conversation, Statistics
from tools.soak_realtime import EchoingStepper

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
    needs(*pulse.PACKAGES)
    with pulse.sound_system() as environment:
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    _talk(dict(os.environ))
