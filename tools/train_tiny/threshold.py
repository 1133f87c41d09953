"""How sure the tiny model must be of an answer: a bias on the word with which "not understood" begins.

Training decides by what it saw; which mistake is the worse one is for us to say. The published layout has no bias on
text logits, but the hidden states have a direction along which all of them are nearly 1 (they are normed, and long):
what is added to one row of the head along it is such a bias.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from moshi.models.lm import LMModel
from torch import Tensor

from . import tokens
from .lm import generate
from .script import NOT_UNDERSTOOD
from .shapes import new_lm

_RIDGE = 1e-3


@torch.no_grad()
def shift(folder: Path, nats: float) -> None:
    """Add so much to the logit in the shipped weights of folder/lm.pt, once."""
    kept = torch.load(folder / "lm.pt", map_location="cpu")
    if kept.get("threshold") == nats:
        return
    processor = tokens.make(folder)
    lm = new_lm(processor.get_piece_size()).eval()
    lm.load_state_dict(kept["shipped"])
    states = _hidden(lm, folder)
    direction = _ones(states)
    word = processor.piece_to_id("▁" + NOT_UNDERSTOOD.split()[0])
    kept["shipped"]["text_linear.weight"][word] += nats * direction
    torch.save({**kept, "threshold": nats}, folder / "lm.tmp")
    (folder / "lm.tmp").rename(folder / "lm.pt")
    off = abs(nats) * float(torch.quantile((states @ direction - 1).abs()[:100_000], 0.95))
    print(f"threshold: {nats:+.2f} nats, off by less than {off:.2f} at 95 % of the frames", flush=True)


def _hidden(lm: LMModel, folder: Path) -> Tensor:
    """(frames, d): what the text head sees while it hears the watched speakers."""
    seen: list[Tensor] = []
    hook = lm.text_linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, -2)))
    with np.load(folder / "monitor.npz") as file:
        generate(lm, torch.from_numpy(file["user"].astype(np.int64)))
    hook.remove()
    return torch.cat(seen)


def _ones(states: Tensor) -> Tensor:
    """The direction along which the states are nearest to 1, by least squares."""
    square = states.T @ states
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(square))
    return torch.linalg.solve(square, states.sum(0))
