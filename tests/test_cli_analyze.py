"""`moshi-mlx analyze` and `record --finish` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recording_kit import FILES, dialogue

from moshi_mlx.cli.main import main
from moshi_mlx.recording.folder import open_recording


def test_finish_completes_a_folder_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a recording that a crash made unusable."""
    folder = dialogue(tmp_path / "r")
    assert not (folder / "player.html").exists()
    assert main(["record", str(folder), "--finish", "--title", "Saved"]) == 0
    assert "Full duplex" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == FILES
    assert open_recording(folder).info.title == "Saved"


def test_analyze_prints_figures_parameters_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a report without its parameters, and a folder and its WAV that give other figures."""
    folder = dialogue(tmp_path / "r")
    (tmp_path / "t.svg.new").write_text("somebody's")  # was the name that the picture was written under first
    assert main(["analyze", str(folder), "--timeline", str(tmp_path / "t.svg")]) == 0
    told = capsys.readouterr().out
    assert "response p50" in told
    assert "480 ms" in told
    assert "bridge 0.2" in told.replace("\n", " ")
    assert "Full" in (tmp_path / "t.svg").read_text()
    assert (tmp_path / "t.svg.new").read_text() == "somebody's"
    summaries = []
    for path in (folder, folder / "conversation.wav"):
        assert main(["analyze", str(path), "--json"]) == 0
        summaries.append(json.loads(capsys.readouterr().out)["summary"])
    assert summaries[0] == summaries[1]
    assert summaries[0]["user"]["interruptions"] == 1
