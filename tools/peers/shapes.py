"""The models that are compared, in the reference's own form of configuration."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from reference_form import moshi_form

CODEC = "codec"
LANGUAGE_MODELS = {
    "narrow-7b": moshi_form(  # the topology of Moshi 7B: dispatch, hardly any arithmetic
        dim=64, num_heads=4, depformer_dim=64, depformer_dim_feedforward=264, depformer_num_heads=4
    ),
    "1b": moshi_form(dim=2048, num_heads=16, num_layers=4, text_card=8_000),  # as wide as the 1B models, 4 of 16 layers
}
