"""Stage `lm`: the language model learns the conversations, teacher-forced, with the reference's own classes.

Two auxiliary heads, dropped afterwards, make it listen: which word was just heard, and, at the end of a question, which
answer is right. Without them it learns the answers by heart and picks the wrong one.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.lm import LMGen, LMModel
from moshi.models.lm_utils import _delay_sequence
from torch import Tensor, nn

from ..reference_form import DELAYS
from . import tokens
from .codes import answer_texts, load_encoder, make_own
from .device import Optimizer, default_device, halves, recorded
from .scenes import NO_LABEL
from .shapes import CARD, CODEBOOKS, new_lm

BATCH, DEPTH_FRAMES = (96, 2048) if torch.cuda.is_available() else (16, 384)
OWN_NOISE, TEXT_NOISE, JITTER = 0.03, 0.01, 0.06
USER_NOISE = 0.5  # at most: every scene has its own share of wrong user codes
FINE_NOISE = 0.3  # how often a scene's finer user codebooks, which tell the voice more than the words, mean nothing
DROPOUT = 0.2
PEAK_RATE = 2e-3


class Conversations:
    """All encoded scenes of a work folder on a device, drawn as batches of codes and labels."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        own = make_own(folder)
        width = max(codes.shape[1] for codes in own.answers)
        table = np.zeros((len(own.answers) + 1, width, CODEBOOKS), np.uint8)
        table[-1] = own.silence
        for row, codes in zip(table, own.answers, strict=False):
            row[: codes.shape[1]] = codes.T
        self.table = torch.from_numpy(table).to(device)
        self.silence = torch.from_numpy(own.silence).to(device)
        shards = [np.load(file) for file in sorted(folder.glob("codes-???.npz"))]
        self.fields = {
            name: torch.from_numpy(np.concatenate([shard[name] for shard in shards])).to(device)
            for name in shards[0].files
        }
        self.words = int(self.fields["words"].max()) + 1

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """codes (B, 17, T) un-delayed, word labels (B, T), answer labels (B, T)."""
        scenes = self.fields["text"]
        rows = torch.randint(0, len(scenes), (BATCH,), device=scenes.device)
        part = {name: values[rows].long() for name, values in self.fields.items()}
        own = self.table[part["said"], part["place"]].long().transpose(1, 2)
        return torch.cat([part["text"][:, None], own, part["user"]], dim=1), part["words"], part["choice"]


def first_weights(folder: Path, text_card: int) -> LMModel:
    """A fresh model whose embeddings of the user's codes are the codec's own vectors, randomly projected:
    similar sounds start out as similar inputs."""
    lm, mimi = new_lm(text_card), load_encoder(folder)
    quantizer = mimi.quantizer
    layers = [*quantizer.rvq_first.vq.layers, *quantizer.rvq_rest.vq.layers]
    with torch.no_grad():
        projections = [torch.randn(layers[0]._codebook.dim, lm.dim) for _ in range(2)]
        vectors = [layer._codebook.embedding @ projections[min(k, 1)] for k, layer in enumerate(layers)]
        for first in (True, False):
            group = vectors[:1] if first else vectors[1:]
            scale = 0.35 / float(sum(vector.var() for vector in group)) ** 0.5
            for vector in group:
                vector.sub_(vector.mean(0)).mul_(scale)
        for k, vector in enumerate(vectors):
            lm.emb[CODEBOOKS + k].weight[:CARD].copy_(vector)
    return lm


def corrupt(inputs: Tensor) -> Tensor:
    """Replace some input tokens by random ones, and some user frames by the one before: other voices, other rhythms,
    and the model's own slips."""
    batch, streams, _ = inputs.shape
    device = inputs.device
    late = torch.rand(batch, 1, inputs.shape[2], device=device) < JITTER
    late[:, :, 0] = False
    before = torch.roll(inputs, 1, dims=2)
    noisy = torch.where(late & (torch.arange(streams, device=device) >= 9)[:, None], before, inputs)
    rates = torch.full((batch, streams), OWN_NOISE, device=device)
    rates[:, 0] = TEXT_NOISE
    rates[:, 9:] = USER_NOISE * torch.rand(batch, 1, device=device) ** 2
    finest = torch.randint(3, CODEBOOKS, (batch, 1), device=device)  # the last codebook that is left
    finest = torch.where(torch.rand(batch, 1, device=device) < FINE_NOISE, finest, CODEBOOKS)
    rates[:, 9:] = torch.where(torch.arange(CODEBOOKS, device=device) > finest, 1.0, rates[:, 9:])
    cards = torch.full((streams, 1), CARD, device=device)
    cards[0] = tokens.PAD + 1
    random = (torch.rand(inputs.shape, device=device) * cards).long()
    noisy = torch.where(torch.rand(inputs.shape, device=device) < rates[:, :, None], random, noisy)
    return torch.cat([inputs[:, :, :1], noisy[:, :, 1:]], dim=2)


class Trainer:
    """One model, its auxiliary heads and its optimizer; resumes from folder/lm.pt."""

    def __init__(self, folder: Path, steps: int, device: torch.device, seed: int = 1, peak: float = PEAK_RATE) -> None:
        torch.manual_seed(seed)
        self.folder, self.steps, self.step, self.device = folder, steps, 0, device
        self.data, self.texts = Conversations(folder, device), answer_texts(folder)
        self.lm = first_weights(folder, tokens.make(folder).get_piece_size()).to(device)
        self.word_head = nn.Linear(self.lm.dim, self.data.words, device=device)
        self.choice_head = nn.Linear(self.lm.dim, len(self.texts), device=device)
        self.modules = nn.ModuleList([self.lm, self.word_head, self.choice_head])
        for layer in self.lm.transformer.layers:
            for module in (layer.self_attn, layer.gating):
                module.register_forward_hook(_drop)
        self.optimizer = Optimizer(list(self.modules.parameters()), peak, (0.9, 0.98), decay=0.05, clip=1.0)
        self.sums = torch.zeros(6, device=device)
        if (folder / "lm.pt").exists():
            kept = torch.load(folder / "lm.pt", map_location=device)
            self.modules.load_state_dict(kept["modules"])
            self.optimizer.load(kept["optimizer"])
            self.step = kept["step"]

    def run(self, save_every: int = 1000) -> None:
        begun = time.time()
        self.optimizer.schedule(1, self.steps, warm=200)
        update = recorded(self.update, self.device)
        while self.step < self.steps:
            self.step += 1
            self.optimizer.schedule(self.step, self.steps, warm=200)
            update()
            if self.step % 100 == 0:
                text, audio, hit, word, choice, chosen = (self.sums / 100).tolist()
                print(
                    f"lm {self.step}/{self.steps} {time.time() - begun:.0f} s: text {text:.3f} "
                    f"audio {audio:.3f} ({hit:.3f}) word {word:.3f} answer {choice:.3f} ({chosen:.3f})",
                    flush=True,
                )
                self.sums.zero_()
            if self.step % save_every == 0 or self.step == self.steps:
                self._save()
                self.optimizer.swap()
                print("   ", monitor(self.folder, self.lm, self.texts), flush=True)
                self.optimizer.swap()

    def _save(self) -> None:
        """lm.pt: what goes on, and the running mean of the weights, which is what ships."""
        kept = {"modules": self.modules.state_dict(), "optimizer": self.optimizer.state(), "step": self.step}
        self.optimizer.swap()
        kept["shipped"] = {name: value.cpu().clone() for name, value in self.lm.state_dict().items()}
        self.optimizer.swap()
        torch.save(kept, self.folder / "lm.tmp")
        (self.folder / "lm.tmp").rename(self.folder / "lm.pt")

    def update(self) -> None:
        codes, words, choice = self.data.batch()
        initial = self.lm._get_initial_token().expand(len(codes), -1, -1)
        delayed = torch.cat([initial, _delay_sequence(DELAYS, codes, initial)], dim=2)
        targets = delayed[:, :, 1:]
        with halves(self.device):
            hidden, logits = self.lm.forward_text(corrupt(delayed[:, :, :-1]))
            flat = targets.transpose(1, 2).flatten(0, 1)
            frames = self._depth_frames(flat)
            audio = self.lm.forward_depformer_training(flat[frames][:, :, None], hidden.flatten(0, 1)[frames][:, None])
            word_logits, choice_logits = self.word_head(hidden), self.choice_head(hidden)
        text = targets[:, 0]
        each = F.cross_entropy(logits[:, 0].float().transpose(1, 2), text, reduction="none")
        weight = torch.where(text == tokens.PAD, 0.3, torch.where(text == tokens.EPAD, 1.0, 2.0))
        text_loss = (each * weight).sum() / weight.sum()
        wanted = flat[frames][:, 1:9]
        guesses = audio[:, :, 0].float()
        audio_loss = F.cross_entropy(
            guesses.transpose(1, 2), wanted.where(wanted != CARD, NO_LABEL), ignore_index=NO_LABEL
        )
        word_loss = F.cross_entropy(word_logits.float().transpose(1, 2), words)
        choice_loss = F.cross_entropy(choice_logits.float().transpose(1, 2), choice, ignore_index=NO_LABEL)
        self.optimizer.step(2 * text_loss + audio_loss + word_loss + 0.5 * choice_loss)
        labelled = choice != NO_LABEL
        hit = (guesses.argmax(-1) == wanted).float().mean()
        chosen = ((choice_logits.argmax(-1) == choice) & labelled).sum() / labelled.sum()
        self.sums += torch.stack(
            [value.detach() for value in (text_loss, audio_loss, hit, word_loss, choice_loss, chosen)]
        )

    def _depth_frames(self, targets: Tensor) -> Tensor:
        """Indices of the frames of (N, 17) whose codes are learned: those with sound, and some silent ones."""
        sounding = (targets[:, 1:9] != self.data.silence).any(1)
        lot, other = torch.rand(2, len(targets), device=self.device)
        return torch.where(sounding | (other < 0.08), lot, lot - 1).topk(DEPTH_FRAMES).indices


def _drop(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """A forward hook: dropout, which the reference's classes do not have, on what a layer adds."""
    return F.dropout(output, DROPOUT, module.training)


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


def train(folder: Path, steps: int) -> None:
    Trainer(folder, steps, default_device()).run()
