"""`moshi-mlx doctor` where there is nothing: no microphone, no weights, no network; and where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from terminal_kit import ROOT

from moshi_mlx.cli import examine
from moshi_mlx.cli.doctor import needs
from moshi_mlx.cli.machine import Machine
from moshi_mlx.cli.main import main
from moshi_mlx.cli.soundcheck import Checked
from moshi_mlx.frame import MoshiError


def test_json_from_a_machine_with_nothing(tmp_path: Path) -> None:
    """Doctor needed a microphone, a cache folder or the Hub, and so failed on the very machines that it is for."""
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "none"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PULSE_SERVER": "unix:/nowhere",
    }
    run = subprocess.run(
        [sys.executable, "-m", "moshi_mlx.cli.main", "doctor", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert set(found["kernels"]["errors"]) == {"bf16", "q8", "q4", "windows", "ring"}
    assert found["kernels"]["right"]
    assert found["machine"]["memory"] > 1e8
    assert found["machine"]["bandwidth"] > 1e6
    assert {one["name"] for one in found["checkpoints"]} == {one.name for one in needs()}
    assert found["weights"] == []
    assert found["versions"]["mlx"]
    assert found["sound"]["said"]
    assert found["disk"]["free"] > 0
    assert found["verdict"]["why"]
    if sys.platform != "darwin":
        assert found["verdict"]["checkpoint"] is None
        assert "No GPU" in found["verdict"]["why"]


def test_wrong_kernels_come_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Doctor recommended a checkpoint to a machine on which MLX calculates noise."""
    monkeypatch.setattr("moshi_mlx.cli.kernels.kernel_errors", lambda: {"bf16": 0.0, "q8": 0.0, "q4": 0.9})
    assert main(["doctor", "--no-sound"]) == 1
    shown = capsys.readouterr().out
    assert "WRONG" in shown
    assert "q4 is off by 90%" in shown
    assert "Take " not in shown


def test_a_person_reads_what_fits_and_why_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table said "no" without the figure that says why."""
    monkeypatch.setattr(examine, "machine", lambda: Machine(16 * 10**9, 11 * 10**9, 1.2e11))
    assert main(["doctor", "--no-sound"]) == 0
    shown = capsys.readouterr().out
    assert "Take moshiko-q4: 7.8 of 11.0 GB" in shown
    assert "41 ms a frame at the start, 54 of 80" in shown
    assert "moshiko-bf16 needs 18.4 GB, but only 11.0 GB can be used" in shown
    assert "moshiko-q8" in shown
    assert "4.94 to 6.52" in shown


def test_a_microphone_without_permission_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact zeros passed for a quiet room."""
    heard = Checked("Mic", "Speakers", 48_000, 48_000, -120.0, 0.0, True, None, 20.0, 0)
    monkeypatch.setattr("moshi_mlx.realtime.list_devices", list)
    monkeypatch.setattr("moshi_mlx.cli.soundcheck.check", lambda *_, **__: heard)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("TERM_PROGRAM", "Apple_Terminal")
    assert "allow it for Terminal" in examine.sound()["said"]


def test_sound_that_fails_is_a_finding_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing PortAudio ended doctor."""

    def missing() -> None:
        raise MoshiError("PortAudio is missing: install it")

    monkeypatch.setattr("moshi_mlx.realtime.list_devices", missing)
    assert "PortAudio is missing" in examine.sound()["said"]
