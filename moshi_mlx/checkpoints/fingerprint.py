"""What tells a loaded model from every other, in 128 bits: its configuration and some values of every weight."""

from __future__ import annotations

import hashlib
from typing import cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from .load import Moshi

SAMPLES = 16  # values of each weight, spread over it


def fingerprint(moshi: Moshi) -> str:
    """A LoRA that was merged changes every matrix a little, training every weight, quantization their kinds: all show.

    One small evaluation and one read, whatever the size of the model.
    """
    weights = cast(list[tuple[str, mx.array]], tree_flatten([moshi.lm.parameters(), moshi.mimi.parameters()]))
    some = [value.reshape(-1)[:: max(1, value.size // SAMPLES)][:SAMPLES].view(mx.uint8) for _, value in weights]
    digest = hashlib.sha256(repr(moshi.config).encode())
    digest.update(repr([(name, str(value.dtype), value.shape) for name, value in weights]).encode())
    digest.update(np.array(mx.concatenate(some)).tobytes())
    return digest.hexdigest()[:32]
