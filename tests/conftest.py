"""What several test files share: the reference's models (tests/fixtures) as checkpoint folders, loaded once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")  # spares test runs the C++ compiler; tests of compilation turn it on

FIXTURES = Path(__file__).parent / "fixtures"
CONDITIONS = {"hibiki": {"description": "very_good"}}
Arrays = dict[str, np.ndarray]


def copy_checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint folder: a language model of the fixtures, the codec, the tokenizer."""
    folder.mkdir(parents=True)
    for path in [*(FIXTURES / name).iterdir(), *(FIXTURES / "mimi").glob("mimi.*"), FIXTURES / "tokenizer.model"]:
        if path.name != "arrays.npz":
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a fixture → its checkpoint folder, shared: read it, never write it."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = copy_checkpoint(name, tmp_path_factory.mktemp(name) / "checkpoint")
        return made[name]

    return get


@pytest.fixture(scope="session")
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], object]:
    """Name of a fixture → the loaded model, shared."""
    import moshi_mlx

    made: dict[str, object] = {}

    def get(name: str) -> object:
        if name not in made:
            made[name] = moshi_mlx.load(checkpoint(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def arrays() -> Callable[[str], Arrays]:
    """Name of a fixture → what the reference says."""
    return lambda name: dict(np.load(FIXTURES / name / "arrays.npz"))


@pytest.fixture(scope="session")
def moshi(load: Callable[[str], object]) -> object:
    """The small Moshi 7B: 8 codebooks a side, shared."""
    return load("moshi")


@pytest.fixture(scope="session")
def pcm(arrays: Callable[[str], Arrays]) -> np.ndarray:
    """Frames of sound, (18, 1920)."""
    return arrays("mimi")["pcm"].astype(np.float32).reshape(-1, 1920) / 32768


@pytest.fixture
def writable(tmp_path: Path) -> Callable[[str], Path]:
    """Name of a fixture → a checkpoint folder of the test's own."""
    return lambda name: copy_checkpoint(name, tmp_path / "checkpoint")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A Hub with one model, and an empty cache in tmp_path / "cache"."""
    from hub_server import MOSHI, Hub
    from huggingface_hub import constants, file_download

    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what a cut can lose
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    server.repos["kyutai/moshiko-mlx-q4"] = dict(MOSHI)
    yield server
    server.close()
