"""Moshi must not hear itself, and must hear whoever talks at the same time."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from functools import cache

import numpy as np
import pytest

from moshi_mlx.frame import RATE, MoshiError, Pcm
from moshi_mlx.realtime import Conversation, VirtualDevice
from moshi_mlx.realtime.echo import _LATE, BLOCK, Cancel, Duck, Echo, make_echo
from tools.soak_realtime import EchoingStepper, tone

DELAY = round(0.06 * RATE)


@cache
def voice(seed: int, seconds: float, pitch: float) -> Pcm:
    """Something like speech: harmonics of a moving pitch under formants, in syllables with pauses; RMS 0.08."""
    random = np.random.default_rng(seed)
    out = np.zeros(round(seconds * RATE))
    start = 0
    while start < len(out):
        length = round(RATE * random.uniform(0.12, 0.3))
        glide = pitch * random.uniform(0.8, 1.3) * (1 + 0.1 * np.linspace(0, random.uniform(-1, 1), length))
        phase = 2 * np.pi * np.cumsum(glide) / RATE
        formants = (random.uniform(300, 800), random.uniform(900, 2200), random.uniform(2300, 3200))
        syllable = np.zeros(length)
        for harmonic in range(1, int(5_000 / glide.mean())):
            height = 0.02 + sum(1 / (1 + ((harmonic * glide.mean() - one) / 120) ** 2) for one in formants)
            syllable += height * np.sin(harmonic * phase + random.uniform(0, 6)) / np.sqrt(harmonic)
        end = min(start + length, len(out))
        out[start:end] = (syllable * np.sqrt(np.hanning(length)))[: end - start]
        start = end + round(RATE * random.uniform(0.02, 0.25))
    return (0.08 * out / np.sqrt(np.mean(out**2))).astype(np.float32)


def treat(echo: Echo, microphone: Pcm, played: Pcm) -> Pcm:
    blocks = range(0, len(played) // BLOCK * BLOCK, BLOCK)
    return np.concatenate([echo.process(microphone[k : k + BLOCK], played[k : k + BLOCK]) for k in blocks])


def echo_of(played: Pcm) -> Pcm:
    """The loudspeaker at the microphone: 6 dB weaker, 60 ms later."""
    return np.concatenate([np.zeros(DELAY, np.float32), played])[: len(played)] / 2


def power(sound: Pcm) -> float:
    return float(np.mean(np.square(sound, dtype=np.float64)))


def test_cancel_removes_the_echo_and_leaves_whoever_talks_at_the_same_time() -> None:
    """On loudspeakers Moshi interrupted itself; and a canceller that gates the user is half duplex in disguise."""
    played, near = voice(1, 9, 110), voice(2, 9, 200).copy()
    near[: 5 * RATE] = 0
    alone = treat(Cancel(), echo_of(played), played)
    removed = 10 * np.log10(power(echo_of(played)[3 * RATE :]) / power(alone[3 * RATE :]))
    assert removed >= 25
    both = treat(Cancel(), echo_of(played) + near, played)
    wanted, got = near[6 * RATE : -_LATE], both[6 * RATE + _LATE :]
    assert np.corrcoef(wanted, got)[0, 1] >= 0.95


def test_a_silent_loudspeaker_leaves_the_microphone_untouched() -> None:
    """WebRTC's canceller alone cuts the bass and rounds to 16 bits even when there is nothing to cancel."""
    near = voice(2, 2, 200)
    out = treat(Cancel(), near, np.zeros_like(near))
    assert np.array_equal(out[_LATE:], near[:-_LATE])


def test_a_canceller_that_learnt_nothing_does_not_let_the_echo_through() -> None:
    """An echo later than the linear canceller's reach: then WebRTC's result must be heard, whoever talks."""
    played, near = voice(1, 6, 110), voice(2, 6, 200) / 8
    far = np.concatenate([np.zeros(RATE // 2, np.float32), played])[: len(played)] / 2
    out = treat(Cancel(), far + near, played)
    assert power(out[3 * RATE :]) < 2 * power(near[3 * RATE :])  # the echo is 16 times that


def test_duck_is_shut_while_moshi_speaks_and_for_a_tail() -> None:
    """Without a canceller: the echo must never pass, and the user must be heard again soon after."""
    played = np.zeros(2 * RATE, np.float32)
    played[RATE // 2 : RATE] = 0.1
    near = np.full(2 * RATE, 0.2, np.float32)
    out = treat(Duck(), near, played)
    before, after = slice(0, RATE // 2 - BLOCK), slice(RATE + RATE // 3, None)
    assert np.array_equal(out[before], near[before])
    assert not out[RATE // 2 + BLOCK : RATE + RATE // 4].any()
    assert np.array_equal(out[after], near[after])
    assert np.abs(np.diff(out)).max() < 0.2 / BLOCK * 1.1


@pytest.mark.parametrize(("pip", "command"), [(True, "-m pip install"), (False, "uv pip install --python")])
def test_without_livekit_the_remedy_is_told_before_anything_starts(
    pip: bool, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optional package must not be missed after a minute of loading, with a traceback; and the remedy named a
    package that nobody publishes, and a pip that an environment made by uv lacks."""
    real, find = builtins.__import__, importlib.util.find_spec

    def without(name: str, *rest: object) -> object:
        if name.startswith("livekit"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: (pip or None) if name == "pip" else find(name))
    device = VirtualDevice(tone(48_000), lambda block: None)
    with pytest.raises(MoshiError) as told:
        Conversation(device, lambda report: EchoingStepper(), echo="cancel")
    assert command in str(told.value)
    assert f"{sys.executable} " in str(told.value)  # activated or not
    assert "install livekit" in str(told.value).replace(f"--python {sys.executable} ", "")
    assert make_echo("off") is None
    with pytest.raises(MoshiError, match="off, duck, cancel"):
        make_echo("on")


def listen(
    mode: str,
    seconds: float,
    ppm: float = 0.0,
    pause: tuple[float, float] | None = None,
    stall: float = 0.0,
    way: float = 0.06,
) -> tuple[Pcm, Pcm]:
    """A conversation in which the loudspeaker says something all the time and nobody answers: what the model heard, and
    what was said. Frames while paused do not count; frame 40 takes `stall` seconds; the echo is heard after `way`."""
    rate, played = 48_000, [np.zeros(0, np.float32)]
    pulse = np.repeat(voice(3, seconds, 130), 2)

    class Speaker(EchoingStepper):
        def step(self, pcm: Pcm) -> object:  # type: ignore[override]
            heard.append(pcm)
            start = len(heard) * len(pcm) * 2
            return super().step(pulse[start : start + 2 * len(pcm) : 2])

    def microphone(start: int, count: int) -> Pcm:
        line = np.concatenate(played[-40:])
        end = len(line) - round(rate * way)
        return line[max(0, end - count) : end] / 2 if end >= count else np.zeros(count, np.float32)

    def cost() -> float:
        return stall if stall and len(heard) == 40 else 0.02

    heard: list[Pcm] = []
    device = VirtualDevice(microphone, played.append, output_ppm=ppm)
    device.input_latency, device.output_latency = 0.01, way - 0.01  # of the first sample of a block
    talk = Conversation(device, lambda report: Speaker(device.sleep, cost), echo=mode)
    for on, when in zip((True, False), pause or (), strict=False):
        device.at(when, lambda on=on: talk.pause(on))
    device.at(seconds - 1, talk.stop)
    talk.start()
    assert talk.wait(240)
    talk.check()
    assert talk.statistics().echo_ms > 0
    return np.concatenate(heard), pulse[::2]


@pytest.mark.parametrize("ppm", [3_000.0, -3_000.0])
def test_the_echo_is_cancelled_in_the_loop_though_the_clocks_drift(ppm: float) -> None:
    """Device to model and back with two clocks: what is heard must be the user, not what the loudspeaker said."""
    heard, said = listen("cancel", 12, ppm)
    assert power(heard[4 * RATE :]) < power(said[: 8 * RATE]) / 4 / 100


@pytest.mark.parametrize("way", [0.012, 0.02, 0.04])
def test_the_echo_of_a_fast_device_is_cancelled(way: float) -> None:
    """What the pairing keeps back of the reference put it after its echo, where the way from loudspeaker to microphone
    took less than 40 ms: of 60 dB removed, 15 were left at 20 ms and 5 at 10 ms."""
    heard, said = listen("cancel", 10, way=way)
    assert power(heard[4 * RATE :]) < power(said[4 * RATE : 8 * RATE]) / 4 / 300


@pytest.mark.parametrize("mode", ["duck", "cancel"])
def test_the_echo_of_a_bluetooth_loudspeaker_does_not_come_through(mode: str) -> None:
    """Beyond 300 ms the gate was open when the sound left the loudspeaker, and the canceller looked at sound that
    nobody heard any more: 8 and 7 dB were left of 80 and 60, and Moshi answered itself."""
    heard, said = listen(mode, 12, way=0.6)
    assert power(heard[6 * RATE :]) < power(said[6 * RATE : 8 * RATE]) / 4 / 300


@pytest.mark.parametrize("mode", ["duck", "cancel"])
def test_a_pause_does_not_part_the_echo_from_its_cause(mode: str) -> None:
    """While paused the reference went on and the microphone stood: after three seconds each block of the microphone
    was paired with what had been played a second before, and Moshi heard itself for the rest of the conversation."""
    heard, said = listen(mode, 13, pause=(4, 7.5))
    assert len(heard) < 9.5 * RATE
    assert power(heard[6 * RATE :]) < power(said[6 * RATE : 8 * RATE]) / 4 / 100


@pytest.mark.parametrize("stall", [1.5, 2.5])
@pytest.mark.parametrize("mode", ["duck", "cancel"])
def test_a_stall_does_not_part_the_echo_from_its_cause(mode: str, stall: float) -> None:
    """A step of more than a second: of what was played meanwhile only the last second was kept, the rest was owed for
    ever, and Moshi heard itself for the rest of the conversation."""
    heard, said = listen(mode, 12, stall=stall)
    assert power(heard[-4 * RATE :]) < power(said[4 * RATE :]) / 4 / 100
