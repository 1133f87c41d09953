"""Configurations in the reference's own form. What is not said is as in the published models. Standard library only."""

from __future__ import annotations

from typing import Any

DELAYS = [0, 0, *[1] * 7, 0, *[1] * 7]  # of Moshi: text, its codebooks, the user's


def moshi_form(**changes: Any) -> dict[str, Any]:
    """The language model's keys of a config.json: Moshi 7B, but for what is given."""
    published: dict[str, Any] = {
        "dim": 4096,
        "text_card": 32_000,
        "existing_text_padding_id": 3,
        "n_q": 16,
        "dep_q": 8,
        "card": 2048,
        "num_heads": 32,
        "num_layers": 32,
        "hidden_scale": 4.125,
        "causal": True,
        "layer_scale": None,
        "context": 3000,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 1024,
        "depformer_dim_feedforward": 4224,
        "depformer_num_heads": 16,
        "depformer_num_layers": 6,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": 8,
        "depformer_max_period": 10000,
        "depformer_gating": "silu",
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "delays": DELAYS,
    }
    return published | changes


def mimi_form(
    width: int = 512, filters: int = 64, inner: int = 256, levels: int = 32, bins: int = 2048, **transformer: Any
) -> dict[str, Any]:
    """Mimi's hyper-parameters. inner: width of the codebooks' entries; transformer: what differs in both of them."""
    attention: dict[str, Any] = {
        "d_model": width,
        "num_heads": 8,
        "num_layers": 8,
        "causal": True,
        "layer_scale": 0.01,
        "context": 250,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 2048,
        "input_dimension": width,
        "output_dimensions": [width],
    }
    return {
        "sample_rate": 24000,
        "channels": 1,
        "frame_rate": 12.5,
        "seanet": {
            "channels": 1,
            "dimension": width,
            "causal": True,
            "n_filters": filters,
            "n_residual_layers": 1,
            "activation": "ELU",
            "compress": 2,
            "dilation_base": 2,
            "disable_norm_outer_blocks": 0,
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 3,
            "norm": "none",
            "pad_mode": "constant",
            "ratios": [8, 6, 5, 4],
            "true_skip": True,
        },
        "transformer": attention | transformer,
        "quantizer": {
            "dimension": inner,
            "n_q": levels,
            "bins": bins,
            "input_dimension": width,
            "output_dimension": width,
        },
    }
