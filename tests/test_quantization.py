"""Quantized checkpoints: exact values, the published layout, every recipe from every source, nothing lost."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from pathlib import Path

import hf_kit
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from quantization_kit import BASE, FIXTURES, HIBIKI, LAYOUTS, NARROW, make_source, random_lm

import moshi_mlx
from moshi_mlx.checkpoints.codec_config import mimi_config
from moshi_mlx.checkpoints.config_file import moshi_config
from moshi_mlx.checkpoints.header import read_header
from moshi_mlx.checkpoints.load import load_codec, open_checkpoint
from moshi_mlx.checkpoints.names import split_audio_tables
from moshi_mlx.frame import MoshiError
from moshi_mlx.models.config import LmConfig, MimiConfig, MoshiConfig
from moshi_mlx.quantization import folder as folder_module
from moshi_mlx.quantization import job
from moshi_mlx.quantization.convert import convert, file_plan
from moshi_mlx.quantization.describe import describe, describe_codec
from moshi_mlx.quantization.formats import Format, cost, kv_bytes, matrices
from moshi_mlx.quantization.job import quantize
from moshi_mlx.quantization.recipes import RECIPES, plan
from moshi_mlx.quantization.work import Calibration, Target, Work
from moshi_mlx.quantization.writer import TensorWriter

FEW = Calibration(sequences=2, frames=10)
PUBLISHED_CODEC = FIXTURES / "mimi" / "mimi.safetensors"


def make(source: Path, dest: Path, recipe: str = "mixed-4-8", **options: object) -> dict:
    options = {"measure": False, "calibration": FEW} | options
    return quantize(source, dest, recipe, lambda *_: None, lambda _: None, **options)[0]


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
        for leaf, value in zip(("weight", "scales", "biases"), mx.quantize(weight, how.group, how.bits), strict=True):
            assert mx.array_equal(module[leaf], value), (name, leaf)
    for name, value in tree_flatten(made.parameters()):
        if "norm" in name:
            assert mx.array_equal(value, dict(tree_flatten(source.parameters()))[name])


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
    with pytest.raises(MoshiError, match="groups of 64 divide no width"):
        make(source, tmp_path / "out", "uniform-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_codec_inside_the_weights_is_written_out(tmp_path: Path) -> None:
    """Guards against DEST without a codec, or with another one, where the source is one of transformers' files, which
    hold everything."""
    files = open_checkpoint(hf_kit.write_moshi(tmp_path / "hf"))
    names = folder_module.companions(files, "model.safetensors")
    made = tmp_path / "out"
    made.mkdir()
    folder_module.write_companions(files, names, made)
    size = sum((made / name).stat().st_size for _, name in names.values())
    assert 0.9 * size < folder_module.companions_size(files, names) < size
    raw = folder_module.config_json(files, "model.safetensors", names, {})
    assert (raw["mimi_name"], raw["mimi_config_name"]) == ("mimi.safetensors", "mimi.json")
    codec = mimi_config(json.loads((made / "mimi.json").read_text()), "mimi.json")
    assert moshi_config(raw, "config.json", codec) == files.config
    pcm = np.random.default_rng(0).normal(0, 0.1, (1, 4 * 1920, 1)).astype(np.float32)
    codes = [load_codec(path, files.config.mimi).encode(pcm) for path in (made / "mimi.safetensors", PUBLISHED_CODEC)]
    assert mx.array_equal(*codes)


@pytest.mark.parametrize("changes", [{}, NARROW, HIBIKI, {"kv_repeat": 2, "positional_embedding": "rope_concat"}])
def test_descriptions_read_back(changes: dict) -> None:
    """Guards against a config.json that describes another model than the one it lies beside."""
    config = moshi_config(BASE | changes, "x", MimiConfig(codebook_size=32))
    assert moshi_config(describe(config), "x", MimiConfig(codebook_size=32)) == config


def test_the_7b_description_is_the_published_one() -> None:
    """Guards against a q4 of the 7B, whose source has no config.json, that other programs build with other widths."""
    raw = describe(MoshiConfig())
    assert moshi_config(raw, "x", MimiConfig()).lm == LmConfig()
    assert (raw["hidden_scale"], raw["depformer_dim_feedforward"], raw["depformer_context"]) == (4.125, 4224, 8)
    assert mimi_config(describe_codec(MimiConfig()), "x") == MimiConfig(codebooks=32)


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
    # DESIGN's budget at a full window of 3,000 frames with 8-bit keys and values (issue 9)
    assert (by_name["uniform-4"].full_kv8 or 0) <= 5.5e9
    assert (by_name["mixed-4-8"].full_kv8 or 0) <= 5.4e9
    lighter = {part.name: Format(3, 64) for part in parts}
    assert (cost(lighter, parts, lm.config, norms).full_kv8 or 0) <= 4.4e9


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_an_existing_dest_is_not_touched(sources: dict[str, Path], tmp_path: Path, there: str) -> None:
    """Guards against overwriting somebody's model."""
    dest = tmp_path / "dest"
    if there == "folder":
        dest.mkdir()
    elif there == "file":
        dest.write_text("mine")
    else:
        dest.symlink_to(tmp_path / "nowhere")
    with pytest.raises(MoshiError, match="exists already"):
        make(sources["A"], dest)
    assert [path.name for path in tmp_path.iterdir()] == ["dest"]


def test_source_as_dest_is_refused(tmp_path: Path) -> None:
    """Guards against a conversion that truncates what it reads."""
    source = make_source(tmp_path / "source")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(MoshiError, match="is the model that is read"):
        make(source, tmp_path / "source" / ".." / "source")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


class Interrupted:
    """A progress report that interrupts at the n-th call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, file: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [1, 9, 40])
def test_an_interrupt_leaves_nothing(sources: dict[str, Path], tmp_path: Path, at: int) -> None:
    """Guards against half a checkpoint that looks whole."""
    with pytest.raises(KeyboardInterrupt):
        quantize(sources["A"], tmp_path / "out", "uniform-4", Interrupted(at), print, measure=False)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_measuring_keeps_the_checkpoint(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against losing an hour's conversion because the measurement after it was stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_prove", stop)
    with pytest.raises(KeyboardInterrupt):
        make(sources["A"], tmp_path / "out", measure=True)
    moshi_mlx.load(tmp_path / "out")
    assert "was not measured** (the measurement was interrupted)" in (tmp_path / "out" / "README.md").read_text()


def test_a_leftover_of_a_killed_run_is_named(sources: dict[str, Path], tmp_path: Path) -> None:
    """Guards against two runs that write into each other, and against silent gigabytes of a killed one."""
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(MoshiError, match=r"out\.partial exists: another run"):
        make(sources["A"], tmp_path / "out")


@pytest.mark.parametrize("name", ["model.q4.safetensors", "mimi.safetensors", "config.json"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Guards against a traceback and a half-written folder when the disk fills at any file."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if name.startswith("model"):
        written = TensorWriter.write

        def write(self: TensorWriter, *arguments: object) -> None:
            written(self, *arguments)
            if self.written > 100_000:
                self._file.close()
                self._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115

        monkeypatch.setattr(TensorWriter, "write", write)
    elif name.startswith("mimi"):
        monkeypatch.setattr(shutil, "copyfile", fail)
    else:
        monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(MoshiError, match="the disk is full"):
        make(sources["A"], tmp_path / "out", "uniform-4")
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_known_before_anything_is_written(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against filling the disk for an hour and failing at the end."""
    usage = shutil.disk_usage(tmp_path)._replace(free=200_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    reports: list[object] = []
    with pytest.raises(MoshiError, match="free some space"):
        quantize(sources["A"], tmp_path / "out", "uniform-4", lambda *a: reports.append(a), print, measure=False)
    assert reports == []
    assert list(tmp_path.iterdir()) == []


def test_auto_needs_memory_to_measure(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a machine that swaps for hours: what cannot be measured is said, and other recipes still work."""
    monkeypatch.setattr("moshi_mlx.quantization.work.MEMORY", 0.0)
    with pytest.raises(MoshiError, match="auto has to measure"):
        make(sources["A"], tmp_path / "out", "auto", target=Target(bits=5), measure=True)
    result = make(sources["A"], tmp_path / "out", measure=True)
    assert "this machine has" in result["unmeasured"]
