"""Mimi's file (PyTorch names and layouts) → the parameters of `models.mimi.Mimi` (spec, checkpoints.md section 5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import mlx.core as mx

from ..frame import MoshiError
from ..models.config import MimiConfig

USAGE_FLOOR = 1e-5  # entries that training never used have usage ≈ 0
_CODEBOOK = re.compile(r"^(quantizer\.rvq_(?:first|rest))\.vq\.layers\.(\d+)\._?codebook\.(\w+)$")
_USAGE, _SUM = ("cluster_usage", "cluster_size"), ("embedding_sum", "embed_sum", "embed_avg")


def _transposed(weight: mx.array) -> mx.array:
    """(in, out, k) → (in, k · out)."""
    return weight.transpose(0, 2, 1).reshape(weight.shape[0], -1)


def _windowed(weight: mx.array) -> mx.array:
    """(out, in, k) → (k · in, out)."""
    return weight.transpose(2, 1, 0).reshape(-1, weight.shape[0])


_TABLE: list[tuple[re.Pattern[str], str, Callable[[mx.array], mx.array] | None]] = [
    (re.compile(r"\.convtr\.convtr\.convtr\.weight$"), ".weight", lambda w: w[:, 0].T),
    (re.compile(r"\.convtr\.convtr\.weight$"), ".weight", _transposed),
    (re.compile(r"\.convtr\.convtr\.bias$"), ".bias", None),
    (re.compile(r"\.conv\.conv(?:\.conv)?\.weight$"), ".weight", _windowed),
    (re.compile(r"\.conv\.conv\.bias$"), ".bias", None),
    (re.compile(r"\.(input|output)_proj\.weight$"), r".\1_proj.weight", lambda w: w[:, :, 0]),
    (re.compile(r"self_attn\.(in|out)_proj(?:_weight|s\.0\.weight|\.weight)$"), r"self_attn.\1_proj.weight", None),
]


def mimi_parameters(tensors: Mapping[str, mx.array], config: MimiConfig) -> dict[str, mx.array]:
    """Parameters in fp32; codebook levels beyond those in use are left alone."""
    result: dict[str, mx.array] = {}
    books: dict[tuple[str, int], dict[str, mx.array]] = {}
    for name, value in tensors.items():
        if match := _CODEBOOK.match(name):
            books.setdefault((match[1], int(match[2])), {})[match[3]] = value
            continue
        target, change = name, None
        for pattern, spelling, how in _TABLE:
            if pattern.search(name):
                target, change = pattern.sub(spelling, name), how
                break
        if config.codebooks == 1 and target.startswith("quantizer.rvq_rest."):
            continue
        try:
            result[target] = (value if change is None else change(value)).astype(mx.float32)
        except (ValueError, IndexError):
            raise MoshiError(f"the codec's tensor {name} has the impossible shape {tuple(value.shape)}") from None
    for part, levels in (("quantizer.rvq_first", 1), ("quantizer.rvq_rest", config.codebooks - 1)):
        tables = [_entries(part, level, books.get((part, level), {})) for level in range(levels)]
        if tables:
            if len({table.shape for table in tables}) > 1:
                raise MoshiError(f"the codec's codebooks {part} differ in shape; get its file again")
            result[f"{part}.codebooks"] = mx.stack(tables)
            result[f"{part}.half_norms"] = 0.5 * result[f"{part}.codebooks"].square().sum(axis=-1)
    return result


def _entries(part: str, level: int, book: dict[str, mx.array]) -> mx.array:
    """Codebook entries from the exponential averages in the file."""
    usage = next((book[name] for name in _USAGE if name in book), None)
    total = next((book[name] for name in _SUM if name in book), None)
    if usage is None or total is None or total.ndim != 2 or usage.shape != total.shape[:1]:
        raise MoshiError(
            f"the codec's file lacks a whole codebook {part}, level {level}; does it have enough codebooks?"
        )
    return total.astype(mx.float32) / mx.maximum(usage.astype(mx.float32), USAGE_FLOOR)[:, None]
