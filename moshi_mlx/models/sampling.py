"""From logits to tokens. Logits become fp32 first: in bf16 the top ones collapse into ties."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import index
from typing import SupportsIndex

import mlx.core as mx

from ..frame import MoshiError

BLOCK = 64  # the largest values of a long row are looked for in its best blocks only
FIRST_WORD = 4  # text tokens below are padding and control: never penalised
MOST = 1 << 20  # top-k, frames of repetition_context: more than any model has, or any text needs
SEEDS = 1 << 64


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; the defaults are the reference's (spec, moshi.md section 5)."""

    text_temperature: float = 0.7
    text_top_k: int = 25
    audio_temperature: float = 0.8
    audio_top_k: int = 250
    repetition_penalty: float = 1.0  # on text: logits of recent tokens are divided (or, below 0, multiplied) by it
    repetition_context: int = 64  # frames

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), isinstance(field.default, int)
            least = 0 if field.name.endswith("temperature") else 1
            right = isinstance(value, int) or (isinstance(value, float) and not whole)
            if isinstance(value, bool) or not (right and least <= value < (MOST if whole else float("inf"))):
                what = f"a whole number below {MOST}" if whole else "a number"
                raise MoshiError(f"{field.name} must be {what} and at least {least}, not {value!r}")


def seed_of(seed: SupportsIndex) -> int:
    """A seed as a plain number (NumPy's would not go into a file); MoshiError for what is none."""
    if hasattr(seed, "__index__") and not isinstance(seed, bool) and 0 <= (value := index(seed)) < SEEDS:
        return value
    raise MoshiError(f"seed must be a whole number of at least 0 and below 2⁶⁴, not {seed!r}")


def kth_largest(logits: mx.array, k: int) -> mx.array:
    """The k-th largest of each row, (…, n) → (…, 1), 0 < k ≤ n.

    A long row is not sorted (on a GPU a partition is one): its k largest lie in the k blocks of largest maxima.
    """
    n = logits.shape[-1]
    if n > 2 * k * BLOCK:
        if n % BLOCK:
            logits = mx.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, -n % BLOCK)], constant_values=-mx.inf)
        blocks = logits.reshape(*logits.shape[:-1], -1, BLOCK)
        maxima = blocks.max(axis=-1)
        best = mx.argpartition(maxima, maxima.shape[-1] - k, axis=-1)[..., -k:, None]
        logits = mx.take_along_axis(blocks, best, axis=-2).reshape(*maxima.shape[:-1], -1)
        n = k * BLOCK
    return mx.partition(logits, n - k, axis=-1)[..., n - k : n - k + 1]


def choose(logits: mx.array, temperature: float, top_k: int, noise: mx.array | None) -> mx.array:
    """logits (…, n) → int32 (…). With Gumbel noise of the same shape, the largest of logits / temperature + noise
    is a draw from the softmax; without (or at temperature 0) it is the largest logit."""
    logits = logits.astype(mx.float32)
    if noise is None or temperature == 0:
        return mx.argmax(logits, axis=-1).astype(mx.int32)
    if top_k < logits.shape[-1]:
        logits = mx.where(logits >= kth_largest(logits, top_k), logits, -mx.inf)
    return mx.argmax(logits * (1 / temperature) + noise, axis=-1).astype(mx.int32)


def penalise(logits: mx.array, recent: mx.array, penalty: float) -> mx.array:
    """logits (B, n) with the tokens in `recent` (B, m) made less likely; padding and control tokens stay as they
    are.
    """
    logits = logits.astype(mx.float32)
    counted = mx.zeros_like(logits)
    rows = mx.broadcast_to(mx.arange(logits.shape[0])[:, None], recent.shape)
    counted = counted.at[rows, recent].add(1.0)
    hit = (counted > 0) & (mx.arange(logits.shape[-1]) >= FIRST_WORD)
    return mx.where(hit, mx.where(logits > 0, logits / penalty, logits * penalty), logits)
