"""Another throat, another microphone, a moment unheard: changes of the filterbank's outputs, new in every step.

What speakers.py and augment.py do to sound takes a core's whole time; this takes none, and it keeps the encoder from
learning the voices of its examples by heart: with it, the CTC loss is lower on speakers that were never heard than on
those that are changed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .filterbank import BANDS, SCALES

_SHIFT, _TILT = 2.0, 1.0  # bands by which formants move, at most: all alike, and the top more than the bottom
_COLOURS, _COLOUR = 6, 0.25  # cosines over the bands, and the deviation of each, in nepers


def changed(outputs: Tensor) -> Tensor:
    """Outputs of `filterbank.spectrum` (B, 8 · BANDS, T), as other speakers would have given them."""
    levels = _levels(outputs)
    levels = _sometimes(0.6, _moved(levels), levels)
    levels = _sometimes(0.6, levels * _colour(len(levels)), levels)
    return _unheard(_without_bands(_without_bands(_outputs(levels))))


def _levels(outputs: Tensor) -> Tensor:
    """The level of each band in each part of a frame, (B, BANDS, 4, T), from the gentler of its two scales."""
    gentle = outputs.view(len(outputs), BANDS, 2, 4, -1)[:, :, 1]
    return -torch.log((1 + gentle).clamp(min=1e-6)) / SCALES[1]


def _outputs(levels: Tensor) -> Tensor:
    """The inverse of `_levels`."""
    both = [torch.exp(-steepness * levels) - 1 for steepness in SCALES]
    return torch.stack(both, dim=2).reshape(len(levels), 8 * BANDS, -1)


def _moved(levels: Tensor) -> Tensor:
    """Formants higher or lower: bands read from between their neighbours."""
    count, bands = len(levels), torch.arange(BANDS)
    shift, tilt = _SHIFT * _signed(count), _TILT * _signed(count)
    source = (bands + shift + tilt * (2 * bands / BANDS - 1)).clamp(0, BANDS - 1.001)
    below = source.floor().long()
    part = (source - below)[:, :, None, None]
    low, high = (
        torch.gather(levels, 1, index[:, :, None, None].expand(-1, -1, *levels.shape[2:]))
        for index in (below, below + 1)
    )
    return low * (1 - part) + high * part


def _colour(count: int) -> Tensor:
    """(count, BANDS, 1, 1): a smooth gain over the bands."""
    angles = torch.pi * torch.arange(1, _COLOURS + 1)[:, None] * (torch.arange(BANDS) + 0.5) / BANDS
    return torch.exp(_COLOUR * torch.randn(count, _COLOURS) @ torch.cos(angles))[:, :, None, None]


def _without_bands(outputs: Tensor) -> Tensor:
    """One to three neighbouring bands, now and then, say nothing but their mean."""
    count, bands = len(outputs), torch.arange(BANDS)
    width, first = torch.randint(1, 4, (count, 1)), torch.randint(0, BANDS, (count, 1))
    hit = (torch.rand(count, 1) < 0.35) & (bands >= first) & (bands < first + width)
    split = outputs.view(count, BANDS, 8, -1)
    return torch.where(hit[:, :, None, None], split.mean(3, keepdim=True), split).view_as(outputs)


def _unheard(outputs: Tensor) -> Tensor:
    """Silence for up to 120 ms, at up to two places."""
    count, time = len(outputs), torch.arange(outputs.shape[2])
    for _ in range(2):
        width, first = torch.randint(1, 4, (count, 1)), torch.randint(0, len(time), (count, 1))
        hit = (torch.rand(count, 1) < 0.5) & (time >= first) & (time < first + width)
        outputs = torch.where(hit[:, None, :], 0.0, outputs)
    return outputs


def _sometimes(share: float, changed: Tensor, as_is: Tensor) -> Tensor:
    return torch.where((torch.rand(len(as_is)) < share)[:, None, None, None], changed, as_is)


def _signed(count: int) -> Tensor:
    """(count, 1), uniform in −1 … 1."""
    return 2 * torch.rand(count, 1) - 1
