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
from ..checkpoints.new_folder import (
    check_space,
    check_vacant,
    companions,
    companions_size,
    config_json,
    destination,
    write_companions,
    write_json,
    write_text,
)
from ..checkpoints.transfer import Progress
from ..frame import MoshiError
from . import auto
from .calibration import Say
from .convert import convert, file_plan, specs
from .formats import Plan, quantization_object
from .measure import compare, logits
from .plot import Point, drawing
from .recipes import AUTO, RECIPES, SMALLEST, WEIGHTS, plan
from .report import (
    Row,
    Table,
    card,
    errors_table,
    loss_json,
    recipes_table,
    rivals_table,
    row_json,
    size,
    streams_table,
)
from .work import Calibration, Target, Work

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
    check_vacant(dest, source)
    work = Work(source, calibration or Calibration(), say, offline)
    unmeasured = work.too_large() if measure else "not wanted"
    if recipe == AUTO and (too_large := work.too_large(search=True)):
        raise MoshiError(f"{AUTO} has to measure the model: {too_large}; name another recipe")
    if unmeasured and measure:
        say(f"its loss will not be measured: {unmeasured}")
    with destination(dest) as folder:
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
        chosen = work.choose(target) if any(map(auto.formats, work.parts)) else {}
        group = SMALLEST
        work.forget()
    else:
        chosen, group = plan(RECIPES[recipe], work.parts), RECIPES[recipe].least_group
    if not chosen:
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
    work.say(f"{recipe}: {size(work.cost({}).nbytes)} of weights in bfloat16 become {size(nbytes)}")
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
        "calibration": f"{work.calibration}, arithmetic in {str(work.dtype).rpartition('.')[2]}",
        "errors": errors,
        "loss": None,
        "loss_kv8_alone": None,
    }
    roles = {name: part.role for part in work.parts for name in work.in_file([part.name])}
    run: Table = [("time", "peak memory"), (f"{result['seconds']:.0f} s", size(result["peak_resident_bytes"]))]
    tables = [
        ("Size", recipes_table([Row(recipe, cost, None)])),
        ("Error of the weights", errors_table(errors, by_file, roles)),
        ("The run", run),
    ]
    return result, tables


def _prove(work: Work, chosen: Plan, dest: Path, result: dict[str, Any], tables: list[tuple[str, Table]]) -> None:
    """Adds the loss of what DEST holds."""
    recipe, cost = result["recipe"], work.cost(chosen)
    codes, reference = work.reference(recipe == AUTO)
    kv8 = None if cost.full_kv8 is None else compare(reference, logits(work.trial.lm({}), codes, 8))
    work.forget()
    losses = {recipe: compare(reference, logits(load(dest, dtype=work.dtype).lm, codes))}
    if kv8 is not None:
        losses[KV8] = kv8
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
    """Measures every recipe, and `auto` with as many bytes a frame as each, without writing weights. Gives plain data
    and tables; `folder` gets loss.svg and report.json.
    """
    work = Work(source, calibration or Calibration(), say, offline)
    if too_large := work.too_large(search=True):
        raise MoshiError(f"the recipes cannot be compared: {too_large}")
    if not any(auto.formats(matrix) for matrix in work.parts):
        raise MoshiError(f"groups of {SMALLEST} divide no width in {work.files.weights}: there is nothing to compare")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MoshiError(f"{folder} cannot be made: {error.strerror}; name another folder") from None
    plans = {name: plan(recipe, work.parts) for name, recipe in RECIPES.items()}
    rivals = {}
    for name, own in sorted(plans.items(), key=lambda item: work.cost(item[1]).frame_bits):
        bits = work.cost(own).frame_bits
        chosen = work.choose(Target(bits=bits))
        rivals[name] = next((known for known, other in plans.items() if other == chosen), f"{AUTO} {bits:.2f}")
        plans[rivals[name]] = chosen
    codes, reference = work.reference(after_auto=True)
    rows = {}
    for name, chosen in plans.items():
        rows[name] = Row(name, work.cost(chosen), work.trial.loss(chosen, codes, reference))
        say(f"{name}: done")
    result = {
        "source": str(work.files.located.label),
        "calibration": f"{work.calibration}, arithmetic in {str(work.dtype).rpartition('.')[2]}",
        "rows": [row_json(row) for row in rows.values()],
        "auto": rivals,
    }
    title = f"{work.files.located.label}: what each recipe costs"
    write_text(folder / "loss.svg", drawing(title, [_point(row) for row in rows.values()]))
    write_json(folder / "report.json", result)
    found = rivals_table([(rows[name], rows[rival]) for name, rival in rivals.items()])
    return result, [("Recipes", recipes_table(list(rows.values()))), ("auto with as many bytes a frame", found)]


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
