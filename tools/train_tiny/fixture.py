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
SOUNDING = 12  # frames of Moshi's voice


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
    """Write target: the codes of a spoken user, the greedy text and codes of the reference in float32, and the sound of
    its first words (≈ 40 kB)."""
    info = reference(checkpoint)
    wave, _ = soundfile.read(question, dtype="float32")
    wave = wave[: len(wave) // _FRAME * _FRAME]
    user = info.get_mimi().encode(torch.from_numpy(wave)[None, None])
    lm: LMModel = info.get_moshi(dtype=torch.float32)
    made = generate(lm, user)[0].numpy()
    first = int(np.flatnonzero(made[0] > 3)[0])
    sound = info.get_mimi().decode(torch.from_numpy(made[None, 1:, : first + SOUNDING]))[0, 0, first * _FRAME :].numpy()
    np.savez_compressed(
        target,
        user=user[0].numpy().astype(np.int16),
        text=made[0],
        codes=made[1:].astype(np.int16),
        sound=np.round(32767 * sound.clip(-1, 1)).astype(np.int16),
    )
    words = [info.get_text_tokenizer().id_to_piece(int(token)) for token in made[0] if token > 3]
    print("fixture:", "".join(words).replace("▁", " ").strip())
