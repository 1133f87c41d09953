"""LoRAs of moshi-finetune: merged at load, the same as weights merged by hand; refused where they do not belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import hf_kit
import mlx.core as mx
import numpy as np
import pytest
from conftest import FIXTURES
from hf_kit import Arrays, logits, save
from mlx.utils import tree_flatten

import moshi_mlx
from moshi_mlx.checkpoints.names import split_audio_tables
from moshi_mlx.checkpoints.recognise import recognise
from moshi_mlx.frame import MoshiError


def adapters(name: str, spelling: str) -> tuple[Arrays, Arrays]:
    """A LoRA of rank 3 for every linear of a fixture in its spelling, and the fixture's weights merged by hand."""
    tensors = hf_kit.arrays_of(FIXTURES / name / "model.safetensors")
    rng, lora, merged = np.random.default_rng(9), {}, {}
    for key, weight in tensors.items():
        merged[key] = weight
        if weight.ndim != 2 or "emb" in key or "conditioners" in key:
            continue
        path = key.removesuffix(".weight").removesuffix("_weight")
        stacked = key.startswith("depformer.layers") and "self_attn" in key and "projs" not in key
        count = 8 if stacked and spelling != "fused" else 1
        parts = []
        for i, rows in enumerate(np.split(weight, count)):
            a = rng.standard_normal((3, rows.shape[1])).astype(np.float32) / 6
            b = rng.standard_normal((rows.shape[0], 3)).astype(np.float32) / 6
            if spelling == "split" and key.endswith(("in_proj_weight", "out_proj.weight")):
                path_i = f"{path}s.{i}"
            else:
                path_i = path
            for side, value in (("A", a), ("B", b)):
                lora.setdefault(f"{path_i}.lora_{side}.weight", []).append(value)
            parts.append(rows + 1.5 * b @ a)
        merged[key] = np.concatenate(parts)
    lora = {key: np.concatenate(values) for key, values in lora.items()}
    for key in ("text_emb.weight", "depformer_emb.1.weight"):
        lora[key] = merged[key] = rng.standard_normal(tensors[key].shape).astype(np.float32)
    return lora, merged


@pytest.mark.parametrize(
    ("name", "spelling"), [("moshi", "split"), ("moshi", "fused"), ("moshi", "stacked"), ("hibiki", "split")]
)
def test_lora_is_merged_at_load(writable: Callable, load: Callable, name: str, spelling: str) -> None:
    """An adapter silently ignored is the base model: everything seems to work."""
    folder = writable(name)
    lora, merged = adapters(name, spelling)
    assert recognise(lora, "x") == "LoRA"
    save(folder / "lora.safetensors", lora)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lora": True, "lora_rank": 3, "lora_scaling": 1.5}))
    got = logits(moshi_mlx.load(folder))
    (folder / "config.json").write_text(json.dumps(config | {"moshi_name": "consolidated.safetensors"}))
    save(folder / "consolidated.safetensors", merged)
    want = logits(moshi_mlx.load(folder))
    assert all(np.abs(a.astype(float) - b).max() < 1e-3 for a, b in zip(got, want, strict=True))
    assert np.abs(want[0] - logits(load(name))[0]).max() > 0.1


def test_lora_on_format_a(writable: Callable, tmp_path: Path) -> None:
    """The base may be the MLX file; dtypes must stay those of the base."""
    folder = writable("moshi")
    moshi = moshi_mlx.load(folder)
    named = split_audio_tables(dict(tree_flatten(moshi.lm.parameters())), moshi.config.lm)
    lora, merged = adapters("moshi", "split")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lora_name": "tune.safetensors", "lora_scaling": 1.5}))
    save(folder / "tune.safetensors", lora)
    for dtype in (mx.float32, mx.bfloat16):
        mx.save_safetensors(str(folder / "model.safetensors"), {n: v.astype(dtype) for n, v in named.items()})
        tuned = moshi_mlx.load(folder)
        assert {value.dtype for _, value in tree_flatten(tuned.lm.parameters())} == {dtype}
    save(folder / "model.safetensors", merged)
    (folder / "config.json").write_text(json.dumps(config))
    want = moshi_mlx.load(folder).lm.transformer.layers[1].gating.linear_in.weight
    got = tuned.lm.transformer.layers[1].gating.linear_in.weight.astype(mx.float32)
    assert mx.abs(got - want).max().item() < 0.02


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.update({"linears.0.lora_B.weight": np.zeros((32, 4), np.float32)}), "do not fit together"),
        (lambda t: t.pop("linears.0.lora_B.weight"), "do not fit together"),
        (lambda t: t.update({"linears.9.lora_A.weight": t["linears.0.lora_A.weight"]}), "linears.9"),
        (
            lambda t: t.update({f"x.lora_{s}.weight": t[f"linears.0.lora_{s}.weight"] for s in "AB"}),
            "its base has nothing",
        ),
        (lambda t: t.update({"text_linear.lora_B.weight": np.zeros((41, 3), np.float32)}), "wrong base"),
    ],
)
def test_loras_of_another_base(writable: Callable, edit: Callable[[Arrays], object], says: str) -> None:
    """A LoRA for another model must not be merged half."""
    folder = writable("moshi")
    lora, _ = adapters("moshi", "split")
    edit(lora)
    save(folder / "lora.safetensors", lora)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lora": True}))
    with pytest.raises(MoshiError, match=says):
        moshi_mlx.load(folder)


def test_lora_without_its_base(writable: Callable) -> None:
    """What a run of moshi-finetune writes: the adapter and a config that names weights which are not there."""
    folder = writable("moshi")
    save(folder / "lora.safetensors", adapters("moshi", "split")[0])
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lora": True}))
    with pytest.raises(MoshiError, match="models merge"):
        moshi_mlx.load(folder)


def test_lora_on_quantized_base(writable: Callable) -> None:
    """A sum of packed integers and a matrix is noise."""
    folder = writable("moshi")
    wide = mx.random.normal((40, 64))
    packed = dict(zip(("weight", "scales", "biases"), mx.quantize(wide, 32, 4), strict=True))
    moshi = moshi_mlx.load(folder)
    named = split_audio_tables(dict(tree_flatten(moshi.lm.parameters())), moshi.config.lm)
    named |= {f"text_linear.{leaf}": value for leaf, value in packed.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), named)
    save(folder / "lora.safetensors", adapters("moshi", "split")[0])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lora": True}))
    with pytest.raises(MoshiError, match="cannot be merged into quantized"):
        moshi_mlx.load(folder)
