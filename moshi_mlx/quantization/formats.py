"""What can be quantized in a language model, how, and what that costs in bytes. No weights are read here.

A *matrix* is a module of `Lm` with a two-dimensional weight, under its name there (all audio tables are `audio_emb`). A
*plan* says for each matrix how it is stored; one that is not in it stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx import nn

from ..models.cache import kv_group
from ..models.config import LmConfig
from ..models.lm import Lm

EMBEDDINGS, TEMPORAL, DEPTH, HEADS, CONDITIONS = "embeddings", "temporal", "depth", "heads", "conditions"
KEPT_BYTES = 2  # a value that is not quantized is bfloat16
SCALE_BYTES = 4  # scale and bias of a group, bfloat16 each


@dataclass(frozen=True, order=True)
class Format:
    """MLX's affine quantization: bits a value, values a group."""

    bits: int
    group: int


@dataclass(frozen=True)
class Matrix:
    """A matrix that can be quantized. `lookups`: rows that a frame reads, None for all of them."""

    name: str
    rows: int
    columns: int
    role: str
    lookups: int | None

    @property
    def weights(self) -> int:
        return self.rows * self.columns

    @property
    def read(self) -> int:
        """Weights that a frame reads."""
        return (self.rows if self.lookups is None else self.lookups) * self.columns

    def nbytes(self, how: Format | None) -> int:
        """Bytes in memory."""
        return self.rows * self._row(how)

    def frame_bytes(self, how: Format | None) -> int:
        """Bytes that a frame reads."""
        return (self.rows if self.lookups is None else self.lookups) * self._row(how)

    def fits(self, how: Format) -> bool:
        """Whether rows can be cut into groups."""
        return self.columns % how.group == 0

    def _row(self, how: Format | None) -> int:
        if how is None:
            return self.columns * KEPT_BYTES
        return self.columns * how.bits // 8 + self.columns // how.group * SCALE_BYTES


Plan = Mapping[str, Format]

_ROLES = (
    (re.compile(r"(text_emb|audio_emb|depformer\.slices\.\d+\.emb)$"), EMBEDDINGS),
    (re.compile(r"(text_linear|.*\.linear_out)$(?<!gating\.linear_out)"), HEADS),
    (re.compile(r"transformer\."), TEMPORAL),
    (re.compile(r"depformer\."), DEPTH),
    (re.compile(r"condition_provider\."), CONDITIONS),
)


def role(name: str) -> str:
    """The part of the model that a matrix belongs to."""
    return next(role for pattern, role in _ROLES if pattern.match(name))


def matrices(lm: Lm) -> list[Matrix]:
    """All matrices of a model, quantized already or not. Low-rank tables are none: MLX cannot quantize them.

    Those of the depth slices that correspond follow one another.
    """
    result = []
    for name, module in lm.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding | nn.QuantizedLinear | nn.QuantizedEmbedding):
            continue
        rows, columns = module.weight.shape
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            columns = columns * 32 // module.bits
        part = role(name)
        lookups = {EMBEDDINGS: lm.config.n_q if name == "audio_emb" else 1, CONDITIONS: 0}.get(part)
        result.append(Matrix(name, rows, columns, part, lookups))
    return sorted(result, key=lambda matrix: (re.sub(r"slices\.\d+", "", matrix.name), matrix.name))


@dataclass(frozen=True)
class Cost:
    """What a plan costs: all weights (`nbytes`, `bits` a weight) and those that a frame reads (`frame`, `frame_bits`).

    With the keys and values of a full window a frame reads `full` bytes, with those in 8 bits `full_kv8` (None where
    heads cannot be cut into groups).
    """

    nbytes: int
    bits: float
    frame_bits: float
    frame: int
    full: int
    full_kv8: int | None


def cost(plan: Plan, parts: Sequence[Matrix], config: LmConfig, others: int) -> Cost:
    """others: bytes of what is no matrix (norms, low-rank tables), read every frame."""
    total, frame = (
        sum(matrix.nbytes(plan.get(matrix.name)) for matrix in parts),
        sum(matrix.frame_bytes(plan.get(matrix.name)) for matrix in parts),
    )
    kv8 = kv_bytes(config, 8)
    return Cost(
        total + others,
        8 * total / sum(matrix.weights for matrix in parts),
        8 * frame / sum(matrix.read for matrix in parts),
        frame + others,
        frame + others + kv_bytes(config, None),
        None if kv8 == 0 else frame + others + kv8,
    )


def kv_bytes(config: LmConfig, bits: int | None, frames: int | None = None) -> int:
    """Keys and values of so many frames (None: of a full window); 0 where heads cannot be cut into groups."""
    trunk = config.transformer
    assert trunk.context is not None
    values = 2 * trunk.layers * min(trunk.context, frames or trunk.context) * trunk.kv_heads * trunk.head_size
    if bits is None:
        return values * KEPT_BYTES
    group = kv_group(trunk.head_size)
    return 0 if group is None else values * bits // 8 + values // group * SCALE_BYTES


def quantization_object(recipe: str, plan: Mapping[str, Format], kept: list[str]) -> dict[str, Any]:
    """What config.json says about the weights: the format of most matrices, then every exception by its name in the
    file. Our own loader goes by the tensors themselves.
    """
    formats = list(plan.values())
    most = max(sorted(set(formats)), key=formats.count)
    other: dict[str, Any] = {
        name: {"bits": how.bits, "group_size": how.group} for name, how in plan.items() if how != most
    }
    return {
        "recipe": recipe,
        "mode": "affine",
        "bits": most.bits,
        "group_size": most.group,
        "exceptions": other | dict.fromkeys(kept, False),
    }
