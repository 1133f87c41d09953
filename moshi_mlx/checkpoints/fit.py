"""Tensors into a module: quantized where the tensors are, and a readable difference where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..frame import MoshiError

SHOWN = 10  # names of a difference
GROUPS, BITS = (32, 64, 128), (2, 3, 4, 5, 6, 8)


def check_layers(layers: int, tensors: int, path: Path) -> None:
    """Refuses a configuration with more layers than its file has tensors, before they are built: it may ask for 10⁵."""
    if layers > tensors:
        raise MoshiError(
            f"{path} does not fit its configuration, which asks for {layers} layers; it has {tensors} tensors"
        )


def quantize_like(model: nn.Module, parameters: Mapping[str, mx.array], path: Path) -> None:
    """Makes those modules quantized whose scales are in the file, with bits and group from the shapes."""

    def plan(name: str, module: nn.Module) -> dict[str, int] | bool:
        scales, weight = parameters.get(f"{name}.scales"), parameters.get(f"{name}.weight")
        if scales is None or weight is None or not hasattr(module, "to_quantized"):
            return False
        columns = module.weight.shape[-1]
        fits = weight.ndim == scales.ndim == 2 and scales.shape[1] > 0 and weight.dtype == mx.uint32
        group = columns // scales.shape[1] if fits and columns % scales.shape[1] == 0 else 0
        bits = weight.shape[1] * 32 // columns if fits else 0
        if group not in GROUPS or bits not in BITS or weight.shape[1] * 32 != bits * columns:
            raise MoshiError(
                f"{path}: {name} is quantized in a way that is not known (weight {weight.shape}, scales {scales.shape})"
            )
        return {"group_size": group, "bits": bits}

    nn.quantize(model, class_predicate=plan)


def fill(model: nn.Module, parameters: Mapping[str, mx.array], path: Path) -> None:
    """Puts the parameters into the model; a readable difference where they do not fit."""
    flat = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    wanted = {name: tuple(value.shape) for name, value in flat}
    found = {name: tuple(value.shape) for name, value in parameters.items()}
    shapes = [
        f"{n} is {found[n]} instead of {wanted[n]}"
        for n in sorted(wanted.keys() & found.keys())
        if wanted[n] != found[n]
    ]
    kinds = [
        f"{n} holds {parameters[n].dtype}"
        for n, value in flat
        if n in found and mx.issubdtype(parameters[n].dtype, mx.floating) != mx.issubdtype(value.dtype, mx.floating)
    ]
    faults = [
        _list("missing", sorted(wanted.keys() - found.keys())),
        _list("unknown", sorted(found.keys() - wanted.keys())),
        _list("wrongly shaped", shapes),
        _list("of a type that is not supported", kinds),
    ]
    if any(faults):
        hint = "does its config.json belong to it?"
        raise MoshiError(
            f"{path} does not fit its configuration ({hint}): {'; '.join(fault for fault in faults if fault)}"
        )
    model.load_weights(list(parameters.items()), strict=False)


def _list(what: str, items: list[str]) -> str:
    if not items:
        return ""
    more = f" … and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{len(items)} {what}: {', '.join(items[:SHOWN])}{more}"
