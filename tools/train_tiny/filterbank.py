"""First weights of Mimi's convolutions: a filterbank, instead of noise that would have to become one.

From noise, minutes of training find the loudness of speech and nothing of its spectrum. So the encoder's convolutions
start as what they would have to find. ELU is linear for small inputs, so the first three convolutions together are 64
free filters of 50 samples: BANDS complex resonators. The fourth lengthens them to 11 ms and makes four phases of each,
which ELU rectifies when they are large; the fifth averages them over parts of 80 ms, and ELU, fed with the negative,
compresses loudness at two scales. Residual blocks start as the identity. Nothing of it needs training, and `spectrum`
computes it many times faster than the layers do.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = 32
RATE = 24000
_QUIET = 4e-3  # scale of the linear part
SCALES = (4.0, 0.6)  # steepness of the two compressions
_LOUD = 2000.0  # brings the resonators from the linear part into the rectifying one
_TREBLE = 0.9  # exponent of the gain of bands above 400 Hz, against the slope of speech


def centres() -> np.ndarray:
    """Centre frequencies in Hz, equally spaced in mel from 120 Hz to 7.5 kHz."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (120, 7500))
    return np.asarray(700 * (10 ** (np.linspace(low, high, BANDS) / 2595) - 1))


@torch.no_grad()
def install(encoder: nn.Module) -> None:
    """Write the filterbank into a reference SEANetEncoder with 16 filters and ratios 8, 6, 5, 4."""
    layers = encoder.model
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d) and module.bias is not None:
            module.bias.zero_()
    for index in (1, 4, 7, 10):
        layers[index].block[3].conv.conv.weight.zero_()
    _delays(layers[0].conv.conv.weight, layers[3].conv.conv.weight)
    _resonators(layers[6].conv.conv.weight)
    _phases(layers[9].conv.conv.weight)
    _averages(layers[12].conv.conv.weight)


@torch.no_grad()
def spectrum(encoder: nn.Module, wave: Tensor) -> Tensor:
    """(B, samples) → (B, 256, samples / 960): what all layers of an encoder but the last yield, if `install` wrote it
    and nothing was trained. The layers agree to about 1e-3: their ELUs are not quite linear."""
    short = F.conv1d(F.pad(wave[:, None], (30, 0)), _QUIET * _windows()[:, None].flip(2), stride=20)
    fourth, fifth = (encoder.model[index].conv.conv.weight for index in (9, 12))
    phases = F.elu(F.conv1d(F.pad(short, (6, 0)), fourth, stride=6))
    return F.elu(F.conv1d(F.pad(phases, (8, 0)), fifth, stride=8))


def _windows() -> Tensor:
    """(64, 50) by age: band b's cosine and sine under a Hann window in rows 2b and 2b + 1."""
    window, ages = np.hanning(52)[1:-1], np.arange(50)
    angles = 2 * np.pi * centres()[:, None] * ages / RATE
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(2 * BANDS, 50)
    return torch.from_numpy(waves * window / np.sqrt(np.sum(window**2) / 2)).float()


def _delays(first: Tensor, second: Tensor) -> None:
    """Conv 1 → 16, kernel 7: channel c is the signal c samples ago (c < 7). Conv 16 → 32, kernel 8, stride 4: channel
    c is the signal c samples ago (c < 14). Unused channels keep small noise."""
    first.mul_(_QUIET * 0.1)
    for delay in range(7):
        first[delay] = 0
        first[delay, 0, 6 - delay] = _QUIET
    second.mul_(0.1)
    for delay in range(14):
        second[delay] = 0
        inner = min(delay, 6)
        second[delay, inner, 7 - (delay - inner)] = 1.0


def _resonators(weight: Tensor) -> None:
    """Conv 32 → 64, kernel 10 of stride 5 at a step of 4 samples: 50 samples seen; channels 2b, 2b + 1 are band b's
    cosine and sine under a Hann window."""
    weight.zero_()
    windows = _windows()
    for age in range(50):
        tap = min(age // 4, 9)  # the newest of ten taps holds ages 0 to 13; older ones add 4 samples each
        weight[:, age - 4 * tap, 9 - tap] = windows[:, age]


def _phases(weight: Tensor) -> None:
    """Conv 64 → 128, kernel 12 of stride 6 at a step of 20 samples: each band's resonator over 270 samples, as
    +cosine, −cosine, +sine, −sine (channels 4b … 4b + 3), loud enough to be rectified."""
    weight.zero_()
    window = np.hanning(14)[1:-1]
    window /= np.sqrt(np.sum(window**2))
    for band, frequency in enumerate(centres()):
        # high bands need no long window, and a short one keeps onsets sharp
        shaped = window if frequency < 1500 else np.concatenate([np.hanning(8)[1:-1], np.zeros(6)]) / 1.5
        gain = _LOUD * max(1.0, frequency / 400) ** _TREBLE
        for tap in range(12):
            angle = 2 * np.pi * frequency * 20 * tap / RATE
            cosine, sine = gain * shaped[tap] * np.cos(angle), gain * shaped[tap] * np.sin(angle)
            for sign in range(2):
                factor, position = 1 - 2 * sign, 11 - tap
                weight[4 * band + sign, 2 * band, position] = float(factor * cosine)
                weight[4 * band + sign, 2 * band + 1, position] = float(-factor * sine)
                weight[4 * band + 2 + sign, 2 * band, position] = float(factor * sine)
                weight[4 * band + 2 + sign, 2 * band + 1, position] = float(factor * cosine)


def _averages(weight: Tensor) -> None:
    """Conv 128 → 256, kernel 16 of stride 8 at a step of 5 ms: minus each band's mean level in four parts of 80 ms,
    at two scales."""
    weight.zero_()
    for band in range(BANDS):
        for scale, steepness in enumerate(SCALES):
            for part in range(4):
                channel = 8 * band + 4 * scale + part
                weight[channel, 4 * band : 4 * band + 4, 4 * part : 4 * part + 4] = -steepness / 16
