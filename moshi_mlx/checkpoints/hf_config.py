"""The config.json of a transformers repository (`kyutai/mimi`, `hf-moshiko`) → our configurations.

Only the keys that decide something are read; the dozens that every transformers model carries are left alone. The
delays are not in the file: transformers knows Moshi with an acoustic delay of 1 alone.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from ..frame import FRAME, RATE
from ..models.config import DepthConfig, LmConfig, MimiConfig, MoshiConfig, TransformerConfig
from .fields import Fields

_MIMI_FIXED: dict[str, tuple[Any, ...]] = {
    "sampling_rate": (RATE,),
    "audio_channels": (1,),
    "num_residual_layers": (1,),
    "dilation_growth_rate": (2,),
    "use_causal_conv": (True,),
    "use_conv_shortcut": (False,),
    "pad_mode": ("constant",),
    "trim_right_ratio": (1.0,),
    "num_semantic_quantizers": (1,),
    "hidden_act": ("gelu",),
    "norm_eps": (1e-5,),
    "attention_bias": (False,),
}
_LM_FIXED: dict[str, tuple[Any, ...]] = {"hidden_act": ("silu",), "rms_norm_eps": (1e-8,)}


def hf_mimi_config(raw: Any, where: str) -> MimiConfig:
    """The configuration of a codec in transformers' layout."""
    fields = Fields(raw, where)
    fields.fixed(_MIMI_FIXED)
    width = fields.integer("hidden_size", 512)
    ratios = fields.integers("upsampling_ratios", (8, 6, 5, 4), high=64)
    if 2 * prod(ratios) != FRAME:
        raise fields.fail("upsampling_ratios", f"must multiply to {FRAME // 2} (two latents a frame)")
    levels, inner = fields.integer("num_quantizers", 32, high=128), fields.integer("codebook_dim", 256)
    for key, must in (("upsample_groups", width), ("vector_quantization_hidden_dimension", inner)):
        if fields.integer(key, must) != must:
            raise fields.fail(key, f"must be {must} here")
    return MimiConfig(
        filters=fields.integer("num_filters", 64, high=4096),
        width=width,
        ratios=ratios,
        kernel=fields.integer("kernel_size", 7, high=64),
        residual_kernel=fields.integer("residual_kernel_size", 3, high=64),
        last_kernel=fields.integer("last_kernel_size", 3, high=64),
        compress=fields.integer("compress", 2, high=64),
        transformer=TransformerConfig(
            width,
            _heads(fields, width, 8),
            fields.integer("num_hidden_layers", 8, high=512),
            fields.integer("intermediate_size", 2048),
            context=fields.integer("sliding_window", 250, high=1 << 13),
            max_period=_theta(fields, where),
            gated=False,
        ),
        codebook_width=inner,
        codebook_size=fields.integer("codebook_size", 2048, low=2),
        codebooks_in_file=levels,
        codebooks=levels,
    )


def hf_moshi_config(raw: dict[str, Any], where: str) -> MoshiConfig:
    """The configuration of `hf-moshiko` and its like: language model, depth transformer and codec in one file."""
    fields, depth_where = Fields(raw, where), f"{where}: depth_decoder_config"
    depth = Fields(raw.get("depth_decoder_config", {}), depth_where)
    fields.fixed(_LM_FIXED)
    depth.fixed(_LM_FIXED)
    mimi = hf_mimi_config(raw.get("audio_encoder_config", {}), f"{where}: audio_encoder_config")
    width, deep = fields.integer("hidden_size", 4096), depth.integer("hidden_size", 1024)
    levels = fields.integer("num_codebooks", 8, high=mimi.codebooks_in_file)
    for key, must in (("num_codebooks", levels), ("input_size", width)):
        if depth.integer(key, must) != must:
            raise depth.fail(key, f"must be {must} here")
    acoustic = (0, *[1] * (levels - 1))
    text_card = fields.integer("vocab_size", 32_000, low=4, high=1 << 22)
    lm = LmConfig(
        TransformerConfig(
            width,
            _heads(fields, width, 32),
            fields.integer("num_hidden_layers", 32, high=512),
            fields.integer("ffn_dim", 22_528, low=2, high=1 << 20) // 2,
            context=fields.integer("sliding_window", 3000, high=1 << 16),
            max_period=_theta(fields, where),
        ),
        DepthConfig(
            TransformerConfig(
                deep,
                _heads(depth, deep, 16),
                depth.integer("num_hidden_layers", 6, high=512),
                depth.integer("ffn_dim", 5632, low=2, high=1 << 20) // 2,
                rope=None,
            ),
            tuple(range(levels)),
        ),
        text_card,
        text_card,
        mimi.codebook_size,
        2 * levels,
        levels,
        (0, *acoustic, *acoustic),
    )
    if fields.get("audio_vocab_size") is not None and fields.integer("audio_vocab_size", 0) != lm.card:
        raise fields.fail("audio_vocab_size", f"must be {lm.card}, as in its codec")
    return MoshiConfig(lm, replace(mimi, codebooks=levels))


def _heads(fields: Fields, width: int, default: int) -> int:
    """Attention heads, each with a key and value of its own."""
    heads = fields.heads("num_attention_heads", width, default)
    for key, must in (("num_key_value_heads", heads), ("head_dim", width // heads)):
        if fields.get(key) is not None and fields.integer(key, must) != must:
            raise fields.fail(key, f"must be {must} here")
    return heads


def _theta(fields: Fields, where: str) -> float:
    """The base of the rotation, in its old or its new place."""
    nested = fields.get("rope_parameters")
    return (fields if nested is None else Fields(nested, f"{where}: rope_parameters")).number("rope_theta", 1e4, 1, 1e9)
