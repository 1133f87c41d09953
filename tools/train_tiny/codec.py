"""What Mimi's encoder must learn to tell: examples of heard speech, and heads that are thrown away afterwards.

The encoder hears a voice in a room with noise; the heads must tell, from the quantized latent alone, the *clean*
log-mel spectrum, and the phones (frame by frame, aligned by proportion to flite's reading, and by CTC). So the codes
forget noise, gain and room, and noise without speech becomes the code of silence. Moshi's own voice comes in clean, and
must be told in more detail. The training itself is in listen.py.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import augment, speakers
from .clips import Clip, Clips
from .shapes import FRAME, LATENT

WINDOW = 28  # frames of a training example
MELS = 80
FINE = 64


def mel_filters(count: int = MELS, size: int = 1024, rate: int = 24000) -> Tensor:
    """(count, size/2 + 1) triangles from 40 Hz to 11 kHz, equally spaced in mel."""
    edges = 700 * (
        10 ** (np.linspace(2595 * np.log10(1 + 40 / 700), 2595 * np.log10(1 + 11000 / 700), count + 2) / 2595) - 1
    )
    frequencies, points = torch.linspace(0, rate / 2, size // 2 + 1), torch.tensor(edges)
    up = (frequencies - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    down = (points[2:, None] - frequencies) / (points[2:] - points[1:-1])[:, None]
    return torch.minimum(up, down).clamp(min=0).float()


FILTERS = mel_filters()


def log_mel(wave: Tensor) -> Tensor:
    """(B, samples) → (B, MELS, samples / 240), about −3 to 1.5."""
    padded = F.pad(wave, (392, 392))
    spectrum = torch.stft(padded, 1024, 240, 1024, torch.hann_window(1024), center=False, return_complex=True).abs()
    return torch.log10((FILTERS @ spectrum).clamp(min=1e-3))


def fine_spectrum(wave: Tensor) -> Tensor:
    """(B, samples) → (B, FINE, frames): the low bins of each frame's spectrum, 12.5 Hz apart: the harmonics."""
    framed = wave.view(wave.shape[0], -1, FRAME) * torch.hann_window(FRAME)
    return torch.log10(torch.fft.rfft(framed).abs()[..., 1 : FINE + 1].clamp(min=1e-2)).transpose(1, 2)


class Heads(nn.Module):
    """What the codes must tell: mel (8 spectra a frame), harmonics, and phones, from the first code and from all."""

    def __init__(self, phones: int) -> None:
        super().__init__()
        self.phones = phones + 1
        self.mel = nn.Conv1d(LATENT, 8 * MELS + FINE, 1)
        self.semantic = nn.Conv1d(LATENT, 2 * self.phones, 1)
        self.all = nn.Conv1d(LATENT, 2 * self.phones, 1)
        self.ctc = nn.Conv1d(LATENT, 2 * self.phones, 1)

    def spectra(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        out, batch = self.mel(latent), latent.shape[0]
        mel = out[:, : 8 * MELS].view(batch, MELS, 8, -1).transpose(2, 3).reshape(batch, MELS, -1)
        return mel, out[:, 8 * MELS :]

    def phone_logits(self, head: nn.Conv1d, latent: Tensor) -> Tensor:
        """(2 · frames, B, phones): two guesses a frame."""
        out = head(latent)
        return out.view(out.shape[0], 2, self.phones, -1).permute(3, 1, 0, 2).reshape(-1, out.shape[0], self.phones)


class Examples:
    """Draws training examples: what is heard, what was meant, and its phones."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.clips, self.draw, self.pick = Clips(folder), np.random.default_rng(seed), random.Random(seed)
        self.families: dict[str, list[Clip]] = {}
        for clip in self.clips.split("train"):
            self.families.setdefault(clip.family, []).append(clip)
        names = sorted({phone for reading in self.clips.readings.values() for phone, _, _ in reading})
        self.phone_ids = {name: i + 1 for i, name in enumerate(names)}
        with np.load(folder / "answers.npz") as file:
            self.answers = [file[str(i)] for i in range(len(file.files))]

    def clip(self) -> Clip:
        """Any training clip, of a family drawn first: so the large families do not drown the small."""
        return self.pick.choice(self.families[self.clips.family(self.pick)])

    def user(self) -> tuple[np.ndarray, np.ndarray, list[int], np.ndarray]:
        """(heard, clean, phones, phone of each half frame) of one window; phones empty if an utterance is cut off."""
        size, labels = WINDOW * FRAME, np.zeros(2 * WINDOW, np.int64)
        clean, phones, whole, position = np.zeros(size, np.float32), [], True, int(self.draw.integers(0, 9600))
        if self.draw.random() < 0.9:
            while position < size - 24000 or position < 9600:
                clip = self.clip()
                speech = speakers.vary(self.clips.audio(clip), self.draw)[: size - position]
                clean[position : position + len(speech)] = speech
                whole &= position + len(speech) < size
                reading = self.clips.readings[clip.text]
                phones += [self.phone_ids[name] for name, _, _ in reading]
                self._label(labels, reading, position, len(speech))
                position += len(speech) + int(self.draw.integers(2400, 20000))
        heard = augment.room(clean, self.draw)
        background = augment.noise(size, self.draw)
        loudest = 0.3 * float(np.sqrt(np.mean(heard**2))) + (1.0 if not phones else 0.0)
        background *= min(1.0, loudest / (float(np.std(background)) + 1e-9))
        if self.draw.random() < 0.15:
            background = background + augment.echo(self.own(1.0), self.draw)
        return np.clip(heard + background, -1, 1), clean, phones if whole else [], labels

    def _label(self, labels: np.ndarray, reading: list[tuple[str, float, float]], start: int, length: int) -> None:
        """Write the phones of a clip of `length` samples at sample `start`, in proportion to flite's reading."""
        first, last, half = reading[0][1], reading[-1][2], FRAME // 2
        for name, begin, end in reading:
            at, until = (round((start + (t - first) / (last - first) * length) / half) for t in (begin, end))
            labels[at : max(until, at + 1)] = self.phone_ids[name]

    def own(self, silence: float = 0.3) -> np.ndarray:
        """A window of Moshi's voice, in whole frames, often with silence before."""
        answer, out = self.pick.choice(self.answers), np.zeros(WINDOW * FRAME, np.float32)
        frames = len(answer) // FRAME
        lead = self.pick.randint(0, WINDOW - 10) if self.pick.random() < silence else 0
        skip = 0 if lead else self.pick.randint(0, max(0, frames - 10))
        part = answer[skip * FRAME :][: len(out) - lead * FRAME]
        out[lead * FRAME : lead * FRAME + len(part)] = part
        return out


def quantized(mimi: nn.Module, latent: Tensor, quantize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(semantic part, whole, commitment loss) of a latent, through the quantizers or only through their projections."""
    first, rest = mimi.quantizer.rvq_first, mimi.quantizer.rvq_rest
    if not quantize:
        semantic = first.output_proj(first.input_proj(latent))
        return semantic, semantic + rest.output_proj(rest.input_proj(latent)), 1e-3 * latent.square().mean()
    one, others = first(latent, 12.5), rest(latent, 12.5)
    return one.x, one.x + others.x, one.penalty + others.penalty
