"""The shapes of the tiny Mimi and the tiny Moshi, in the reference's configuration form, and their first weights."""

from __future__ import annotations

import math
import os
from typing import Any

os.environ.setdefault("NO_TORCH_COMPILE", "1")  # the reference compiles small kernels; training gains nothing from it

import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from moshi.models.loaders import get_mimi, get_moshi_lm
from torch import nn

from . import filterbank

torch.backends.cuda.enable_flash_sdp(False)  # despite its name it rules the CPU too, where the plain form is faster

FRAME = 1920
CARD = 256
CODEBOOKS = 8
DELAYS = [0, 0, *[1] * 7, 0, *[1] * 7]
LATENT, CODE_WIDTH = 128, 64

MIMI_CONFIG: dict[str, Any] = {
    "sample_rate": 24000,
    "channels": 1,
    "frame_rate": 12.5,
    "seanet": {
        "channels": 1,
        "dimension": LATENT,
        "causal": True,
        "n_filters": 16,
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
    "transformer": {
        "d_model": LATENT,
        "num_heads": 4,
        "num_layers": 4,
        "causal": True,
        "layer_scale": 0.1,
        "context": 16,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 512,
        "input_dimension": LATENT,
        "output_dimensions": [LATENT],
    },
    "quantizer": {
        "dimension": CODE_WIDTH,
        "n_q": CODEBOOKS,
        "bins": CARD,
        "input_dimension": LATENT,
        "output_dimension": LATENT,
    },
}


def lm_config(text_card: int) -> dict[str, Any]:
    """The language model for a vocabulary of this size."""
    return {
        "dim": 256,
        "text_card": text_card,
        "existing_text_padding_id": 3,
        "n_q": 16,
        "dep_q": CODEBOOKS,
        "card": CARD,
        "num_heads": 4,
        "num_layers": 4,
        "hidden_scale": 4.125,
        "causal": True,
        "layer_scale": None,
        "context": 75,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 96,
        "depformer_dim_feedforward": 192,
        "depformer_num_heads": 3,
        "depformer_num_layers": 2,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": 8,
        "depformer_max_period": 10000,
        "depformer_gating": "silu",
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "delays": DELAYS,
    }


def new_mimi() -> MimiModel:
    """A fresh codec: unit-gain convolutions (PyTorch's own start does not learn), and a filterbank to hear."""
    mimi = get_mimi(None, MIMI_CONFIG, num_codebooks=CODEBOOKS)
    for name, module in mimi.named_modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            transposed = isinstance(module, nn.ConvTranspose1d)
            channels = module.weight.shape[0] // module.groups if transposed else module.weight.shape[1]
            taps = module.weight.shape[2] / (module.stride[0] if transposed else 1)
            gain = 1.2 * (0.4 if ".block.3." in name else 1.0)
            nn.init.normal_(module.weight, 0, gain / math.sqrt(channels * taps))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        mimi.encoder.model[-1].conv.conv.weight.mul_(4)
        mimi.decoder.model[5].convtr.convtr.weight.mul_(0.1)
    filterbank.install(mimi.encoder)
    return mimi


def new_lm(text_card: int) -> LMModel:
    """A fresh language model in float32."""
    lm: LMModel = get_moshi_lm(None, lm_config(text_card), dtype=torch.float32)
    return lm.train()
