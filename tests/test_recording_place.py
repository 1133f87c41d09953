"""The folder of a recording that is to come."""

from __future__ import annotations

from pathlib import Path

import pytest

from moshi_mlx.frame import MoshiError
from moshi_mlx.recording.recorder import place_for


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


def test_a_place_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """The folders above one with an impossible name stayed."""
    with pytest.raises(MoshiError, match="cannot be made"), place_for(tmp_path / "new" / ("x" * 300)):
        pass
    assert list(tmp_path.iterdir()) == []
