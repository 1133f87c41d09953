"""Stage `decoder`: Mimi's decoder learns Moshi's voice, from the codes that the language model will write.

The codes are those of codes.make_own, joined as they occur in a conversation: silence, an answer (sometimes cut off
when the user interrupts), silence. Only the decoder trains; encoder and quantizer stay as they are.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from pystoi import stoi
from torch import Tensor, nn

from . import filterbank
from .codes import load_encoder, make_own
from .shapes import FRAME
from .synthesis import Voice

WINDOW, BATCH, SKIP = 14, 12, 2  # frames of an example; the first SKIP lack their past and are not judged
PEAK_RATE = 2e-3
_FADE = 120  # samples in which a cut answer dies away


def train(folder: Path, steps: int, seed: int = 3) -> None:
    """Train the decoder into folder/decoder.pt; resumes from it."""
    torch.manual_seed(seed)
    pick, mimi, own = random.Random(seed), load_encoder(folder), make_own(folder)
    with np.load(folder / "answers.npz") as file:
        waves = [file[str(i)] for i in range(len(own.answers))]
    voice = Voice(mimi)
    parameters = voice.learned()
    optimizer, first = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.8, 0.98), weight_decay=1e-4), 0
    if (folder / "decoder.pt").exists():
        kept = torch.load(folder / "decoder.pt")
        voice.load_state_dict(kept["voice"])
        optimizer.load_state_dict(kept["optimizer"])
        first = kept["step"]
    begun, sums = time.time(), np.zeros(2)
    for step in range(first + 1, steps + 1):
        rate = PEAK_RATE * min(1.0, step / 20) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        examples = [_example(own.answers, own.silence, waves, pick) for _ in range(BATCH)]
        codes = torch.from_numpy(np.stack([codes for codes, _, _ in examples]))
        wanted = torch.from_numpy(np.stack([wave for _, wave, _ in examples]))[:, SKIP * FRAME :]
        made = voice(codes)
        start, made = made[:, : SKIP * FRAME], made[:, SKIP * FRAME :]
        begins = torch.tensor([begin for *_, begin in examples])
        click = start[begins].abs().sum() / start.numel()  # of the first frames of a session, which are silent
        loss = distance(made, wanted) + 30 * click
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        sums += (loss.item(), (made - wanted).abs().mean().item())
        if step % 100 == 0:
            loss_shown, error = sums / 100
            print(
                f"decoder {step}/{steps} {time.time() - begun:.0f} s: loss {loss_shown:.3f} error {error:.4f}",
                flush=True,
            )
            sums[:] = 0
        if step % 250 == 0 or step == steps:
            kept = {"voice": voice.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(kept, folder / "decoder.tmp")
            (folder / "decoder.tmp").rename(folder / "decoder.pt")
            print(f"    STOI {quality(voice, own.answers, own.silence, waves):.3f}", flush=True)


def load_decoder(folder: Path) -> MimiModel:
    """The whole codec: the encoder of stage `codec`, and the decoder trained so far."""
    voice = Voice(load_encoder(folder))
    voice.load_state_dict(torch.load(folder / "decoder.pt")["voice"])
    filterbank.install(voice.mimi.encoder)
    return voice.install().eval()


def distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Spectra at four resolutions, samples, and samples with treble emphasized."""
    total = 20 * F.mse_loss(made, wanted) / 0.08 + 15 * (made - wanted).abs().mean()
    total = total + 30 * ((made[:, 1:] - 0.95 * made[:, :-1]) - (wanted[:, 1:] - 0.95 * wanted[:, :-1])).abs().mean()
    for size in (256, 512, 1024, 2048):
        window = torch.hann_window(size)
        a, b = (torch.stft(x, size, size // 4, size, window, return_complex=True).abs() for x in (made, wanted))
        floor = 1e-4 * size**0.5
        log = (a.clamp(min=floor).log() - b.clamp(min=floor).log()).abs().mean()
        total = total + 2.5 / 4 * ((a - b).abs().mean() / (b.mean() + 1e-4) + 0.5 * log)
    return total


def _example(
    answers: list[np.ndarray], silence: np.ndarray, waves: list[np.ndarray], pick: random.Random
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(codes (8, WINDOW), waveform, is this the beginning of a session) somewhere around an answer."""
    number = pick.choices(range(len(answers)), [codes.shape[1] for codes in answers])[0]
    codes, wave = answers[number], waves[number]
    if pick.random() < 0.2:
        cut = pick.randint(2, codes.shape[1])
        codes, wave = codes[:, :cut], cut_off(wave, cut)
    lead, trail = pick.randint(3, 12), WINDOW
    rest = np.tile(silence[:, None], (1, lead)), np.tile(silence[:, None], (1, trail))
    codes = np.concatenate([rest[0], codes, rest[1]], axis=1)
    wave = np.pad(wave, (lead * FRAME, codes.shape[1] * FRAME - lead * FRAME - len(wave)))
    at = 0 if pick.random() < 0.1 else pick.randint(0, max(0, codes.shape[1] - WINDOW - 6))
    return codes[:, at : at + WINDOW], wave[at * FRAME : (at + WINDOW) * FRAME].astype(np.float32), at == 0


def cut_off(wave: np.ndarray, frames: int) -> np.ndarray:
    """The first frames of an answer, and what is left of it dying away."""
    kept = wave[: frames * FRAME + _FADE].copy()
    tail = len(kept) - frames * FRAME
    kept[frames * FRAME :] *= np.linspace(1, 0, _FADE, dtype=np.float32)[:tail]
    return kept


@torch.no_grad()
def quality(
    voice: Voice, answers: list[np.ndarray], silence: np.ndarray, waves: list[np.ndarray], every: int = 9
) -> float:
    """Mean STOI of some answers against the frame-locked originals."""
    scores = []
    for codes, wave in list(zip(answers, waves, strict=True))[::every]:
        padded = np.concatenate([np.tile(silence[:, None], (1, 10)), codes, np.tile(silence[:, None], (1, 3))], axis=1)
        made = voice(torch.from_numpy(padded[None]))[0].numpy()
        scores.append(stoi(wave, made[10 * FRAME : 10 * FRAME + len(wave)], 24000))
    return float(np.mean(scores))
