"""From what a person names to files on this disk; no network here (test_download.py has that)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moshi_mlx.checkpoints import locate as locate_module
from moshi_mlx.checkpoints.companions import HUB_TOKENIZER, roles
from moshi_mlx.checkpoints.hub import link
from moshi_mlx.checkpoints.known import BY_ALIAS, KNOWN, MOSHI_MIMI, MOSHI_TOKENIZER
from moshi_mlx.checkpoints.locate import inside, locate
from moshi_mlx.frame import MoshiError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "secret.safetensors").write_text("secret")
    for name in ("a.safetensors", "sub/b.safetensors"):
        (home / name).write_text(name)
    return home


def test_embedded_in_clone_and_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No --model means the embedded model, wherever the package was installed."""
    wheel = tmp_path / "wheel"
    wheel.mkdir()
    monkeypatch.setattr(locate_module, "EMBEDDED", (tmp_path / "clone", wheel))
    assert locate(None).folder == wheel
    assert locate(None).embedded
    monkeypatch.setattr(locate_module, "EMBEDDED", (tmp_path / "clone",))
    with pytest.raises(MoshiError, match="reinstall"):
        locate(None)


def test_folder_and_file(folder: Path) -> None:
    """A named file wins over what the folder would choose."""
    assert locate(str(folder)).folder == folder
    assert locate(folder).weights is None
    located = locate(str(folder / "a.safetensors"))
    assert (located.folder, located.weights) == (folder, "a.safetensors")
    assert located.file("sub/b.safetensors").read_text() == "sub/b.safetensors"
    assert located.file(f"file://{folder}/a.safetensors").read_text() == "a.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "sub/../../secret.safetensors",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://../secret.safetensors",
        "link.safetensors",
        "folder-link/secret.safetensors",
        "loop",
        "sub",
        "none.safetensors",
        "",
        "a\0b",
        "..\\secret.safetensors",
        "http://example.com/a.safetensors",
        "hf://../x/y",
        "hf://org/repo",
        "hf://org/repo/../../x.safetensors",
        "x" * 5000,
    ],
)
def test_names_never_lead_out(folder: Path, name: str) -> None:
    """A config.json from anywhere must not make this program open files elsewhere."""
    (folder / "link.safetensors").symlink_to(folder.parent / "secret.safetensors")
    (folder / "folder-link").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(MoshiError) as caught:
        locate(folder, offline=True).file(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_links_of_the_hub_cache_are_followed(tmp_path: Path) -> None:
    """The snapshots of the Hugging Face cache are links into ../../blobs; other links out are still refused."""
    commit = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    (commit / "sub").mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (tmp_path / "models--a--b" / "blobs" / "1234").write_text("content")
    (tmp_path / "models--a--b" / "secret").write_text("secret")
    (commit / "model").symlink_to("../../blobs/1234")
    (commit / "sub" / "model").symlink_to("../../../blobs/1234")
    (commit / "other").symlink_to("../../secret")
    assert inside(commit, "model").read_text() == inside(commit, "sub/model").read_text() == "content"
    with pytest.raises(MoshiError, match="leads out"):
        inside(commit, "other")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("moshiko-q5", "did you mean moshiko-q"),
        ("nonsense", "moshiko-q4"),
        ("./nothing", "does not exist"),
        ("hf://x", "not an address"),
        ("kyutai/mimi@../main", "did you mean"),
        ("kyutai/nothing", "models get kyutai/nothing"),
    ],
)
def test_wrong_sources(source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error must say what there is, not fail in the network."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MoshiError, match=says):
        locate(source, offline=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"a": 1\n "b": 2}', "line 2"), ("[" * 100_000, "not JSON"), ("\xff", "not JSON"), ("9" * 5000, "not JSON")],
)
def test_broken_json(tmp_path: Path, text: str, says: str) -> None:
    """One shipped config lacks a comma: the message must name the line."""
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(MoshiError, match=says):
        locate(tmp_path).read_json("config.json")


MOSHI = {"mimi": MOSHI_MIMI, "tokenizer": MOSHI_TOKENIZER}


@pytest.mark.parametrize(
    ("names", "config", "family", "weights"),
    [
        (["model.q8.safetensors", MOSHI_MIMI], None, "moshi", ("model.q8.safetensors",)),
        (["x.safetensors", "tokenizer-e.safetensors", "mimi-a@1.safetensors"], None, "moshi", ("x.safetensors",)),
        (["consolidated.safetensors"], {}, "moshi", ("consolidated.safetensors",)),
        (["model.safetensors"], {"moshi_name": "h@8.safetensors"}, "moshi", ("h@8.safetensors",)),
        (["model.safetensors"], {"model_type": "mimi"}, "hf-mimi", ("model.safetensors",)),
        (
            ["model-00002-of-00003.safetensors"],
            {"model_type": "moshi", "depth_decoder_config": {}},
            "hf-moshi",
            tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        ),
        (["model.safetensors", "tokenizer.json"], {"model_type": "helium"}, "helium", ("model.safetensors",)),
    ],
)
def test_roles(names: list[str], config: dict[str, object] | None, family: str, weights: tuple[str, ...]) -> None:
    """Taking the codec for the weights, or a part of the shards for all, loads and says nothing."""
    files = roles(names, config)
    assert (files.family, files.weights) == (family, weights)
    assert files.tokenizer == {"moshi": MOSHI_TOKENIZER, "hf-moshi": HUB_TOKENIZER}.get(family)
    assert files.mimi == (MOSHI_MIMI if family == "moshi" else None)


@pytest.mark.parametrize(
    ("names", "config", "says"),
    [
        (["a.safetensors", "b.safetensors"], None, "several files"),
        (["model.q8.gguf"], None, "only model.q8.gguf"),
        (["lora.safetensors"], {"lora": True}, "only a LoRA"),
        ([], None, "no weights"),
        (["model.safetensors"], {"moshi_name": 5}, "moshi_name must be"),
        (["model.safetensors"], {"mimi_name": ["a"]}, "mimi_name must be"),
        (["model.safetensors"], [1], "JSON object"),
        (["model-00001-of-99999.safetensors", "x.safetensors"], None, "several files"),
    ],
)
def test_roles_refused(names: list[str], config: object, says: str) -> None:
    """What cannot be told must be said, not guessed."""
    with pytest.raises(MoshiError, match=says):
        roles(names, config)


def test_a_file_that_is_no_model_is_told_as_what_it_is(tmp_path: Path) -> None:
    """`--model question.wav` complained of a tokenizer that was not beside it."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "a.wav").write_bytes(b"RIFF" + bytes(100))
    for name, says in (("a.gguf", "is a GGUF file"), ("a.wav", "is not a safetensors file")):
        with pytest.raises(MoshiError, match=says):
            locate(str(tmp_path / name))


def test_personaplex_is_told_before_the_network_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's fine-tune is 16.7 GB: fetched whole, it was refused for shapes, or talked without hearing the user."""
    monkeypatch.setattr("moshi_mlx.checkpoints.hub.listing", None)
    with pytest.raises(MoshiError, match="wants a spoken and a written prompt"):
        locate("nvidia/personaplex-7b-v1")


def test_known_models_are_consistent() -> None:
    """An alias that is also a folder name or a Hub id could never be reached."""
    assert len(BY_ALIAS) == len(KNOWN)
    assert not any("/" in known.alias or "@" in known.alias for known in KNOWN)
    assert BY_ALIAS["moshiko-q4"].repo == "kyutai/moshiko-mlx-q4"
    assert roles([], None, BY_ALIAS["helium-q4"].weights).family == "helium"


def test_a_link_is_made_by_two_at_once(tmp_path: Path) -> None:
    """Between the look and the link another command made it: "could not be stored: File exists"."""
    blob, pointer = tmp_path / "blob", tmp_path / "snapshot" / "model.safetensors"
    pointer.parent.mkdir()
    blob.write_bytes(b"weights")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            pointer.unlink(missing_ok=True)
            list(pool.map(lambda _: link(pointer, blob), range(8)))
            assert pointer.read_bytes() == b"weights"
    assert [path.name for path in pointer.parent.iterdir()] == [pointer.name]
