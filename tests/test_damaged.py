"""A corpus of damaged checkpoints: one line each, no traceback, no memory balloon, nothing written.

(Headers that lie are in test_header.py, wrong configurations in test_load.py, the network in test_download.py.)
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from conftest import copy_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from load_kit import change

import moshi_mlx
from moshi_mlx.checkpoints.load import read_tensors
from moshi_mlx.cli.main import main
from moshi_mlx.frame import MoshiError

BALLOON = 300 << 20  # bytes that a refusal may cost
FILES = ("config.json", "mimi.json", "model.safetensors", "mimi.safetensors", "tokenizer.model")


def peak() -> int:
    """Bytes of memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """What would change if anything were written."""
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def attempt(folder: Path) -> str | None:
    """Loads; gives the line of a refusal, None if it was fine with it. Anything but a MoshiError fails the test."""
    before, memory = listing(folder), peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unknown keys
            moshi_mlx.load(folder)
        message = None
    except MoshiError as error:
        message = str(error)
        assert "\n" not in message
        assert 20 < len(message) < 3000
    assert peak() - memory < BALLOON
    assert listing(folder) == before
    return message


def pickled(path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(path.parent / "executed"),))

    path.write_bytes(pickle.dumps({"weight": Trap()}))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))


def poisoned(path: Path) -> None:
    tensors = {name: np.array(value) for name, value in read_tensors(path).items()}
    name = next(iter(tensors))
    tensors[name] = np.full_like(tensors[name], np.nan)
    path.unlink()
    mx.save_safetensors(str(path), {key: mx.array(value) for key, value in tensors.items()})


def sparse(path: Path) -> None:
    """A header that truly describes a file of 8 TB, which is not there."""
    entry = {"dtype": "F32", "shape": [1 << 20, 1 << 21], "data_offsets": [0, 1 << 43]}
    text = json.dumps({"text_linear.weight": entry}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def linked_out(path: Path) -> None:
    shutil.move(path, path.parent.parent / "outside")
    path.symlink_to("../outside")


CORPUS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle renamed": (lambda f: pickled(f / "model.safetensors"), "pickle"),
    "zip renamed": (lambda f: zipped(f / "mimi.safetensors"), "zip"),
    "git lfs pointer": (lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/"), "LFS"),
    "8 TB that are not there": (lambda f: sparse(f / "model.safetensors"), "cut short"),
    "half a download": (lambda f: os.truncate(f / "model.safetensors", 9_000), "cut short"),
    "weights that are a folder": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
        "model.safetensors",
    ),
    "a pipe for weights": (
        lambda f: ((f / "model.safetensors").unlink(), os.mkfifo(f / "model.safetensors")),
        "model.safetensors",
    ),
    "link out of the folder": (lambda f: linked_out(f / "model.safetensors"), "leads out"),
    "config that is a link out": (lambda f: linked_out(f / "config.json"), "leads out"),
    "name with dots": (lambda f: change(f, mimi_name="../checkpoint/mimi.safetensors"), "mimi.safetensors"),
    "absolute name": (lambda f: change(f, tokenizer_name="/etc/passwd"), "leads out"),
    "file:// name": (lambda f: change(f, moshi_name="file:///etc/passwd"), "leads out"),
    "name that is a list": (lambda f: change(f, moshi_name=["model.safetensors"]), "moshi_name"),
    "name with a zero byte": (lambda f: change(f, mimi_name="a\0b"), "not the name of a file"),
    "very long name": (lambda f: change(f, mimi_name="a" * 5_000), "not the name of a file"),
    "config that is a list": (lambda f: (f / "config.json").write_text("[1]"), "JSON object"),
    "config of brackets": (lambda f: (f / "config.json").write_text("[" * 200_000), "JSON"),
    "config in UTF-16": (lambda f: (f / "config.json").write_bytes("{}".encode("utf-16")), "JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "tokenizer.model"),
    "tokenizer that is a text": (lambda f: (f / "tokenizer.model").write_text("hello"), "tokenizer.model"),
    "no codec": (lambda f: (f / "mimi.safetensors").unlink(), "mimi.safetensors"),
    "codec for weights": (lambda f: change(f, moshi_name="mimi.safetensors"), "Mimi"),
    "weights for codec": (lambda f: change(f, mimi_name="model.safetensors"), "codec|does not fit"),
    "tokenizer for weights": (lambda f: change(f, moshi_name="tokenizer.model"), "tokenizer.model"),
    "512 layers": (lambda f: change(f, num_layers=512), "512"),
    "512 depth layers": (lambda f: change(f, depformer_num_layers=512), "4098 layers"),
    "512 codec layers": (lambda f: change(f, "mimi.json", transformer__num_layers=512), "1024 layers"),
    "width of 131,072": (lambda f: change(f, dim=1 << 17, num_heads=1024), "wrongly shaped"),
    "width of 10¹²": (lambda f: change(f, dim=10**12), "dim"),
    "window of a year": (lambda f: change(f, context=1 << 28), "context"),
    "codec window of a day": (lambda f: change(f, "mimi.json", transformer__context=1 << 20), "context"),
    "delay of a day": (lambda f: change(f, delays=[10**6] * 17), "delays"),
    "LoRA that is not there": (lambda f: change(f, lora_name="lora.safetensors"), "lora.safetensors"),
    "LoRA that is the codec": (lambda f: change(f, lora_name="mimi.safetensors"), "the LoRA changes"),
    "speech to text": (lambda f: change(f, model_type="stt", dep_q=0), "stt|speech-to-text"),
    "text to speech": (lambda f: change(f, model_type="tts", cross_attention=True), "tts|cross"),
}


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(tmp_path: Path, name: str) -> None:
    """What people really have: halves, pointers, renamed pickles, other models; and what nobody should have."""
    import re

    folder = copy_checkpoint("moshi", tmp_path / "checkpoint")
    damage, says = CORPUS[name]
    damage(folder)
    message = attempt(folder)
    assert message is not None
    assert re.search(says, message), message
    assert not (folder / "executed").exists()


def test_nan_weights_are_found_by_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking for NaN costs a read of all weights, so `load` does not; `models verify` must."""
    folder = copy_checkpoint("moshi", tmp_path / "checkpoint")
    poisoned(folder / "model.safetensors")
    assert main(["models", "verify", str(folder)]) == 1
    assert "NaN" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "codec", "text", "models"])
def test_commands_give_one_line(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same damage through the commands: status 1, one line, no file left behind."""
    folder = copy_checkpoint("moshi", tmp_path / "checkpoint")
    os.truncate(folder / "model.safetensors", 100)
    monkeypatch.chdir(tmp_path)
    soundfile.write("in.wav", np.zeros(24_000, np.float32), 24_000)
    words = {
        "run": ["run", "in.wav", "-o", "out.wav", "--model", "checkpoint"],
        "codec": ["codec", "roundtrip", "in.wav", "out.wav", "--model", "checkpoint/model.safetensors"],
        "text": ["text", "hello", "--model", "checkpoint"],
        "models": ["models", "show", "checkpoint"],
    }
    before = listing(tmp_path)
    assert main(words[command]) == 1
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("moshi-mlx: ")
    assert listing(tmp_path) == before


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(0, 40), max_size=20),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bits, lengths and values at random: fine with it, or one line."""
    folder = copy_checkpoint("moshi", tmp_path_factory.mktemp("damaged") / "checkpoint")
    for _ in range(data.draw(st.integers(1, 2))):
        path = folder / data.draw(st.sampled_from(FILES))
        if path.suffix == ".json" and data.draw(st.booleans()):
            config = json.loads(path.read_text())
            where = config
            if path.name == "mimi.json" and data.draw(st.booleans()):
                where = config[data.draw(st.sampled_from(["seanet", "transformer", "quantizer"]))]
            if isinstance(where, dict):
                where[data.draw(st.sampled_from(sorted(where)))] = data.draw(VALUES)
            path.write_text(json.dumps(config))
            continue
        raw = bytearray(path.read_bytes())
        reach = min(len(raw), 4_000) if data.draw(st.booleans()) else len(raw)  # the head holds what matters
        for _ in range(data.draw(st.integers(0, 4))):
            raw[data.draw(st.integers(0, reach - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(raw))) if data.draw(st.booleans()) else len(raw)
        path.write_bytes(raw[:cut] + data.draw(st.binary(max_size=9)))
        if path.suffix == ".json":
            break  # it may no longer be JSON
    attempt(folder)
    shutil.rmtree(folder.parent)
