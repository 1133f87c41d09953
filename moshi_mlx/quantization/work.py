"""One source on its way: what it consists of, what plans cost it, and `auto`'s search.

The source is read anew for each step, so that no step holds what another needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlx.core as mx

from ..checkpoints.load import Files, Moshi, load, open_checkpoint
from ..frame import MoshiError, Pcm
from ..models.lm import Lm, Logits
from . import auto
from .calibration import FRAMES, SEQUENCES, calibrate
from .convert import restored
from .formats import KEPT_BYTES, Cost, Format, Matrix, Plan, cost, matrices
from .measure import Codes, Loss, compare, dense, impose, imposed, logits
from .report import nats

CHOOSE, PROVE = 0, 1  # seeds: what `auto` chooses by is not what the result is measured on
MEMORY = 0.8  # share of the machine's that a source may take
Say = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """What the model is measured on. sounds: 24 kHz; none: the model's own voice."""

    sounds: Sequence[Pcm] = ()
    sequences: int = SEQUENCES
    frames: int = FRAMES

    def __str__(self) -> str:
        heard = f"the model's answers to {len(self.sounds)} given sounds" if self.sounds else "talk of the model's own"
        return f"{self.sequences} × {self.frames} frames of {heard}"


@dataclass(frozen=True)
class Target:
    """`auto`'s budget, one of the two."""

    bits: float | None = None
    gigabytes: float | None = None

    def budget(self, parts: Sequence[Matrix], others: int) -> auto.Budget:
        """In bytes."""
        if self.bits is not None:
            return auto.bits_budget(self.bits, parts)
        assert self.gigabytes is not None
        return auto.size_budget(self.gigabytes * 1e9, parts, others)


class Work:
    """A source and what is known of it."""

    def __init__(self, source: str | Path | None, calibration: Calibration, say: Say, offline: bool = False) -> None:
        self.files: Files = open_checkpoint(source, offline=offline)
        self.calibration, self.say, self._offline, self._source = calibration, say, offline, source
        self._began = self._stamp()
        lm = self.lazy().lm
        self.config, self.parts = lm.config, matrices(lm)
        values = sum(value.size for value in restored(lm).values())
        self.others = KEPT_BYTES * (values - sum(part.weights for part in self.parts))
        self._trials: dict[tuple[tuple[str, Format], ...], float] = {}

    def lazy(self) -> Moshi:
        """The source, its weights still in the file. Raises MoshiError if that is not the file of the beginning."""
        if self._stamp() != self._began:
            raise MoshiError(f"{self.files.weights} changed while it was read; run again when it is finished")
        return load(self._source, lazy=True, offline=self._offline)

    def _stamp(self) -> list[tuple[int, int]]:
        """Tells whether the weights are the same files still."""
        return [(s.st_mtime_ns, s.st_size) for s in (p.stat() for p in (self.files.weights, *self.files.shards))]

    def tensors(self) -> dict[str, mx.array]:
        """What there is to write, as `restored` gives it; nothing else holds a weight once it is read."""
        return restored(self.lazy().lm)

    def model(self) -> Lm:
        """The source without quantization, its weights still in the file."""
        return dense(self.lazy().lm)

    def cost(self, chosen: Plan) -> Cost:
        """Of a plan."""
        return cost(chosen, self.parts, self.config, self.others)

    def reference(self, seed: int) -> tuple[Codes, Logits]:
        """Codes to measure on, and what the source predicts there."""
        lm, c = self.model(), self.calibration
        mx.eval(lm.parameters())
        codes = calibrate(self.lazy().mimi, lm, c.sounds, seed, c.sequences, c.frames)
        return codes, logits(lm, codes)

    def loss(self, chosen: Plan, codes: Codes, reference: Logits) -> Loss:
        """Of a plan, without writing a file."""
        lm = self.model()
        impose(lm, chosen)
        return compare(reference, logits(lm, codes))

    def choose(self, target: Target) -> Plan:
        """`auto`: the best plan within the budget."""
        budget = target.budget(self.parts, self.others)
        along = auto.path(auto.parts(self.parts), self._sensitivity, budget.nbytes)
        family = auto.candidates(along, self.parts, budget)
        best, least = {}, float("inf")
        for index, (name, chosen) in enumerate(family.items()):
            key = tuple(sorted(chosen.items()))
            if key not in self._trials:
                self._trials[key] = self.loss(chosen, *self._choosing).total
            self.say(f"auto: plan {index + 1} of {len(family)} ({name}): loss {nats(self._trials[key])} nats a frame")
            if self._trials[key] < least:
                best, least = dict(chosen), self._trials[key]
        return best

    @cached_property
    def _choosing(self) -> tuple[Codes, Logits]:
        return self.reference(CHOOSE)

    @cached_property
    def _sensitivity(self) -> auto.Sensitivity:
        codes, reference = self._choosing
        lm, of = self.model(), auto.parts(self.parts)
        result: dict[str, dict[int, float]] = {}
        for index, part in enumerate(of):
            result[part.name] = losses = {}
            for bits in auto.BITS:
                with imposed(lm, part.plan(bits)):
                    losses[bits] = compare(reference, logits(lm, codes)).total
            told = ", ".join(f"{bits}: {nats(loss)}" for bits, loss in losses.items())
            self.say(f"sensitivity: part {index + 1} of {len(of)} ({part.name}), loss by bits {told}")
        return result

    def too_large(self) -> str | None:
        """Why the source cannot be measured on this machine, if it cannot."""
        needs = self.cost({}).nbytes
        has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needs < MEMORY * has:
            return None
        return f"the source takes {needs / 1e9:.1f} GB of memory, this machine has {has / 1e9:.1f}"

    def in_file(self, names: Sequence[str]) -> list[str]:
        """Names of matrices in the file, where the audio tables are apart."""
        tables = [f"audio_embs.{k}" for k in range(self.config.n_q)]
        return [one for name in names for one in (tables if name == "audio_emb" else [name])]
