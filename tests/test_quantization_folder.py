"""DEST: all or nothing, never over something else, and described so that other programs read it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import sys
from pathlib import Path
from types import FrameType

import hf_kit
import mlx.core as mx
import numpy as np
import pytest
from quantization_kit import BASE, FIXTURES, HIBIKI, NARROW, make, make_source

import moshi_mlx
from moshi_mlx.checkpoints import new_folder
from moshi_mlx.checkpoints.codec_config import mimi_config
from moshi_mlx.checkpoints.config_file import moshi_config
from moshi_mlx.checkpoints.describe import describe, describe_codec
from moshi_mlx.checkpoints.load import load_codec, open_checkpoint
from moshi_mlx.frame import MoshiError
from moshi_mlx.models.config import LmConfig, MimiConfig, MoshiConfig
from moshi_mlx.quantization import job
from moshi_mlx.quantization.job import quantize
from moshi_mlx.quantization.work import Calibration

PUBLISHED_CODEC = FIXTURES / "mimi" / "mimi.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("folder") / "source")


def test_a_codec_inside_the_weights_is_written_out(tmp_path: Path) -> None:
    """Guards against DEST without a codec, or with another one, where the source is one of transformers' files, which
    hold everything."""
    files = open_checkpoint(hf_kit.write_moshi(tmp_path / "hf"))
    names = new_folder.companions(files, "model.safetensors")
    made = tmp_path / "out"
    made.mkdir()
    new_folder.write_companions(files, names, made)
    size = sum((made / name).stat().st_size for _, name in names.values())
    assert 0.9 * size < new_folder.companions_size(files, names) < size
    raw = new_folder.config_json(files, "model.safetensors", names, {})
    assert (raw["mimi_name"], raw["mimi_config_name"]) == ("mimi.safetensors", "mimi.json")
    codec = mimi_config(json.loads((made / "mimi.json").read_text()), "mimi.json")
    assert moshi_config(raw, "config.json", codec) == files.config
    pcm = np.random.default_rng(0).normal(0, 0.1, (1, 4 * 1920, 1)).astype(np.float32)
    codes = [load_codec(path, files.config.mimi).encode(pcm) for path in (made / "mimi.safetensors", PUBLISHED_CODEC)]
    assert mx.array_equal(*codes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        NARROW,
        HIBIKI,
        {"kv_repeat": 2, "positional_embedding": "rope_concat"},
        {"dim": 352, "hidden_scale": 2.665},  # 938 / 352 · 352 is a little less than 938
        {"lm_gen_config": {"temp": 0.5, "top_k_text": 7}},
    ],
)
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


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_an_existing_dest_is_not_touched(source: Path, tmp_path: Path, there: str) -> None:
    """Guards against overwriting somebody's model."""
    dest = tmp_path / "dest"
    if there == "folder":
        dest.mkdir()
    elif there == "file":
        dest.write_text("mine")
    else:
        dest.symlink_to(tmp_path / "nowhere")
    with pytest.raises(MoshiError, match="exists already"):
        make(source, dest)
    assert [path.name for path in tmp_path.iterdir()] == ["dest"]


def test_source_as_dest_is_refused(tmp_path: Path) -> None:
    """Guards against a conversion that truncates what it reads."""
    source = make_source(tmp_path / "source")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(MoshiError, match="is the model that is read"):
        make(source, tmp_path / "source" / ".." / "source")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def interrupted(source: Path, dest: Path, at: int) -> int:
    """A run that is interrupted at the at-th call of a function of this package; gives the calls there were."""
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if event == "call" and "moshi_mlx" in frame.f_code.co_filename:
            calls += 1
            if calls == at:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        make(source, dest, "uniform-4", measure=True, calibration=Calibration(sequences=1, frames=3))
    finally:
        sys.setprofile(before)
    return calls


def test_an_interrupt_at_any_moment_leaves_all_or_nothing(source: Path, tmp_path: Path) -> None:
    """Guards against half a checkpoint that looks whole, and against losing a whole one that only lacks its proof."""
    dest = tmp_path / "out"
    total = interrupted(source, dest, 0)
    shutil.rmtree(dest)
    outcomes = []
    for at in np.linspace(1, total, 10).astype(int).tolist():
        with contextlib.suppress(KeyboardInterrupt):  # the last call may not come again: some things happen once
            interrupted(source, dest, at)
        assert [path.name for path in tmp_path.iterdir()] in ([], ["out"]), at
        outcomes.append(dest.exists())
        if dest.exists():
            moshi_mlx.load(dest)
            assert (dest / "README.md").exists()
            shutil.rmtree(dest)
    assert outcomes == sorted(outcomes)  # nothing, then all
    assert set(outcomes) == {False, True}


def test_an_interrupt_while_measuring_keeps_the_checkpoint(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against losing an hour's conversion because the measurement after it was stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_prove", stop)
    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "out", measure=True)
    moshi_mlx.load(tmp_path / "out")
    assert "was not measured** (the measurement was interrupted)" in (tmp_path / "out" / "README.md").read_text()


def test_a_leftover_of_a_killed_run_is_named(source: Path, tmp_path: Path) -> None:
    """Guards against two runs that write into each other, and against silent gigabytes of a killed one."""
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(MoshiError, match=r"out\.partial exists: another run"):
        make(source, tmp_path / "out")


@pytest.mark.parametrize("limit", [0, 1_000, 60_000, 120_000, 200_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(source: Path, tmp_path: Path, limit: int) -> None:
    """Guards against a traceback and a half-written folder when the disk fills at any file: the system itself refuses
    what goes beyond `limit`, at the header, among the tensors, in the copied codec."""
    sizes = [path.stat().st_size for path in source.iterdir()]
    assert limit < max(sizes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(MoshiError, match="the disk is full") as error:
            make(source, tmp_path / "out", "uniform-4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after", [False, True], ids=["config.json", "the measured card"])
def test_a_full_disk_at_the_small_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Guards against losing a whole checkpoint because its measured card finds no room; before it is whole, nothing
    stays."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def prove(*_: object) -> None:
        monkeypatch.setattr(new_folder, "write_beside", fail)

    monkeypatch.setattr(*((job, "_prove", prove) if after else (new_folder, "write_beside", fail)))
    with pytest.raises(MoshiError, match="the disk is full"):
        make(source, tmp_path / "out", "uniform-4", measure=True)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if after else [])
    if after:
        moshi_mlx.load(tmp_path / "out")
        assert "was not measured" in (tmp_path / "out" / "README.md").read_text()


def test_too_little_room_is_known_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against filling the disk for an hour and failing at the end."""
    usage = shutil.disk_usage(tmp_path)._replace(free=200_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    reports: list[object] = []
    with pytest.raises(MoshiError, match="free some space"):
        quantize(source, tmp_path / "out", "uniform-4", lambda *a: reports.append(a), print, measure=False)
    assert reports == []
    assert list(tmp_path.iterdir()) == []
