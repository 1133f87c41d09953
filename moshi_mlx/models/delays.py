"""The delays between streams (spec, moshi.md section 4): frame f of stream k enters the model as column f + d_k.

Columns hold all streams, text first. `shift` and `unshift` work on whole sequences; `Columns` is the live form, which
needs only the last max_delay + 1 columns, whatever the length of the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from .config import LmConfig


def shift(codes: mx.array, config: LmConfig) -> mx.array:
    """codes (B, streams, T), in the timing of frames → what the model reads or predicts, (B, streams, T); initial
    tokens where nothing is valid yet.
    """
    steps = mx.arange(codes.shape[2])
    source = steps - mx.array(config.delays)[:, None]
    taken = mx.take_along_axis(codes, mx.broadcast_to(mx.maximum(source, 0), codes.shape), axis=2)
    return mx.where(source >= 0, taken, mx.array(config.initial)[:, None])


def unshift(values: mx.array, delays: tuple[int, ...]) -> tuple[mx.array, mx.array]:
    """values (B, k, T, …) by step → by frame, and which are there, bool (k, T); the others are 0."""
    total = values.shape[2]
    source = mx.arange(total) + mx.array(delays)[:, None]
    there = source < total
    index = mx.minimum(source, total - 1).reshape(1, *source.shape, *[1] * (values.ndim - 3))
    taken = mx.take_along_axis(values, mx.broadcast_to(index, values.shape), axis=2)
    return mx.where(there.reshape(1, *there.shape, *[1] * (values.ndim - 3)), taken, 0), there


@dataclass
class Columns:
    """The streams' recent past. At step t, tokens[..., i] belongs to frame t − 1 − i: int32 (B, streams, max_delay
    + 1).
    """

    tokens: mx.array
    step: mx.array  # int32 (), t

    @classmethod
    def make(cls, config: LmConfig, batch: int = 1) -> Columns:
        initial = mx.array(config.initial, mx.int32)[None, :, None]
        return cls(mx.broadcast_to(initial, (batch, config.streams, config.max_delay + 1)), mx.array(0, mx.int32))

    def inputs(self, user: mx.array, config: LmConfig) -> mx.array:
        """Takes the user's codes of frame t − 1, (B, user_q), and gives the input of step t, (B, streams)."""
        own = 1 + config.dep_q
        newest = mx.concatenate([self.tokens[:, :own, 0], user.astype(mx.int32)], axis=1)
        self.tokens = mx.concatenate([newest[..., None], self.tokens[..., 1:]], axis=2)
        index = mx.array(config.delays)[None, :, None]
        return mx.take_along_axis(self.tokens, mx.broadcast_to(index, (*newest.shape, 1)), axis=2)[..., 0]

    def push(self, sampled: mx.array, config: LmConfig) -> None:
        """Takes what step t sampled, (B, 1 + dep_q), text first, and moves on to t + 1. What a delay makes belong
        to no frame is dropped.
        """
        delays = mx.array(config.delays)[:, None]
        fresh = mx.broadcast_to(mx.array(config.initial, mx.int32)[None, :, None], (*self.tokens.shape[:2], 1))
        moved = mx.concatenate([fresh, self.tokens[..., :-1]], axis=2)
        users = mx.broadcast_to(fresh[:, 1 + config.dep_q :, 0], (sampled.shape[0], config.user_q))
        values = mx.concatenate([sampled, users], axis=1)[..., None]
        own = mx.arange(config.streams)[:, None] < 1 + config.dep_q
        here = own & (mx.arange(config.max_delay + 1) == delays) & (self.step >= delays)
        self.tokens = mx.where(here, values, moved)
        self.step = self.step + 1

    def complete(self, config: LmConfig) -> mx.array:
        """After `push` of step t: Moshi's codes of frame t − max_delay, (B, dep_q). Valid once t ≥ max_delay."""
        return self.tokens[:, 1 : 1 + config.dep_q, config.max_delay]
