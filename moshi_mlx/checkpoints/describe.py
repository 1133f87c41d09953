"""Configurations → JSON in the reference's own form, for sources without one or with one of another family."""

from __future__ import annotations

import math
from typing import Any

from ..frame import FRAME, RATE
from ..models.config import ConditionerConfig, MimiConfig, MoshiConfig, TransformerConfig
from .config_file import SAMPLING, gate_width


def describe(config: MoshiConfig) -> dict[str, Any]:
    """A configuration in the reference's flat form; `moshi_config` reads it back."""
    lm = config.lm
    trunk, depth = lm.transformer, lm.depth.transformer
    result: dict[str, Any] = {
        "model_type": config.name,
        "dim": trunk.width,
        "text_card": lm.text_card,
        "existing_text_padding_id": 3,
        "n_q": lm.n_q,
        "dep_q": lm.dep_q,
        "card": lm.card,
        "num_heads": trunk.heads,
        "num_layers": trunk.layers,
        "hidden_scale": _scale(_feedforward(trunk), trunk.width),
        "causal": True,
        "layer_scale": None,
        "context": trunk.context,
        "max_period": trunk.max_period,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope" if trunk.rope == "interleaved" else "rope_concat",
        "depformer_dim": depth.width,
        "depformer_dim_feedforward": _feedforward(depth),
        "depformer_num_heads": depth.heads,
        "depformer_num_layers": depth.layers,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": lm.dep_q,
        "depformer_max_period": 10_000,
        "depformer_gating": "silu",
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "delays": list(lm.delays),
    }
    if lm.text_card_out != lm.text_card:
        result["text_card_out"] = lm.text_card_out
    if trunk.kv_repeat != 1 or depth.kv_repeat != 1:
        result |= {"kv_repeat": trunk.kv_repeat, "depformer_kv_repeat": depth.kv_repeat}
    if lm.depth.schedule != tuple(range(lm.dep_q)):
        result["depformer_weights_per_step_schedule"] = list(lm.depth.schedule)
    if lm.depth.low_rank:
        result["depformer_low_rank_embeddings"] = lm.depth.low_rank
    if lm.depth.normed:
        result["depformer_norm"] = "layer_norm"
    if config.sampling:
        asked = config.sampling
        result["lm_gen_config"] = {theirs: asked[ours] for theirs, ours in SAMPLING.items() if ours in asked}
    if lm.conditioners:
        result["conditioners"] = {name: _lut(entry) for name, entry in lm.conditioners.items()}
        result["fuser"] = {"sum": list(lm.conditioners), "cross": [], "prepend": []}
    return result


def describe_codec(config: MimiConfig) -> dict[str, Any]:
    """A codec's configuration; `mimi_config` reads it back."""
    trunk = config.transformer
    return {
        "sample_rate": RATE,
        "channels": 1,
        "frame_rate": RATE / FRAME,
        "seanet": {
            "channels": 1,
            "dimension": config.width,
            "causal": True,
            "n_filters": config.filters,
            "n_residual_layers": 1,
            "activation": "ELU",
            "compress": config.compress,
            "dilation_base": 2,
            "disable_norm_outer_blocks": 0,
            "kernel_size": config.kernel,
            "residual_kernel_size": config.residual_kernel,
            "last_kernel_size": config.last_kernel,
            "norm": "none",
            "pad_mode": "constant",
            "ratios": list(config.ratios),
            "true_skip": True,
        },
        "transformer": {
            "d_model": trunk.width,
            "num_heads": trunk.heads,
            "num_layers": trunk.layers,
            "causal": True,
            "context": trunk.context,
            "conv_layout": True,
            "max_period": trunk.max_period,
            "gating": "none",
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "dim_feedforward": trunk.hidden,
            "input_dimension": config.width,
            "output_dimensions": [config.width],
        },
        "quantizer": {
            "dimension": config.codebook_width,
            "n_q": config.codebooks_in_file,
            "bins": config.codebook_size,
            "input_dimension": config.width,
            "output_dimension": config.width,
        },
    }


def _feedforward(config: TransformerConfig) -> int:
    """The reference's `dim_feedforward` that gives this gate width."""
    about = 3 * config.hidden // 2
    return next(
        wide for wide in (4 * config.width, about, about + 1) if gate_width(config.width, wide) == config.hidden
    )


def _scale(wide: int, width: int) -> float:
    """The ratio; a little more where rounding would make the reader's `int(scale * width)` one too few."""
    scale = wide / width
    return scale if int(scale * width) == wide else math.nextafter(scale, math.inf)


def _lut(entry: ConditionerConfig) -> dict[str, Any]:
    lut = {"n_bins": entry.n_bins, "dim": entry.dim, "tokenizer": "noop", "possible_values": list(entry.values)}
    return {"type": "lut", "lut": lut}
