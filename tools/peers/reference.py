"""PyTorch `moshi` 0.2.13: python reference.py FOLDER WORK FRAMES. On a GPU if torch sees one, else one CPU thread."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from clock import report
from moshi.models.lm import LMGen
from moshi.models.loaders import get_mimi, get_moshi_lm
from shapes import CODEC

folder, work, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
facts = {"version": f"moshi {version('moshi')}, torch {torch.__version__}, {device}"}
path = folder / f"{work}.safetensors"

with torch.no_grad():
    if work == CODEC:
        mimi = get_mimi(str(path), device=device, num_codebooks=8).eval()
        pcm = torch.randn(1, 1, 1920, device=device) * 0.1
        with mimi.streaming(1):
            report(lambda: mimi.decode(mimi.encode(pcm)).cpu(), frames, **facts)
    else:
        config = json.loads((folder / f"{work}.json").read_text())
        lm = get_moshi_lm(str(path), config, device=device, dtype=torch.float32).eval()
        user = torch.zeros(1, 8, 1, dtype=torch.long, device=device)
        generator = LMGen(lm)
        with generator.streaming(1):
            report(lambda: (generator.step(user), device == "cuda" and torch.cuda.synchronize()), frames, **facts)
