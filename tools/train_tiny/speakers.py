"""Other speakers out of one rendering: what a synthesiser's few voices do not vary. NumPy and WORLD, 24 kHz.

Half of the time the whole recording is resampled, which moves pitch, formants and rate together, as tape does.
Otherwise WORLD takes it apart, and pitch, its movement, formants (low and high ones apart), breath and the length of
every sound change independently: monotone diphones with long vowels are as likely as a lively child.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .voices import RATE

with warnings.catch_warnings():  # pyworld imports pkg_resources, which says so
    warnings.simplefilter("ignore")
    import pyworld

_PERIOD = 8.0  # ms between WORLD's frames
_CORNER = 1100.0  # Hz: below lie first formants, above the others
_EDGE = 9000.0  # Hz: from here on the spectrum stays where it is


def vary(speech: np.ndarray, draw: Generator) -> np.ndarray:
    """Another speaker saying the same: float32 samples, of another length; the loudness stays."""
    varied = _resampled(speech, draw) if draw.random() < 0.5 else _revoiced(speech, draw)
    before = float(np.std(speech))
    if draw.random() < 0.5:
        varied[1:] += draw.uniform(-0.6, 0.6) * varied[:-1]
    return varied * np.float32(before / (float(np.std(varied)) + 1e-9))


def _resampled(speech: np.ndarray, draw: Generator) -> np.ndarray:
    ratio = float(np.exp(draw.uniform(np.log(0.86), np.log(1.18))))
    return np.interp(np.arange(0, len(speech) - 1, ratio), np.arange(len(speech)), speech).astype(np.float32)


def _revoiced(speech: np.ndarray, draw: Generator) -> np.ndarray:
    """Taken apart by WORLD and put together as someone else."""
    samples = speech.astype(np.float64)
    pitch, times = pyworld.dio(samples, RATE, f0_floor=55, f0_ceil=500, frame_period=_PERIOD)
    envelope = pyworld.cheaptrick(samples, pitch, times, RATE)
    at = _positions(len(pitch), draw)
    pitch = _melody(pitch, draw)[np.rint(at).astype(int)]
    envelope = np.ascontiguousarray(np.exp(_formants(_between(np.log(envelope), at), draw)))
    voice = pyworld.synthesize(pitch, envelope, _breath(pitch, envelope.shape[1], draw), RATE, _PERIOD)
    return np.asarray(voice, dtype=np.float32)


def _positions(frames: int, draw: Generator) -> NDArray[np.float64]:
    """Which frame of the original sounds in each new frame: one rate for all, another for each 150 ms or so."""
    knots = max(2, round(frames * _PERIOD / 150))
    rates = draw.uniform(np.log(0.8), np.log(1.25)) + draw.uniform(-0.3, 0.3, knots) * draw.random()
    lengths = np.exp(np.interp(np.linspace(0, knots - 1, frames), np.arange(knots), rates))
    ends = np.cumsum(lengths)
    return np.interp(np.arange(0, ends[-1]), ends - lengths, np.arange(frames))


def _melody(pitch: NDArray[np.float64], draw: Generator) -> NDArray[np.float64]:
    """Hz per frame (0 where unvoiced): around another height, livelier or flatter, down to a monotone."""
    voiced = pitch > 0
    if not voiced.any():
        return pitch
    logs = np.log(pitch[voiced])
    height = draw.uniform(math.log(75), math.log(270))
    range_ = draw.uniform(0, 1.3) if draw.random() < 0.8 else 0.0
    out = np.zeros_like(pitch)
    out[voiced] = np.exp(np.clip(height + range_ * (logs - logs.mean()), math.log(55), math.log(450)))
    return out


def _formants(envelope: NDArray[np.float64], draw: Generator) -> NDArray[np.float64]:
    """Log spectra (frames, bins) with formants moved, the first by less than the others or more, and some colour."""
    bins = envelope.shape[1]
    frequencies = np.linspace(0, RATE / 2, bins)
    throat = draw.uniform(math.log(0.84), math.log(1.2))
    low, high = (math.exp(throat + draw.uniform(-0.06, 0.06)) for _ in range(2))
    source = np.interp(frequencies, (0, _CORNER * low, _EDGE, RATE / 2), (0, _CORNER, _EDGE / high, RATE / 2))
    moved = _between(envelope.T, source / (RATE / 2) * (bins - 1)).T
    colour = sum(draw.normal(0, 0.35) * np.cos(np.pi * k * np.sqrt(frequencies / frequencies[-1])) for k in range(1, 6))
    return moved + colour


def _breath(pitch: NDArray[np.float64], bins: int, draw: Generator) -> NDArray[np.float64]:
    """WORLD's aperiodicity (frames, bins): all of it where unvoiced, else more with the frequency."""
    frequencies = np.linspace(0, RATE / 2, bins)
    voiced = 1 / (1 + np.exp(-(frequencies - draw.uniform(2500, 7000)) / draw.uniform(400, 1500)))
    voiced = np.clip(voiced + draw.uniform(0, 0.15), 0.001, 0.999)
    return np.where(pitch[:, None] > 0, voiced, 0.999)


def _between(rows: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at fractional positions, linearly."""
    first = np.clip(at.astype(int), 0, len(rows) - 2)
    part = np.clip(at - first, 0, 1)[:, None]
    return rows[first] * (1 - part) + rows[first + 1] * part
