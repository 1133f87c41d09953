"""A linear echo canceller: learns the way from the loudspeaker to the microphone and subtracts what came along it.

A partitioned frequency-domain Kalman filter (Enzner and Vary 2006): its step size follows from how sure it is of each
coefficient, so somebody who talks at the same time neither throws it off nor is distorted. Blocks of 10 ms, no delay,
float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..frame import Pcm

_PARTITIONS = 32  # blocks of echo path: 320 ms
_DRIFT = 0.998  # how much of a block's knowledge is still true in the next (the room changes)
_SMOOTH = 0.8  # of the power of what is left over


Spectrum = NDArray[np.complex64]


class AdaptiveFilter:
    """One echo path. X: spectra of what was played (partitions, bins), H: the filter, P: its uncertainty."""

    def __init__(self, block: int) -> None:
        bins = block + 1
        self._block = block
        self._line: Pcm = np.zeros(2 * block, np.float32)
        self._X: Spectrum = np.zeros((_PARTITIONS, bins), np.complex64)
        self._H: Spectrum = np.zeros((_PARTITIONS, bins), np.complex64)
        self._P: Pcm = np.ones((_PARTITIONS, bins), np.float32)
        self._left: Pcm = np.zeros(bins, np.float32)
        self._turn = 0

    def process(self, microphone: Pcm, played: Pcm) -> Pcm:
        """Takes a block of each (block,); gives the microphone's without the echo, unchanged where nothing was
        played.
        """
        block = self._block
        self._line = np.concatenate([self._line[block:], played])
        self._X = np.concatenate([_spectrum(self._line)[None], self._X[:-1]])
        if not self._X.any():
            return microphone
        left = microphone - _samples(np.einsum("pb,pb->b", self._H, self._X))[block:]
        self._adapt(_spectrum(np.concatenate([np.zeros(block, np.float32), left])))
        return left

    def _adapt(self, error: Spectrum) -> None:
        power = _power(self._X)
        self._left = _SMOOTH * self._left + (1 - _SMOOTH) * _power(error)
        step = self._P / ((power * self._P).sum(axis=0) + 2 * self._left + np.float32(1e-6))
        self._H += step * self._X.conj() * error
        for index in {0, self._turn}:  # a circular convolution must not wrap around; one partition in turn is enough
            taps = _samples(self._H[index])
            taps[self._block :] = 0
            self._H[index] = _spectrum(taps)
        self._turn = (self._turn + 1) % _PARTITIONS
        known = _power(self._H)
        self._P = _DRIFT * (1 - step * power / 2) * self._P + (1 - _DRIFT) * known


def _spectrum(samples: Pcm) -> Spectrum:
    return np.asarray(np.fft.rfft(samples), np.complex64)


def _samples(spectrum: Spectrum) -> Pcm:
    return np.asarray(np.fft.irfft(spectrum), np.float32)


def _power(spectrum: Spectrum) -> Pcm:
    return np.asarray(np.square(spectrum.real) + np.square(spectrum.imag), np.float32)
