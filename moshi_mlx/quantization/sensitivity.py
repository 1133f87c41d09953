"""How much loss an error of each matrix makes, from gradients of the model's own predictions.

For a small error δ of the weights the Kullback-Leibler divergence is ½ δᵀFδ. F = Jᵀ(diag p − p pᵀ)J is the Fisher
information, where p are a token's predictions and J is how their logits change with the weights. Errors of rounding are
independent of one another, so that on average only F's diagonal counts: a matrix loses half the trace of its part of F
times the mean square error of its weights, and the losses of matrices add up.

One backward pass tells the traces of all matrices. It sums all logits of a sequence with random factors v whose
covariance is diag p − p pᵀ; then the squared norm of a matrix's gradient is its trace on average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from ..models.lm import Lm, Logits
from .calibration import Say
from .measure import Codes, streams

WEIGHTS = 1 << 30  # whose gradients are held at once


def traces(lm: Lm, names: Sequence[str], codes: Codes, say: Say) -> dict[str, float]:
    """By matrix, twice the loss in nats a frame that a mean square error of 1 would make."""
    sums = dict.fromkeys(names, 0.0)
    for index, sequence in enumerate(codes):
        for some in _portions(lm, names):
            for name, norm in _norms(lm, some, sequence[None], mx.random.key(index)).items():
                sums[name] += norm / len(codes)
        say(f"sensitivity: pass {index + 1} of {len(codes)}")
    return sums


def _portions(lm: Lm, names: Sequence[str]) -> Iterator[list[str]]:
    """The names, so many at a time as memory is meant for."""
    modules, held = dict(lm.named_modules()), 0
    some: list[str] = []
    for name in names:
        if some and held + modules[name].weight.size > WEIGHTS:
            yield some
            some, held = [], 0
        some.append(name)
        held += modules[name].weight.size
    yield some


def _norms(lm: Lm, names: Sequence[str], codes: Codes, key: mx.array) -> dict[str, float]:
    """The squared norms of the gradients of some matrices."""
    known = dict(lm.named_modules())
    modules = [known[name] for name in names]
    own = [module.weight for module in modules]

    def score(weights: list[mx.array]) -> mx.array:
        for module, weight in zip(modules, weights, strict=True):
            module.weight = weight
        return _score(lm.logits(codes, lm.best_condition()), key)

    try:
        slopes = mx.grad(score)(own)
        norms = mx.stack([mx.square(slope.astype(mx.float32)).sum() for slope in slopes])
        return dict(zip(names, np.array(norms).tolist(), strict=True))
    finally:
        for module, weight in zip(modules, own, strict=True):
            module.weight = weight


def _score(out: Logits, key: mx.array) -> mx.array:
    """The sum of logits with random factors; squares of a stream are a mean over its frames."""
    total = mx.array(0.0)
    for values, mask in streams(out):
        key, own = mx.random.split(key)
        likely = mx.softmax(values, axis=-1)
        drawn = mx.sqrt(likely) * mx.where(mx.random.bernoulli(0.5, values.shape, key=own), 1.0, -1.0)
        factors = mx.stop_gradient(drawn - likely * drawn.sum(axis=-1, keepdims=True))
        total += ((factors * values).sum(axis=-1) * mask).sum() / mx.sqrt(mx.maximum(mask.sum(), 1))
    return total
