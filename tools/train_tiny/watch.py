"""How a language model in training does on speakers that it never learns from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from moshi.models.lm import LMGen, LMModel
from torch import Tensor

from . import tokens


@torch.no_grad()
def generate(lm: LMModel, user: Tensor, text_temperature: float = 0.0, audio_temperature: float = 0.0) -> Tensor:
    """Live replies to user codes (B, 8, T) by the reference's LMGen: (B, 9, T) of text and codes by frame."""
    sampling = text_temperature > 0
    gen = LMGen(lm, use_sampling=sampling, temp=audio_temperature or 1.0, temp_text=text_temperature or 1.0)
    columns, user = [], user.to(next(lm.parameters()).device)
    with gen.streaming(len(user)):
        for frame in [0, *range(user.shape[2])]:  # the first frame twice: so real frame n is read at step n + 1
            column = gen.step(user[:, :, frame : frame + 1])
            if column is not None:
                columns.append(column)
    return torch.cat(columns, dim=2)


def monitor(folder: Path, lm: LMModel, texts: list[str], text_temperature: float = 0.0) -> str:
    """Score the monitoring questions of speakers that training never used: codes in, text out."""
    processor = tokens.make(folder)
    with np.load(folder / "monitor.npz") as file:
        user, answers, ends = torch.from_numpy(file["user"].astype(np.int64)), file["answer"], file["end"]
    lm.eval()
    said = generate(lm, user, text_temperature)[:, 0].cpu().numpy()
    lm.train()
    exact, near, off, latency = 0, 0, 0, []
    for row, answer, end in zip(said, answers, ends, strict=True):
        words = [processor.id_to_piece(int(t))[1:] for t in row if t > tokens.PAD]
        expected = texts[answer] if answer >= 0 else texts[-2]
        exact += int(answer >= 0 and " ".join(words) == expected)
        near += int(answer >= 0 and words[:2] == expected.split()[:2])
        off += int(answer < 0 and (" ".join(words) == expected or not words))
        if words:
            latency.append(int(np.flatnonzero(row > tokens.PAD)[0]) * 80 - end / 24)
    asked = int((answers >= 0).sum())
    return (
        f"watched: exact {exact}/{asked}, first words {near}/{asked}, off-script {off}/{len(answers) - asked}, "
        f"first word after {np.median(latency) if latency else math.nan:.0f} ms"
    )
