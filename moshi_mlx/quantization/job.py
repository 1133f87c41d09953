"""The two things that the command does: make a quantized checkpoint, and compare all ways to make one."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoints.load import load
from ..frame import MoshiError
from .convert import Progress, convert, file_plan, specs
from .folder import (
    check_space,
    companions,
    companions_size,
    config_json,
    destination,
    quantization_object,
    write_companions,
    write_json,
    write_text,
)
from .formats import Plan
from .measure import compare, logits
from .plot import Point, drawing
from .recipes import AUTO, RECIPES, WEIGHTS, plan
from .report import Row, Table, card, errors_table, loss_json, recipes_table, row_json, size, streams_table
from .work import PROVE, Calibration, Say, Target, Work

CURVE = (3.6, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.5)  # budgets of `auto` in a comparison, bits a weight
KV8 = "8-bit keys and values alone"
Found = tuple[dict[str, Any], list[tuple[str, Table]]]  # a run as plain data and as tables


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
) -> Found:
    """Makes DEST, which also holds what is given back, as report.json and in its card.

    recipe: of RECIPES, or "auto" with a target. calibration: None is the default. measure: whether the loss is
    measured, where memory allows. An interrupt while it is measured leaves DEST whole, its card without the loss.
    """
    work = Work(source, calibration or Calibration(), say, offline)
    unmeasured = work.too_large() if measure else "not wanted"
    if recipe == AUTO and unmeasured:
        raise MoshiError(f"{AUTO} has to measure the model: {unmeasured}; name another recipe")
    with destination(dest, work.files.located.folder) as folder:
        chosen = _plan(work, recipe, target)
        result, tables = _make(work, recipe, chosen, folder, progress)
        result |= {"name": dest.name, "unmeasured": unmeasured or "the measurement was interrupted"}
        _write(folder, result, tables)
    if not unmeasured:
        say("measuring what it costs")
        _prove(work, chosen, dest, result, tables)
        _write(dest, result, tables)
    return result, tables


def _plan(work: Work, recipe: str, target: Target | None) -> Plan:
    if recipe == AUTO:
        assert target is not None
        return work.choose(target)
    chosen = plan(RECIPES[recipe], work.parts)
    if not chosen:
        group = RECIPES[recipe].rest.group if RECIPES[recipe].published else 32
        raise MoshiError(f"groups of {group} divide no width in {work.files.weights}: {recipe} changes nothing there")
    return chosen


def _make(work: Work, recipe: str, chosen: Plan, folder: Path, progress: Progress) -> Found:
    """Everything but the loss."""
    began = time.monotonic()
    mx.reset_peak_memory()
    weights = WEIGHTS if recipe == AUTO else RECIPES[recipe].weights_name
    tensors = work.tensors()
    by_file = file_plan(chosen, tensors)
    kept = work.in_file([part.name for part in work.parts if part.name not in chosen])
    names = companions(work.files, weights)
    nbytes = sum(dtype.size * math.prod(shape) for dtype, shape in specs(tensors, by_file).values())
    check_space(folder, nbytes + companions_size(work.files, names))
    errors = convert(tensors, by_file, folder / weights, progress)
    write_companions(work.files, names, folder)
    about = quantization_object(recipe, by_file, kept)
    write_json(folder / "config.json", config_json(work.files, weights, names, about))
    cost = work.cost(chosen)
    result: dict[str, Any] = {
        "source": str(work.files.located.label),
        "recipe": recipe,
        "kept": kept,
        "cost": asdict(cost),
        "seconds": time.monotonic() - began,
        "peak_resident_bytes": peak_resident(),
        "peak_array_bytes": mx.get_peak_memory(),
        "calibration": str(work.calibration),
        "errors": errors,
        "loss": None,
        "loss_kv8_alone": None,
    }
    roles = {name: part.role for part in work.parts for name in work.in_file([part.name])}
    run: Table = [("time", "peak memory"), (f"{result['seconds']:.0f} s", size(result["peak_resident_bytes"]))]
    tables = [
        ("Size", recipes_table([Row(recipe, cost, None)])),
        ("Error of the weights", errors_table(errors, roles)),
        ("The run", run),
    ]
    return result, tables


def _prove(work: Work, chosen: Plan, dest: Path, result: dict[str, Any], tables: list[tuple[str, Table]]) -> None:
    """Adds the loss of what DEST holds."""
    recipe, cost = result["recipe"], work.cost(chosen)
    codes, reference = work.reference(PROVE)
    losses = {recipe: compare(reference, logits(load(dest).lm, codes))}
    if cost.full_kv8 is not None:
        losses[KV8] = compare(reference, logits(work.model(), codes, 8))
    result |= {"loss": loss_json(losses[recipe]), "loss_kv8_alone": loss_json(losses.get(KV8)), "unmeasured": None}
    tables[0] = ("Size and loss", recipes_table([Row(recipe, cost, losses[recipe])]))
    tables.insert(1, ("Loss by stream", streams_table(losses)))


def compare_recipes(
    source: str | Path | None,
    folder: Path,
    say: Say,
    *,
    calibration: Calibration | None = None,
    offline: bool = False,
) -> Found:
    """Measures every recipe, and `auto` at several budgets, without writing weights. Gives plain data and tables;
    `folder` gets loss.svg and report.json.
    """
    work = Work(source, calibration or Calibration(), say, offline)
    if too_large := work.too_large():
        raise MoshiError(f"the recipes cannot be compared: {too_large}")
    plans = {name: plan(recipe, work.parts) for name, recipe in RECIPES.items()}
    least = min(work.cost(chosen).frame_bits for chosen in plans.values())
    last: Plan = {}
    for bits in (bits for bits in CURVE if bits >= least):
        chosen = work.choose(Target(bits=bits))
        if chosen != last:  # a larger budget may find nothing better
            plans[f"auto {bits:g}"] = last = chosen
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
    write_json(folder / "report.json", result)
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


def _write(folder: Path, result: dict[str, Any], tables: Sequence[tuple[str, Table]]) -> None:
    write_json(folder / "report.json", result)
    write_text(folder / "README.md", card(result, tables))
