"""config.json ↔ MoshiConfig (spec, checkpoints.md section 2): the reference's keys, every one checked.

No config.json means Moshi 7B. A key that asks for what is not built is an error that names it, an unknown key a
warning.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..frame import MoshiError
from ..models.config import (
    BEST,
    ConditionerConfig,
    DepthConfig,
    LmConfig,
    MimiConfig,
    MoshiConfig,
    Rope,
    TransformerConfig,
)
from ..models.sampling import MOST
from .fields import Fields

MAX_JSON = 64 << 20  # bytes; the index of a sharded 7B model has 0.1 MB

# Keys that may only have these values (the published ones), since anything else is another model.
_LM_FIXED: dict[str, tuple[Any, ...]] = {
    "causal": (True,),
    "gating": ("silu",),
    "norm": ("rms_norm_f32",),
    "layer_scale": (None,),
    "existing_text_padding_id": (3,),
    "cross_attention": (False,),
    "demux_second_stream": (False,),
    "demux_second_text_stream": (False,),
    "norm_emb": (False,),
    "bias_proj": (False,),
    "quantize": (False,),
    "extra_heads_num_heads": (0,),
    "depformer_causal": (True,),
    "depformer_layer_scale": (None,),
    "depformer_multi_linear": (True,),
    "depformer_gating": ("silu",),
    "depformer_pos_emb": ("none", None),
    "depformer_weights_per_step": (True,),
    "depformer_norm": (None, "layer_norm"),
}
# Keys with no say here: they are read elsewhere, or the reference ignores them too.
_LM_IGNORED = {
    *("moshi_name", "mimi_name", "tokenizer_name", "lora_name", "mimi_config_name", "model_id", "quantization"),
    *("depformer_context", "depformer_max_period", "extra_heads_dim", "lora", "lora_rank", "lora_scaling"),
    *("stt_config", "tts_config", "hidden_scale"),
}
SAMPLING = {
    "temp": "audio_temperature",
    "temp_text": "text_temperature",
    "top_k": "audio_top_k",
    "top_k_text": "text_top_k",
}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; MoshiError names the file and, for a syntax error, the line."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise MoshiError(f"{path} is larger than any configuration; is it the right file?")
        raw = json.loads(path.read_bytes().decode("utf-8"))
    except json.JSONDecodeError as error:
        raise MoshiError(f"{path}, line {error.lineno}: {error.msg}; mend the JSON") from None
    except (ValueError, RecursionError) as error:
        raise MoshiError(f"{path} is not JSON ({type(error).__name__}); get it again") from None
    except OSError as error:
        raise MoshiError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(raw, dict):
        raise MoshiError(f"{path} does not hold a JSON object; get it again")
    return raw


def gate_width(width: int, feedforward: int) -> int:
    """Rows of the gate from the reference's `dim_feedforward` (spec, moshi.md section 2)."""
    return 21 * width // 8 if feedforward == 4 * width else 2 * feedforward // 3


def lm_config(raw: dict[str, Any], where: str) -> LmConfig:
    """What a config.json says of the language model; MoshiError if that is none of ours."""
    fields = Fields(raw, where)
    name = fields.get("model_type", "moshi")
    if name not in ("moshi", "hibiki"):
        raise MoshiError(f"{where}: a model of type {str(name)[:40]!r} is not supported; take a Moshi or a Hibiki")
    fields.fixed(_LM_FIXED)
    width = fields.integer("dim", 4096)
    heads = fields.heads("num_heads", width, 32)
    scale = fields.number("hidden_scale", 4.125, 0.01, 64)
    repeat = fields.integer("kv_repeat", 1, high=heads)
    if heads % repeat:
        raise fields.fail("kv_repeat", f"must divide the {heads} heads")
    ropes: dict[Any, Rope] = {"rope": "interleaved", "rope_concat": "halves"}
    if (rope := fields.get("positional_embedding", "rope")) not in ("rope", "rope_concat"):
        raise fields.fail("positional_embedding", 'is supported as "rope" or "rope_concat" only')
    temporal = TransformerConfig(
        width,
        heads,
        fields.integer("num_layers", 32, high=512),
        gate_width(width, int(scale * width)),
        context=fields.integer("context", 3000, high=1 << 16),
        max_period=fields.number("max_period", 10_000, 1, 1e9),
        rope=ropes[rope],
        kv_repeat=repeat,
    )
    n_q = fields.integer("n_q", 16, low=1, high=128)
    dep_q = fields.integer("dep_q", 8, low=0, high=n_q)
    if dep_q == 0:
        raise MoshiError(f"{where}: dep_q is 0: a speech-to-text model, which is not supported; take a Moshi or Hibiki")
    deep = fields.integer("depformer_dim", 1024)
    deep_heads = fields.heads("depformer_num_heads", deep, 16)
    deep_repeat = fields.get("depformer_kv_repeat", repeat)
    if type(deep_repeat) is not int or deep_repeat < 1 or deep_heads % deep_repeat:
        raise fields.fail("depformer_kv_repeat", f"must divide the {deep_heads} depth heads")
    schedule = fields.get("depformer_weights_per_step_schedule")
    sets = (
        tuple(range(dep_q))
        if schedule is None
        else fields.integers("depformer_weights_per_step_schedule", (), high=128)[:dep_q]
    )
    if len(sets) < dep_q:
        raise fields.fail(
            "depformer_weights_per_step_schedule", f"must name a weight set for each of {dep_q} codebooks"
        )
    rank = fields.get("depformer_low_rank_embeddings")
    hidden = fields.integer("depformer_dim_feedforward", int(scale * deep), high=1 << 20, null=True)
    depth = DepthConfig(
        TransformerConfig(
            deep,
            deep_heads,
            fields.integer("depformer_num_layers", 6, high=512),
            gate_width(deep, hidden),
            rope=None,
            kv_repeat=deep_repeat,
        ),
        sets,
        None if rank is None else fields.integer("depformer_low_rank_embeddings", 0),
        fields.get("depformer_norm") is not None,
    )
    text_card = fields.integer("text_card", 32_000, low=4, high=1 << 22)
    conditioners = _conditioners(fields, where)
    fields.get("lm_gen_config")
    config = LmConfig(
        temporal,
        depth,
        text_card,
        fields.integer("text_card_out", text_card, low=4, high=text_card, null=True),
        fields.integer("card", 2048, low=2, high=1 << 20),
        n_q,
        dep_q,
        fields.integers("delays", LmConfig.delays, high=1024, length=1 + n_q),
        conditioners,
        # Hibiki 1B does not say in its file what it is
        ends=name == "hibiki" or any(BEST in entry.values for entry in conditioners.values()),
    )
    fields.rest(_LM_IGNORED)
    return config


def _conditioners(fields: Fields, where: str) -> dict[str, ConditionerConfig]:
    """The `lut` conditioners, all fused by sum."""
    raw, fuser = fields.get("conditioners") or {}, fields.get("fuser") or {}
    if not isinstance(raw, dict) or not isinstance(fuser, dict):
        raise MoshiError(f"{where}: conditioners and fuser must be JSON objects")
    if fuser.get("cross") or fuser.get("prepend"):
        raise MoshiError(f"{where}: conditions by cross attention (text-to-speech models) are not supported")
    result = {}
    for name, entry in raw.items():
        if not isinstance(entry, dict) or entry.get("type") != "lut":
            raise MoshiError(f"{where}: conditioner {name!r} is of a kind that is not supported; only lut is")
        lut = Fields(entry.get("lut"), f"{where}: conditioner {name!r}")
        values = lut.get("possible_values") or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise lut.fail("possible_values", "must be a list of texts")
        bins = lut.integer("n_bins", 1, high=1 << 16)
        result[name] = ConditionerConfig(bins, lut.integer("dim", 1), tuple(values[:bins]))
    return result


def moshi_config(raw: dict[str, Any], where: str, mimi: MimiConfig) -> MoshiConfig:
    """Everything in one config.json, with the codec's configuration beside it. The codec runs with as many
    codebooks as the model needs.
    """
    lm = lm_config(raw, where)
    needed = max(lm.dep_q, lm.user_q)
    if needed > mimi.codebooks_in_file or lm.card != mimi.codebook_size:
        raise MoshiError(
            f"{where}: the model needs {needed} codebooks of {lm.card}, its codec has {mimi.codebooks_in_file} of "
            f"{mimi.codebook_size}; check mimi_name and mimi_config_name"
        )
    wishes = Fields(raw.get("lm_gen_config") or {}, f"{where}: lm_gen_config")
    sampling = {
        ours: wishes.integer(theirs, 1, low=0, high=MOST - 1) or MOST - 1
        if ours.endswith("top_k")
        else wishes.number(theirs, 0, 0, 1e6)
        for theirs, ours in SAMPLING.items()
        if wishes.get(theirs) is not None
    }
    return MoshiConfig(lm, replace(mimi, codebooks=needed), "hibiki" if lm.ends else "moshi", sampling)
