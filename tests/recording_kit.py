"""What the tests of recordings share: a stepper without a model, a recorded folder, tones with known units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from moshi_mlx.frame import FRAME, FRAME_RATE, RATE, Pcm, Reply
from moshi_mlx.recording.info import SessionInfo
from moshi_mlx.recording.recorder import Recorder

INFO = SessionInfo(model="mock", seed=7, codebooks=8, user_codebooks=8, card=2_048, title="A mock conversation")

FILES = {  # of a finished recording
    *("codes.bin", "conversation.wav", "events.jsonl", "player.html", "session.json", "timeline.svg"),
    *("transcript.jsonl", "transcript.json", "transcript.srt", "transcript.txt", "transcript.vtt"),
}


def ramp(frame: int) -> Pcm:
    """A frame whose every sample tells its own index (modulo 2^15), exact in 16 bits."""
    return ((frame * FRAME + np.arange(FRAME)) % 32_768 / 32_768).astype(np.float32)


class MockStepper:
    """Answers frame n with samples that tell where they belong, codes that do, and the text given for n."""

    def __init__(self, texts: Mapping[int, str] | None = None, sound: Pcm | None = None) -> None:
        self.texts = texts or {}
        self.sound = sound
        self.frame = 0

    def step(self, pcm: Pcm) -> Reply:
        n = self.frame
        self.frame += 1
        sound = -ramp(n) if self.sound is None else self.sound[n * FRAME : (n + 1) * FRAME]
        codes = (np.arange(8, dtype=np.int32) * 251 + n) % 2_048
        return Reply(n, sound, self.texts.get(n, ""), n % 32_000, codes, 2_047 - codes)

    def reset(self) -> None:
        self.frame = 0


def record(folder: Path, frames: int, stepper: MockStepper | None = None, user: Pcm | None = None) -> Path:
    """Records so many frames of the mock into a folder."""
    stepper = stepper or MockStepper()
    with Recorder(folder, INFO) as recorder:
        for n in range(frames):
            pcm = ramp(n) if user is None else user[n * FRAME : (n + 1) * FRAME]
            recorder.add(stepper.step(pcm), pcm)
    assert recorder.failure is None
    return folder


def tones(seconds: float, spans: Sequence[tuple[float, float]], rate: int = RATE, noise: float = 0.0) -> Pcm:
    """A lane that sounds, like a voice of 200 Hz with harmonics, exactly in the spans given."""
    time = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 200 * k * time + k) / k for k in range(1, 8)) * 0.1
    mask = np.zeros(len(time), bool)
    for start, end in spans:
        mask[round(start * rate) : round(end * rate)] = True
    random = np.random.default_rng(1).normal(0, 1, len(time)) * noise
    return (np.where(mask, voice, 0) + random).astype(np.float32)


def dialogue(folder: Path) -> Path:
    """Twelve seconds of a mock dialogue with an answer, an interruption and a back-channel, words included."""
    seconds = 14.4
    user = tones(seconds, [(0.8, 2.4), (5.6, 7.2), (10.4, 10.8)])
    moshi = tones(seconds, [(2.88, 6.4), (7.68, 13.2)])
    said = "Full duplex means that I listen while I talk. You stopped me, so I stopped. Now I go on, mm-hm or not."
    words = said.split()
    steps = [*range(36, 36 + 3 * 14, 3), *range(95, 95 + 4 * 12, 4)]
    texts = {step - 1: f" {word}" for step, word in zip(steps, words, strict=False)}
    return record(folder, round(seconds * FRAME_RATE), MockStepper(texts, moshi), user)
