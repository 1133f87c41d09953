"""Parts of the models against definitions written out in NumPy: windowed attention, delays, sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn

from moshi_mlx.frame import MoshiError
from moshi_mlx.models import compiled
from moshi_mlx.models.cache import TransformerState
from moshi_mlx.models.compiled import Compiled
from moshi_mlx.models.config import LmConfig, TransformerConfig
from moshi_mlx.models.delays import Columns, shift, unshift
from moshi_mlx.models.sampling import Sampling, choose, penalise
from moshi_mlx.models.state import leaves, plain, set_leaves, set_plain

HEADS, KV, SIZE = 4, 2, 8


def windowed(q: np.ndarray, k: np.ndarray, v: np.ndarray, context: int) -> np.ndarray:
    """Dense attention over all positions: query p sees keys with 0 ≤ p − q < context. (heads, T, D)."""
    k, v = (np.repeat(x, HEADS // KV, axis=0) for x in (k, v))
    age = np.subtract.outer(np.arange(q.shape[1]), np.arange(q.shape[1]))
    scores = np.where((age >= 0) & (age < context), q @ k.transpose(0, 2, 1) * SIZE**-0.5, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_ring_is_windowed_attention(context: int, steps: int, calls: list[int]) -> None:
    """A ring read in slot order, one key too few or too many after the wrap, or misplaced when it grows."""
    total = sum(calls)
    q, k, v = (np.random.default_rng(total).standard_normal((n, total, SIZE)) for n in (HEADS, KV, KV))
    config = TransformerConfig(HEADS * SIZE, HEADS, 1, 1, context=context, kv_repeat=HEADS // KV)
    state = TransformerState.make(config, 1, steps, mx.float32)
    parts, start = [], 0
    for count in calls:
        cut = slice(start, start + count)
        step = state.begin(count)
        parts.append(state.rings[0].attend(*(mx.array(x[None, :, cut].astype(np.float32)) for x in (q, k, v)), step))
        state.end(count)
        start += count
    assert np.abs(np.concatenate(parts, axis=2)[0] - windowed(q, k, v, context)).max() < 1e-5


def test_state_is_a_tree() -> None:
    """Saving and compiling rely on one order of leaves; a leaf left out is never restored."""
    config = TransformerConfig(16, 2, 3, 1, context=4)
    state = TransformerState.make(config, 1, 1, mx.float32)
    before, values = leaves(state), plain(state)
    assert len(before) == 2 * 3 + 1
    set_leaves(state, [mx.full(leaf.shape, n, leaf.dtype) for n, leaf in enumerate(before)])
    set_plain(state, [n for n, _ in enumerate(values)])
    assert [leaf.reshape(-1)[0].item() for leaf in leaves(state)] == list(range(7))
    assert plain(state) == list(range(len(values)))
    with pytest.raises(ValueError):
        set_leaves(state, before[:-1])


CONFIGS = st.builds(
    lambda own, user: replace(LmConfig(), n_q=len(own) + len(user), dep_q=len(own), delays=(0, *own, *user)),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), max_size=3),
)


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.integers(1, 12))
def test_delays_are_the_naive_table(config: LmConfig, frames: int) -> None:
    """y_k[s] = c_k[s − d_k], initial before; back again what is there, zeros where it is not."""
    codes = np.random.default_rng(frames).integers(0, 99, (2, config.streams, frames))
    table = np.empty_like(codes)
    for k, delay in enumerate(config.delays):
        for s in range(frames):
            table[:, k, s] = codes[:, k, s - delay] if s >= delay else config.initial[k]
    moved = shift(mx.array(codes), config)
    assert np.array_equal(moved, table)
    back, there = unshift(moved[..., None], config.delays)
    for k, delay in enumerate(config.delays):
        assert np.array_equal(there[k], np.arange(frames) < frames - delay)
        assert np.array_equal(back[:, k, : max(0, frames - delay), 0], codes[:, k, : max(0, frames - delay)])
        assert not np.array(back[:, k, max(0, frames - delay) :]).any()


@settings(deadline=None, max_examples=40)
@given(CONFIGS, st.integers(1, 14))
def test_a_few_columns_are_enough_for_ever(config: LmConfig, steps: int) -> None:
    """The live form, which forgets all but max_delay + 1 columns, reads and completes what the whole history would."""
    rng = np.random.default_rng(steps)
    history = np.full((config.streams, steps), -9)  # [stream, frame]
    columns = Columns.make(config)
    for t in range(steps):
        user = rng.integers(0, 99, config.user_q)
        if t:
            history[1 + config.dep_q :, t - 1] = user
        want = [history[k, t - 1 - d] if t - 1 - d >= 0 else config.initial[k] for k, d in enumerate(config.delays)]
        given_user = user if t else np.array(config.initial[1 + config.dep_q :])
        got = columns.inputs(mx.array(given_user.astype(np.int32))[None], config)
        assert got[0].tolist() == want
        sampled = rng.integers(0, 99, 1 + config.dep_q)
        for k, d in enumerate(config.delays[: 1 + config.dep_q]):
            if t >= d:
                history[k, t - d] = sampled[k]
        columns.push(mx.array(sampled.astype(np.int32))[None], config)
        if t >= config.max_delay:
            complete = columns.complete(config)[0].tolist()
            assert complete == history[1 : 1 + config.dep_q, t - config.max_delay].tolist()


def draws(logits: np.ndarray, temperature: float, top_k: int, count: int = 20_000) -> np.ndarray:
    """How often each token is drawn."""
    many = mx.broadcast_to(mx.array(logits), (count, logits.size))
    tokens = choose(many, temperature, top_k, mx.random.gumbel(many.shape, key=mx.random.key(0)))
    return np.bincount(np.array(tokens), minlength=logits.size) / count


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 8), (0.7, 8), (0.8, 3), (2.0, 1), (1.0, 99)])
def test_draws_follow_the_softmax(temperature: float, top_k: int) -> None:
    """Temperature after the noise, or top-k before the division, changes the odds and nothing else."""
    logits = np.array([2.0, -1.0, 0.5, 1.5, 0.0, 1.0, -3.0, 0.2], np.float32)
    odds = np.exp(logits / temperature) * (logits >= np.sort(logits)[-min(top_k, 8)])
    assert np.abs(draws(logits, temperature, top_k) - odds / odds.sum()).max() < 0.015


def test_greedy_and_dtype() -> None:
    """In bf16 the top logits collapse into ties: they become fp32 before the temperature."""
    logits = mx.array([[0.0, 3.0, 2.0]])
    noise = mx.array([[100.0, 0.0, 0.0]])
    assert choose(logits, 0, 25, noise).tolist() == [1]
    assert choose(logits, 0.7, 25, None).tolist() == [1]
    assert choose(logits, 0.7, 3, noise).tolist() == [0]
    assert choose(logits.astype(mx.bfloat16), 0.7, 3, noise).dtype == mx.int32


def test_penalty_spares_padding() -> None:
    """A penalty on PAD and EPAD makes Moshi talk without a pause."""
    logits = mx.array([[1.0, 1.0, 1.0, 1.0, 2.0, -2.0, 4.0], [1.0, 1.0, 1.0, 1.0, 2.0, -2.0, 4.0]])
    recent = mx.array([[0, 3, 4, 5, 4], [6, 6, 0, 0, 0]])
    want = [[1, 1, 1, 1, 1, -4, 4], [1, 1, 1, 1, 2, -2, 2]]
    assert penalise(logits, recent, 2.0).tolist() == want
    assert penalise(logits, recent, 1.0).tolist() == logits.tolist()


@pytest.mark.parametrize(
    "wish",
    [
        {"text_temperature": -0.1},
        {"audio_temperature": float("nan")},
        {"text_top_k": 0},
        {"audio_top_k": float("inf")},
        {"repetition_penalty": 0.5},
        {"repetition_context": 0},
        {"audio_top_k": 2.5},
        {"text_top_k": True},
        {"repetition_context": 10**12},
    ],
)
def test_impossible_sampling(wish: dict[str, float]) -> None:
    """A NaN temperature draws token 0 for ever; half a candidate, or a context of 4 TB, failed in the first frame."""
    with pytest.raises(MoshiError, match=next(iter(wish))):
        Sampling(**wish)


def test_traces_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that gives each user a temperature kept a compiled graph for each, for as long as the model lived."""
    monkeypatch.setattr(compiled, "MOST", 3)
    config = TransformerConfig(32, 1, 1, 32, context=8)

    @dataclass
    class State:
        transformer: TransformerState
        total: mx.array

    class Model(nn.Module):
        def step(self, state: State, scale: float) -> mx.array:
            state.total = state.total + scale
            return state.total

    model = Model()
    live = Compiled(model.step, 1)
    state = State(TransformerState.make(config, 1, 1, mx.float32), mx.array(0.0))
    for scale in (1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 1.0):
        live(state, scale=scale)
    assert len(live._traced) == 3
    assert float(state.total) == 21.0
