"""A checkpoint → a model: configuration, names, quantization read from the tensors, strict check, weights.

Nothing is held twice: arrays stay lazy until the model has them, then they are evaluated in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..frame import MoshiError
from ..models.config import MimiConfig, MoshiConfig
from ..models.lm import Lm
from ..models.mimi import Mimi
from .codec_config import mimi_config
from .config_file import moshi_config, read_json
from .header import read_header
from .known import MOSHI_MIMI, MOSHI_TOKENIZER
from .locate import Located, locate
from .mimi_names import mimi_parameters
from .names import is_format_a, join_audio_tables, to_format_a
from .tokenizer import Tokenizer

MOSHI_FILES = ("model.safetensors", "model.q8.safetensors", "model.q4.safetensors")
SHOWN = 10  # names of a difference
GROUPS, BITS = (32, 64, 128), (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Moshi:
    """One loaded checkpoint. It never changes; all that does is in a `Session` (or in a state of its parts)."""

    config: MoshiConfig
    mimi: Mimi
    lm: Lm
    tokenizer: Tokenizer
    located: Located
    weights: Path


@dataclass(frozen=True)
class Files:
    """What a checkpoint folder consists of; `raw` is its config.json, None where there is none (Moshi 7B)."""

    located: Located
    raw: dict[str, Any] | None
    config: MoshiConfig
    weights: Path
    mimi: Path
    tokenizer: Path


def open_checkpoint(source: str | Path | None, *, offline: bool = False) -> Files:
    """Finds a checkpoint's files and reads its configuration, no weights."""
    located = locate(source, offline=offline)
    raw = located.read_json("config.json") if located.has("config.json") else None
    names = {key: value for key, value in (raw or {}).items() if key.endswith("_name") and value is not None}
    if bad := [key for key, value in names.items() if not isinstance(value, str)]:
        raise MoshiError(f"{located.folder / 'config.json'}: {bad[0]} must be a file name")
    codec = MimiConfig()
    if name := names.get("mimi_config_name"):
        path = located.file(name)
        codec = mimi_config(read_json(path), str(path))
    config = moshi_config(raw or {}, str(located.folder / "config.json"), codec)
    weights = located.weights or names.get("moshi_name")
    if weights is None:
        present = [name for name in MOSHI_FILES if located.has(name)]
        if not present and raw is None:
            raise MoshiError(
                f"{located.folder} holds no model: neither config.json nor {MOSHI_FILES[0]}; name another folder"
            )
        weights = (present or MOSHI_FILES)[0]
    return Files(
        located,
        raw,
        config,
        located.file(weights),
        located.file(names.get("mimi_name", MOSHI_MIMI)),
        located.file(names.get("tokenizer_name", MOSHI_TOKENIZER)),
    )


def load(
    source: str | Path | None = None, *, dtype: mx.Dtype | None = None, lazy: bool = False, offline: bool = False
) -> Moshi:
    """Loads a checkpoint: a folder, an alias, a Hub id, an hf:// address; None is the embedded demonstration model.

    The language model keeps the dtypes of its file unless `dtype` casts its floating-point weights; the codec is
    fp32. Every weight is
    evaluated before this returns, unless `lazy`. Raises MoshiError for whatever is missing, unknown or wrongly shaped.
    """
    files = open_checkpoint(source, offline=offline)
    tokenizer = Tokenizer(files.tokenizer)
    config = files.config
    if len(tokenizer) > config.lm.text_card:
        raise MoshiError(
            f"{files.tokenizer} has {len(tokenizer)} pieces, the model knows {config.lm.text_card}; wrong tokenizer"
        )
    lm = make_lm(config, read_tensors(files.weights), files.weights, dtype)
    mimi = load_codec(files.mimi, config.mimi)
    if not lazy:
        mx.eval(lm.parameters(), mimi.parameters())
    return Moshi(config, mimi, lm, tokenizer, files.located, files.weights)


def load_mimi(file: str | Path, num_codebooks: int = 8) -> Mimi:
    """The codec alone, from a file in the published layout, with its first `num_codebooks` codebooks."""
    config = MimiConfig()
    if not 1 <= num_codebooks <= config.codebooks_in_file:
        raise MoshiError(f"Mimi has 1 to {config.codebooks_in_file} codebooks, not {num_codebooks}")
    mimi = load_codec(Path(file), replace(config, codebooks=num_codebooks))
    mx.eval(mimi.parameters())
    return mimi


def read_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file, lazily, its header checked first."""
    read_header(path)
    try:
        return cast(dict[str, mx.array], mx.load(str(path), format="safetensors"))
    except (RuntimeError, ValueError) as error:
        raise MoshiError(f"{path} cannot be read: {error}") from None


def load_codec(path: Path, config: MimiConfig) -> Mimi:
    """The codec of a configuration from its file, lazily."""
    mimi = Mimi(config)
    _fill(mimi, mimi_parameters(read_tensors(path), config), path)
    return mimi


def make_lm(config: MoshiConfig, tensors: Mapping[str, mx.array], path: Path, dtype: mx.Dtype | None = None) -> Lm:
    """The language model with the tensors of a file of format A, B or C, lazily. `path` is only for messages."""
    named = tensors if is_format_a(set(tensors)) else to_format_a(tensors, config.lm)
    lm = Lm(config.lm)
    try:
        parameters = join_audio_tables(named, config.lm)
    except (KeyError, ValueError):
        raise MoshiError(
            f"{path}: the tables audio_embs.0 to {config.lm.n_q - 1} do not fit together; get it again"
        ) from None
    if dtype is not None:
        parameters = {
            name: value.astype(dtype) if mx.issubdtype(value.dtype, mx.floating) else value
            for name, value in parameters.items()
        }
    _quantize(lm, parameters, path)
    _fill(lm, parameters, path)
    return lm


def _quantize(model: nn.Module, parameters: Mapping[str, mx.array], path: Path) -> None:
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


def _fill(model: nn.Module, parameters: Mapping[str, mx.array], path: Path) -> None:
    """Puts the parameters into the model; a readable difference where they do not fit."""
    flat = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    wanted = {name: tuple(value.shape) for name, value in flat}
    found = {name: tuple(value.shape) for name, value in parameters.items()}
    shapes = [
        f"{n} is {found[n]} instead of {wanted[n]}"
        for n in sorted(wanted.keys() & found.keys())
        if wanted[n] != found[n]
    ]
    faults = [
        _list("missing", sorted(wanted.keys() - found.keys())),
        _list("unknown", sorted(found.keys() - wanted.keys())),
        _list("wrongly shaped", shapes),
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
