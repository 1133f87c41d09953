"""`moshi-mlx models merge`: a LoRA and its base become one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import hf_kit
import numpy as np
import pytest
from hf_kit import equal, logits
from test_lora import adapters

import moshi_mlx
from moshi_mlx.cli.main import main


def test_merge(writable: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The merged folder must stand alone and say what the merge at load says."""
    base = writable("moshi")
    tune = tmp_path / "tune"
    tune.mkdir()
    hf_kit.save(tune / "lora.safetensors", adapters("moshi", "split")[0])
    config = json.loads((base / "config.json").read_text())
    (tune / "config.json").write_text(json.dumps(config | {"lora": True, "lora_rank": 3, "lora_scaling": 1.5}))
    out = tmp_path / "merged"
    assert main(["models", "merge", str(tune), "--base", str(base), "-o", str(out)]) == 0
    assert "chat --model" in capsys.readouterr().err
    made = json.loads((out / "config.json").read_text())
    assert not {key for key in made if key.startswith("lora")}
    shutil.copy(tune / "lora.safetensors", base)
    (base / "config.json").write_text((tune / "config.json").read_text())
    want = moshi_mlx.load(base)
    shutil.rmtree(tune)
    got = moshi_mlx.load(out)
    assert equal(logits(got), logits(want))
    assert got.config == want.config
    pcm = np.zeros((1, 1920, 1), np.float32)
    assert np.array_equal(np.array(got.mimi.encode(pcm)), np.array(want.mimi.encode(pcm)))


def test_merge_keeps_a_codec_that_lies_in_the_weights(tmp_path: Path) -> None:
    """In transformers' layout the codec is in the file that a LoRA changes: an empty codec was written."""
    base, tune, out = hf_kit.write_moshi(tmp_path / "base", 1), tmp_path / "tune", tmp_path / "out"
    tune.mkdir()
    hf_kit.save(tune / "lora.safetensors", adapters("moshi", "split")[0])
    (tune / "config.json").write_text(json.dumps({"lora": True, "lora_scaling": 1.5}))
    assert main(["models", "merge", str(tune), "--base", str(base), "-o", str(out)]) == 0
    pcm = np.random.default_rng(0).normal(0, 0.1, (1, 1920, 1)).astype(np.float32)
    codes = [np.array(moshi_mlx.load(folder).mimi.encode(pcm)) for folder in (base, out)]
    assert np.array_equal(*codes)
