"""Quantized checkpoints: exact values, the published layout, every recipe from every source, nothing lost."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from quantization_kit import BASE, FEW, HIBIKI, LAYOUTS, NARROW, make, make_source, random_lm

import moshi_mlx
from moshi_mlx.checkpoints.header import read_header
from moshi_mlx.checkpoints.names import split_audio_tables
from moshi_mlx.checkpoints.writer import TensorWriter
from moshi_mlx.frame import MoshiError
from moshi_mlx.models.config import LmConfig
from moshi_mlx.quantization.convert import convert, file_plan
from moshi_mlx.quantization.formats import Format, cost, kv_bytes, matrices
from moshi_mlx.quantization.job import compare_recipes
from moshi_mlx.quantization.recipes import RECIPES, plan
from moshi_mlx.quantization.work import Target, Work


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {layout: make_source(folder / layout, layout) for layout in LAYOUTS}


def test_writer_equals_mlx_for_pieces_in_any_order(tmp_path: Path) -> None:
    """Guards against wrong offsets, byte orders and headers: MLX reads back exactly what was written in pieces."""
    arrays = {
        "a": mx.random.normal((7, 3)).astype(mx.bfloat16),
        "b.long.name": mx.arange(12, dtype=mx.uint32).reshape(4, 3),
        "c": mx.array(2.5),
        "empty": mx.zeros((0, 4)),
    }
    path = tmp_path / "x.safetensors"
    with TensorWriter(path, {name: (value.dtype, tuple(value.shape)) for name, value in arrays.items()}) as out:
        out.write("b.long.name", arrays["b.long.name"][:1])
        out.write("a", arrays["a"][:5])
        out.write("c", arrays["c"])
        out.write("b.long.name", arrays["b.long.name"][1:])
        out.write("a", arrays["a"].T[:, 5:].T)  # not contiguous
    read_header(path)
    loaded = mx.load(str(path))
    assert loaded.keys() == arrays.keys()
    for name, value in arrays.items():
        assert loaded[name].dtype == value.dtype
        assert mx.array_equal(loaded[name], value)


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (5, 4), (4, 5)])
def test_writer_refuses_what_was_not_announced(tmp_path: Path, rows: int, columns: int) -> None:
    """Guards against a short or a long tensor silently shifting the meaning of the others' bytes."""
    with pytest.raises(ValueError), TensorWriter(tmp_path / "x", {"a": (mx.float32, (4, 4))}) as out:
        out.write("a", mx.zeros((rows, columns)))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_recipe_from_every_layout(sources: dict[str, Path], tmp_path: Path, layout: str, recipe: str) -> None:
    """Guards against recipes or layouts that were never tried together: the values are those of MLX's own quantize on
    the source's weights, matrix by matrix, and everything else is untouched."""
    source = moshi_mlx.load(sources[layout]).lm
    make(sources[layout], tmp_path / "out", recipe)
    made = moshi_mlx.load(tmp_path / "out").lm
    chosen = plan(RECIPES[recipe], matrices(source))
    assert len(chosen) == len(matrices(source))
    modules, originals = dict(made.named_modules()), dict(source.named_modules())
    for name, how in chosen.items():
        module, original = modules[name], originals[name]
        weight = original.weight
        if isinstance(original, nn.QuantizedLinear | nn.QuantizedEmbedding):
            weight = mx.dequantize(weight, original.scales, original.biases, original.group_size, original.bits)
        assert (module.bits, module.group_size) == (how.bits, how.group)
        packed = mx.quantize(weight.astype(mx.bfloat16), how.group, how.bits)
        for leaf, value in zip(("weight", "scales", "biases"), packed, strict=True):
            assert mx.array_equal(module[leaf], value), (name, leaf)
    before = dict(tree_flatten(source.parameters()))
    for name, value in tree_flatten(made.parameters()):
        if "norm" in name:
            assert mx.array_equal(value, before[name].astype(mx.bfloat16))


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (8, 64)])
def test_published_layout_is_nn_quantize_of_the_whole_model(
    sources: dict[str, Path], tmp_path: Path, bits: int, group: int
) -> None:
    """Guards against any name, dtype, shape or value that differs from Kyutai's q4 and q8 files."""
    lm = random_lm(BASE)
    nn.quantize(lm, group, bits)
    tables = {}
    for name, value in split_audio_tables(dict(tree_flatten(lm.parameters())), lm.config).items():
        tables[name] = value
    make(sources["A"], tmp_path / "out", f"uniform-{bits}")
    made = mx.load(str(tmp_path / "out" / f"model.q{bits}.safetensors"))
    assert made.keys() == tables.keys()
    for name, value in tables.items():
        assert made[name].dtype == value.dtype
        assert mx.array_equal(made[name], value), name


def test_float32_sources_become_the_published_dtype(tmp_path: Path) -> None:
    """Guards against scales in fp32, which would make a 4-bit file a fifth larger than the published one."""
    make(make_source(tmp_path / "source", dtype=mx.float32), tmp_path / "out", "uniform-4")
    header = read_header(tmp_path / "out" / "model.q4.safetensors")
    assert {info.dtype for info in header.tensors.values()} == {"U32", "BF16"}


def test_widths_that_no_group_divides_are_kept_and_named(tmp_path: Path) -> None:
    """Guards against the crash of `nn.quantize` on Hibiki's 16-wide table, and against silent exceptions."""
    source = make_source(tmp_path / "source", **NARROW, **HIBIKI)
    result = make(source, tmp_path / "out", "mixed-4-8")
    kept = set(result["kept"])
    assert "condition_provider.conditioners.description.embed" in kept  # 16 wide
    assert "depformer.slices.0.transformer.layers.0.self_attn.out_proj" in kept  # 48 wide
    assert "depformer.slices.0.linear_in" not in kept  # 128 wide
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name for name, how in config["quantization"]["exceptions"].items() if how is False} == kept
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(name in readme for name in kept)
    codes = np.random.default_rng(0).integers(32, size=(1, 5, 20))
    logits = [moshi_mlx.load(path).lm.logits(codes).text for path in (source, tmp_path / "out")]
    assert 0 < mx.abs(logits[0] - logits[1]).max().item() < mx.abs(logits[0]).max().item()


def test_low_rank_tables_stay_and_their_projections_do_not(tmp_path: Path) -> None:
    """Guards against quantizing a table that has no quantized form in the loader."""
    result = make(make_source(tmp_path / "source", **HIBIKI), tmp_path / "out", "uniform-4")
    header = read_header(tmp_path / "out" / "model.q4.safetensors")
    assert header.tensors["depformer.slices.1.emb.weight"].dtype == "BF16"
    assert header.tensors["depformer.slices.1.emb.low_rank.weight"].dtype == "U32"
    assert result["kept"] == [
        f"condition_provider.conditioners.description.{leaf}" for leaf in ("embed", "output_proj")
    ]


def test_nothing_to_quantize_is_said(tmp_path: Path) -> None:
    """Guards against a "quantized" checkpoint that is as large as its source."""
    source = make_source(tmp_path / "source", dim=48, num_heads=2, **NARROW)
    for group, recipe, options in ((64, "uniform-8", {}), (32, "auto", {"target": Target(bits=5)})):
        with pytest.raises(MoshiError, match=f"groups of {group} divide no width"):
            make(source, tmp_path / "out", recipe, **options)
    with pytest.raises(MoshiError, match="groups of 32 divide no width"):
        compare_recipes(source, tmp_path / "report", print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_weight_that_was_written_is_forgotten(
    sources: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A model was a cycle of references through its compiled step, so that it outlived its use and kept every weight
    that was read: 7.4 GB halfway through the 7B."""
    gc.collect()
    gc.disable()  # would hide a cycle sooner or later
    request.addfinalizer(gc.enable)
    work = Work(sources["A"], FEW, lambda _: None)
    tensors = work.tensors()
    largest = max(value.nbytes for value in tensors.values())
    total = sum(value.nbytes for value in tensors.values())
    held: list[int] = []
    before = mx.get_active_memory()
    chosen = file_plan(plan(RECIPES["uniform-4"], work.parts), tensors)
    convert(tensors, chosen, tmp_path / "x.safetensors", lambda *_: held.append(mx.get_active_memory() - before))
    assert max(held) < total / 4 + largest


def test_published_sizes_of_the_7b() -> None:
    """Guards against wrong accounting: size and bytes a frame of the published files (spec, moshi.md section 9)."""
    from moshi_mlx.models.lm import Lm

    lm = Lm(LmConfig())
    parts = matrices(lm)
    norms = 2 * sum(value.size for name, value in tree_flatten(lm.parameters()) if "norm" in name)
    by_name = {name: cost(plan(recipe, parts), parts, lm.config, norms) for name, recipe in RECIPES.items()}
    assert by_name["uniform-4"].nbytes == 4_805_385_728
    assert by_name["uniform-8"].nbytes == 8_168_645_376
    assert cost({}, parts, lm.config, norms).nbytes == 15_375_630_336
    assert round(by_name["uniform-4"].frame / 1e9, 2) == 4.61
    assert round(by_name["uniform-8"].frame / 1e9, 2) == 7.84
    assert kv_bytes(lm.config, None) == 3000 * (512 << 10)
    # what 80 ms leave at a full window of 3,000 frames with 8-bit keys and values
    assert (by_name["uniform-4"].full_kv8 or 0) <= 5.5e9
    assert (by_name["mixed-4-8"].full_kv8 or 0) <= 5.4e9
    lighter = {part.name: Format(3, 64) for part in parts}
    assert (cost(lighter, parts, lm.config, norms).full_kv8 or 0) <= 4.4e9


def test_auto_needs_memory_to_measure(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a machine that swaps for hours: what cannot be measured is said, and other recipes still work."""
    monkeypatch.setattr("moshi_mlx.quantization.work.MEMORY", 0.0)
    with pytest.raises(MoshiError, match="auto has to measure"):
        make(sources["A"], tmp_path / "out", "auto", target=Target(bits=5), measure=True)
    result = make(sources["A"], tmp_path / "out", measure=True)
    assert "MLX may use" in result["unmeasured"]
