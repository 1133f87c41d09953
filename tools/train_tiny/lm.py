"""Stage `lm`: the language model learns the conversations, teacher-forced, with the reference's own classes.

Two auxiliary heads, dropped afterwards, make it listen: which word was just heard, and, at the end of a question, which
answer is right. Without them it learns the answers by heart and picks the wrong one.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.lm import LMGen, LMModel
from moshi.models.lm_utils import _delay_sequence
from torch import Tensor, nn

from . import tokens
from .codes import answer_texts, load_encoder, make_own
from .scenes import NO_LABEL
from .shapes import CARD, CODEBOOKS, DELAYS, new_lm

BATCH = 16
DEPTH_FRAMES = 384
USER_NOISE, OWN_NOISE, TEXT_NOISE, JITTER = 0.2, 0.03, 0.01, 0.06
PEAK_RATE = 2e-3


class Conversations:
    """All encoded scenes of a work folder, as batches of codes and labels."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.own, self.draw = folder, make_own(folder), np.random.default_rng(seed)
        width = max(codes.shape[1] for codes in self.own.answers)
        self.table = np.zeros((len(self.own.answers) + 1, width, CODEBOOKS), np.int64)
        self.table[-1] = self.own.silence
        for row, codes in zip(self.table, self.own.answers, strict=False):
            row[: codes.shape[1]] = codes.T
        self.fields: dict[str, np.ndarray] = {}
        self.files: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Take in shards that appeared since."""
        files = sorted(self.folder.glob("codes-???.npz"))
        if len(files) > len(self.files):
            shards = [np.load(file) for file in files]
            self.fields = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0].files}
            self.files = files

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """codes (B, 17, T) un-delayed, word labels (B, T), answer labels (B, T)."""
        rows = self.draw.integers(0, len(self.fields["text"]), BATCH)
        part = {name: values[rows] for name, values in self.fields.items()}
        own = self.table[part["said"], part["place"]].transpose(0, 2, 1)
        codes = np.concatenate([part["text"][:, None].astype(np.int64), own, part["user"].astype(np.int64)], axis=1)
        words, choice = (torch.from_numpy(part[name].astype(np.int64)) for name in ("words", "choice"))
        return torch.from_numpy(codes), words, choice


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
    noisy = inputs.clone()
    late = torch.rand(inputs.shape[0], 1, inputs.shape[2] - 1) < JITTER
    noisy[:, 9:, 1:] = torch.where(late, inputs[:, 9:, :-1], inputs[:, 9:, 1:])
    for streams, rate, card in (
        (slice(0, 1), TEXT_NOISE, tokens.PAD + 1),
        (slice(1, 9), OWN_NOISE, CARD),
        (slice(9, 17), USER_NOISE, CARD),
    ):
        part = noisy[:, streams]
        hit = torch.rand(part.shape) < rate
        part[hit] = torch.randint(0, card, (int(hit.sum()),))
    noisy[:, :, 0] = inputs[:, :, 0]
    return noisy


class Trainer:
    """One model, its auxiliary heads and its optimizer; resumes from folder/lm.pt."""

    def __init__(self, folder: Path, steps: int, seed: int = 1) -> None:
        torch.manual_seed(seed)
        self.folder, self.steps, self.step, self.data = folder, steps, 0, Conversations(folder, seed)
        self.texts = answer_texts(folder)
        self.processor = tokens.make(folder)
        self.lm = first_weights(folder, self.processor.get_piece_size())
        self.word_head = nn.Linear(self.lm.dim, int(self.data.fields["words"].max()) + 1)
        self.choice_head = nn.Linear(self.lm.dim, len(self.texts))
        self.modules = nn.ModuleList([self.lm, self.word_head, self.choice_head])
        self.optimizer = torch.optim.AdamW(
            self.modules.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05
        )
        if (folder / "lm.pt").exists():
            kept = torch.load(folder / "lm.pt")
            self.modules.load_state_dict(kept["modules"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.step = kept["step"]

    def run(self) -> None:
        begun, sums = time.time(), np.zeros(6)
        while self.step < self.steps:
            rate = PEAK_RATE * min(1.0, (self.step + 1) / 100)
            rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            sums += self._update()
            self.step += 1
            if self.step % 50 == 0:
                text, audio, hit, word, choice, chosen = sums / 50
                print(
                    f"lm {self.step}/{self.steps} {time.time() - begun:.0f} s: text {text:.3f} "
                    f"audio {audio:.3f} ({hit:.3f}) word {word:.3f} answer {choice:.3f} ({chosen:.3f})",
                    flush=True,
                )
                sums[:] = 0
                self.data.refresh()
            if self.step % 300 == 0 or self.step == self.steps:
                self._save()
                print("   ", monitor(self.folder, self.lm, self.texts), flush=True)

    def _save(self) -> None:
        kept = {"modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        torch.save(kept, self.folder / "lm.tmp")
        (self.folder / "lm.tmp").rename(self.folder / "lm.pt")

    def _update(self) -> np.ndarray:
        codes, words, choice = self.data.batch()
        initial = self.lm._get_initial_token().expand(len(codes), -1, -1)
        delayed = torch.cat([initial, _delay_sequence(DELAYS, codes, initial)], dim=2)
        targets = delayed[:, :, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            hidden, logits = self.lm.forward_text(corrupt(delayed[:, :, :-1]))
            frames = self._depth_frames(targets)
            audio = self.lm.forward_depformer_training(
                targets.transpose(1, 2)[frames][:, :, None], hidden[frames][:, None]
            )
            word_logits, choice_logits = self.word_head(hidden), self.choice_head(hidden)
        text = targets[:, 0]
        each = F.cross_entropy(logits[:, 0].float().transpose(1, 2), text, reduction="none")
        weight = torch.where(text == tokens.PAD, 0.3, torch.where(text == tokens.EPAD, 1.0, 2.0))
        text_loss = (each * weight).sum() / weight.sum()
        wanted = targets.transpose(1, 2)[frames][:, 1:9]
        valid = wanted != CARD
        audio_loss = F.cross_entropy(audio[:, :, 0].float()[valid], wanted[valid])
        word_loss = F.cross_entropy(word_logits.float().transpose(1, 2), words)
        choice_loss = F.cross_entropy(choice_logits.float().transpose(1, 2), choice, ignore_index=NO_LABEL)
        loss = 2 * text_loss + audio_loss + word_loss + 0.5 * choice_loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        labelled = choice != NO_LABEL
        hit = (audio[:, :, 0].argmax(-1)[valid] == wanted[valid]).float().mean()
        chosen = (choice_logits.argmax(-1)[labelled] == choice[labelled]).float().mean()
        return np.array([value.item() for value in (text_loss, audio_loss, hit, word_loss, choice_loss, chosen)])

    def _depth_frames(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, time) of the frames whose codes are learned: those with sound, and some silent ones."""
        silent = torch.from_numpy(self.data.own.silence)[None, :, None]
        wanted = (targets[:, 1:9] != silent).any(1) | (torch.rand(targets.shape[0], targets.shape[2]) < 0.08)
        rows, columns = wanted.nonzero(as_tuple=True)
        kept = torch.randperm(len(rows))[:DEPTH_FRAMES]
        return rows[kept], columns[kept]


@torch.no_grad()
def generate(lm: LMModel, user: Tensor, text_temperature: float = 0.0, audio_temperature: float = 0.0) -> Tensor:
    """Live replies to user codes (B, 8, T) by the reference's LMGen: (B, 9, T) of text and codes by frame."""
    sampling = text_temperature > 0
    gen = LMGen(lm, use_sampling=sampling, temp=audio_temperature or 1.0, temp_text=text_temperature or 1.0)
    columns = []
    with gen.streaming(len(user)):
        for frame in [0, *range(user.shape[2])]:  # the first frame twice: so real frame n is read at step n + 1
            column = gen.step(user[:, :, frame : frame + 1])
            if column is not None:
                columns.append(column)
    return torch.cat(columns, dim=2)


def monitor(folder: Path, lm: LMModel, texts: list[str], text_temperature: float = 0.0) -> str:
    """Score the monitoring questions of the held-out family (codes in, text out)."""
    processor = tokens.make(folder)
    with np.load(folder / "monitor.npz") as file:
        user, answers, ends = torch.from_numpy(file["user"].astype(np.int64)), file["answer"], file["end"]
    lm.eval()
    said = generate(lm, user, text_temperature)[:, 0].numpy()
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
        f"held-out family: exact {exact}/{asked}, first words {near}/{asked}, off-script {off}/{len(answers) - asked}, "
        f"first word after {np.median(latency) if latency else math.nan:.0f} ms"
    )


def train(folder: Path, steps: int) -> None:
    Trainer(folder, steps).run()
