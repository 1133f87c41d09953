"""How far a model's predictions are from another's, on codes that both are given (teacher forcing).

The *loss* is the Kullback-Leibler divergence of the other's distributions from the reference's, in nats: by stream a
token, and summed over the streams a frame. *Agreement* is the share of tokens for which both find the same one most
likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from ..checkpoints.names import join_audio_tables
from ..models.lm import Lm, Logits
from .convert import DTYPE, restored

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Loss:
    """By stream, text first."""

    kl: tuple[float, ...]
    agreement: tuple[float, ...]

    @property
    def total(self) -> float:
        """Nats a frame."""
        return sum(self.kl)


def dense(lm: Lm, dtype: mx.Dtype = DTYPE) -> Lm:
    """The same model without quantization, its values rounded to bfloat16 as in a file, held as dtype; lazily, if its
    weights are.
    """
    tensors = {name: value.astype(dtype) for name, value in restored(lm).items()}
    result = Lm(lm.config)
    result.load_weights(list(join_audio_tables(tensors, lm.config).items()))
    return result


def logits(lm: Lm, codes: Codes, kv_bits: int | None = None) -> Logits:
    """Teacher-forced logits as in a conversation, evaluated."""
    result = lm.logits(codes, lm.best_condition(), kv_bits)
    mx.eval(*result)
    return result


def streams(out: Logits) -> list[tuple[mx.array, mx.array]]:
    """By stream, text first: logits (B, T, card) and the frames (B, T) that they are known for."""
    audio = [(out.audio[:, k], out.audio_mask[:, k]) for k in range(out.audio.shape[1])]
    return [(out.text, out.text_mask), *audio]


def compare(reference: Logits, other: Logits) -> Loss:
    """Both from the same codes."""
    pairs = [
        _stream(known, guess, mask)
        for (known, mask), (guess, _) in zip(streams(reference), streams(other), strict=True)
    ]
    return Loss(tuple(kl for kl, _ in pairs), tuple(same for _, same in pairs))


def _stream(reference: mx.array, other: mx.array, mask: mx.array) -> tuple[float, float]:
    """Means over the frames of the mask (B, T) of two (B, T, n)."""
    known, guess = (nn.log_softmax(values, axis=-1) for values in (reference, other))
    kl = (mx.exp(known) * (known - guess)).sum(axis=-1)
    same = mx.argmax(reference, axis=-1) == mx.argmax(other, axis=-1)
    count = mx.maximum(mask.sum(), 1)
    means = np.array(mx.stack([mx.where(mask, values, 0).sum() / count for values in (kl, same)]))
    return max(0.0, float(means[0])), float(means[1])
