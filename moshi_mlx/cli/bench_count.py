"""What a frame costs, counted: graph primitives, evaluations, host reads, bytes. Nothing is timed here.

Bytes are those of the arrays: a frame reads every weight of a matrix with its scales and biases, one row a lookup of a
table, and the slots of a ring that attention reads at that moment. Activations are left out.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from .. import session as session_module
from ..checkpoints.load import Moshi
from ..frame import FRAME
from ..models.cache import TransformerState
from ..models.depth import LowRankEmbedding
from ..models.memory import nbytes
from ..models.state import leaves
from ..session import Session, SessionState

# What only renames memory: no kernel is launched for it.
VIEWS = {
    *("Broadcast", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unflatten"),
    *("AsStrided", "View", "StopGradient"),
}
_NODE = re.compile(r'label ="([^"]*)", shape=rectangle')


def primitives(*arrays: mx.array) -> Counter[str]:
    """The primitives of a graph that is not evaluated yet, by name."""
    text = io.StringIO()
    mx.export_to_dot(text, *arrays)
    return Counter(_NODE.findall(text.getvalue()))


def frame_primitives(session: Session) -> dict[str, Counter[str]]:
    """Those of one live frame by part, for evaluated weights and state; the session steps on by a frame."""
    mimi, state, lm = session.moshi.mimi, session.state, session.moshi.config.lm
    sound = mx.zeros((1, FRAME, 1))
    user = mx.zeros((1, lm.user_q), mx.int32)
    own = mx.zeros((1, lm.dep_q, 1), mx.int32)
    mx.eval(sound, user, own, leaves(state))
    codes = mimi.encode_frames(sound, state.mimi.encoder)
    counts = {"encode": primitives(codes, *leaves(state.mimi.encoder))}
    sampled = session.moshi.lm.step(user, state.lm, session.sampling)
    counts["language model"] = primitives(sampled, *leaves(state.lm))
    pcm = mimi.decode_frames(own, state.mimi.decoder)
    counts["decode"] = primitives(pcm, *leaves(state.mimi.decoder))
    mx.eval(codes, sampled, pcm, leaves(state))
    return counts


@dataclass
class Calls:
    """How often a device was waited for, and how often its memory was read."""

    evaluations: int = 0
    host_reads: int = 0


@contextmanager
def counted_calls() -> Iterator[Calls]:
    """Counts evaluations and host reads of sessions while it is open."""
    calls, evaluate, read = Calls(), mx.eval, session_module.to_host

    def counting_eval(*trees: Any) -> None:
        calls.evaluations += 1
        evaluate(*trees)

    def counting_read(array: mx.array) -> Any:
        calls.host_reads += 1
        return read(array)

    mx.eval, session_module.to_host = counting_eval, counting_read
    try:
        yield calls
    finally:
        mx.eval, session_module.to_host = evaluate, read


def traces(moshi: Moshi) -> int:
    """How often a part of the frame has been traced so far."""
    return moshi.lm.live.traces + moshi.mimi.live_encode.traces + moshi.mimi.live_decode.traces


def weights_read(module: nn.Module, lookups: int = 1) -> int:
    """Bytes of a part's weights that one frame reads. lookups: rows of each of its tables."""
    total = 0
    for _, part in module.named_modules():
        for key, value in part.items():
            if isinstance(value, mx.array):
                table = isinstance(part, nn.Embedding | nn.QuantizedEmbedding) or (
                    isinstance(part, LowRankEmbedding) and key == "weight"
                )
                total += lookups * value.nbytes // value.shape[0] if table else value.nbytes
    return total


def frame_bytes(moshi: Moshi) -> dict[str, int]:
    """Bytes of weights that one frame reads, by stage; the session's rings come on top (`kv_read`)."""
    lm, mimi = moshi.lm, moshi.mimi
    coders = [part for part in (mimi.quantizer.rvq_first, mimi.quantizer.rvq_rest) if part is not None]
    temporal = sum(weights_read(part) for part in (lm.text_emb, lm.transformer, lm.out_norm, lm.text_linear))
    return {
        "encode": sum(weights_read(part) for part in (mimi.encoder, mimi.encoder_transformer, mimi.downsample))
        + sum(part.input_proj.weight.nbytes + part.codebooks.nbytes + part.half_norms.nbytes for part in coders),
        "temporal": temporal + weights_read(lm.audio_emb, moshi.config.lm.n_q),
        "depth": weights_read(lm.depformer),
        "decode": sum(weights_read(part) for part in (mimi.upsample, mimi.decoder_transformer, mimi.decoder))
        + sum(part.output_proj.weight.nbytes + part.codebooks[:, 0].nbytes for part in coders),
    }


def kv_read(state: TransformerState, frames: int, steps: int = 1) -> int:
    """Bytes of keys and values that the frame after `frames` others reads, with `steps` positions a frame."""
    offset, state.offset = state.offset, frames * steps
    used = state.way(steps)[0]
    state.offset = offset
    return sum(leaf.nbytes for leaf in leaves(state.rings)) * used // state.slots


def held_bytes(moshi: Moshi, state: SessionState) -> dict[str, int]:
    """Bytes of memory that a conversation holds."""
    return {
        "language model": nbytes(moshi.lm.parameters()),
        "codec": nbytes(moshi.mimi.parameters()),
        "state": sum(leaf.nbytes for leaf in leaves(state)),
    }


def count_bytes(moshi: Moshi, state: SessionState, context: int) -> dict[str, Any]:
    """Bytes held; bytes a frame reads: `weights` by stage, all after `context` frames (`now`) and a `full` window."""
    ring, codec = state.lm.transformer, (state.mimi.encoder.transformer, state.mimi.decoder.transformer)
    weights = frame_bytes(moshi)
    reads: dict[str, Any] = {"weights": weights}
    for name, frames in (("now", context), ("full", max(context, ring.context))):
        keys = {"kv": kv_read(ring, frames), "codec_kv": sum(kv_read(part, frames, 2) for part in codec)}
        lm = weights["temporal"] + weights["depth"] + keys["kv"]
        whole = lm + weights["encode"] + weights["decode"] + keys["codec_kv"]
        reads[name] = {**keys, "language_model": lm, "frame": whole}
    held = held_bytes(moshi, state)
    return {"reads": reads, "held": held | {"all": sum(held.values())}}
