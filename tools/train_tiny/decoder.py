"""Stage `decoder`: Mimi's decoder learns Moshi's voice, from the codes that the language model will write.

The codes are those of codes.make_own, joined as they occur in a conversation: silence, an answer (sometimes cut off
when the user interrupts), silence. Only the decoder trains; encoder and quantizer stay as they are.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from pystoi import stoi
from torch import Tensor

from . import filterbank
from .codes import Own, load_encoder, make_own
from .device import Optimizer, default_device, recorded
from .shapes import CARD, FRAME
from .synthesis import Voice

WINDOW, BATCH, SKIP = 14, 16, 2  # frames of an example; the first SKIP lack their past and are not judged
PEAK_RATE = 2e-3
CODE_NOISE = 0.004  # share of wrong codes: the language model slips, and samples
_LEAD = 12  # frames of silence before an answer, at most; what follows it is WINDOW long
_ROWS = 4  # courses of each answer, the last one cut off
_FADE = 120  # samples in which a cut answer dies away


class Courses:
    """Every answer several times, with silence around it, as codes and as sound on a device; `batch` cuts windows."""

    def __init__(self, folder: Path, own: Own, device: torch.device, seed: int) -> None:
        pick = random.Random(seed)
        with np.load(folder / "answers.npz") as file:
            self.waves = [file[str(i)] for i in range(len(own.answers))]
        longest = max(codes.shape[1] for codes in own.answers) + _LEAD + WINDOW
        codes = np.tile(own.silence.astype(np.uint8), (len(self.waves) * _ROWS, longest, 1))
        waves, lengths = np.zeros((len(codes), longest * FRAME), np.float32), []
        for row in range(len(codes)):
            answer, wave = own.answers[row // _ROWS], self.waves[row // _ROWS]
            frames, lead = answer.shape[1], pick.randint(3, _LEAD)
            if row % _ROWS == _ROWS - 1:
                frames = pick.randint(2, frames)
                wave = cut_off(wave, frames)
            codes[row, lead : lead + frames] = answer[:, :frames].T
            waves[row, lead * FRAME : lead * FRAME + len(wave)] = wave
            lengths.append(lead + frames + WINDOW)
        self.codes, self.sound = (torch.from_numpy(values).to(device) for values in (codes, waves))
        self.lengths = torch.tensor(lengths, device=device)
        self.shares = torch.cumsum(self.lengths / self.lengths.sum(), 0)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """codes (B, 8, WINDOW), sound (B, samples), and which examples begin a session (B,)."""
        device = self.codes.device
        rows = torch.searchsorted(self.shares, torch.rand(BATCH, device=device)).clamp(max=len(self.codes) - 1)
        begins = torch.rand(BATCH, device=device) < 0.1
        at = (torch.rand(BATCH, device=device) * (self.lengths[rows] - WINDOW - 4)).long() * ~begins
        frames = at[:, None] + torch.arange(WINDOW, device=device)
        samples = at[:, None] * FRAME + torch.arange(WINDOW * FRAME, device=device)
        codes = self.codes[rows[:, None], frames].long()
        wrong = torch.rand(codes.shape, device=device) < CODE_NOISE
        codes = torch.where(wrong, torch.randint(0, CARD, codes.shape, device=device), codes)
        return codes.transpose(1, 2), self.sound[rows[:, None], samples], begins


def train(folder: Path, steps: int, seed: int = 3) -> None:
    """Train the decoder into folder/decoder.pt; resumes from it."""
    torch.manual_seed(seed)
    device, own = default_device(), make_own(folder)
    courses, voice = Courses(folder, own, device, seed), Voice(load_encoder(folder)).to(device)
    optimizer, first = Optimizer(voice.learned(), PEAK_RATE, (0.8, 0.98), decay=1e-4, clip=2.0), 0
    if (folder / "decoder.pt").exists():
        kept = torch.load(folder / "decoder.pt", map_location=device)
        voice.load_state_dict(kept["voice"])
        optimizer.load(kept["optimizer"])
        first = kept["step"]
    sums, begun = torch.zeros(2, device=device), time.time()

    def update() -> None:
        codes, sound, begins = courses.batch()
        made, wanted = voice(codes), sound[:, SKIP * FRAME :]
        start, made = made[:, : SKIP * FRAME], made[:, SKIP * FRAME :]
        click = (start.abs() * begins[:, None]).mean()  # of the first frames of a session, which are silent
        loss = distance(made, wanted)
        optimizer.step(loss + 30 * click)
        sums.add_(torch.stack([loss.detach(), (made - wanted).abs().mean().detach()]))

    optimizer.schedule(1, steps, warm=100)
    update_once = recorded(update, device)
    for step in range(first + 1, steps + 1):
        optimizer.schedule(step, steps, warm=100)
        update_once()
        if step % 100 == 0:
            loss_shown, error = (sums / 100).tolist()
            print(f"decoder {step}/{steps} {time.time() - begun:.0f} s: loss {loss_shown:.3f} {error:.4f}", flush=True)
            sums.zero_()
        if step % 1000 == 0 or step == steps:
            kept = {"voice": voice.state_dict(), "optimizer": optimizer.state(), "step": step}
            optimizer.swap()
            kept["shipped"] = {name: value.cpu().clone() for name, value in voice.state_dict().items()}
            print(f"    STOI {quality(voice, own, courses.waves):.3f}", flush=True)
            optimizer.swap()
            torch.save(kept, folder / "decoder.tmp")
            (folder / "decoder.tmp").rename(folder / "decoder.pt")


def load_decoder(folder: Path) -> MimiModel:
    """The whole codec: the folder's encoder, and the decoder trained so far (perhaps beside an earlier encoder)."""
    voice = Voice(load_encoder(folder))
    shipped = torch.load(folder / "decoder.pt", map_location="cpu")["shipped"]
    heard = ("mimi.encoder", "mimi.downsample")  # the encoder's parts: those of encoder.pt stand
    voice.load_state_dict({**voice.state_dict(), **{k: v for k, v in shipped.items() if not k.startswith(heard)}})
    filterbank.install(voice.mimi.encoder)
    return voice.install().eval()


def distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Spectra at four resolutions, samples, and samples with treble emphasized."""
    total = 20 * F.mse_loss(made, wanted) / 0.08 + 15 * (made - wanted).abs().mean()
    total = total + 30 * ((made[:, 1:] - 0.95 * made[:, :-1]) - (wanted[:, 1:] - 0.95 * wanted[:, :-1])).abs().mean()
    for size in (256, 512, 1024, 2048):
        window = torch.hann_window(size, device=made.device)
        a, b = (torch.stft(x, size, size // 4, size, window, return_complex=True).abs() for x in (made, wanted))
        floor = 1e-4 * size**0.5
        log = (a.clamp(min=floor).log() - b.clamp(min=floor).log()).abs().mean()
        total = total + 2.5 / 4 * ((a - b).abs().mean() / (b.mean() + 1e-4) + 0.5 * log)
    return total


def cut_off(wave: np.ndarray, frames: int) -> np.ndarray:
    """The first frames of an answer, and what is left of it dying away."""
    kept = wave[: frames * FRAME + _FADE].copy()
    tail = len(kept) - frames * FRAME
    kept[frames * FRAME :] *= np.linspace(1, 0, _FADE, dtype=np.float32)[:tail]
    return kept


@torch.no_grad()
def quality(voice: Voice, own: Own, waves: list[np.ndarray], every: int = 9) -> float:
    """Mean STOI of some answers against the frame-locked originals."""
    scores, silence = [], own.silence[:, None]
    for codes, wave in list(zip(own.answers, waves, strict=True))[::every]:
        padded = np.concatenate([np.tile(silence, (1, 10)), codes, np.tile(silence, (1, 3))], axis=1)
        made = voice(torch.from_numpy(padded[None]).to(voice.shapes.device))[0].cpu().numpy()
        scores.append(stoi(wave, made[10 * FRAME : 10 * FRAME + len(wave)], 24000))
    return float(np.mean(scores))
