"""Stage `codec`: Mimi's encoder learns to tell what it heard (see codec.py), behind convolutions that are a filterbank.

The convolutions' outputs of thousands of simulated windows are computed once and kept. Last convolution, transformer,
downsampling and quantizer then see hours of speech in minutes, and that is what telling phones apart takes.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from torch import Tensor, nn

from . import filterbank
from .codec import WINDOW, Examples, Heads, fine_spectrum, log_mel, quantized
from .device import halves
from .shapes import CODEBOOKS, new_mimi

WARM = 300  # steps before the quantizer starts
PEAK_RATE = 2e-3
BATCH_USERS, _BATCH_OWN = 48, 12  # windows of a training batch
USERS, OWN = 10, 3  # windows of user speech and of Moshi's voice in a group …
_BATCHES = 40  # … and groups in a shard


@torch.no_grad()
def keep(folder: Path, shards: range) -> None:
    """Write kept-NNN.npz: convolution outputs of simulated windows with everything they should tell."""
    mimi = new_mimi()
    for shard in shards:
        path = folder / f"kept-{shard:03d}.npz"
        if path.exists():
            continue
        examples, parts = Examples(folder, 7000 + shard), []
        for _ in range(_BATCHES):
            users = [examples.user() for _ in range(USERS)]
            own = [examples.own() for _ in range(OWN)]
            heard = torch.from_numpy(np.stack([user[0] for user in users] + own))
            clean = torch.from_numpy(np.stack([user[1] for user in users] + own))
            latent = filterbank.spectrum(mimi.encoder, heard)
            phones = np.zeros((USERS, 2 * WINDOW), np.uint8)
            for row, user in zip(phones, users, strict=True):
                row[: len(user[2])] = user[2][: len(row)]
            parts.append(
                {
                    "latent": latent.half().numpy(),
                    "mel": log_mel(clean).half().numpy(),
                    "fine": fine_spectrum(clean[USERS:]).half().numpy(),
                    "phones": phones,
                    "labels": np.stack([user[3] for user in users]).astype(np.uint8),
                }
            )
        np.savez(path.with_suffix(".tmp.npz"), **{name: np.stack([part[name] for part in parts]) for name in parts[0]})
        path.with_suffix(".tmp.npz").rename(path)
        print(f"listen: kept shard {shard}", flush=True)


class Kept:
    """The kept windows: users and Moshi's own apart, in memory; `refresh` takes in new shards."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw, self.files = folder, np.random.default_rng(seed), 0
        self.old, self.new_share = 0, 0.0  # how many windows are old, and how often to draw one that is not
        self.refresh()

    def refresh(self) -> None:
        files = sorted(self.folder.glob("kept-???.npz"))
        if len(files) == self.files:
            return
        self.files, shards = len(files), [np.load(file) for file in files]
        latent, mel = (np.concatenate([shard[name] for shard in shards]) for name in ("latent", "mel"))
        self.user = [x[:, :USERS].reshape(-1, *x.shape[2:]) for x in (latent, mel)]
        self.own = [x[:, USERS:].reshape(-1, *x.shape[2:]) for x in (latent, mel)]
        self.fine, self.phones, self.labels = (
            np.concatenate([shard[name] for shard in shards]).reshape(-1, *shards[0][name].shape[2:])
            for name in ("fine", "phones", "labels")
        )

    def batch(self) -> tuple[Tensor, ...]:
        """(latents, mels) of users then own, and fine, phones, labels."""
        new = self.draw.random(BATCH_USERS) < self.new_share
        a = self.draw.integers(np.where(new, self.old, 0), len(self.labels))
        b = self.draw.integers(0, len(self.fine), _BATCH_OWN)
        both = [np.concatenate([user[a], own[b]]) for user, own in zip(self.user, self.own, strict=True)]
        found = (*both, self.fine[b], self.phones[a].astype(np.int64), self.labels[a].astype(np.int64))
        return tuple(torch.from_numpy(x.astype(np.float32) if x.dtype == np.float16 else x) for x in found)


def train(folder: Path, steps: int, seed: int = 2) -> None:
    """Train on the kept windows into folder/encoder.pt (written every 500 steps; resumes from it)."""
    torch.manual_seed(seed)
    kept, mimi = Kept(folder, seed), new_mimi().train()
    heads = Heads(int(kept.labels.max()))
    parts = (mimi.encoder.model[-1], mimi.encoder_transformer, mimi.downsample, mimi.quantizer, heads)
    parameters = [p for part in parts for p in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-2)
    sums, begun, first = np.zeros(6), time.time(), 0
    if (folder / "encoder.pt").exists():
        saved = torch.load(folder / "encoder.pt")
        mimi.load_state_dict(saved["mimi"])
        heads.load_state_dict(saved["heads"])
        first = saved["step"]
    for step in range(first + 1, steps + 1):
        rate = PEAK_RATE * min(1.0, (step - first) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step == WARM:
            _start_quantizer(mimi, kept)
        batch = kept.batch()
        losses = listening_losses(mimi, heads, latents(mimi, batch[0]), batch, quantize=step >= WARM)
        loss = sum(weight * value for weight, value in zip((1, 0.5, 1, 1, 0.15, 0.25), losses, strict=True))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        sums += [value.item() for value in losses]
        if step % 100 == 0:
            shown = " ".join(f"{value:.3f}" for value in sums / 100)
            print(
                f"codec {step}/{steps} {time.time() - begun:.0f} s: mel fine phones-1 phones ctc commit {shown}",
                flush=True,
            )
            sums[:] = 0
            kept.refresh()
        if step % 500 == 0 or step == steps:
            torch.save({"mimi": mimi.state_dict(), "heads": heads.state_dict(), "step": step}, folder / "encoder.tmp")
            (folder / "encoder.tmp").rename(folder / "encoder.pt")


def latents(mimi: MimiModel, kept: Tensor) -> Tensor:
    """Kept convolution outputs (B, 256, 2 T) → unquantized latents (B, LATENT, T)."""
    with halves(kept.device):
        (coded,) = mimi.encoder_transformer(mimi.encoder.model[-1](kept))
        return mimi.downsample(coded).float()


def listening_losses(
    mimi: MimiModel,
    heads: Heads,
    heard: Tensor,
    batch: tuple[Tensor, ...],
    quantize: bool = True,
    users_mel: float = 0.5,
) -> list[Tensor]:
    """Of a batch's latents: mel (the users' with this weight), harmonics, phones from the first codebook, phones from
    all (by frame, then by CTC), commitment."""
    _, mel, fine, phone_rows, labels = batch
    semantic, full, commit = quantized(mimi, heard, quantize)
    made, made_fine = heads.spectra(full)
    far, flat = (made - mel).abs(), labels.T.flatten()
    phones = [
        F.cross_entropy(heads.phone_logits(head, x[:BATCH_USERS]).flatten(0, 1), flat)
        for head, x in ((heads.semantic, semantic), (heads.all, full))
    ]
    mel_loss = users_mel * far[:BATCH_USERS].mean() + far[BATCH_USERS:].mean()
    fine_loss = (made_fine[BATCH_USERS:] - fine).abs().mean()
    return [mel_loss, fine_loss, *phones, _ctc(heads, full[:BATCH_USERS], phone_rows), commit]


@torch.no_grad()
def _start_quantizer(mimi: MimiModel, kept: Kept) -> None:
    """k-means on a few thousand latents; the reference starts one level a call."""
    heard = torch.cat([latents(mimi, kept.batch()[0]) for _ in range(3)])
    for _ in range(CODEBOOKS):
        mimi.quantizer(heard, 12.5)


def _ctc(heads: Heads, latent: Tensor, phones: Tensor) -> Tensor:
    """CTC of the windows that hold whole utterances."""
    lengths = (phones > 0).sum(1)
    rows = lengths > 0
    guesses = heads.phone_logits(heads.ctc, latent)[:, rows].log_softmax(-1)
    steps = torch.full((int(rows.sum()),), guesses.shape[0])
    targets = torch.cat([row[row > 0] for row in phones[rows]])
    return F.ctc_loss(guesses, targets, steps, lengths[rows], zero_infinity=True)
