"""How near a codec's sound is to what went in, measured piece by piece: nothing grows with the length.

SNR compares waveforms, which a codec at 1.1 kbit/s does not keep (expect −5 to 5 dB). The log-mel distance compares
what is heard: the mean absolute difference, in dB, of 80 mel bands of 1,024-sample windows every 480 samples, each
band taken as at least −80 dB of full scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..frame import RATE, Pcm

WINDOW, HOP, BANDS = 1024, 480, 80
FLOOR = 1e-8  # −80 dB, as power

Array = NDArray[np.float64]


class Fidelity:
    """Feed it pairs of equally long pieces; read `snr` and `log_mel`, both in dB, at the end."""

    def __init__(self) -> None:
        self._signal = self._noise = self._distance = 0.0
        self._count = 0
        self._waiting = np.zeros((2, 0))
        self._window = np.hanning(WINDOW)
        self._bands = mel_bands()

    def add(self, given: Pcm, got: Pcm) -> None:
        """The next samples of both."""
        pair = np.stack([given, got]).astype(np.float64)
        self._signal += float((pair[0] ** 2).sum())
        self._noise += float(((pair[0] - pair[1]) ** 2).sum())
        self._waiting = np.concatenate([self._waiting, pair], axis=1)
        steps = (self._waiting.shape[1] - WINDOW) // HOP + 1
        if steps > 0:
            windows = np.lib.stride_tricks.sliding_window_view(self._waiting, WINDOW, axis=1)[:, : steps * HOP : HOP]
            power = np.abs(np.fft.rfft(windows * self._window)) ** 2 / self._window.sum() ** 2
            level = 10 * np.log10(np.maximum(power @ self._bands.T, FLOOR))
            self._distance += float(np.abs(level[0] - level[1]).sum())
            self._count += steps * BANDS
            self._waiting = self._waiting[:, steps * HOP :]

    @property
    def snr(self) -> float | None:
        """None where there was only silence, or no difference at all."""
        return 10 * float(np.log10(self._signal / self._noise)) if self._signal and self._noise else None

    @property
    def log_mel(self) -> float | None:
        """None where the sound was shorter than one window."""
        return self._distance / self._count if self._count else None


def mel_bands() -> Array:
    """(BANDS, WINDOW / 2 + 1): triangles of height 1, evenly spaced on the mel scale from 0 to 12 kHz."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))
