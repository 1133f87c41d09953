"""Stage `codes`: the finished encoder turns sound into tokens: answers, scenes, and questions for monitoring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from moshi.models.compression import MimiModel
from numpy.typing import NDArray

from . import filterbank
from .clips import Clips
from .shapes import CODEBOOKS, FRAME, new_mimi
from .spectra import changed

_LEAD = 40  # frames of silence before an answer: more than the encoder remembers
MONITOR_LENGTH, MONITOR_QUESTIONS, MONITOR_OFF = 88, 120, 32


@dataclass(frozen=True)
class Own:
    """Moshi's side: the code column of silence (8,), and the codes (8, frames) of each answer after silence."""

    silence: NDArray[np.int64]
    answers: list[NDArray[np.int64]]


def load_encoder(folder: Path) -> MimiModel:
    """The codec as the stage `codec` left it; its decoder is untrained."""
    mimi = new_mimi()
    mimi.load_state_dict(torch.load(folder / "encoder.pt")["mimi"])
    filterbank.install(mimi.encoder)  # the convolutions are not trained, and the code may scale them anew
    return mimi.eval()


@torch.no_grad()
def encode(mimi: MimiModel, waves: np.ndarray, batch: int = 25, others: float = 0.0) -> np.ndarray:
    """(n, samples) → uint8 (n, 8, frames). others: the share of waves that are heard as if another had spoken."""
    parts = []
    for first in range(0, len(waves), batch):
        spectra = filterbank.spectrum(mimi.encoder, torch.from_numpy(waves[first : first + batch]))
        if others:
            spectra = torch.where(torch.rand(len(spectra), 1, 1) < others, changed(spectra), spectra)
        (latent,) = mimi.encoder_transformer(mimi.encoder.model[-1](spectra))
        parts.append(mimi.quantizer.encode(mimi.downsample(latent)))
    return torch.cat(parts).numpy().astype(np.uint8)


def make_own(folder: Path) -> Own:
    """Encode the answers, each once and after silence: these codes are what the model learns to say."""
    path = folder / "own.npz"
    if not path.exists():
        mimi = load_encoder(folder)
        with np.load(folder / "answers.npz") as file:
            waves = [file[str(i)] for i in range(len(file.files))]
        found = {"silence": encode(mimi, np.zeros((1, 80 * FRAME), np.float32))[0, :, 60]}
        for number, wave in enumerate(waves):
            padded = np.concatenate([np.zeros(_LEAD * FRAME, np.float32), wave])
            found[str(number)] = encode(mimi, padded[None])[0, :, _LEAD:]
        np.savez(path, **found)
        columns = [tuple(column) for number in range(len(waves)) for column in found[str(number)].T.tolist()]
        print(f"codes: {len(set(columns))} different columns in {len(columns)} frames of answers", flush=True)
    with np.load(path) as file:
        answers = [file[str(i)].astype(np.int64) for i in range(len(file.files) - 1)]
        return Own(file["silence"].astype(np.int64), answers)


def encode_scenes(folder: Path, others: float = 0.0) -> None:
    """Encode every scenes-NNN.npz that has no codes-NNN.npz yet; others: as of `encode`."""
    mimi = load_encoder(folder)
    for path in sorted(folder.glob("scenes-???.npz")):
        target = folder / path.name.replace("scenes", "codes")
        if target.exists():
            continue
        with np.load(path) as file:
            fields = {name: file[name] for name in file.files if name != "heard"}
            heard = file["heard"].astype(np.float32) / 32767
        torch.manual_seed(int(path.stem[-3:]))
        np.savez(target.with_suffix(".tmp.npz"), user=encode(mimi, heard, others=others), **fields)
        target.with_suffix(".tmp.npz").rename(target)
        print(f"codes: {target.name}", flush=True)


def make_monitor(folder: Path, seed: int = 9) -> None:
    """Questions and off-script sentences of the watched speakers, alone in light noise, encoded: monitor.npz."""
    if (folder / "monitor.npz").exists():
        return
    clips, draw = Clips(folder), np.random.default_rng(seed)
    pool = clips.split("watch")
    asked = [clip for clip in pool if clip.answer >= 0 and clip.length < 45 * FRAME]
    off = [clip for clip in pool if clip.answer < 0 and clip.length < 45 * FRAME]
    chosen = [asked[i] for i in draw.choice(len(asked), MONITOR_QUESTIONS, replace=False)]
    chosen += [off[i] for i in draw.choice(len(off), MONITOR_OFF, replace=False)]
    waves = draw.standard_normal((len(chosen), MONITOR_LENGTH * FRAME)).astype(np.float32) * 3e-4
    ends = []
    for wave, clip in zip(waves, chosen, strict=True):
        start = int(draw.integers(5 * FRAME, 9 * FRAME))
        wave[start : start + clip.length] += clips.audio(clip)
        ends.append(start + clip.length)
    user = encode(load_encoder(folder), waves)
    assert user.shape[1] == CODEBOOKS
    np.savez(folder / "monitor.npz", user=user, answer=[clip.answer for clip in chosen], end=ends)


def answer_texts(folder: Path) -> list[str]:
    return [answer["text"] for answer in json.loads((folder / "answers.json").read_text())]
