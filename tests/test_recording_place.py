"""The folder of a recording that is to come."""

from __future__ import annotations

from pathlib import Path

import pytest
from recording_kit import INFO

from moshi_mlx.frame import MoshiError
from moshi_mlx.recording.recorder import Recorder, place_for


def test_a_place_is_left_alone_once_a_recording_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that no longer answers was asked whether the folder is empty, and held up the end of the chat."""
    asked: list[Path] = []
    monkeypatch.setattr(Path, "rmdir", lambda path: asked.append(path))
    with place_for(tmp_path / "a" / "b", lambda: True):
        pass
    assert asked == []
    with place_for(tmp_path / "c" / "d"):
        pass
    assert asked == [tmp_path / "c" / "d", tmp_path / "c"]


def test_nothing_is_left_of_a_recording_without_a_frame(tmp_path: Path) -> None:
    """A microphone that could not be opened left five empty files, and the same command was refused from then on."""
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with place_for(tmp_path / name), Recorder(tmp_path / name, INFO):
            pass
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_place_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """The folders above one with an impossible name stayed."""
    with pytest.raises(MoshiError, match="cannot be made"), place_for(tmp_path / "new" / ("x" * 300)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_before_the_first_frame_leaves_nothing_to_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files were removed, and the message named the command that finishes them."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Recorder(tmp_path / "r", INFO) as recorder:
        monkeypatch.setattr("moshi_mlx.recording.recorder.write_all", full)
        recorder.event("mark", 0)
    assert recorder.failure == f"recording stopped: {tmp_path / 'r'}: No space left on device"
    assert not (tmp_path / "r").exists()
