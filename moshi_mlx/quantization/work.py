"""One source on its way: what it consists of, what plans cost it, and `auto`'s search.

The source is read anew for each step, so that no step holds what another needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlx.core as mx

from ..checkpoints.load import Files, Moshi, load, open_checkpoint
from ..frame import MoshiError, Pcm
from ..models.lm import Lm, Logits
from ..models.memory import usable_memory
from . import auto
from .calibration import FRAMES, SEQUENCES, Say, calibrate
from .convert import errors, restored
from .formats import KEPT_BYTES, Cost, Format, Matrix, Plan, cost, kv_bytes, matrices
from .measure import Codes, dense, logits
from .report import nats
from .sensitivity import traces
from .trial import Trial

WIDER = 4  # `auto` takes so many times the codes that the proof takes: rare frames carry most of a small loss
CHOICE = WIDER / (WIDER + 1)  # share of the sounds that `auto` chooses by; its result is measured on the rest
PROOF = 1  # another seed than that of the choice
SAMPLE = 1 << 16  # weights of a matrix whose error in every format is compared
MEMORY = 0.8  # share of what there is that measuring may take
SEARCH = 1.3  # what gradients take beside the weights
COMPARED = 5  # float32 logits, or arrays as large, that are alive when two models are compared


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
        self._known: dict[tuple[tuple[str, Format], ...], float] = {}

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
        return dense(self.lazy().lm, self.dtype)

    def cost(self, chosen: Plan) -> Cost:
        """Of a plan."""
        return cost(chosen, self.parts, self.config, self.others)

    @cached_property
    def trial(self) -> Trial:
        """The source in memory, to measure plans with."""
        return Trial(self.model)

    def forget(self) -> None:
        """Gives back the memory of `trial`."""
        self.__dict__.pop("trial", None)
        mx.clear_cache()

    def reference(self, after_auto: bool) -> tuple[Codes, Logits]:
        """Codes to measure on, and what the source predicts there. after_auto: they are others than those that `auto`
        chose by, of another part of the sounds."""
        codes = self._talk(PROOF, 1, (CHOICE, 1) if after_auto else (0, 1))
        return codes, logits(self.trial.lm({}), codes)

    def _talk(self, seed: int, times: int, part: tuple[float, float]) -> Codes:
        c, lm = self.calibration, self.trial.lm({})
        return calibrate(self.lazy().mimi, lm, c.sounds, seed, times * c.sequences, c.frames, part, self.say)

    def choose(self, target: Target) -> Plan:
        """`auto`: the best plan within the budget."""
        budget = target.budget(self.parts, self.others)
        along = auto.path(self.parts, self._losses, budget.nbytes)
        family = auto.candidates(along, self.parts, budget)
        losses: dict[str, float] = {}
        for index, (name, chosen) in enumerate(family.items()):
            key = tuple(sorted(chosen.items()))
            if key not in self._known:
                loss = self._known[key] = self.trial.loss(chosen, *self._choosing).total
                self.say(f"auto: plan {index + 1} of {len(family)} ({name}): loss {nats(loss)} nats a frame")
            losses[name] = self._known[key]
        best = min(losses, key=lambda name: losses[name])
        self.say(f"auto: {best} is best, loss {nats(losses[best])} nats a frame")
        return dict(family[best])

    @cached_property
    def _wide(self) -> Codes:
        return self._talk(0, WIDER, (0, CHOICE))

    @cached_property
    def _choosing(self) -> tuple[Codes, Logits]:
        return self._wide, logits(self.trial.lm({}), self._wide)

    @cached_property
    def _losses(self) -> auto.Losses:
        """What each matrix loses in every format."""
        wanted = {part.name: formats for part in self.parts if (formats := auto.formats(part))}
        twice = traces(self.trial.lm({}), list(wanted), self._wide, self.say)
        fresh = dict(self.model().named_modules())
        result: dict[str, dict[Format, float]] = {}
        for name, formats in wanted.items():
            lost = errors(fresh[name].pop("weight"), formats, SAMPLE)  # popped, so that no more than one is in memory
            result[name] = {how: twice[name] / 2 * square for how, (square, _) in zip(formats, lost, strict=True)}
        return result

    @property
    def dtype(self) -> mx.Dtype:
        """The arithmetic to measure in: float32 if memory allows. In bfloat16, rounding is heard beside 8 bits."""
        return mx.float32 if self._needs(search=True, wider=2) < MEMORY * usable_memory() else mx.bfloat16

    def too_large(self, search: bool = False) -> str | None:
        """Why the source cannot be measured on this machine, or `auto` cannot search there, if so."""
        needs, has = self._needs(search), usable_memory()
        if needs < MEMORY * has:
            return None
        return f"that takes {needs / 1e9:.1f} GB of memory, MLX may use {has / 1e9:.1f} here"

    def _needs(self, search: bool, wider: int = 1) -> float:
        """Bytes of memory that measuring takes, in an arithmetic so much wider than bfloat16: weights, gradients, keys,
        values and logits.
        """
        c, config = self.calibration, self.config
        rows = c.sequences * (WIDER if search else 1)
        kept = rows * kv_bytes(config, None, c.frames + config.max_delay)
        logits = 4 * rows * c.frames * (config.text_card_out + config.dep_q * config.card)
        return wider * (self.cost({}).nbytes * (SEARCH if search else 1) + kept) + COMPARED * logits

    def in_file(self, names: Sequence[str]) -> list[str]:
        """Names of matrices in the file, where the audio tables are apart."""
        tables = [f"audio_embs.{k}" for k in range(self.config.n_q)]
        return [one for name in names for one in (tables if name == "audio_emb" else [name])]
