"""The codec's configuration file → MimiConfig: the reference's own form (spec, checkpoints.md section 2)."""

from __future__ import annotations

from typing import Any

from ..frame import FRAME, RATE
from ..models.config import MimiConfig, TransformerConfig
from .fields import Fields

_SEANET_FIXED: dict[str, tuple[Any, ...]] = {
    "channels": (1,),
    "causal": (True,),
    "n_residual_layers": (1,),
    "activation": ("ELU",),
    "dilation_base": (2,),
    "disable_norm_outer_blocks": (0,),
    "norm": ("none",),
    "pad_mode": ("constant",),
    "true_skip": (True,),
}
_TRANSFORMER_FIXED: dict[str, tuple[Any, ...]] = {
    "causal": (True,),
    "conv_layout": (True,),
    "gating": ("none", None),
    "norm": ("layer_norm",),
    "positional_embedding": ("rope",),
}


def mimi_config(raw: dict[str, Any], where: str) -> MimiConfig:
    """The codec's hyper-parameters in the reference's own form."""
    top = Fields(raw, where)
    top.fixed({"channels": (1,), "sample_rate": (RATE, float(RATE)), "frame_rate": (RATE / FRAME,)})
    seanet, trunk, quantizer = (
        Fields(top.get(key, {}), f"{where}: {key}") for key in ("seanet", "transformer", "quantizer")
    )
    top.rest(set())
    seanet.fixed(_SEANET_FIXED)
    trunk.fixed(_TRANSFORMER_FIXED)
    width = seanet.integer("dimension", 512)
    ratios = seanet.integers("ratios", (8, 6, 5, 4), high=64)
    hop = 1
    for ratio in ratios:
        hop *= ratio
    if 2 * hop != FRAME:
        raise seanet.fail("ratios", f"must multiply to {FRAME // 2} (two latents a frame)")
    for fields, key in ((trunk, "d_model"), (trunk, "input_dimension"), (quantizer, "input_dimension")):
        if fields.integer(key, width) != width:
            raise fields.fail(key, f"must equal the width of seanet, {width}")
    for fields, key in ((trunk, "layer_scale"), (trunk, "output_dimensions"), (quantizer, "output_dimension")):
        fields.get(key)
    bins, levels = quantizer.integer("bins", 2048, low=2), quantizer.integer("n_q", 32, high=128)
    config = MimiConfig(
        filters=seanet.integer("n_filters", 64, high=4096),
        width=width,
        ratios=ratios,
        kernel=seanet.integer("kernel_size", 7, high=64),
        residual_kernel=seanet.integer("residual_kernel_size", 3, high=64),
        last_kernel=seanet.integer("last_kernel_size", 3, high=64),
        compress=seanet.integer("compress", 2, high=64),
        transformer=TransformerConfig(
            width,
            trunk.heads("num_heads", width, 8),
            trunk.integer("num_layers", 8, high=512),
            trunk.integer("dim_feedforward", 2048),
            context=trunk.integer("context", 250, high=1 << 13),
            max_period=trunk.number("max_period", 10_000, 1, 1e9),
            gated=False,
        ),
        codebook_width=quantizer.integer("dimension", 256),
        codebook_size=bins,
        codebooks_in_file=levels,
        codebooks=levels,
    )
    for fields in (seanet, trunk, quantizer):
        fields.rest(set())
    return config
