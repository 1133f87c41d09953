"""Helium, the text model from which Moshi grew, through mlx-lm's model of it.

Two layouts are read: transformers' (format E: config.json, tokenizer.json, one file or shards) and Kyutai's own `-mlx`
files (format A names, SentencePiece), by the inverse of the spec's table (checkpoints.md section 8). Both may be
quantized: groups run along columns, so stacked rows split alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from ..frame import MoshiError
from .fields import Fields
from .fit import fill, quantize_like
from .load import read_tensors
from .locate import Located
from .tokenizer import Tokenizer

_PARTS = {  # one stacked tensor of format A → its parts in order
    "self_attn.in_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gating.linear_in": ("mlp.gate_proj", "mlp.up_proj"),
}
_NAMES = {
    "self_attn.out_proj": "self_attn.o_proj",
    "gating.linear_out": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "text_emb": "model.embed_tokens",
    "out_norm": "model.norm",
    "text_linear": "lm_head",
}
_LAYER = re.compile(r"transformer\.(layers\.\d+\.)(.+)\.(weight|scales|biases)")
_TOP = re.compile(r"(text_emb|out_norm|text_linear)\.(weight|scales|biases)")


@dataclass(frozen=True, slots=True)
class Helium:
    """A loaded text model: mlx-lm's module, its longest text in tokens, and the way from text to ids and back.

    encode: text → ids, the initial token first. decoder: makes a function id → the text that became readable with it,
    which may hold any character.
    """

    model: nn.Module
    context: int
    stop: frozenset[int]
    encode: Callable[[str], list[int]]
    decoder: Callable[[], Callable[[int], str]]


def from_format_a(tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Format A → transformers' names; names that are not of Helium stay as they are."""
    result: dict[str, mx.array] = {}
    for name, value in tensors.items():
        if match := _TOP.fullmatch(name):
            result[f"{_NAMES[match[1]]}.{match[2]}"] = value
        elif (match := _LAYER.fullmatch(name)) and match[2] in _PARTS:
            parts = _PARTS[match[2]]
            if value.shape[0] % len(parts):
                raise MoshiError(f"{name} has {value.shape[0]} rows, which {len(parts)} parts cannot share")
            for part, rows in zip(parts, mx.split(value, len(parts), axis=0), strict=True):
                result[f"model.{match[1]}{part}.{match[3]}"] = rows
        elif match and match[2] in _NAMES:
            result[f"model.{match[1]}{_NAMES[match[2]]}.{match[3]}"] = value
        else:
            result[name] = value
    return result


def load_helium(located: Located) -> Helium:
    """Loads the text model of a folder; MoshiError if it is none, or damaged."""
    files = located.files()
    if files.family != "helium":
        raise MoshiError(f"{located.label} is not a text model; name a Helium, such as helium-q4")
    from mlx_lm.models.helium import Model, ModelArgs

    paths = [located.file(name) for name in files.weights]
    tensors = {name: value for path in paths for name, value in read_tensors(path).items()}
    own = "text_emb.weight" in tensors
    if own:
        tensors = from_format_a(tensors)
    config = _arguments(located, tensors)
    model = Model(ModelArgs.from_dict(config))  # type: ignore[no-untyped-call]
    if config["tie_word_embeddings"]:
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    quantize_like(model, tensors, paths[0])
    fill(model, tensors, paths[0])
    model.eval()
    mx.eval(model.parameters())
    context, stop = config["max_position_embeddings"], frozenset(config["stop"])
    if files.tokenizer:
        return Helium(model, context, stop, *_sentencepiece(located, files.tokenizer, config))
    return Helium(model, context, stop, *_tokenizers(located, config))


def _arguments(located: Located, tensors: Mapping[str, mx.array]) -> dict[str, Any]:
    """mlx-lm's arguments from config.json (transformers' keys, or Kyutai's), the widths from the tensors."""
    raw = located.read_json("config.json") if located.has("config.json") else {}
    fields = Fields(raw, str(located.folder / "config.json"))
    try:
        width = tensors["model.norm.weight"].shape[0]
        vocabulary = tensors["lm_head.weight" if "lm_head.weight" in tensors else "model.embed_tokens.weight"].shape[0]
        gate = tensors["model.layers.0.mlp.gate_proj.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise MoshiError(f"{located.label} lacks tensors of a Helium ({error}); is it one?") from None
    layers = len({name.split(".")[2] for name in tensors if name.startswith("model.layers.")})

    def first(keys: Sequence[str], default: int) -> int:
        key = next((key for key in keys if key in raw), keys[0])
        return fields.integer(key, default, low=1, high=1 << 31)

    heads = first(("num_attention_heads", "num_heads"), max(1, width // 128))
    groups = first(("num_key_value_heads",), heads)
    head = first(("head_dim",), width // heads)
    if heads * head != width or heads % groups or head % 2:
        raise MoshiError(f"{located.label}: {heads} heads of {head}, {groups} shared, do not make a width of {width}")
    theta = "rope_theta" if "rope_theta" in raw else "max_period"
    rope = raw.get("rope_parameters")
    stop = raw.get("eos_token_id", 2)
    for key in ("attention_bias", "mlp_bias"):
        fields.fixed({key: (False,)})
    return {
        "model_type": "helium",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": gate,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head,
        "rms_norm_eps": fields.number("rms_norm_eps", 1e-8, 0, 1e-2),
        "vocab_size": vocabulary,
        "rope_theta": Fields(rope, "rope_parameters").number("rope_theta", 1e5, 1, 1e9)
        if isinstance(rope, dict)
        else fields.number(theta, 1e5, 1, 1e9),
        "max_position_embeddings": first(("max_position_embeddings", "context"), 4096),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": raw.get("tie_word_embeddings") is True,
        "start": fields.integer("bos_token_id", 1, low=0),
        "stop": [token for token in (stop if isinstance(stop, list) else [stop]) if isinstance(token, int)],
    }


def _sentencepiece(located: Located, name: str, config: dict[str, Any]) -> tuple[Any, Any]:
    tokenizer = Tokenizer(located.file(name))

    def encode(text: str) -> list[int]:
        return [config["start"], *cast(list[int], tokenizer.model.encode(text))]

    def decoder() -> Callable[[int], str]:
        pending = b""

        def add(token: int) -> str:
            nonlocal pending
            text, pending = tokenizer.join(token, pending)
            return text

        return add

    return encode, decoder


def _tokenizers(located: Located, config: dict[str, Any]) -> tuple[Any, Any]:
    import tokenizers
    from tokenizers.decoders import DecodeStream

    path = located.file("tokenizer.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises bare Exception
        raise MoshiError(f"{path} is not a tokenizer ({str(error)[:80]}); get it again") from None

    def encode(text: str) -> list[int]:
        return [config["start"], *tokenizer.encode(text, add_special_tokens=False).ids]

    def decoder() -> Callable[[int], str]:
        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(tokenizer, token) or ""

    return encode, decoder
