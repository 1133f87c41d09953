"""The published models this program knows by name: a table, nothing else. Any other Hub repository works by its id."""

from __future__ import annotations

import re
from dataclasses import dataclass

CC_BY = "CC-BY-4.0"
MOSHI_MIMI = "tokenizer-e351c8d8-checkpoint125.safetensors"
MOSHI_TOKENIZER = "tokenizer_spm_32k_3.model"
HELIUM_TOKENIZER = "tokenizer_spm_48k_multi6_2.model"


@dataclass(frozen=True, slots=True)
class Known:
    """One published model. `weights` is the file of the language model (of the codec for kind "mimi").

    kind: "moshi" and "hibiki" converse (`chat`, `run`), "helium" writes text (`text`), "mimi" is the codec (`codec`).
    gigabytes: 10⁹ bytes of `weights`. bits: a weight, scales included.
    """

    alias: str
    repo: str
    weights: str
    kind: str
    bits: float
    gigabytes: float
    note: str
    licence: str = CC_BY


def _moshi(voice: str, who: str) -> tuple[Known, ...]:
    rows = (
        ("q4", "model.q4.safetensors", 5.0, 4.81),
        ("q8", "model.q8.safetensors", 8.5, 8.17),
        ("bf16", "model.safetensors", 16.0, 15.38),
    )
    return tuple(
        Known(f"{voice}-{tag}", f"kyutai/{voice}-mlx-{tag}", file, "moshi", bits, size, f"Moshi 7B, {who}")
        for tag, file, bits, size in rows
    )


def _helium() -> tuple[Known, ...]:
    repo = "kyutai/helium-1-preview-2b-mlx"
    rows = (("q4", 4.5, 1.22), ("q6", 6.5, 1.77), ("q8", 8.5, 2.31), ("bf16", 16.0, 4.35))
    return tuple(
        Known(f"helium-{tag}", repo, f"helium-1-preview-2b-{tag}.safetensors", "helium", bits, size, "Helium 2B, text")
        for tag, bits, size in rows
    )


KNOWN: tuple[Known, ...] = (
    *_moshi("moshiko", "man"),
    *_moshi("moshika", "woman"),
    Known(
        "hibiki-1b",
        "kyutai/hibiki-1b-mlx-bf16",
        "hibiki-mlx-dc2cf5a5@80.safetensors",
        "hibiki",
        16.0,
        3.6,
        "French → English",
    ),
    Known(
        "hibiki-2b",
        "kyutai/hibiki-2b-mlx-bf16",
        "hibiki-mlx-220b12c0@200.safetensors",
        "hibiki",
        16.0,
        6.2,
        "French → English",
    ),
    *_helium(),
    Known("mimi", "kyutai/mimi", "model.safetensors", "mimi", 32.0, 0.38, "the codec alone"),
)

# Repositories that cannot be run, told before gigabytes are fetched.
UNSUPPORTED = (
    (
        re.compile(r"nvidia/personaplex-.+"),
        "PersonaPlex, which also predicts the user and wants a spoken and a written prompt; that is not supported, "
        "take moshiko or moshika",
    ),
    (re.compile(r"kyutai/mosh\w+-pytorch-q8"), "int8 for PyTorch, which is not supported; take the one with -mlx-q8"),
    (re.compile(r"kyutai/mosh\w+-candle-q8"), "GGUF for Rust, which is not supported; take the one with -mlx-q8"),
    (re.compile(r"kyutai/moshika-vis-.+"), "a MoshiVis model, which sees images; that is not supported"),
)

BY_ALIAS = {known.alias: known for known in KNOWN}

_E351 = "09b782f0629851a271227fb9d36db65c041790365f11bbe5d3d59369cf863f50"
SHA256 = {MOSHI_MIMI: _E351, "mimi-pytorch-e351c8d8@125.safetensors": _E351}  # file names that mean one content
