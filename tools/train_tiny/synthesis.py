"""The end of Mimi's decoder as an overlap-add synthesis: its last three layers are one set of TAPS-sample waveforms.

Like the encoder's filterbank (filterbank.py), and for the same reason: the layers at 6 and 24 kHz cost nearly all of
the time and hold hardly any weights. Below their ELUs' bend they are linear, so together they add up SHAPES short
waveforms, 20 samples apart. Those are learned directly, and `install` writes them into the layers; residual blocks
there are the identity.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from torch import Tensor, nn

SHAPES, TAPS, HOP = 64, 44, 20
_QUIET = 1e-3  # scale of the linear part
_BODY = 8  # layers before it: as in the reference, up to and with the ELU at 1.2 kHz


def first_shapes() -> Tensor:
    """(SHAPES, TAPS): cosines and sines under a Hann window, 375 Hz apart."""
    window, time = np.hanning(TAPS + 2)[1:-1], np.arange(TAPS) / 24000
    frequencies = (np.arange(SHAPES // 2) + 0.5) * 375
    angles = 2 * np.pi * frequencies[:, None] * time
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(SHAPES, TAPS) * window
    return torch.from_numpy(0.05 * waves / np.sqrt(np.sum(window**2) / 2)).float()


class Voice(nn.Module):
    """The decoder of a codec as it is trained: its body, and the waveforms that its last layers will add up."""

    def __init__(self, mimi: MimiModel) -> None:
        super().__init__()
        self.mimi = mimi
        self.shapes = nn.Parameter(first_shapes())

    def learned(self) -> list[nn.Parameter]:
        parts = (self.mimi.upsample, self.mimi.decoder_transformer, self.mimi.decoder.model[:_BODY])
        return [self.shapes, *(p for part in parts for p in part.parameters())]

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, 8, T) → waveforms (B, samples), differentiable in what is learned."""
        with torch.no_grad():
            latent = self.mimi.decode_latent(codes)
        (latent,) = self.mimi.decoder_transformer(self.mimi._to_encoder_framerate(latent))
        weights = self.mimi.decoder.model[:_BODY](latent)
        added = F.conv_transpose1d(weights, self.shapes[:, None], stride=HOP)
        return added[:, 0, : weights.shape[-1] * HOP]

    @torch.no_grad()
    def install(self) -> MimiModel:
        """Write the waveforms into the decoder's last layers; they agree with `forward` to about 1e-3 of the signal."""
        layers = self.mimi.decoder.model
        for index in (9, 12):
            for convolution in (1, 3):
                layers[index].block[convolution].conv.conv.bias.zero_()
            layers[index].block[3].conv.conv.weight.zero_()
        outer, inner, last = layers[8].convtr.convtr, layers[11].convtr.convtr, layers[14].conv.conv
        for module in (outer, inner, last):
            module.bias.zero_()
            module.weight.zero_()
        for tap in range(10):  # a step of 6 kHz: channel p of 32 is the sample p after it
            for offset in range(8 if tap == 9 else 4):
                outer.weight[:, offset, tap] = _QUIET * self.shapes[:, 4 * tap + offset]
        for offset in range(8):
            inner.weight[offset, offset, offset] = 1.0
        last.weight[0, :, 2] = 1 / _QUIET
        return self.mimi
