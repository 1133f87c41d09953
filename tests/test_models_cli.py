"""`moshi-mlx models` as a user types it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hf_kit
import mlx.core as mx
import pytest
from hub_server import Hub
from huggingface_hub import constants
from test_lora import adapters

import moshi_mlx
from moshi_mlx.checkpoints.header import read_header
from moshi_mlx.checkpoints.known import MOSHI_MIMI, MOSHI_TOKENIZER
from moshi_mlx.checkpoints.load import Moshi, read_tensors
from moshi_mlx.checkpoints.locate import Located
from moshi_mlx.cli.main import main
from moshi_mlx.models.config import MoshiConfig
from moshi_mlx.models.lm import Lm
from moshi_mlx.models.mimi import Mimi


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, checkpoint: Callable) -> Iterator[Hub]:
    """A Hub that has a small checkpoint under a known name, and one under another."""
    server, folder = Hub(), checkpoint("moshi")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.repos["me/mine"] = files
    names = {"model.q4.safetensors": "model", MOSHI_MIMI: "mimi", MOSHI_TOKENIZER: "tokenizer"}
    server.repos["kyutai/moshiko-mlx-q4"] = {
        name: next(value for key, value in files.items() if key.startswith(stem) and not key.endswith("json"))
        for name, stem in names.items()
    }
    yield server
    server.close()


def models(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> Any:
    """Runs the command; gives its JSON, or its one line of error."""
    assert main(["models", *map(str, words), *(["--json"] if not status else [])]) == status
    out, err = capsys.readouterr()
    return err if status else json.loads(out)


def test_list_tells_what_is_here(hub: Hub, capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    """A model half fetched must not be called here, one fetched by its id must not be missing."""
    rows = {row["model"]: row for row in models(capsys, "list")}
    assert rows["(none)"]["where"] == "here"
    assert rows["moshiko-q4"] | {"where": None} == rows["moshiko-q4"]
    assert (rows["moshika-q8"]["gigabytes"], rows["moshika-q8"]["bits"]) == (8.17, 8.5)
    for name in ("moshiko-q4", "me/mine"):
        assert main(["models", "get", name]) == 0
        assert Path(capsys.readouterr().out.strip()).is_dir()
    rows = {row["model"]: row for row in models(capsys, "list")}
    assert rows["moshiko-q4"]["where"] == rows["me/mine"]["where"] == "here"
    next(cache.rglob(MOSHI_MIMI)).unlink()
    assert {row["model"]: row["where"] for row in models(capsys, "list")}["moshiko-q4"] == "in part"
    assert main(["models", "list"]) == 0
    assert "moshika-bf16" in capsys.readouterr().out


def test_verify_of_the_hub(hub: Hub, capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    """A bit that fell over on the disk loads without an error; only the hash tells."""
    main(["models", "get", "me/mine"])
    capsys.readouterr()
    found = models(capsys, "verify", "me/mine")
    assert all(item["good"] for item in found)
    assert "hash as published" in found[0]["text"]
    blob = next(cache.rglob("model.safetensors")).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert main(["models", "verify", "me/mine"]) == 1
    assert "WRONG  model.safetensors: its content is not what was published" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.update({"linears.3.weight": t["linears.3.weight"] * float("nan")}), "linears.3.weight holds NaN"),
        (lambda t: t.update({"emb.3.weight": t["emb.3.weight"] * 0}), "emb.3.weight holds only zeros"),
        (lambda t: t.pop("emb.3.weight"), "do not fit|missing|audio_embs"),
        (lambda t: t.update({"text_linear.weight": mx.ones((3, 3))}), "text_linear"),
    ],
)
def test_verify_finds_faults(writable: Callable, capsys: pytest.CaptureFixture[str], edit: Callable, says: str) -> None:
    """NaN weights give silence or noise, and nobody knows why."""
    folder = writable("moshi")
    tensors = read_tensors(folder / "model.safetensors")
    mx.eval(list(tensors.values()))
    edit(tensors)
    (folder / "model.safetensors").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    assert main(["models", "verify", str(folder)]) == 1
    assert re.search(f"WRONG .*({says})", capsys.readouterr().out)


def test_verify_every_family(tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Callable) -> None:
    """Codec folders, sharded Moshis and cut files are verified as well."""
    assert all(item["good"] for item in models(capsys, "verify", hf_kit.write_mimi(tmp_path / "mimi")))
    folder = hf_kit.write_moshi(tmp_path / "moshi")
    assert len(models(capsys, "verify", folder)) == 5
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert main(["models", "verify", str(folder)]) == 1
    assert "cut short" in capsys.readouterr().out


def test_show_counts(load: Callable, checkpoint: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    """Sums that miss a part mislead whoever chooses a model by them."""
    folder = checkpoint("moshi")
    found = models(capsys, "show", folder)
    header = read_header(folder / "model.safetensors")
    shared = 2 * 2 * 7 * 16  # norms of 2 depth layers are one in the file, eight in the model
    assert found["parameters"] == sum(info.size for info in header.tensors.values()) + shared
    assert found["bytes"] == 4 * found["parameters"]
    assert found["key_value_bytes_a_frame"] == 2 * 2 * 24 * 4
    assert found["memory_full_context"] - found["memory_empty"] == 10 * found["key_value_bytes_a_frame"]
    assert found["format"] == "B"
    assert found["configuration"]["lm"]["dep_q"] == 8
    assert main(["models", "show", str(folder)]) == 0
    assert "temporal" in capsys.readouterr().out


def test_show_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Callable) -> None:
    """What is no Moshi is still told apart."""
    assert models(capsys, "show", hf_kit.write_mimi(tmp_path / "mimi"))["format"] == "D1"
    assert models(capsys, "show", hf_kit.write_moshi(tmp_path / "moshi"))["format"] == "D2"
    assert models(capsys, "show", checkpoint("moshi") / "mimi.safetensors")["format"] == "Mimi"


def test_moshi_7b_in_numbers() -> None:
    """The figures of the spec (moshi.md sections 8 and 9): what a buyer of a Mac goes by."""
    from moshi_mlx.cli.facts import facts

    config = MoshiConfig()
    lm = Lm(config.lm)  # lazy: no weight is ever made
    lm.set_dtype(mx.bfloat16)
    found = facts(Moshi(config, Mimi(config.mimi), lm, None, Located(Path(), "x"), Path("x")))  # type: ignore[arg-type]
    copies = 6 * 2 * 7 * 1024  # the depth norms, once a slice
    assert found["parameters"] == 7_687_729_152 + copies
    assert abs(found["frame_bytes"] / 14.75e9 - 1) < 1e-3
    assert found["key_value_bytes_a_frame"] == 512 * 1024
    assert abs(found["frame_bytes_full_context"] - found["frame_bytes"] - 1.573e9) < 1e6


@pytest.mark.parametrize("name", ["moshiko-q4", "hibiki-2b"])
def test_a_frame_reads_what_bench_counts(name: str) -> None:
    """`models show` counted a low-rank table whole, where a frame reads a row of it."""
    from moshi_mlx.cli.bench_count import frame_bytes
    from moshi_mlx.cli.bench_random import random_moshi
    from moshi_mlx.cli.facts import facts

    moshi = random_moshi(name, lazy=True)
    read = frame_bytes(moshi)
    found = facts(replace(moshi, located=Located(Path(), "x"), weights=Path("x")))
    assert found["frame_bytes"] == read["temporal"] + read["depth"]
    assert all(part["frame"] >= 0 for part in found["parts"].values())


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["merge"], 2, "which one"),
        (["merge", "BASE"], 2, "where to"),
        (["merge", "BASE", "-o", "out"], 1, "not a LoRA|no file"),
        (["merge", "BASE/model.safetensors", "-o", "out"], 1, "not a LoRA"),
        (["merge", "LORA", "-o", "out"], 1, "LoRA"),
        (["merge", "LORA", "--base", "BASE", "-o", "BASE"], 1, "exists already|is the model"),
        (["get"], 2, "which one"),
        (["get", "BASE"], 1, "a place on this disk"),
        (["get", "moshiko-q4", "--offline"], 2, "asks the Hub"),
        (["get", "moshiko"], 1, "did you mean moshiko"),
        (["list", "BASE"], 2, "models show"),
        (["show", "none/none", "--offline"], 1, "models get none/none"),
        (["show", "BASE", "--base", "x"], 2, "belong to"),
        (["verify", "nothing"], 1, "no known model"),
    ],
)
def test_wrong_use(
    writable: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    says: str,
) -> None:
    """One line that names the remedy, and nothing written."""
    base = writable("moshi")
    (tmp_path / "LORA").mkdir()
    hf_kit.save(tmp_path / "LORA" / "lora.safetensors", adapters("moshi", "split")[0])
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    words = [word.replace("BASE", str(base)) for word in words]
    err = models(capsys, *words, status=status)
    assert re.search(says, err), err
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["lora.safetensors", "adapter.safetensors", None])
def test_merge_from_the_hub(
    hub: Hub,
    writable: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cache: Path,
    name: str | None,
) -> None:
    """A repository that holds a LoRA alone is no checkpoint, and must not make anyone fetch its base. name: as its
    config has it, None without one; both were refused, though not in a folder."""
    base = writable("moshi")
    hf_kit.save(tmp_path / "lora.safetensors", adapters("moshi", "split")[0])
    config = json.loads((base / "config.json").read_text()) | {"lora": True, "lora_scaling": 0.0, "lora_name": name}
    hub.repos["me/tune"] = {
        name or "lora.safetensors": (tmp_path / "lora.safetensors").read_bytes(),
        **({"config.json": json.dumps(config).encode()} if name else {}),
        "other.safetensors": b"x",
    }
    assert main(["models", "merge", "me/tune", "--base", str(base), "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    got, want = moshi_mlx.load(tmp_path / "out").lm, moshi_mlx.load(base).lm
    assert mx.array_equal(got.text_linear.weight, want.text_linear.weight) == bool(name)  # scaling 0 was read
    assert not mx.array_equal(got.text_emb.weight, want.text_emb.weight)
    assert not list(cache.rglob("other*"))
