"""Moshi's voice: flite's `slt`, resynthesised so that the waveform of a frame is a function of its content alone.

A natural voice has free pulse positions and free noise, which eight small codes cannot carry; a plain regression then
averages them away. Here the pitch of every 80 ms frame is rounded to a multiple of 12.5 Hz, pulses start at the frame's
first sample, and noise is one frozen template of a frame: a decoder without a discriminator can learn the waveform.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyworld

from .script import BACKCHANNEL, answers
from .voices import RATE, SPEECH_RMS, phones, read, timed_phones

FRAME = 1920
_HOP, _FFT = 120, 1024  # analysis every 5 ms; impulse responses of 1024 samples
_BACKCHANNEL_PHONES = "ah m hh ah m"


def make(folder: Path) -> None:
    """Write answers.npz (one waveform of whole frames an answer) and answers.json (its words and their frames)."""
    if (folder / "answers.json").exists():
        return
    waves, words = {}, []
    for number, text in enumerate(answers()):
        wave, timing = _render(text)
        waves[str(number)], frames = wave, len(wave) // FRAME
        words.append({"text": text, "frames": frames, "words": _word_frames(text, timing, frames)})
        if number % 20 == 0:
            print(f"answers: {number}", flush=True)
    np.savez(folder / "answers.npz", **waves)
    (folder / "answers.json").write_text(json.dumps(words))
    print(f"answers: {sum(len(w) for w in waves.values()) / RATE:.1f} s")


def _render(text: str) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """(frame-locked waveform, phone times relative to its start)."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        spoken = ["-p", _BACKCHANNEL_PHONES] if text == BACKCHANNEL else ["-t", text]
        command = ["flite", "-voice", "slt", "-psdur", *spoken, "-o", file.name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples = read(Path(file.name))
    loud = np.abs(samples) / np.abs(samples).max()
    start = max(0, int(np.flatnonzero(loud > 0.02)[0]) - 120)
    end = int(np.flatnonzero(loud > 0.015)[-1]) + 600
    active = samples[loud > 0.02]
    scaled = samples[start:end] * (SPEECH_RMS / np.sqrt(np.mean(active**2)))
    return lock(scaled), [(p, s - start / RATE, e - start / RATE) for p, s, e in timed_phones(printed)]


def _word_frames(text: str, timing: list[tuple[str, float, float]], frames: int) -> list[tuple[str, int]]:
    """Each word as written, with the frame in which it starts; two words never share a frame."""
    words = text.split()
    counts = [max(1, len(phones(re.sub(r"[^A-Za-z' ]", "", word)))) for word in words]
    found, position, last = [], 0, -1
    for word, count in zip(words, counts, strict=True):
        index = min(len(timing) - 1, round(position * len(timing) / sum(counts)))
        last = min(max(last + 1, int(max(0.0, timing[index][1]) * RATE / FRAME)), frames - 1)
        found.append((word, last))
        position += count
    return found


def lock(samples: np.ndarray) -> np.ndarray:
    """WORLD analysis, and synthesis locked to frames; float32, whole frames, peak below 1."""
    frames = -(-len(samples) // FRAME)
    padded = np.pad(samples.astype(np.float64), (0, frames * FRAME - len(samples) + FRAME))
    pitch, times = pyworld.harvest(padded, RATE, f0_floor=90, f0_ceil=350, frame_period=5)
    pitch = pyworld.stonemask(padded, pitch, times, RATE)
    envelope = pyworld.cheaptrick(padded, pitch, times, RATE, fft_size=_FFT)
    aperiodic = pyworld.d4c(padded, pitch, times, RATE, fft_size=_FFT)
    locked = _pulses(frames, pitch, envelope, aperiodic) + _noise(frames, pitch, envelope, aperiodic)
    active = locked[np.abs(locked) > 0.02 * np.abs(locked).max()]
    return np.clip(locked * (SPEECH_RMS / np.sqrt(np.mean(active**2))), -0.99, 0.99).astype(np.float32)


def _pulses(frames: int, pitch: np.ndarray, envelope: np.ndarray, aperiodic: np.ndarray) -> np.ndarray:
    out, per_frame = np.zeros(frames * FRAME + _FFT), FRAME // _HOP
    for frame in range(frames):
        voiced = pitch[frame * per_frame : (frame + 1) * per_frame]
        count = round(float(np.median(voiced[voiced > 0])) / 12.5) if np.any(voiced > 0) else 0
        for pulse in range(count):
            offset = round(pulse * FRAME / count)
            at = min(frame * per_frame + round(offset / _HOP), len(pitch) - 1)
            if pitch[at] > 0:
                periodic = np.sqrt(envelope[at] * np.maximum(1 - aperiodic[at] ** 2, 0))
                start = frame * FRAME + offset
                out[start : start + _FFT // 2] += _minimum_phase(periodic) * np.sqrt(FRAME / count)
    return out[: frames * FRAME]


def _minimum_phase(magnitude: np.ndarray) -> np.ndarray:
    """The first half of the minimum-phase impulse response of a magnitude spectrum."""
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, 1e-8)))
    cepstrum[1 : _FFT // 2] *= 2
    cepstrum[_FFT // 2 + 1 :] = 0
    return np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[: _FFT // 2]


def _noise(frames: int, pitch: np.ndarray, envelope: np.ndarray, aperiodic: np.ndarray) -> np.ndarray:
    template = np.tile(np.random.RandomState(7).randn(FRAME), frames + 2)
    window, out = np.hanning(4 * _HOP + 1)[:-1], np.zeros(frames * FRAME + 2 * _FFT)
    for at in range(2, min(len(pitch), frames * FRAME // _HOP)):
        start = (at - 2) * _HOP
        gain = np.sqrt(envelope[at]) * (aperiodic[at] if pitch[at] > 0 else 1.0)
        shaped = np.fft.irfft(np.fft.rfft(template[start : start + 4 * _HOP] * window, _FFT) * gain)
        out[start : start + _FFT] += 0.5 * shaped
    return out[: frames * FRAME]
