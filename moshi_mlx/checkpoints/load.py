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
from ..models.config import MimiConfig, MoshiConfig
from ..models.lm import Lm
from ..models.mimi import Mimi
from .codec_config import mimi_config
from .config_file import moshi_config, read_json
from .fit import fill, quantize_like
from .header import read_header
from .known import MOSHI_MIMI, MOSHI_TOKENIZER
from .locate import Located, locate
from .mimi_names import mimi_parameters
from .names import is_format_a, join_audio_tables, to_format_a
from .tokenizer import Tokenizer

MOSHI_FILES = ("model.safetensors", "model.q8.safetensors", "model.q4.safetensors")


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
    fill(mimi, mimi_parameters(read_tensors(path), config), path)
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
    quantize_like(lm, parameters, path)
    fill(lm, parameters, path)
    return lm
