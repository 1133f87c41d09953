"""What a model costs: parameters, bits of each part, bytes a frame reads, memory at the start and at full context."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..checkpoints.load import Moshi
from ..frame import FRAME_RATE
from ..quantization.formats import matrices
from .bench_count import frame_bytes


@dataclass
class Part:
    """Sums over one part of the language model. frame: bytes that a frame reads."""

    parameters: int = 0
    nbytes: int = 0
    frame: int = 0

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.nbytes / self.parameters if self.parameters else 0.0


def facts(moshi: Moshi) -> dict[str, Any]:
    """Everything `models show` says of a Moshi, as plain data; reads no weights."""
    config, parts = moshi.config, _parts(moshi)
    trunk, whole = config.lm.transformer, Part()
    for part in parts.values():
        whole.parameters += part.parameters
        whole.nbytes += part.nbytes
        whole.frame += part.frame
    codec = sum(value.nbytes for _, value in _flat(moshi.mimi))
    key_value = 2 * trunk.layers * trunk.kv_heads * trunk.head_size * moshi.lm.dtype.size
    full = key_value * (trunk.context or 0)
    return {
        "model": moshi.located.label,
        "weights": str(moshi.weights),
        "type": config.name,
        "parameters": whole.parameters,
        "bytes": whole.nbytes,
        "bits": whole.bits,
        "parts": {name: asdict(part) | {"bits": part.bits} for name, part in parts.items()},
        "codec_bytes": codec,
        "frame_bytes": whole.frame,
        "bytes_a_second": round(whole.frame * FRAME_RATE),
        "frame_bytes_full_context": whole.frame + full,
        "key_value_bytes_a_frame": key_value,
        "memory_empty": whole.nbytes + codec,
        "memory_full_context": whole.nbytes + codec + full,
        "context_frames": trunk.context,
        "context_seconds": (trunk.context or 0) / FRAME_RATE,
        "configuration": asdict(config),
    }


def _parts(moshi: Moshi) -> dict[str, Part]:
    """The language model by part; what is no matrix (norms, low-rank tables) is `others`."""
    flat, result = dict(_flat(moshi.lm)), dict[str, Part]()
    for matrix in matrices(moshi.lm):
        names = [f"{matrix.name}.{leaf}" for leaf in ("weight", "scales", "biases")]
        nbytes = sum(flat.pop(name).nbytes for name in names if name in flat)
        part = result.setdefault(matrix.role, Part())
        part.parameters += matrix.weights
        part.nbytes += nbytes
        part.frame += nbytes if matrix.lookups is None else nbytes // matrix.rows * matrix.lookups
    rest, read = sum(value.nbytes for value in flat.values()), frame_bytes(moshi)
    others = read["temporal"] + read["depth"] - sum(part.frame for part in result.values())
    result["others"] = Part(sum(value.size for value in flat.values()), rest, others)
    return result


def _flat(module: nn.Module) -> list[tuple[str, mx.array]]:
    return cast(list[tuple[str, mx.array]], tree_flatten(module.parameters()))
