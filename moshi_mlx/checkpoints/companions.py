"""Which files a checkpoint consists of: its weights, its codec, its text tokenizer, and what its config.json names.

`roles(names, config, weights)` decides from the names in a repository or folder and from the parsed config.json alone,
so that the same rule serves a folder on disk and a repository that is about to be fetched (spec: checkpoints.md
sections 1 and 2). The names it gives are as a config writes them: plain, `hf://org/repo/path` or `file://path`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..frame import MoshiError
from .known import HELIUM_TOKENIZER, MOSHI_MIMI, MOSHI_TOKENIZER

LORA = "lora.safetensors"
# transformers repositories carry no SentencePiece file
HUB_TOKENIZER = f"hf://kyutai/moshiko-pytorch-bf16/{MOSHI_TOKENIZER}"
WEIGHTS = ("model.safetensors", "model.q8.safetensors", "model.q4.safetensors", "consolidated.safetensors")
_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})\.safetensors")
_COMPANION = re.compile(r"(?:^|/)(?:tokenizer-|mimi[-.]|lora\b|adapter)")
_HELIUM_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
MAX_SHARDS = 256


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a checkpoint by role. family: "moshi" (Kyutai's own layouts), "hf-moshi", "hf-mimi" or "helium"."""

    family: str
    weights: tuple[str, ...]
    mimi: str | None = None
    tokenizer: str | None = None
    mimi_config: str | None = None
    lora: str | None = None
    extra: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        """Every name, weights first, each once."""
        single = (self.mimi, self.tokenizer, self.mimi_config, self.lora)
        return tuple(dict.fromkeys((*self.weights, *[name for name in single if name], *self.extra)))


def roles(names: Collection[str], config: object = None, weights: str | None = None) -> Files:
    """Sorts the files of a folder or repository by role.

    names: relative paths that exist there. config: the parsed config.json, None if there is none. weights: the file
    that the user named, which wins over what the config says. Raises MoshiError if the weights cannot be told.
    """
    if config is not None and not isinstance(config, Mapping):
        raise MoshiError("config.json does not hold a JSON object; get it again")
    config = config or {}
    kind = config.get("model_type")
    for word, what in (("stt", "speech to text"), ("tts", "text to speech")):
        if kind == word or f"{word}_config" in config:
            raise MoshiError(
                f"this is a model of type {word} ({what}), which is not supported; take a Moshi or a Hibiki"
            )
    if kind == "mimi":
        return Files("hf-mimi", (weights,) if weights else _guess(names))
    if kind == "moshi" and ("audio_encoder_config" in config or "depth_decoder_config" in config):
        tokenizer = MOSHI_TOKENIZER if MOSHI_TOKENIZER in names else HUB_TOKENIZER
        return Files("hf-moshi", (weights,) if weights else _guess(names), tokenizer=tokenizer)
    if kind == "helium":
        extra = tuple(name for name in _HELIUM_FILES if name in names)
        return Files("helium", (weights,) if weights else _guess(names), extra=extra)
    if weights and weights.rsplit("/", 1)[-1].startswith("helium"):
        return Files("helium", (weights,), tokenizer=_only(names, ".model") or HELIUM_TOKENIZER)
    named = weights or _text(config, "moshi_name")
    return Files(
        "moshi",
        (named,) if named else _guess(names),
        mimi=_text(config, "mimi_name") or MOSHI_MIMI,
        tokenizer=_text(config, "tokenizer_name") or MOSHI_TOKENIZER,
        mimi_config=_text(config, "mimi_config_name"),
        lora=_text(config, "lora_name") or (LORA if config.get("lora") is True and LORA in names else None),
    )


def _text(config: Mapping[str, object], key: str) -> str | None:
    value = config.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise MoshiError(f"config.json: {key} must be the name of a file, not {str(value)[:40]!r}")
    return value


def _only(names: Collection[str], suffix: str) -> str | None:
    found = [name for name in names if name.endswith(suffix)]
    return found[0] if len(found) == 1 else None


def _guess(names: Collection[str]) -> tuple[str, ...]:
    """The weights among the names: the usual names, the shards of a set, or the only candidate."""
    for name in WEIGHTS:
        if name in names:
            return (name,)
    candidates = sorted(name for name in names if name.endswith(".safetensors") and not _COMPANION.search(name))
    shards = {(match[1], int(match[2])) for name in candidates if (match := _SHARD.fullmatch(name))}
    if len(shards) == 1:
        stem, count = shards.pop()
        if 1 <= count <= MAX_SHARDS:
            return tuple(f"{stem}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1))
    if len(candidates) == 1:
        return (candidates[0],)
    if candidates:
        raise MoshiError(f"several files could be the weights ({', '.join(candidates[:6])}); name the one you want")
    other = sorted(name for name in names if name.endswith((".gguf", ".bin", ".pt", ".pth", ".ckpt")))
    if other:
        raise MoshiError(
            f"here are no safetensors weights, only {other[0]}, which is not supported; take the MLX files"
        )
    if any("lora" in name for name in names):
        raise MoshiError(
            "here is only a LoRA; name its base in config.json (moshi_name) or run `moshi-mlx models merge`"
        )
    raise MoshiError("here are no weights (model.safetensors); check the name")
