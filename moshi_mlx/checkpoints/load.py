"""A checkpoint → a model: configuration, names, quantization read from the tensors, strict check, weights.

Nothing is held twice: arrays stay lazy until the model has them, then they are evaluated in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from ..frame import MoshiError
from ..models.config import LmConfig, MimiConfig, MoshiConfig
from ..models.lm import Lm
from ..models.mimi import Mimi
from .codec_config import mimi_config
from .config_file import moshi_config, read_json
from .fields import Fields
from .fit import check_layers, fill, quantize_like
from .header import read_header
from .hf_config import hf_moshi_config
from .hf_names import CODEC, is_hf_mimi, lm_from_hf, mimi_from_hf
from .locate import Located, locate
from .lora import SCALING, merge
from .mimi_names import mimi_parameters
from .names import join_audio_tables, to_format_a
from .recognise import recognise
from .tokenizer import Tokenizer


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
    """What a checkpoint folder consists of; `raw` is its config.json, None where there is none (Moshi 7B).

    weights: the file, or the first of its shards; `shards`: the others. mimi: `weights` where the codec is in them.
    """

    located: Located
    raw: dict[str, Any] | None
    config: MoshiConfig
    weights: Path
    mimi: Path
    tokenizer: Path
    shards: tuple[Path, ...] = ()
    lora: Path | None = None


def open_checkpoint(source: str | Path | None, *, offline: bool = False) -> Files:
    """Finds a checkpoint's files and reads its configuration, no weights."""
    located = locate(source, offline=offline)
    names = located.files()
    if names.family not in ("moshi", "hf-moshi"):
        what = "text model; `moshi-mlx text`" if names.family == "helium" else "codec alone; `moshi-mlx codec`"
        raise MoshiError(f"{located.label} is a {what} is the command for it")
    where = str(located.folder / "config.json")
    raw = located.read_json("config.json") if located.has("config.json") else None
    if names.lora and not any("://" in name or located.has(name) for name in names.weights):
        raise MoshiError(f"{located.label} is a LoRA without its base; `moshi-mlx models merge` joins the two")
    weights, *shards = [located.file(name) for name in names.weights]
    if names.family == "hf-moshi":
        config, mimi = hf_moshi_config(raw or {}, where), weights
    else:
        codec = MimiConfig()
        if names.mimi_config:
            path = located.file(names.mimi_config)
            codec = mimi_config(read_json(path), str(path))
        config, mimi = moshi_config(raw or {}, where, codec), located.file(str(names.mimi))
    lora = located.file(names.lora) if names.lora else None
    return Files(located, raw, config, weights, mimi, located.file(str(names.tokenizer)), tuple(shards), lora)


def load(
    source: str | Path | None = None, *, dtype: mx.Dtype | None = None, lazy: bool = False, offline: bool = False
) -> Moshi:
    """Loads a checkpoint: a folder, an alias, a Hub id, an hf:// address; None is the embedded demonstration model.

    The language model keeps the dtypes of its file unless `dtype` casts its floating-point weights; the codec is fp32.
    Every weight is evaluated before this returns, unless `lazy`. Raises MoshiError for whatever is missing, unknown or
    wrongly shaped.
    """
    files = open_checkpoint(source, offline=offline)
    tokenizer = Tokenizer(files.tokenizer)
    config = files.config
    if len(tokenizer) > config.lm.text_card:
        raise MoshiError(
            f"{files.tokenizer} has {len(tokenizer)} pieces, the model knows {config.lm.text_card}; wrong tokenizer"
        )
    tensors = read_weights(files)
    lm = make_lm(config, tensors, files.weights, dtype)
    mimi = make_mimi(config.mimi, read_codec(files), files.mimi)
    del tensors
    if not lazy:
        mx.eval(lm.parameters(), mimi.parameters())
    return Moshi(config, mimi, lm, tokenizer, files.located, files.weights)


def read_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file, lazily, its header checked first."""
    read_header(path)
    try:
        return cast(dict[str, mx.array], mx.load(str(path), format="safetensors"))
    except (RuntimeError, ValueError) as error:
        raise MoshiError(f"{path} cannot be read: {error}") from None


def read_weights(files: Files) -> dict[str, mx.array]:
    """The tensors of a language model, lazily: those of all its shards, its LoRA merged (then in format A)."""
    tensors = read_tensors(files.weights)
    for path in files.shards:
        more = read_tensors(path)
        if twice := tensors.keys() & more.keys():
            raise MoshiError(f"{path} repeats {min(twice)} of another shard; get the model again")
        tensors |= more
    if files.lora:
        scaling = Fields(files.raw or {}, str(files.located.folder)).number("lora_scaling", SCALING, 0, 1e3)
        base = format_a(tensors, files.config.lm, files.weights)
        tensors = merge(base, read_tensors(files.lora), files.config.lm, scaling)
    return tensors


def read_codec(files: Files) -> dict[str, mx.array]:
    """The tensors that hold the codec, lazily: its own file, or the weights without their LoRA (merged, they are the
    language model alone).
    """
    return read_tensors(files.mimi) if files.mimi != files.weights else read_weights(replace(files, lora=None))


def load_codec(path: Path, config: MimiConfig) -> Mimi:
    """The codec of a configuration from its file, lazily."""
    return make_mimi(config, read_tensors(path), path)


def make_mimi(config: MimiConfig, tensors: Mapping[str, mx.array], path: Path) -> Mimi:
    """The codec with the tensors of a file in the published or transformers' layout, lazily. `path` is for messages."""
    if any(name.startswith(CODEC) for name in tensors):
        tensors = {name.removeprefix(CODEC): value for name, value in tensors.items() if name.startswith(CODEC)}
    if is_hf_mimi(tensors):
        tensors = mimi_from_hf(tensors, config)
    check_layers(2 * config.transformer.layers, len(tensors), path)
    mimi = Mimi(config)
    fill(mimi, mimi_parameters(tensors, config), path)
    return mimi


def format_a(tensors: Mapping[str, mx.array], config: LmConfig, path: Path) -> Mapping[str, mx.array]:
    """The tensors of a language model in any layout under their names in format A. `path` is for messages."""
    kind = recognise(tensors, str(path))
    if kind in ("D1", "LoRA", "Helium", "Mimi"):
        raise MoshiError(f"{path} is a file of the kind {kind}, not the weights of a Moshi; check the name")
    if kind == "D2":
        return lm_from_hf({name: value for name, value in tensors.items() if not name.startswith(CODEC)}, config)
    try:
        return tensors if kind.startswith("A") else to_format_a(tensors, config)
    except MoshiError as error:
        raise MoshiError(f"{path}: {error}; get it again") from None


def make_lm(config: MoshiConfig, tensors: Mapping[str, mx.array], path: Path, dtype: mx.Dtype | None = None) -> Lm:
    """The language model with the tensors of a file of format A, B, C or D2, lazily. `path` is for messages."""
    named = format_a(tensors, config.lm, path)
    check_layers(config.lm.transformer.layers + config.lm.dep_q * config.lm.depth.transformer.layers, len(named), path)
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
    quantize_like(lm, parameters, path)
    fill(lm, parameters, path)
    return lm
