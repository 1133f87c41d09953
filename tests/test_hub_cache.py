"""The Hub's cache on this disk: commits that share files, a disk without links, what is said offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hub_server import Hub, fails, silent

from moshi_mlx.checkpoints.address import parse
from moshi_mlx.checkpoints.known import HELIUM_TOKENIZER
from moshi_mlx.checkpoints.locate import locate, on_disk, one_file
from moshi_mlx.frame import MoshiError

HELIUM = "kyutai/helium-1-preview-2b-mlx"


def test_what_is_here_stays_here(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second model of a repository came with a newer commit, and the first one, unchanged, was no longer "here"."""
    names = [f"helium-1-preview-2b-{bits}.safetensors" for bits in ("q4", "q8")]
    hub.repos[HELIUM] = {**{name: os.urandom(20_000) for name in names}, HELIUM_TOKENIZER: b"pieces"}
    fails("helium-q4", "helium-q4 is not on this disk; `moshi-mlx models get helium-q4` fetches it", offline=True)
    locate("helium-q4", progress=silent)
    monkeypatch.setattr(hub, "commit", lambda repo: "f" * 40)
    locate("helium-q8", progress=silent)
    assert on_disk("helium-q4")
    assert on_disk("helium-q8")


def test_a_disk_without_links_is_told_before_the_first_byte(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """On exFAT all gigabytes were fetched, and then could not be stored under their names."""

    def refuse(path: Path, target: str) -> None:
        raise OSError(95, "Operation not supported", str(path))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    fails("moshiko-q4", "cannot hold links .*HF_HUB_CACHE")
    with pytest.raises(MoshiError, match="cannot hold links"):
        one_file(parse("hf://kyutai/moshiko-mlx-q4/model.q4.safetensors"), False, silent)
    assert not any("safetensors" in path for _, path, *_ in hub.requests)
