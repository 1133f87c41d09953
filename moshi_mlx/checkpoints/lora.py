"""Adapters of moshi-finetune, merged into the weights they were trained on (spec, checkpoints.md section 7).

The product of an adapter's two matrices takes the same way from PyTorch's names to format A as the weight it changes,
so whatever the base's layout, the two meet under one name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import mlx.core as mx

from ..frame import MoshiError
from ..models.config import LmConfig
from .names import to_format_a

SCALING = 2.0  # where the config does not say
_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.weight")
_OLD_DEPTH = re.compile(r"^(depformer\.layers\.\d+\.self_attn\.in_proj)\.weight$")  # the fused spelling of older files
_STACKED = re.compile(r"depformer\.layers\.\d+\.self_attn\.(in|out)_proj")  # of all weight sets in one


def is_lora(names: Collection[str]) -> bool:
    """Whether these are the tensors of an adapter."""
    return any(_ADAPTER.fullmatch(name) for name in names)


def merge(
    base: Mapping[str, mx.array], adapter: Mapping[str, mx.array], config: LmConfig, scaling: float
) -> dict[str, mx.array]:
    """Format A weights with the adapter in them, lazily: W + scaling · B · A in fp32, then the dtype of W again.

    base: format A, not quantized. Tensors of the adapter's file that are no adapters (trained embeddings) replace
    those of the base. Raises MoshiError if the two do not belong together.
    """
    pairs: dict[str, dict[str, mx.array]] = {}
    whole: dict[str, mx.array] = {}
    for name, value in adapter.items():
        if match := _ADAPTER.fullmatch(name):
            pairs.setdefault(match[1], {})[match[2]] = value
        else:
            whole[name] = value
    sets = max(config.depth.schedule) + 1
    deltas = to_format_a({_spelt(path): _product(path, pair, scaling, sets) for path, pair in pairs.items()}, config)
    result = dict(base)
    for name, value in to_format_a(whole, config).items():
        result[name] = value.astype(_base(result, name, value).dtype)
    for name, delta in deltas.items():
        weight = _base(result, name, delta)
        result[name] = (weight.astype(mx.float32) + delta).astype(weight.dtype)
    return result


def _spelt(path: str) -> str:
    return _OLD_DEPTH.sub(r"\1_weight", f"{path}.weight")


def _product(path: str, pair: Mapping[str, mx.array], scaling: float, sets: int) -> mx.array:
    """scaling · B · A of one matrix; of each of the depth's weight sets, where they are stored one above the other."""
    if len(pair) == 2 and pair["A"].ndim == pair["B"].ndim == 2:
        b, a = (pair[side].astype(mx.float32) for side in "BA")
        if b.shape[1] == a.shape[0]:
            return scaling * (b @ a)
        if _STACKED.fullmatch(path) and sets * b.shape[1] == a.shape[0] and b.shape[0] % sets == 0:
            return scaling * (b.reshape(sets, -1, b.shape[1]) @ a.reshape(sets, b.shape[1], -1)).reshape(len(b), -1)
    raise MoshiError(f"the LoRA's matrices of {path} do not fit together; get its file again")


def _base(base: Mapping[str, mx.array], name: str, value: mx.array) -> mx.array:
    if name.removesuffix("weight") + "scales" in base:
        raise MoshiError(
            "a LoRA cannot be merged into quantized weights; take the bf16 model as its base, then quantize"
        )
    if name not in base or base[name].shape != value.shape:
        found = tuple(base[name].shape) if name in base else "nothing"
        raise MoshiError(f"the LoRA changes {name} of shape {tuple(value.shape)}, its base has {found}; wrong base?")
    return base[name]
