"""Published models with random weights: how fast a machine is, without a download. They say noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from ..checkpoints.known import BY_ALIAS
from ..checkpoints.load import Moshi
from ..checkpoints.locate import Located
from ..checkpoints.tokenizer import Tokenizer
from ..models.config import MimiConfig, MoshiConfig
from ..models.lm import Lm
from ..models.mimi import Mimi
from ..models.published import PUBLISHED
from ..quantization.formats import Format, Plan, matrices
from ..quantization.recipes import RECIPES, Recipe, plan
from .options import UsageError

_BITS = {5.0: "uniform-4", 8.5: "uniform-8", 16.0: None}  # of the published files


class _Mute:
    """Stands in for a tokenizer: random tokens have no text."""

    def add(self, token: int, pending: bytes) -> tuple[str, bytes]:
        return "", b""


def random_moshi(alias: str, recipe: str | None = None, lazy: bool = False) -> Moshi:
    """The model of an alias of `known.py`. recipe: as in `moshi-mlx quantize`, or BITS/GROUP such as 4/64, or "bf16";
    None: as published. lazy: only shapes, no weight is ever made."""
    known = BY_ALIAS.get(alias)
    config = next((config for name, config in PUBLISHED.items() if alias.startswith(name)), None)
    if known is None or config is None:
        names = ", ".join(alias for alias in BY_ALIAS if alias.startswith(tuple(PUBLISHED)))
        raise UsageError(f"--random knows {names}; not {alias!r}")
    codec = replace(MimiConfig(), codebooks=max(config.dep_q, config.user_q))
    lm, mimi = Lm(config), Mimi(codec)
    lm.set_dtype(mx.bfloat16)
    wanted = _plan(lm, _BITS[known.bits] if recipe is None else recipe)
    nn.quantize(
        lm,
        class_predicate=lambda name, module: (
            {"group_size": wanted[name].group, "bits": wanted[name].bits} if name in wanted else False
        ),
    )
    if not lazy:
        mx.random.seed(0)
        _randomise(lm)
        _randomise(mimi)
    located = Located(Path(), f"{alias} with random weights", offline=True)
    return Moshi(MoshiConfig(config, codec), mimi, lm, cast(Tokenizer, _Mute()), located, Path())


def _plan(lm: Lm, recipe: str | None) -> Plan:
    if recipe is None or recipe == "bf16":
        return {}
    known = RECIPES.get(recipe)
    if known is None:
        bits, _, group = recipe.partition("/")
        if bits not in {"2", "3", "4", "5", "6", "8"} or group not in {"32", "64", "128"}:
            raise UsageError(
                f"--recipe is one of {', '.join(RECIPES)}, bf16 or BITS/GROUP such as 4/64; not {recipe!r}"
            )
        how = Format(int(bits), int(group))
        known = Recipe(recipe, how, how)
    return plan(known, matrices(lm))


def _randomise(model: nn.Module) -> None:
    """Weights that keep activations of order one, made one after the other."""
    for _, module in model.named_modules():
        for key, value in list(module.items()):
            if isinstance(value, mx.array):
                module[key] = _values(module, key, value)
                mx.eval(module[key])


def _values(module: nn.Module, key: str, value: mx.array) -> mx.array:
    if key == "weight" and value.dtype == mx.uint32:
        return mx.random.randint(0, (1 << 31) - 1, value.shape, mx.uint32)
    if key in ("scales", "biases"):
        quantized: Any = module
        scale = (value.shape[1] * quantized.group_size) ** -0.5 * 4 / 2**quantized.bits
        middle = (2**quantized.bits - 1) / 2
        return mx.full(value.shape, scale if key == "scales" else -scale * middle, value.dtype)
    if value.ndim < 2:
        return mx.full(value.shape, 0.0 if key == "bias" else 0.5, value.dtype)
    return mx.random.normal(value.shape, value.dtype, scale=max(value.shape[-1], value.shape[0]) ** -0.5)
