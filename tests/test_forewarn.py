"""What is said before gigabytes are fetched, on machines that are not here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from terminal_kit import QUESTION

from moshi_mlx.cli import examine
from moshi_mlx.cli.forewarn import forewarn
from moshi_mlx.cli.machine import Machine
from moshi_mlx.cli.main import main
from moshi_mlx.cli.options import announce
from moshi_mlx.frame import MoshiError

SMALL = Machine(8 * 10**9, 5_300_000_000, 68e9)
MIDDLE = Machine(16 * 10**9, 11 * 10**9, 100e9)
LARGE = Machine(36 * 10**9, 27 * 10**9, 200e9)
PROCESSOR = Machine(64 * 10**9, 48 * 10**9, float("inf"), gpu="")


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is that one."""
    monkeypatch.setattr(examine, "machine", lambda **_: machine)
    monkeypatch.setattr("moshi_mlx.models.memory.gpu_name", lambda: machine.gpu)


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "--device", f"file:{QUESTION}", "--model", "moshiko-q4"],
        ["run", str(QUESTION), "--model", "moshiko-q4"],
        ["record", "NEW", str(QUESTION), "--model", "kyutai/moshiko-mlx-q4"],
        ["models", "get", "moshiko-q4"],
    ],
    ids=lambda words: words[0],
)
def test_what_will_not_run_is_said_before_it_is_fetched(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a Mac of 8 GB five gigabytes were fetched without a word; only `doctor` knew."""
    on(SMALL, monkeypatch)
    before: list[str] = []

    def get(*_: Any) -> Path:
        before.append(capsys.readouterr().err)
        raise MoshiError("no network")

    monkeypatch.setattr("moshi_mlx.checkpoints.locate.get", get)
    assert main([str(tmp_path / "new") if word == "NEW" else word for word in words]) == 1
    assert len(before) == 1
    assert "moshiko-q4 needs 7.8 GB, but only 5.3 GB can be used" in before[0]
    assert "`moshi-mlx doctor`" in before[0]
    assert len(before[0].splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "machine", "says"),
    [
        ("moshiko-q4", LARGE, ""),
        ("moshiko-bf16", LARGE, "ms at 200 GB/s"),
        ("moshiko-q4", MIDDLE, "with --kv-bits 8 it does talk here"),
        ("moshika-q4@main", PROCESSOR, "moshika-q4 needs a GPU"),
        ("hibiki-2b", SMALL, "hibiki-2b needs"),
        ("helium-q4", SMALL, ""),
        ("mimi", SMALL, ""),
        (None, SMALL, ""),
        ("weights/tiny", SMALL, ""),
        ("somebody/else", SMALL, ""),
    ],
)
def test_only_what_is_known_not_to_run_is_warned_of(
    source: str | None, machine: Machine, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning that always comes is not read."""
    on(machine, monkeypatch)
    forewarn(source)
    told = capsys.readouterr().err
    assert says in told
    assert bool(told) == bool(says)
    forewarn(source, offline=True)  # nothing would be fetched
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (LARGE, "`moshi-mlx run --model moshiko-q8` (a download of 8.6 GB, once)"),
        (MIDDLE, "`moshi-mlx run --model moshiko-q4 --kv-bits 8` (a download of 5.2 GB, once)"),
        (SMALL, "will not talk in real time on this machine: `moshi-mlx doctor`"),
        (PROCESSOR, "will not talk in real time on this machine: `moshi-mlx doctor`"),
    ],
)
def test_the_demonstration_recommends_what_runs_here(
    machine: Machine, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It named moshiko-q4 on every machine: too much for the small, too little for the large."""
    on(machine, monkeypatch)
    moshi: Any = SimpleNamespace(located=SimpleNamespace(embedded=True))
    announce(moshi, "run")
    assert says in capsys.readouterr().err
