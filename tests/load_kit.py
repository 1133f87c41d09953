"""What the tests of loading share: a checkpoint folder, changed; and what `load` says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import moshi_mlx
from moshi_mlx.checkpoints.load import read_tensors
from moshi_mlx.frame import MoshiError


def change(folder: Path, file: str = "config.json", **changes: Any) -> Path:
    """Rewrites keys of a JSON file; a value of ... deletes the key. `a__b` is key b of object a."""
    config = json.loads((folder / file).read_text())
    for name, value in changes.items():
        *path, key = name.split("__")
        place = config
        for part in path:
            place = place[part]
        if value is ...:
            del place[key]
        else:
            place[key] = value
    (folder / file).write_text(json.dumps(config))
    return folder


def rewrite(path: Path, edit: Callable[[dict[str, mx.array]], object]) -> None:
    """Edits the tensors of a file."""
    tensors = read_tensors(path)
    mx.eval(list(tensors.values()))
    edit(tensors)
    path.unlink()
    mx.save_safetensors(str(path), tensors)


def refusal(folder: Path) -> str:
    """The one line that `load` refuses a folder with."""
    with pytest.raises(MoshiError) as caught:
        moshi_mlx.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)
