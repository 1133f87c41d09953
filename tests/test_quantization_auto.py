"""Choosing bits by what they cost."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from quantization_kit import FEW, SMALL, make, make_source

import moshi_mlx
from moshi_mlx.frame import MoshiError
from moshi_mlx.quantization import auto
from moshi_mlx.quantization.formats import DEPTH, EMBEDDINGS, HEADS, TEMPORAL, Matrix
from moshi_mlx.quantization.job import compare_recipes, quantize
from moshi_mlx.quantization.measure import compare, logits
from moshi_mlx.quantization.recipes import RECIPES, plan
from moshi_mlx.quantization.report import plain
from moshi_mlx.quantization.sensitivity import traces
from moshi_mlx.quantization.work import Target, Work


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("auto") / "source", **SMALL)


@pytest.fixture(scope="module")
def work(source: Path) -> Work:
    return Work(source, FEW, lambda _: None)


def test_what_is_tried_is_what_is_written(source: Path, tmp_path: Path, work: Work) -> None:
    """Guards against a search that measures something else than what is written, and against a plan that leaves traces
    in the next one."""
    make(source, tmp_path / "out", "mixed-3-6")
    chosen = plan(RECIPES["mixed-3-6"], work.parts)
    original = dict(tree_flatten(work.trial.lm({}).parameters()))
    work.trial.lm(plan(RECIPES["uniform-5"], work.parts[:7]))
    tried = dict(work.trial.lm(chosen).named_modules())
    written = dict(moshi_mlx.load(tmp_path / "out", dtype=mx.float32).lm.named_modules())
    for name in chosen:
        made = written[name]
        value = mx.dequantize(made.weight, made.scales, made.biases, made.group_size, made.bits)
        assert mx.array_equal(tried[name].weight, value), name
        assert not mx.array_equal(value, original[f"{name}.weight"])
    for name, value in tree_flatten(work.trial.lm({}).parameters()):
        assert mx.array_equal(value, original[name]), name


def test_gradients_tell_the_loss_of_small_errors(work: Work) -> None:
    """Guards against a sensitivity that is scaled wrongly between streams, frames or matrices: random errors of the
    weights must cost what it says."""
    names = ["text_emb", "text_linear", "transformer.layers.0.gating.linear_in", "depformer.slices.1.linear_out"]
    names += ["audio_emb", "transformer.layers.0.self_attn.out_proj", "depformer.slices.0.linear_in"]
    lm, codes = work.trial.lm({}), work._wide
    reference = logits(lm, codes)
    twice = traces(lm, names, np.tile(codes, (12, 1, 1)), lambda _: None)  # as many passes as make chance small
    modules = dict(lm.named_modules())
    for name in names:
        own, size = modules[name].weight, 0.01 * mx.sqrt(mx.square(modules[name].weight).mean())
        losses = []
        for seed in range(12):
            modules[name].weight = own + size * mx.random.normal(own.shape, key=mx.random.key(seed))
            losses.append(compare(reference, logits(lm, codes)).total)
        modules[name].weight = own
        assert 0.75 < np.mean(losses) / (twice[name] / 2 * size.item() ** 2) < 1.33, name


SIZES = st.tuples(st.sampled_from([TEMPORAL, DEPTH, HEADS, EMBEDDINGS]), st.integers(1, 9), st.integers(1, 5))
ALL = len(auto.BITS) * len(auto.GROUPS)
LOSSES = st.lists(st.floats(0, 10), min_size=ALL, max_size=ALL)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SIZES, LOSSES), min_size=1, max_size=12), st.lists(st.floats(3.5, 9), max_size=6))
def test_auto_keeps_every_budget_and_only_gains(given_matrices: list, budgets: list[float]) -> None:
    """Guards against a plan over its budget, a family that loses members when the budget grows (then more budget could
    mean more loss), and upgrades that take bytes away."""
    known, losses = [], {}
    for index, ((role, rows, columns), values) in enumerate(given_matrices):
        matrix = Matrix(f"m{index}", 8 * rows, 32 * columns, role, 1 if role == EMBEDDINGS else None)
        known.append(matrix)
        losses[matrix.name] = dict(zip(auto.formats(matrix), values, strict=False))
    made = [auto.size_budget(bits * sum(m.weights for m in known) / 8 + 1_000, known, 1_000) for bits in budgets]
    if any(matrix.lookups is None for matrix in known):
        made += [auto.bits_budget(bits, known) for bits in budgets]
    for kind in (made[: len(budgets)], made[len(budgets) :]):
        family: dict = {}
        for budget in sorted(kind, key=lambda b: b.limit):
            along = auto.path(known, losses, budget.nbytes)
            for less, more in pairwise(along):
                assert less.keys() == more.keys() == losses.keys()
                changed = [matrix for matrix in known if less[matrix.name] != more[matrix.name]]
                assert all(m.nbytes(less[m.name]) < m.nbytes(more[m.name]) for m in changed)
                assert len(changed) == 1
            if budget.spent(along[0], known) > budget.limit:
                with pytest.raises(MoshiError, match="too small"):
                    auto.candidates(along, known, budget)
                continue
            found = auto.candidates(along, known, budget)
            assert found
            assert all(budget.spent(chosen, known) <= budget.limit for chosen in found.values())
            assert family.items() <= found.items()
            family = found


def test_embeddings_get_many_bits_where_bandwidth_counts(work: Work) -> None:
    """Guards against saving bits of a table, a row of which is read, where a budget of bandwidth does not ask for it,
    and against sparing them where the size counts."""
    chosen = work.choose(Target(bits=5))
    assert chosen["text_emb"].bits == chosen["audio_emb"].bits == 8
    chosen = work.choose(Target(gigabytes=work.cost(chosen).nbytes / 1e9))
    assert max(chosen["text_emb"].bits, chosen["audio_emb"].bits) < 8


def test_auto_is_monotone_and_beats_the_recipes(work: Work) -> None:
    """The promise itself: never over budget; more budget, not more loss; no recipe within the budget is better."""
    codes, reference = work._choosing
    others = [plan(recipe, work.parts) for recipe in RECIPES.values()]
    known = [(work.cost(other).frame_bits, work.trial.loss(other, codes, reference).total) for other in others]
    losses = []
    for bits in (3.5, 4.25, 5, 7, 12):
        chosen = work.choose(Target(bits=bits))
        assert work.cost(chosen).frame_bits <= bits
        losses.append(work.trial.loss(chosen, codes, reference).total)
        assert losses[-1] <= min(loss for spent, loss in known if spent <= bits)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 4


def test_a_source_that_changes_is_noticed(tmp_path: Path) -> None:
    """It happened: the weights were trained on while the recipes were compared, so that every plan was measured
    against another model, and the fewest bits won."""
    work = Work(make_source(tmp_path / "source", **SMALL), FEW, lambda _: None)
    make_source(tmp_path / "other", **SMALL, max_period=50)
    (tmp_path / "other" / "model.safetensors").replace(work.files.weights)
    with pytest.raises(MoshiError, match="changed while it was read"):
        work.choose(Target(bits=5))


def test_a_budget_in_gigabytes_is_kept_on_disk(source: Path, tmp_path: Path, work: Work) -> None:
    """Guards against a file larger than what was asked for, and against numbers in the card that the file belies."""
    options = {"target": Target(gigabytes=0.0001), "calibration": FEW}
    result, tables = quantize(source, tmp_path / "out", "auto", lambda *_: None, lambda _: None, **options)
    arrays = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert sum(value.nbytes for value in arrays.values()) == result["cost"]["nbytes"] <= 100_000
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == result
    assert result["unmeasured"] is None
    assert result["loss"]["total"] == pytest.approx(sum(result["loss"]["kl"]))
    assert len(result["loss"]["kl"]) == 3
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"{result['loss']['kl'][0]:.3g}" in readme
    assert "codebook 2" in plain(tables[1][1])
    with pytest.raises(MoshiError, match="budget is too small"):
        work.choose(Target(gigabytes=0.00003))


def test_comparison_measures_every_recipe_and_draws_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a plot that leaves recipes out or that no browser reads, against a rival that was given more bytes
    than the recipe beside it, and against weights on the side."""
    monkeypatch.setattr(auto, "STEP", 0.5)
    result, tables = compare_recipes(source, tmp_path / "report", lambda _: None, calibration=FEW)
    rows = {row["name"]: row for row in result["rows"]}
    assert set(RECIPES) < set(rows)
    assert result["auto"].keys() == RECIPES.keys()
    for name, rival in result["auto"].items():
        assert rows[rival]["cost"]["frame"] <= rows[name]["cost"]["frame"]
    names = list(rows)
    assert any(name.startswith("auto") for name in names)
    assert [row[0] for row in tables[0][1][1:]] == names
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["loss.svg", "report.json"]
    root = ET.parse(tmp_path / "report" / "loss.svg").getroot()
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(names) + 3  # and the legend
    assert all(0 < float(c.get("cx")) < 760 and 0 < float(c.get("cy")) < 480 for c in circles)
    text = " ".join(node.text or "" for node in root.iter())
    assert all(label in text for label in ("mixed-4-8", "nats a frame", "auto"))
