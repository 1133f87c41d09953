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

from ..reference_form import mimi_form, moshi_form
from . import filterbank

torch.backends.cuda.enable_flash_sdp(False)  # despite its name it rules the CPU too, where the plain form is faster

FRAME = 1920
CARD = 256
CODEBOOKS = 8
LATENT, CODE_WIDTH = 128, 64

MIMI_CONFIG: dict[str, Any] = mimi_form(
    width=LATENT,
    filters=16,
    inner=CODE_WIDTH,
    levels=CODEBOOKS,
    bins=CARD,
    num_heads=4,
    num_layers=4,
    layer_scale=0.1,
    context=16,
    dim_feedforward=512,
)


def lm_config(text_card: int) -> dict[str, Any]:
    """The language model for a vocabulary of this size."""
    return moshi_form(
        dim=256,
        text_card=text_card,
        card=CARD,
        num_heads=4,
        num_layers=4,
        context=75,
        depformer_dim=96,
        depformer_dim_feedforward=192,
        depformer_num_heads=3,
        depformer_num_layers=2,
    )


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
