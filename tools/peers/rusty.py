"""Kyutai's codec in Rust, `rustymimi` 0.4.1: python rusty.py FOLDER codec FRAMES."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rustymimi
from clock import report

folder, work, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
tokenizer = rustymimi.Tokenizer(str(folder / f"{work}.safetensors"), num_codebooks=8)
pcm = np.random.default_rng(0).normal(size=(1, 1, 1920)).astype(np.float32) * 0.1
report(lambda: tokenizer.decode_step(tokenizer.encode_step(pcm)), frames, version=f"rustymimi {version('rustymimi')}")
