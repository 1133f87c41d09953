"""The file of a saved conversation: the leaves of its state as safetensors, plain values and settings in the header.

A session file is untrusted: whatever is wrong with it is one MoshiError, before a frame is stepped.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ..frame import MoshiError
from ..models.config import LmConfig
from ..models.state import leaves, plain, set_leaves, set_plain
from .header import read_header
from .load import read_tensors

if TYPE_CHECKING:
    from ..session import SessionState

MAX_FRAMES = 1 << 30  # positions are int32, two a frame in the codec: 2.7 years


def write(path: Path, state: SessionState, settings: dict[str, Any]) -> None:
    """Beside `path` first, then renamed."""
    values = [value.hex() if isinstance(value, bytes) else value for value in plain(state)]
    arrays = {f"{index:05}": array for index, array in enumerate(leaves(state))}
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.safetensors")
    try:
        mx.save_safetensors(str(beside), arrays, {"moshi_session": json.dumps({**settings, "plain": values})})
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        raise MoshiError(f"the session cannot be saved to {path}: {error}") from None
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """The header's settings and "plain"; makes what goes wrong with them one MoshiError."""
    metadata = read_header(path).metadata
    try:
        yield json.loads(metadata["moshi_session"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, RuntimeError, MoshiError):
        raise MoshiError(f"{path} is not a session of this model, or is damaged; save it again") from None


def fill(state: SessionState, path: Path, values: list[Any]) -> None:
    """Puts what the file holds in the place of a fresh state's, and reads all of it."""
    tensors, old = read_tensors(path), leaves(state)
    arrays = [tensors[f"{index:05}"] for index in range(len(old))]
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(arrays, old, strict=True)):
        raise ValueError("arrays of another state")
    mx.eval(arrays)
    pairs = list(zip(plain(state), values, strict=True))
    values = [bytes.fromhex(new) if isinstance(was, bytes) else new for was, new in pairs]
    if any(type(new) is not type(was) for (was, _), new in zip(pairs, values, strict=True)):
        raise ValueError("values of another state")
    set_leaves(state, arrays)
    set_plain(state, values)


def check(state: SessionState, fresh: SessionState, config: LmConfig) -> None:
    """Raises ValueError unless the state can be stepped on."""
    parts, new = (
        (one.lm.transformer, one.mimi.encoder.transformer, one.mimi.decoder.transformer) for one in (state, fresh)
    )
    rings = all(
        0 <= part.offset < 2 * MAX_FRAMES
        and part.position.item() == part.offset
        and plain(part) == plain(replace(empty, offset=part.offset))
        for part, empty in zip(parts, new, strict=True)
    )
    tokens, recent = np.array(state.lm.columns.tokens), np.array(state.lm.recent)
    limits = np.array(config.initial)[None, :, None]
    known = ((tokens >= 0) & (tokens <= limits)).all() and ((recent >= 0) & (recent < config.text_card)).all()
    shown = state.unsaid.isprintable() and len(state.pending) < 4  # nothing from outside may steer a terminal
    if not (rings and known and shown and 0 <= state.frames < MAX_FRAMES):
        raise ValueError("a state that never was")
