"""How long a frame takes: whole, as in a conversation, and in stages that are evaluated apart.

Stages are slower together than the whole frame: each waits for the device once. Times are wall-clock seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from ..frame import FRAME, Pcm
from ..models.cache import TransformerState
from ..models.compiled import Compiled
from ..models.state import leaves
from ..session import Session

STAGES = ("encode", "temporal", "depth", "decode")
COPY = 1 << 28  # bytes: larger than any cache of a chip
TRIES, PASSES, SHORT = 5, 16, 0.02  # a try of fewer seconds is made longer


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p95, p99, most = np.percentile(np.array(seconds) * 1e3, [50, 95, 99, 100])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(most)}


def noise(frames: int) -> Iterator[Pcm]:
    """A user to listen to, frame by frame."""
    draw = np.random.default_rng(0)
    return (draw.normal(scale=0.05, size=FRAME).astype(np.float32) for _ in range(frames))


def fill(session: Session, frames: int) -> None:
    """As if `frames` had passed: rings are read as then. What they hold is empty, so what is said means nothing."""
    state = session.state
    parts = ((state.lm.transformer, 1), (state.mimi.encoder.transformer, 2), (state.mimi.decoder.transformer, 2))
    ring: TransformerState
    for ring, steps in parts:
        ring.offset = frames * steps
        ring.position = mx.array(ring.offset, mx.int32)
    state.frames = frames


def time_frames(session: Session, frames: int, told: Callable[[int], None]) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of each of so many live frames."""
    wall, processor = [], []
    for index, pcm in enumerate(noise(frames)):
        before, busy = time.perf_counter(), time.process_time()
        session.step(pcm)
        wall.append(time.perf_counter() - before)
        processor.append(time.process_time() - busy)
        told(index + 1)
    return wall, processor


def time_stages(session: Session, frames: int) -> dict[str, list[float]]:
    """Seconds of each stage of so many frames, evaluated apart; two frames more warm them up."""
    moshi, state, sampling = session.moshi, session.state, session.sampling
    lm, config = moshi.lm, moshi.config.lm
    temporal = Compiled(lm.temporal_step, 1)
    depth = mx.compile(lambda z, text, gumbel: lm.depth_step(z, text, gumbel, sampling))
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def timed(stage: str, part: Any, work: Callable[..., Any], *given: Any) -> Any:
        before = time.perf_counter()
        result = work(*given)
        mx.eval(result, leaves(part))
        times[stage].append(time.perf_counter() - before)
        return result

    for pcm in noise(frames + 2):
        sound = mx.array(pcm).reshape(1, FRAME, 1)
        user = timed("encode", state.mimi.encoder, moshi.mimi.encode_frames, sound, state.mimi.encoder)
        user = user[:, : config.user_q, 0]
        z, text, gumbel = timed("temporal", state.lm, partial(temporal, sampling=sampling), state.lm, user, None)
        chosen = timed("depth", [], depth, z, text, gumbel)
        state.lm.columns.push(mx.concatenate([text[:, None], chosen], axis=1), config)
        own = mx.minimum(state.lm.columns.complete(config), config.card - 1)
        mx.eval(own, leaves(state.lm))
        timed("decode", state.mimi.decoder, moshi.mimi.decode_frames, own[..., None], state.mimi.decoder)
    return {stage: seconds[2:] for stage, seconds in times.items()}


def copy_bandwidth() -> float:
    """Bytes a second that the device reads and writes when it copies: the best of a few tries. A fast one copies
    several times a try: to launch and to wait takes as long as one of its copies."""
    source = mx.arange(COPY // 4, dtype=mx.float32)
    mx.eval(source, source + 1)
    best, passes = float("inf"), 1
    for _ in range(TRIES):
        before = time.perf_counter()
        copy = source
        for _ in range(passes):
            copy = copy + 1
        mx.eval(copy)
        seconds = time.perf_counter() - before
        best = min(best, seconds / passes)
        if seconds < SHORT:
            passes = PASSES
    return 2 * COPY / best
