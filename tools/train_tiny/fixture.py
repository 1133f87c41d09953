"""Stage `fixture`: what PyTorch `moshi` says of the finished checkpoint, for tests/test_tiny.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from moshi.models.lm import LMModel
from moshi.models.loaders import CheckpointInfo

from .lm import generate

_FRAME = 1920


def reference(checkpoint: Path) -> CheckpointInfo:
    """The checkpoint through the reference's own loader."""
    raw = json.loads((checkpoint / "config.json").read_text())
    keys = ("moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name")
    names = {key: checkpoint / raw.pop(key) for key in keys}
    raw.pop("model_type")
    codec = json.loads(names["mimi_config_name"].read_text())
    return CheckpointInfo(names["moshi_name"], names["mimi_name"], names["tokenizer_name"], raw, raw, codec)


@torch.no_grad()
def make(checkpoint: Path, question: Path, target: Path) -> None:
    """Write target: the codes of a spoken user, and the greedy text and codes of the reference in float32 (≈ 10 kB)."""
    info = reference(checkpoint)
    wave, _ = soundfile.read(question, dtype="float32")
    wave = wave[: len(wave) // _FRAME * _FRAME]
    user = info.get_mimi().encode(torch.from_numpy(wave)[None, None])
    lm: LMModel = info.get_moshi(dtype=torch.float32)
    made = generate(lm, user)[0].numpy()
    np.savez_compressed(target, user=user[0].numpy().astype(np.int16), text=made[0], codes=made[1:].astype(np.int16))
    words = [info.get_text_tokenizer().id_to_piece(int(token)) for token in made[0] if token > 3]
    print("fixture:", "".join(words).replace("▁", " ").strip())
