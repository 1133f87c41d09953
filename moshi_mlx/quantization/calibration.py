"""Codes to measure a model on: conversations that it holds itself.

The user's side is the sound that is given, as the model's own codec hears it, or else, for want of sound, the model's
own voice from a first round in which the user is silent. Moshi's side is what the source model says to that, sampled as
in a real conversation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ..frame import FRAME, Pcm
from ..models.lm import Lm
from ..models.mimi import Mimi
from ..models.sampling import Sampling
from ..models.state import leaves
from .measure import Codes

SEQUENCES, FRAMES = 4, 125  # side by side; 10 s each
QUIET = 10.0  # seconds after which a person wants to know how far it is
Say = Callable[[str], None]


def calibrate(
    mimi: Mimi,
    lm: Lm,
    sounds: Sequence[Pcm] = (),
    seed: int = 0,
    sequences: int = SEQUENCES,
    frames: int = FRAMES,
    part: tuple[float, float] = (0, 1),
    say: Say = lambda _: None,
) -> Codes:
    """Codes int32 (sequences, streams, frames) by frame, as `Lm.logits` takes them. lm: the model that speaks,
    its weights evaluated; mimi: what it hears with. say: is told now and then how far it is.

    sounds: 24 kHz. part: what of them is heard, as shares of their length: a piece for each sequence, spread over all
    of it, from its beginning again at its end.
    """
    config = lm.config
    if sounds:
        heard = np.concatenate([hear(mimi, pcm, config.user_q) for pcm in sounds], axis=1)
        first, last = (int(share * heard.shape[1]) for share in part)
        length = max(1, last - first)
        begins = np.arange(sequences)[:, None] * max(length // sequences, 1)
        user = heard[:, first + (begins + np.arange(frames)) % length].transpose(1, 0, 2)
    else:
        silence = hear(mimi, np.zeros(frames * FRAME, np.float32), config.user_q)
        user = np.repeat(silence[None], sequences, axis=0)
        spoken = converse(lm, user, seed + 1_000, say)[:, 1 : 1 + min(config.dep_q, config.user_q)]
        user = np.concatenate([spoken, user[:, spoken.shape[1] :]], axis=1)
    return converse(lm, user, seed, say)


def hear(mimi: Mimi, pcm: Pcm, codebooks: int) -> NDArray[np.int32]:
    """The user's codes (codebooks, frames) of a sound."""
    whole = np.pad(pcm, (0, -len(pcm) % FRAME))
    return np.array(mimi.encode(whole[None, :, None]))[0, :codebooks].astype(np.int32)


def converse(lm: Lm, user: NDArray[np.int32], seed: int, say: Say = lambda _: None) -> Codes:
    """user (B, user_q, T) → all streams (B, streams, T), Moshi's sampled live."""
    config, (batch, _, frames) = lm.config, user.shape
    state = lm.make_state(seed, batch, total=frames + config.max_delay)
    condition, own = lm.best_condition(), []
    silent = np.broadcast_to(np.array(config.initial[1 + config.dep_q :], np.int32), (batch, config.user_q))
    told = time.monotonic()
    for step in range(frames + config.max_delay):
        if time.monotonic() > told + QUIET:
            told = time.monotonic()
            say(f"the model talks to be measured: frame {step} of {frames + config.max_delay}")
        heard = silent if step == 0 else user[..., min(step, frames) - 1]
        lm.step(mx.array(heard), state, Sampling(), condition)
        column = state.columns.tokens[:, : 1 + config.dep_q, config.max_delay]  # complete: frame step − max_delay
        mx.eval(column, *leaves(state))
        if step >= config.max_delay:
            own.append(np.array(column))
    lm.live.forget()  # its weights may change after this
    return np.concatenate([np.stack(own, axis=-1), user], axis=1).astype(np.int32)
