"""The models that are compared, in the reference's own form of configuration."""

from __future__ import annotations

from typing import Any

CODEC = "codec"


def _moshi(width: int, heads: int, layers: int, depth: int, depth_heads: int, text_card: int) -> dict[str, Any]:
    return {
        "dim": width,
        "text_card": text_card,
        "existing_text_padding_id": 3,
        "n_q": 16,
        "dep_q": 8,
        "card": 2048,
        "num_heads": heads,
        "num_layers": layers,
        "hidden_scale": 4.125,
        "causal": True,
        "layer_scale": None,
        "context": 3000,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": depth,
        "depformer_dim_feedforward": int(4.125 * depth),
        "depformer_num_heads": depth_heads,
        "depformer_num_layers": 6,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": 8,
        "depformer_max_period": 10000,
        "depformer_gating": "silu",
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "delays": [0, 0, *[1] * 7, 0, *[1] * 7],
    }


LANGUAGE_MODELS = {
    "narrow-7b": _moshi(64, 4, 32, 64, 4, 32_000),  # the topology of Moshi 7B: dispatch, hardly any arithmetic
    "1b": _moshi(2048, 16, 4, 1024, 16, 8_000),  # as wide as the 1B models, a quarter of their layers
}
