"""What the tests of sessions share."""

from __future__ import annotations

import numpy as np

from moshi_mlx import Session


def talk(session: Session, frames: np.ndarray) -> list[tuple[object, ...]]:
    """What a session says, comparable with ==."""
    rows = []
    for r in map(session.step, frames):
        codes = None if r.codes is None else tuple(r.codes)
        rows.append((r.frame, r.pcm.tobytes(), r.text, r.text_token, codes, tuple(r.user_codes)))
    return rows
