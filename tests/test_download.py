"""Fetching from a Hub on the loopback interface: every fault one line, nothing half-written taken for whole."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_server import MOSHI, WEIGHTS, Hub, fails, silent
from huggingface_hub import file_download

from moshi_mlx.checkpoints.address import Address
from moshi_mlx.checkpoints.known import MOSHI_MIMI, MOSHI_TOKENIZER
from moshi_mlx.checkpoints.locate import get, locate


def blobs(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.parent.name == "blobs" and path.suffix != ".part"]


def test_alias(hub: Hub, tmp_path: Path) -> None:
    """Fetching everything of a repository would take gigabytes nobody asked for; asking again must cost no request."""
    seen: list[tuple[str, int, int]] = []
    located = locate("moshiko-q4", progress=lambda *step: seen.append(step))
    files = located.files()
    assert files.weights == ("model.q4.safetensors",)
    assert located.file(files.weights[0]).read_bytes() == WEIGHTS
    assert {path.name for path in located.folder.iterdir()} == {"model.q4.safetensors", MOSHI_MIMI, MOSHI_TOKENIZER}
    assert ("model.q4.safetensors", len(WEIGHTS), len(WEIGHTS)) in seen
    count = len(hub.requests)
    assert locate("moshiko-q4").folder == locate("kyutai/moshiko-mlx-q4", offline=True).folder == located.folder
    assert len(hub.requests) == count
    assert not any("README" in path for _, path, *_ in hub.requests)


def test_config_names_other_repositories(hub: Hub) -> None:
    """A fine-tune that shares its codec by an hf:// address must come whole, or offline use fails later."""
    config = {"moshi_name": "w/a.safetensors", "mimi_name": f"hf://kyutai/moshiko-mlx-q4/{MOSHI_MIMI}"}
    hub.repos["me/tune"] = {
        "config.json": json.dumps(config).encode(),
        "w/a.safetensors": WEIGHTS,
        "b.safetensors": b"no",
        MOSHI_TOKENIZER: b"pieces",
    }
    locate("hf://me/tune@v1", progress=silent)
    located = locate("me/tune@v1", offline=True)
    assert located.file(config["moshi_name"]).read_bytes() == WEIGHTS
    assert located.file(config["mimi_name"]).read_bytes() == MOSHI[MOSHI_MIMI]
    assert not (located.folder / "b.safetensors").exists()
    fails("me/tune", "me/tune is not on this disk", offline=True)


def test_named_file(hub: Hub) -> None:
    """hf://org/repo/file chooses among several weights; without it the choice must be the user's, not ours."""
    hub.repos["me/two"] = {
        "a.safetensors": b"a" * 9,
        "b.safetensors": b"b" * 9,
        **{k: MOSHI[k] for k in list(MOSHI)[1:]},
    }
    fails("me/two", "several files")
    assert locate("hf://me/two/b.safetensors", progress=silent).weights == "b.safetensors"


def test_cut_is_resumed_at_once(hub: Hub) -> None:
    """A cut connection used to start the 5 GB over again, or left a short file under the final name."""
    hub.cut = [70_000, 50_000]
    located = locate("moshiko-q4", progress=silent)
    assert located.file("model.q4.safetensors").read_bytes() == WEIGHTS
    ranges = [span for _, path, span, _ in hub.requests if "q4.safetensors" in path]
    assert ranges == [None, "bytes=70000-", "bytes=120000-"]


def test_cut_is_resumed_by_the_next_run(hub: Hub, tmp_path: Path) -> None:
    """huggingface_hub 2 deletes the part of a failed download; ours is kept, and never taken for whole."""
    hub.cut = [70_000] + [0] * 20
    fails("moshiko-q4", "what was fetched is kept")
    assert not blobs(tmp_path)
    fails("moshiko-q4", "not on this disk", offline=True)
    hub.cut, hub.requests = [], []
    assert locate("moshiko-q4", progress=silent).file("model.q4.safetensors").read_bytes() == WEIGHTS
    assert [span for _, path, span, _ in hub.requests if "q4.safetensors" in path] == ["bytes=70000-"]


def test_files_behind_a_redirect(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real Hub keeps weights on another host: the place to go on from must go there, the login must not."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirect, hub.cut = True, [70_000]
    assert locate("moshiko-q4", progress=silent).file("model.q4.safetensors").read_bytes() == WEIGHTS
    sent = [(span, token) for _, path, span, token in hub.requests if "elsewhere" in path and "q4.safe" in path]
    assert sent == [(None, None), ("bytes=70000-", None)]
    assert hub.requests[0][3] == "Bearer hf_secret"


def test_wrong_hash(hub: Hub, tmp_path: Path) -> None:
    """Right size, wrong bytes: such a file once loaded and gave noise."""
    hub.lie = {"model.q4.safetensors"}
    fails("moshiko-q4", "wrong hash")
    assert not blobs(tmp_path)
    hub.lie = set()
    assert locate("moshiko-q4", progress=silent).file("model.q4.safetensors").read_bytes() == WEIGHTS


def test_wrong_start_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    """A damaged part must not poison the file for ever."""
    hub.cut = [70_000] + [0] * 20
    fails("moshiko-q4", "kept")
    hub.cut = []
    (part,) = (tmp_path / "cache").rglob("*.part")
    part.write_bytes(bytes(70_000))
    fails("moshiko-q4", "wrong hash")
    assert locate("moshiko-q4", progress=silent).file("model.q4.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no/body", "no repository 'no/body'"),
        ("kyutai/moshiko-mlx-q4@v7", "no revision 'v7'"),
        ("hf://kyutai/moshiko-mlx-q4/none.safetensors", "has no file 'none.safetensors'"),
        ("hf://kyutai/moshiko-mlx-q4/README.md", "is not fetched: only"),
    ],
)
def test_not_there(hub: Hub, source: str, says: str) -> None:
    """404s of three kinds looked alike; each needs another remedy."""
    fails(source, says)


@pytest.mark.parametrize(("status", "says"), [(401, "login"), (403, "login"), (500, "status 500")])
def test_refusals(hub: Hub, status: int, says: str) -> None:
    """A Hub in trouble must not show a traceback."""
    hub.refuse = status
    fails("moshiko-q4", says)


@pytest.mark.parametrize("garbage", [b"<html>login to the hotel's network</html>", b"[]", b'{"id": 3, "sha": "../x"}'])
def test_not_a_hub(hub: Hub, garbage: bytes) -> None:
    """A captive portal answers 200 with a web page; a hostile mirror answers with paths for hashes."""
    hub.garbage = garbage
    fails("moshiko-q4", "not that of a Hub")


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty lines of a connection's traceback hid that the cable was out."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    fails("moshiko-q4", "no connection to the Hub")
    fails("moshiko-q4", "models get moshiko-q4", offline=True)


def test_full_disk_is_foreseen(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out before the first byte, not after an hour."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    fails("moshiko-q4", "0.00 GB are to be fetched, but")
    assert not (tmp_path / "cache").exists()


def test_disk_fills_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may fill the disk meanwhile: one line, and what was fetched is kept."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    fails("moshiko-q4", "the disk is full")
    assert not blobs(tmp_path)


def test_hostile_listing(hub: Hub, tmp_path: Path) -> None:
    """A repository's names become paths here."""
    hub.repos["bad/names"] = {"../../evil.safetensors": b"x", "/abs.safetensors": b"x"}
    fails("bad/names", "no weights")
    hub.repos["bad/config"] = {"config.json": b'{"moshi_name": "../../x.safetensors"}'}
    fails("bad/config", "has no file")
    assert not list(tmp_path.rglob("*evil*"))


def test_incomplete_snapshot_of_another_program(hub: Hub) -> None:
    """Upstream fetches file by file: a snapshot with the weights alone is not a checkpoint."""
    located = locate("moshiko-q4", progress=silent)
    (located.folder / MOSHI_MIMI).unlink()
    fails("moshiko-q4", MOSHI_MIMI, offline=True)
    assert locate("moshiko-q4", progress=silent).file(MOSHI_MIMI).is_file()


@pytest.mark.parametrize(
    ("repo", "files", "says"),
    [
        ("kyutai/moshiko-candle-q8", {}, "GGUF for Rust"),
        ("kyutai/moshika-pytorch-q8", {}, "int8 for PyTorch"),
        ("kyutai/moshika-vis-mlx-bf16", {}, "sees images"),
        ("other/gguf", {"model.q8.gguf": b"GGUF" * 9_999}, "only model.q8.gguf"),
        ("other/stt", {"config.json": b'{"model_type": "stt"}', "model.safetensors": WEIGHTS}, "speech to text"),
        ("other/tts", {"config.json": b'{"tts_config": {}}', "model.safetensors": WEIGHTS}, "text to speech"),
        ("other/sub", {"weights/model.safetensors": WEIGHTS}, "here are no weights"),
        ("other/norm", {"config.json": b'{"depformer_norm": "new"}', "model.safetensors": WEIGHTS}, "depformer_norm"),
    ],
)
def test_unsupported_before_anything_large(hub: Hub, repo: str, files: dict[str, bytes], says: str) -> None:
    """Eight gigabytes fetched to learn that they cannot be used."""
    hub.repos[repo] = files
    fails(repo, says)
    assert not any("/resolve/" in path and not path.endswith("config.json") for _, path, *_ in hub.requests)


def test_two_at_once(hub: Hub) -> None:
    """Two commands started together must not write into one part file."""
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: locate("moshiko-q4", progress=silent), range(3)))
    assert {located.file("model.q4.safetensors").read_bytes() for located in found} == {WEIGHTS}
    assert sum("q4.safetensors" in path for _, path, *_ in hub.requests) == 1


def test_get_takes_the_newest(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models get` must not be content with yesterday's commit."""
    old = locate("moshiko-q4", progress=silent).folder
    hub.repos["kyutai/moshiko-mlx-q4"][MOSHI_TOKENIZER] = b"new pieces"
    monkeypatch.setattr(hub, "commit", lambda repo: "f" * 40)
    assert (new := get(Address("kyutai/moshiko-mlx-q4"), silent)) != old
    assert (new / MOSHI_TOKENIZER).read_bytes() == b"new pieces"
    assert locate("moshiko-q4", offline=True).folder == new
