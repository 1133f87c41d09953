"""The two things that the command does: make a quantized checkpoint, and compare all ways to make one."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoints.load import Files, Moshi, load, open_checkpoint
from ..frame import MoshiError, Pcm
from ..models.lm import Logits
from . import auto
from .calibration import FRAMES, SEQUENCES, calibrate
from .convert import Progress, convert, file_plan, restored, specs
from .folder import check_space, companions, config_json, copy, destination, quantization_object, write_text
from .formats import KEPT_BYTES, Cost, Matrix, Plan, cost, matrices
from .measure import Codes, Loss, compare, dense, impose, imposed, logits
from .plot import Point, drawing
from .recipes import AUTO, RECIPES, WEIGHTS, plan
from .report import Row, Table, card, errors_table, loss_json, recipes_table, row_json, streams_table

CHOOSE, PROVE = 0, 1  # seeds: what `auto` chooses by is not what the result is measured on
CURVE = (3.6, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.5)  # budgets of `auto` in a comparison, bits a weight
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
    """A source, read anew for each step, so that no step holds what another needs."""

    def __init__(self, source: str | Path | None, calibration: Calibration, say: Say, offline: bool = False) -> None:
        self.files: Files = open_checkpoint(source, offline=offline)
        self.calibration, self.say, self._offline, self._source = calibration, say, offline, source
        lm = self.lazy().lm
        self.config, self.parts = lm.config, matrices(lm)
        values = sum(value.size for value in restored(lm).values())
        self.others = KEPT_BYTES * (values - sum(part.weights for part in self.parts))
        self._sensitivity: dict[str, dict[int, float]] | None = None
        self._trials: dict[tuple[tuple[str, str], ...], float] = {}

    def lazy(self) -> Moshi:
        """The source, its weights still in the file."""
        return load(self._source, lazy=True, offline=self._offline)

    def cost(self, chosen: Plan) -> Cost:
        """Of a plan."""
        return cost(chosen, self.parts, self.config, self.others)

    def reference(self, seed: int) -> tuple[Codes, Logits]:
        """Codes to measure on, and what the source predicts there."""
        moshi = self.lazy()
        lm = dense(moshi.lm)
        c = self.calibration
        codes = calibrate(moshi, lm, c.sounds, seed, c.sequences, c.frames)
        return codes, logits(lm, codes)

    def loss(self, chosen: Plan, codes: Codes, reference: Logits) -> Loss:
        """Of a plan, without writing a file."""
        lm = dense(self.lazy().lm)
        impose(lm, chosen)
        return compare(reference, logits(lm, codes))

    def choose(self, target: Target) -> Plan:
        """`auto`: the best plan within the budget."""
        budget = target.budget(self.parts, self.others)
        codes, reference = self.reference(CHOOSE)
        of = auto.parts(self.parts)
        if self._sensitivity is None:
            self._sensitivity = self._measure_parts(of, codes, reference)
        family = auto.candidates(auto.path(of, self._sensitivity, budget.nbytes), self.parts, budget)
        best, least = {}, float("inf")
        for index, (name, chosen) in enumerate(family.items()):
            key = tuple(sorted((matrix, str(how)) for matrix, how in chosen.items()))
            if key not in self._trials:
                self._trials[key] = self.loss(chosen, codes, reference).total
            self.say(f"auto: plan {index + 1} of {len(family)} ({name}): loss {self._trials[key]:.4f} nats a frame")
            if self._trials[key] < least:
                best, least = dict(chosen), self._trials[key]
        return best

    def _measure_parts(self, of: Sequence[auto.Part], codes: Codes, reference: Logits) -> dict[str, dict[int, float]]:
        lm = dense(self.lazy().lm)
        result: dict[str, dict[int, float]] = {}
        for index, part in enumerate(of):
            result[part.name] = losses = {}
            for bits in auto.BITS:
                with imposed(lm, part.plan(bits)):
                    losses[bits] = compare(reference, logits(lm, codes)).total
            told = ", ".join(f"{bits}: {loss:.4f}" for bits, loss in losses.items())
            self.say(f"sensitivity: part {index + 1} of {len(of)} ({part.name}), loss by bits {told}")
        return result


def quantize(
    source: str | Path | None,
    dest: Path,
    recipe: str,
    progress: Progress,
    say: Say,
    *,
    target: Target | None = None,
    calibration: Calibration | None = None,
    measure: bool = True,
    offline: bool = False,
) -> tuple[dict[str, Any], list[tuple[str, Table]]]:
    """Makes DEST; gives the run as plain data (which DEST holds as report.json) and as tables.

    recipe: of RECIPES, or "auto" with a target. calibration: None is the default. measure: whether the loss is
    measured, where memory allows.
    """
    work = Work(source, calibration or Calibration(), say, offline)
    unmeasured = "not wanted" if not measure else _too_large(work)
    if recipe == AUTO and unmeasured and measure:
        raise MoshiError(f"{AUTO} has to measure the model: {unmeasured}; name another recipe")
    published = recipe != AUTO and RECIPES[recipe].published
    weights = RECIPES[recipe].weights_name if recipe != AUTO else WEIGHTS
    with destination(dest, work.files.located.folder) as folder:
        if recipe == AUTO:
            assert target is not None
            chosen = work.choose(target)
        else:
            chosen = plan(RECIPES[recipe], work.parts)
        if not chosen:
            group = RECIPES[recipe].rest.group if published else 32
            raise MoshiError(
                f"no matrix of {work.files.weights} has a width that groups of {group} divide; keep it as it is"
            )
        began = time.monotonic()
        mx.reset_peak_memory()
        tensors = restored(work.lazy().lm)
        by_file = file_plan(chosen, tensors)
        kept = [part.name for part in work.parts if part.name not in chosen]
        names = companions(work.files, weights)
        _check(work, folder, tensors, by_file, [path for path, _ in names.values()])
        done = convert(tensors, by_file, folder / weights, progress)
        for path, name in names.values():
            copy(path, folder / name)
        about = quantization_object(recipe, by_file, _in_file(kept, work))
        write_text(folder / "config.json", json.dumps(config_json(work.files, weights, names, about), indent=1) + "\n")
        result: dict[str, Any] = {
            "name": dest.name,
            "source": str(work.files.located.label),
            "recipe": recipe,
            "kept": kept,
            "cost": asdict(work.cost(chosen)),
            "seconds": time.monotonic() - began,
            "peak_resident_bytes": peak_resident(),
            "peak_array_bytes": mx.get_peak_memory(),
            "calibration": str(work.calibration),
            "errors": done.errors,
            "loss": None,
            "loss_kv8_alone": None,
            "unmeasured": unmeasured or "interrupted before the end",
        }
        roles = {name: part.role for part in work.parts for name in _in_file([part.name], work)}
        tables = [
            ("Size", recipes_table([Row(recipe, work.cost(chosen), None)])),
            ("Error of the weights", errors_table(done.errors, roles)),
        ]
        _write(folder, result, tables)
    if unmeasured:
        return result, tables
    say("measuring what it costs")
    codes, reference = work.reference(PROVE)
    losses = {recipe: compare(reference, logits(load(dest).lm, codes))}
    if work.cost(chosen).full_kv8 is not None:
        losses["8-bit keys and values alone"] = compare(reference, logits(dense(work.lazy().lm), codes, 8))
    result["loss"] = loss_json(losses[recipe])
    result["loss_kv8_alone"] = loss_json(losses.get("8-bit keys and values alone"))
    del result["unmeasured"]
    tables[0] = ("Size and loss", recipes_table([Row(recipe, work.cost(chosen), losses[recipe])]))
    tables.insert(1, ("Loss by stream", streams_table(losses)))
    _write(dest, result, tables)
    return result, tables


def compare_recipes(
    source: str | Path | None,
    folder: Path,
    say: Say,
    *,
    calibration: Calibration | None = None,
    offline: bool = False,
) -> tuple[dict[str, Any], list[tuple[str, Table]]]:
    """Measures every recipe, and `auto` at several budgets, without writing weights. Gives plain data and tables;
    `folder` gets loss.svg and report.json.
    """
    work = Work(source, calibration or Calibration(), say, offline)
    if too_large := _too_large(work):
        raise MoshiError(f"the recipes cannot be compared: {too_large}")
    plans = {name: plan(recipe, work.parts) for name, recipe in RECIPES.items()}
    least = min(work.cost(chosen).frame_bits for chosen in plans.values())
    plans |= {f"auto {bits:g}": work.choose(Target(bits=bits)) for bits in CURVE if bits >= least}
    codes, reference = work.reference(PROVE)
    rows = []
    for name, chosen in plans.items():
        rows.append(Row(name, work.cost(chosen), work.loss(chosen, codes, reference)))
        say(f"{name}: done")
    result = {
        "source": str(work.files.located.label),
        "calibration": str(work.calibration),
        "rows": [row_json(row) for row in rows],
    }
    points = [_point(row) for row in rows if row.loss is not None]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MoshiError(f"{folder} cannot be made: {error.strerror}; name another folder") from None
    write_text(folder / "loss.svg", drawing(f"{work.files.located.label}: what each recipe costs", points))
    write_text(folder / "report.json", json.dumps(result, indent=1) + "\n")
    return result, [("Recipes", recipes_table(rows))]


def peak_resident() -> int:
    """The largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _point(row: Row) -> Point:
    """A row in the drawing: "uniform-4", "mixed-4-8", "auto 4.5"."""
    assert row.loss is not None
    family = row.name.replace(" ", "-").partition("-")[0]
    return Point(family, row.name.replace("uniform-", "").replace("auto ", ""), row.cost.frame, row.loss.total)


def _too_large(work: Work) -> str | None:
    """Why the source cannot be measured here, if it cannot."""
    needs = work.cost({}).nbytes
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needs < 0.8 * has:
        return None
    return f"the source takes {needs / 1e9:.1f} GB of memory, this machine has {has / 1e9:.1f}"


def _in_file(names: Sequence[str], work: Work) -> list[str]:
    """Names of matrices in the file, where the audio tables are apart."""
    tables = [f"audio_embs.{k}" for k in range(work.config.n_q)]
    return [one for name in names for one in (tables if name == "audio_emb" else [name])]


def _check(work: Work, folder: Path, tensors: dict[str, mx.array], by_file: Any, others: Sequence[Path]) -> None:
    weights = sum(dtype.size * math.prod(shape) for dtype, shape in specs(tensors, by_file).values())
    check_space(folder, weights + sum(path.stat().st_size for path in others))


def _write(folder: Path, result: dict[str, Any], tables: Sequence[tuple[str, Table]]) -> None:
    write_text(folder / "report.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / "README.md", card(result, tables))
