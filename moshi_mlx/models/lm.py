"""The language model: 1 + n_q streams in, text and Moshi's codebooks out (spec, moshi.md sections 1 to 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from ..frame import MoshiError
from .cache import TransformerState
from .compiled import Compiled
from .config import BEST, EOS, PAD, LmConfig
from .delays import Columns, shift, unshift
from .depth import Depth, embed
from .sampling import Sampling, choose, penalise
from .transformer import RMS_EPS, Transformer

PIECE = 128  # steps that a teacher-forced pass works on at once


class Logits(NamedTuple):
    """Teacher-forced logits by frame, fp32; masks are False, and logits 0, where there are none."""

    text: mx.array  # (B, T, text_card)
    audio: mx.array  # (B, dep_q, T, card)
    text_mask: mx.array  # (B, T)
    audio_mask: mx.array  # (B, dep_q, T)


@dataclass
class LmState:
    """One conversation: rings of the temporal transformer, recent columns, recent text, the random key."""

    transformer: TransformerState
    columns: Columns
    recent: mx.array  # int32 (B, repetition_context), text tokens, newest first
    key: mx.array


class ConditionTable(nn.Module):
    """A `lut` conditioner: table, projection, and what stands in where there is no condition."""

    def __init__(self, bins: int, dim: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(bins + 1, dim)
        self.output_proj = nn.Linear(dim, width, bias=False)
        self.learnt_padding = mx.zeros((1, 1, width))


class ConditionProvider(nn.Module):
    """The conditioners by name, as the file spells them."""

    def __init__(self, config: LmConfig) -> None:
        super().__init__()
        self.conditioners = {
            name: ConditionTable(c.n_bins, c.dim, config.transformer.width) for name, c in config.conditioners.items()
        }


class Lm(nn.Module):
    """Temporal transformer, depth transformer, embeddings and heads; names of format A, except that the audio
    tables are one.
    """

    def __init__(self, config: LmConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.text_emb = nn.Embedding(config.text_card + 1, width)
        self.audio_emb = nn.Embedding(config.n_q * (config.card + 1), width)  # audio_embs.{k} one after the other
        self.transformer = Transformer(config.transformer)
        self.out_norm = nn.RMSNorm(width, eps=RMS_EPS)
        self.text_linear = nn.Linear(width, config.text_card_out, bias=False)
        self.depformer = Depth(config)
        if config.conditioners:
            self.condition_provider = ConditionProvider(config)
        self.live = Compiled(self._step, 1)

    @property
    def dtype(self) -> mx.Dtype:
        """Of activations."""
        return self.out_norm.weight.dtype

    def make_state(
        self, seed: int, batch: int = 1, recent: int = 1, kv_bits: int | None = None, total: int | None = None
    ) -> LmState:
        """A conversation before its first step. recent: frames that the repetition penalty looks back. total: steps
        that it will have, if that is known."""
        return LmState(
            self.transformer.make_state(batch, 1, self.dtype, kv_bits, total),
            Columns.make(self.config, batch),
            mx.zeros((batch, recent), mx.int32),
            mx.random.key(seed),
        )

    def best_condition(self) -> mx.array | None:
        """What a model that was taught how good its examples are (Hibiki) is asked for in a conversation, evaluated."""
        wishes = {name: BEST for name, c in self.config.conditioners.items() if BEST in c.values}
        condition = self.condition(wishes)
        if condition is not None:
            mx.eval(condition)
        return condition

    def condition(self, values: Mapping[str, str | None]) -> mx.array | None:
        """The sum of conditions, (1, 1, d), added to the input of every step; None for a model without conditioners."""
        total = None
        for name, config in self.config.conditioners.items():
            table, value = self.condition_provider.conditioners[name], values.get(name)
            if value is not None and value not in config.values:
                raise MoshiError(f"condition {name!r} is one of {', '.join(config.values)}; not {value!r}")
            part = table.learnt_padding
            if value is not None:
                part = table.output_proj(table.embed(mx.array([[config.values.index(value)]])))
            total = part if total is None else total + part
        return None if total is None else total.astype(self.dtype)

    def temporal(self, tokens: mx.array, state: TransformerState, condition: mx.array | None = None) -> mx.array:
        """tokens (B, streams, T), delayed → normed hidden state (B, T, d)."""
        offsets = mx.arange(self.config.n_q)[:, None] * (self.config.card + 1)
        text, audio = tokens[:, 0], tokens[:, 1:]
        if self.config.ends:
            text = mx.where(text == EOS, PAD, text)
        rows = mx.where(audio >= 0, audio + offsets, -1)
        x = embed(self.text_emb, text) + embed(self.audio_emb, rows).sum(axis=1)
        if condition is not None:
            x = x + condition
        return self.out_norm(self.transformer(x, state))

    def step(self, user: mx.array, state: LmState, sampling: Sampling, condition: mx.array | None = None) -> mx.array:
        """One live step: the user's codes of the frame before, (B, user_q) → text token and codebooks sampled,
        int32 (B, 1 + dep_q), lazily."""
        return self.live(state, user, condition, sampling=sampling)

    def _step(self, state: LmState, user: mx.array, condition: mx.array | None, sampling: Sampling) -> mx.array:
        z, text, noise = self.temporal_step(state, user, condition, sampling)
        sampled = mx.concatenate([text[:, None], self.depth_step(z, text, noise, sampling)], axis=1)
        state.columns.push(sampled, self.config)
        return sampled

    def temporal_step(
        self, state: LmState, user: mx.array, condition: mx.array | None, sampling: Sampling
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        """The first half of a step: hidden state (B, d), text token (B,), noise (dep_q, B, card) for the second."""
        config = self.config
        tokens = state.columns.inputs(user, config)
        z = self.temporal(tokens[..., None], state.transformer, condition)[:, 0]
        logits = self.text_linear(z)
        text_noise = audio_noise = None
        if sampling.text_temperature or sampling.audio_temperature:
            state.key, text_key, audio_key = mx.random.split(state.key, 3)
            text_noise = mx.random.gumbel(logits.shape, key=text_key)
            audio_noise = mx.random.gumbel((config.dep_q, user.shape[0], config.card), key=audio_key)
        if sampling.repetition_penalty != 1:
            logits = penalise(logits, state.recent, sampling.repetition_penalty)
        text = choose(logits, sampling.text_temperature, sampling.text_top_k, text_noise)
        state.recent = mx.concatenate([text[:, None], state.recent[:, :-1]], axis=1)
        return z, text, audio_noise

    def depth_step(self, z: mx.array, text: mx.array, noise: mx.array | None, sampling: Sampling) -> mx.array:
        """The second half: the codebooks, int32 (B, dep_q)."""

        def draw(index: int, logits: mx.array) -> mx.array:
            own = None if noise is None else noise[index]
            return choose(logits, sampling.audio_temperature, sampling.audio_top_k, own)

        return self.depformer(z, text, draw)

    def logits(
        self, codes: mx.array | NDArray[Any], condition: mx.array | None = None, kv_bits: int | None = None
    ) -> Logits:
        """Teacher-forced: codes (B, streams, T), in the timing of frames, any integer dtype, −1 where not known →
        Logits. kv_bits: as in `make_state`.

        Raises MoshiError for another shape, and where a NumPy array holds a code that no table has; an MLX array is not
        read back.
        """
        config = self.config
        if isinstance(codes, np.ndarray) and codes.ndim == 3 and codes.shape[1] == config.streams and codes.size:
            most = np.array(config.initial)[None, :, None]
            if (codes < -1).any() or (codes > most).any():
                raise MoshiError(f"a code is below -1 or above the last of its table: {sorted(set(config.initial))}")
        codes = (codes if isinstance(codes, mx.array) else mx.array(np.asarray(codes))).astype(mx.int32)
        if codes.ndim != 3 or codes.shape[1] != config.streams or codes.shape[2] == 0:
            raise MoshiError(f"logits takes codes of shape (batch, {config.streams}, frames), not {tuple(codes.shape)}")
        batch, _, total = codes.shape
        targets = shift(codes, config)
        first = mx.broadcast_to(mx.array(config.initial, mx.int32)[None, :, None], (batch, config.streams, 1))
        inputs = mx.concatenate([first, targets[..., :-1]], axis=2)
        state = self.transformer.make_state(batch, min(total, PIECE), self.dtype, kv_bits, total)
        texts, audios = [], []
        for start in range(0, total, PIECE):
            z = self.temporal(inputs[..., start : start + PIECE], state, condition)
            texts.append(self.text_linear(z).astype(mx.float32))
            audios.append(self._forced(z, targets[..., start : start + PIECE]))
            mx.eval(texts[-1], audios[-1])
        text, audio = mx.concatenate(texts, axis=1), mx.concatenate(audios, axis=2)
        audio, there = unshift(audio, config.delays[1 : 1 + config.dep_q])
        known = codes >= 0
        text_mask, audio_mask = known[:, 0], known[:, 1 : 1 + config.dep_q] & there
        return Logits(
            mx.where(text_mask[..., None], text, 0), mx.where(audio_mask[..., None], audio, 0), text_mask, audio_mask
        )

    def _forced(self, z: mx.array, targets: mx.array) -> mx.array:
        """Depth logits (B, dep_q, T, card) of z (B, T, d) with the tokens of targets (B, streams, T) as its own."""
        batch, steps, width = z.shape
        known = targets.transpose(1, 0, 2).reshape(targets.shape[1], batch * steps)
        seen: list[mx.array] = []

        def keep(index: int, logits: mx.array) -> mx.array:
            seen.append(logits.astype(mx.float32))
            return known[1 + index]

        self.depformer(z.reshape(batch * steps, width), known[0], keep)
        return mx.stack(seen).reshape(len(seen), batch, steps, -1).transpose(1, 0, 2, 3)
