"""What happens to a voice between a mouth and a model: rooms, microphones, noises. NumPy, 24 kHz."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .voices import RATE


def room(signal: np.ndarray, draw: Generator) -> np.ndarray:
    """Reverberation (sometimes), band limits (sometimes) and gain, as one filter."""
    response = np.zeros(RATE // 2)
    response[0] = 1.0
    if draw.random() < 0.4:
        decay = draw.uniform(0.05, 0.35)  # seconds to −60 dB
        tail = draw.standard_normal(len(response)) * np.exp(-6.9 * np.arange(len(response)) / (RATE * decay))
        tail[: draw.integers(20, 400)] = 0
        response += tail * draw.uniform(0.1, 0.9) / (np.sqrt(np.sum(tail**2)) + 1e-9)
    size = 1 << int(len(signal) + len(response)).bit_length()
    spectrum = np.fft.rfft(response, size)
    if draw.random() < 0.4:
        frequencies = np.fft.rfftfreq(size, 1 / RATE)
        low, high = draw.uniform(50, 350), draw.uniform(3200, 9000)
        spectrum *= 1 / (1 + (low / (frequencies + 1)) ** 4) / (1 + (frequencies / high) ** 8)
    filtered = np.fft.irfft(np.fft.rfft(signal, size) * spectrum, size)[: len(signal)]
    return (filtered * 10 ** (draw.uniform(-14, 6) / 20)).astype(np.float32)


def noise(samples: int, draw: Generator) -> np.ndarray:
    """A background for a whole scene: nothing, hiss, rumble, hum, or music-like tones, rms 1e-4 to 2e-2."""
    kind = draw.choice(("none", "white", "coloured", "hum", "music"), p=(0.12, 0.25, 0.38, 0.13, 0.12))
    if kind == "none":
        return np.zeros(samples, np.float32)
    if kind == "white":
        wave = draw.standard_normal(samples)
    elif kind == "coloured":
        frequencies = np.fft.rfftfreq(samples, 1 / RATE)
        slope = draw.uniform(0.2, 1.2)
        phases = np.exp(2j * np.pi * draw.random(len(frequencies)))
        wave = np.fft.irfft(phases * (frequencies + 20) ** -slope, samples)
    elif kind == "hum":
        time = np.arange(samples) / RATE
        base = draw.choice((50, 60, 100, 120)) * draw.uniform(0.99, 1.01)
        wave = sum(
            draw.uniform(0, 1) / k * np.sin(2 * np.pi * base * k * time + draw.uniform(0, 6)) for k in range(1, 9)
        )
        wave = wave + 0.1 * draw.standard_normal(samples)
    else:
        wave = music(samples, draw)
    rms = 10 ** draw.uniform(-4, np.log10(2e-2))
    return (wave * (rms / (float(np.std(wave)) + 1e-9))).astype(np.float32)


def music(samples: int, draw: Generator) -> np.ndarray:
    """Plucked and held notes of a pentatonic scale, in chords; peak about 1."""
    wave, start, beat = np.zeros(samples), 0, int(RATE * draw.uniform(0.12, 0.5))
    scale = 110 * 2 ** (np.array((0, 2, 4, 7, 9, 12, 14, 16, 19, 21)) / 12) * draw.uniform(0.8, 1.6)
    while start < samples:
        length = min(samples - start, beat * int(draw.integers(1, 4)))
        time = np.arange(length) / RATE
        envelope = np.exp(-time * draw.uniform(0.5, 6)) * np.minimum(1, time * 100)
        for pitch in draw.choice(scale, int(draw.integers(1, 4))):
            for harmonic in range(1, 6):
                wave[start : start + length] += envelope * np.sin(2 * np.pi * pitch * harmonic * time) / harmonic**1.3
        start += beat
    return wave / (np.abs(wave).max() + 1e-9)


def burst(draw: Generator) -> np.ndarray:
    """A short sound that is no speech and deserves no answer: a click, a knock, a beep, a breath."""
    kind, length = draw.choice(("click", "knock", "beep", "breath")), int(RATE * draw.uniform(0.02, 0.5))
    time = np.arange(length) / RATE
    if kind == "click":
        wave = draw.standard_normal(length) * np.exp(-time * 300)
    elif kind == "knock":
        wave = np.sin(2 * np.pi * draw.uniform(80, 300) * time) * np.exp(-time * 40)
    elif kind == "beep":
        wave = np.sin(2 * np.pi * draw.uniform(300, 3000) * time) * np.hanning(length)
    else:
        wave = np.convolve(draw.standard_normal(length), np.ones(8) / 8, "same") * np.hanning(length)
    return (wave * (draw.uniform(0.01, 0.2) / (np.abs(wave).max() + 1e-9))).astype(np.float32)


def echo(moshi: np.ndarray, draw: Generator) -> np.ndarray:
    """Moshi's own voice as it comes back through the user's microphone: late, dull and 24 to 45 dB down."""
    delay = int(RATE * draw.uniform(0.03, 0.3))
    late = np.concatenate([np.zeros(delay, np.float32), moshi])[: len(moshi)]
    smooth = np.convolve(late, np.ones(3) / 3, "same") if draw.random() < 0.5 else late
    return (smooth * 10 ** (-draw.uniform(24, 45) / 20)).astype(np.float32)
