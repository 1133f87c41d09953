"""The leaf that every other module may import: the frame, the reply, the stepper protocol and the one public exception.

One *frame* is 80 ms of sound: 1,920 samples at 24 kHz, mono, float32 in [−1, 1]. A *stepper* takes one user frame and
gives one `Reply`; the model (`moshi_mlx.Session`) is one, a test's mock another. This module imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RATE = 24_000  # samples a second
FRAME = 1_920  # samples a frame
FRAME_RATE = RATE / FRAME  # 12.5 frames a second
FRAME_MS = 1_000 * FRAME / RATE  # 80 ms

Pcm = NDArray[np.float32]
Codes = NDArray[np.int32]


class MoshiError(Exception):
    """Something a person can mend. The message is one line that says what is wrong and how to mend it."""


def gpu_failure(error: BaseException) -> str:
    """One line for what MLX raises when a GPU runs out of memory or time; "" for any other error."""
    said = " ".join(str(error).split())[:200]
    if not isinstance(error, RuntimeError) or not any(sign in said for sign in ("[METAL]", "[metal::", "CUDA")):
        return ""
    return f"the GPU gave up ({said}); close other programs, or take a lighter model or --kv-bits 8"


@dataclass(frozen=True, slots=True)
class Reply:
    """What one user frame brought.

    frame: index of the user frame, from 0; Moshi's `codes` and `pcm` belong to the same index when the acoustic delay
    is 1. pcm: float32 (1920,), Moshi's sound; zeros while `codes` is None.
    text: the piece of text that became readable with this frame; "" for padding and for bytes that are not complete
    yet. text_token: id sampled in this frame; it belongs to frame + 1, so the text runs ahead of its sound.
    codes: int32 (dep_q,), Moshi's codes, or None while the delays have not filled.
    user_codes: int32 (n_q − dep_q,), the user's frame as the codec heard it.
    """

    frame: int
    pcm: Pcm
    text: str
    text_token: int
    codes: Codes | None
    user_codes: Codes


class Stepper(Protocol):
    """One conversation that is fed frame by frame, always from the thread that made it."""

    def step(self, pcm: Pcm) -> Reply:
        """Takes one user frame, float32 (1920,), and gives Moshi's."""

    def reset(self) -> None:
        """Starts the conversation anew, seeded alike."""


# Makes a stepper, ready to step (loaded, warmed up), on the thread that will step it. It may call its argument with the
# name of each stage of the start-up ("load", "warm up", …) and the fraction done (None where it is not known).
StepperFactory = Callable[[Callable[[str, float | None], None]], Stepper]
