"""Writes a small checkpoint of RANDOM numbers in the published layout: python tools/make_tiny_random.py FOLDER.

config.json, model.safetensors (format B, bf16), mimi.safetensors with mimi.json, tokenizer.model: whatever reads a real
checkpoint folder reads this one. It speaks noise. Needs `moshi` 0.2.13; seeded.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from fixtures.codec import save_mimi, tiny_config, tiny_mimi
from fixtures.lm import config, save_lm, tiny_lm
from fixtures.text import save_tokenizer
from reference_form import DELAYS

PIECES, CARD = 320, 64


def main() -> None:
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        raise SystemExit("name a new folder: python tools/make_tiny_random.py FOLDER")
    folder = Path(sys.argv[1])
    moshi = config(16, 8, DELAYS, dim=48, card=CARD, text_card=PIECES, context=250, hidden_scale=4.125)
    save_lm(tiny_lm(moshi, seed=7, dtype=torch.bfloat16), moshi, folder, fused=True)
    codec = tiny_config(context=250, bins=CARD)
    save_mimi(tiny_mimi(codec, seed=8), codec, folder)
    save_tokenizer(folder / "tokenizer.model", PIECES, byte_fallback=True)


if __name__ == "__main__":
    main()
