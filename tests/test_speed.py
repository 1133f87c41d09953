"""What a frame costs, in counts: evaluations, host reads, traces, memory, bytes. Times are for `moshi-mlx bench`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moshi_mlx import Sampling, Session
from moshi_mlx.checkpoints.load import Moshi
from moshi_mlx.cli.bench_count import count_bytes, counted_calls, frame_primitives, kv_read, primitives, traces
from moshi_mlx.cli.bench_random import random_moshi
from moshi_mlx.cli.bench_time import fill, noise
from moshi_mlx.frame import FRAME, Reply
from moshi_mlx.models import memory
from moshi_mlx.models.cache import TransformerState
from moshi_mlx.models.compiled import Compiled
from moshi_mlx.models.config import DepthConfig, LmConfig, TransformerConfig
from moshi_mlx.models.lm import Lm
from moshi_mlx.models.sampling import kth_largest
from moshi_mlx.models.state import leaves
from moshi_mlx.quantization.calibration import converse
from moshi_mlx.session import SessionState

READS = ("item", "tolist", "__array__", "__dlpack__", "__bool__", "__int__", "__float__", "__index__")


@pytest.fixture
def moshi(load: Callable[[str], Moshi]) -> Moshi:
    """Windows of 10 frames and 6 latent steps."""
    return load("moshi")


@pytest.fixture
def compiling() -> Iterator[None]:
    mx.enable_compile()
    yield
    mx.disable_compile()


def small_lm(context: int) -> Lm:
    """One head of 64, so that keys can be kept in 8 bits."""
    depth = DepthConfig(TransformerConfig(32, 1, 1, 32, rope=None), (0, 1))
    return Lm(LmConfig(TransformerConfig(64, 1, 2, 64, context=context), depth, 40, 40, 32, 3, 2, (0, 0, 1, 0)))


def speak(session: Session, frames: int) -> list[Reply]:
    return [session.step(4 * pcm) for pcm in noise(frames)]


def test_a_frame_is_evaluated_and_read_once(moshi: Moshi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kyutai's port waits for the device about 19 times a frame: hidden `.any()` and `.item()` count as well."""
    session = Session(moshi, seed=1)
    speak(session, 2)
    whole = sum(sum(count.values()) for count in frame_primitives(session).values())
    hidden: list[str] = []
    for name in READS:
        real = getattr(mx.array, name)
        monkeypatch.setattr(
            mx.array, name, lambda self, *a, name=name, real=real: (hidden.append(name), real(self, *a))[1]
        )
    graphs: list[int] = []
    evaluate = mx.eval
    monkeypatch.setattr(mx, "eval", lambda *tree: (graphs.append(sum(primitives(tree[0]).values())), evaluate(*tree)))
    with counted_calls() as calls:
        session.step(np.zeros(FRAME, np.float32))
    assert (calls.evaluations, calls.host_reads, hidden) == (1, 1, [])
    assert graphs[0] > 0.8 * whole, "a part of the frame was evaluated before the rest was built"


def test_compiled_is_plain(moshi: Moshi, compiling: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that froze an offset, a key or a window agrees for a few frames and then diverges."""
    compiled = Session(moshi, seed=5)
    compiled.warm_up()
    before = traces(moshi)
    heard = speak(compiled, 34)  # more than 3 windows
    assert traces(moshi) == before, "a frame after the warm-up was traced"
    mx.disable_compile()
    monkeypatch.setattr(Compiled, "__call__", lambda self, *inputs, **options: self._function(*inputs, **options))
    plain = speak(Session(moshi, seed=5), 34)
    assert len({reply.text_token for reply in plain}) > 5
    for ours, theirs in zip(heard, plain, strict=True):
        assert ours.text_token == theirs.text_token
        assert np.array_equal(ours.user_codes, theirs.user_codes)
        assert np.array_equal(ours.codes, theirs.codes)
        assert np.abs(ours.pcm - theirs.pcm).max() < 5e-5


def test_lazy_weights_are_read_once(compiling: None) -> None:
    """A trace keeps what it finds: weights that are still lazy (a file, a conversion) were made anew in every frame."""
    lm = small_lm(context=20)
    made = mx.random.normal(lm.text_linear.weight.shape, key=mx.random.key(1)) @ mx.ones((64, 64))
    lm.text_linear.weight = made
    state = lm.make_state(0)
    lm.step(mx.zeros((1, 1), mx.int32), state, Sampling())
    assert primitives(made) == {}


def test_talk_for_a_measurement_holds_no_weights(compiling: None) -> None:
    """A trace keeps the weights that it found: plans were measured beside a second model."""
    lm = small_lm(context=20)
    mx.eval(lm.parameters())
    before = mx.get_active_memory()
    converse(lm, np.zeros((1, 1, 3), np.int32), seed=0)
    lm.text_linear.weight = mx.random.normal(lm.text_linear.weight.shape, key=mx.random.key(1))
    mx.eval(lm.text_linear.weight)
    assert mx.get_active_memory() - before < lm.text_linear.weight.nbytes


def test_the_warm_up_runs_every_way_of_reading(moshi: Moshi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is traced and not run has no kernels yet on Metal, which builds them in the conversation."""
    sampled: list[mx.array] = []
    step = moshi.lm.step
    monkeypatch.setattr(moshi.lm, "step", lambda *inputs: sampled.append(step(*inputs)) or sampled[-1])
    Session(moshi, seed=1).warm_up()
    assert len(sampled) > 3
    assert all(primitives(tokens) == {} for tokens in sampled)


def test_every_way_of_reading_is_traced_in_the_warm_up(moshi: Moshi) -> None:
    """A ring that fills is read in longer parts: a trace in the middle of a conversation is a hiccup of many frames."""
    config = TransformerConfig(32, 1, 1, 32, context=3000)
    state = TransformerState.make(config, 1, 1, mx.float32)
    ways = []
    for offset in range(6100):
        state.offset = offset
        ways.append(state.way(1))
    turns = [0, *(n for n in range(1, 6100) if ways[n] != ways[n - 1])]
    assert turns == state.turns()
    assert all(used >= min(offset + 1, 3000) for offset, (used, _, _) in enumerate(ways))
    assert {whole for _, whole, _ in ways} == {True}
    assert [masked for _, _, masked in ways] == [offset < 2999 for offset in range(6100)]


def test_warm_up_leaves_no_trace_in_the_conversation(moshi: Moshi) -> None:
    """Kyutai's warm-up runs on the live state: every conversation starts with 320 ms of hidden past."""
    warm, cold = Session(moshi, seed=9), Session(moshi, seed=9)
    done: list[float] = []
    warm.warm_up(done.append)
    assert done == sorted(done)
    assert done[-1] == 1
    for ours, theirs in zip(speak(warm, 4), speak(cold, 4), strict=True):
        assert (ours.frame, ours.text, ours.text_token) == (theirs.frame, theirs.text, theirs.text_token)
        assert np.array_equal(ours.pcm, theirs.pcm)


@pytest.mark.parametrize("kv_bits", [None, 8])
def test_rings_are_written_in_place(kv_bits: int | None, compiling: None) -> None:
    """One forgotten reference to a ring makes every write a copy: at 7B, 1.6 GB a frame."""
    lm = small_lm(context=20_000)
    mx.eval(lm.parameters())
    base = mx.get_active_memory()
    state = lm.make_state(0, kv_bits=kv_bits)
    size = sum(leaf.nbytes for leaf in leaves(state))
    peaks = []
    for _ in range(6):
        mx.reset_peak_memory()
        sampled = lm.step(mx.zeros((1, 1), mx.int32), state, Sampling())
        mx.eval(sampled, leaves(state))
        peaks.append(mx.get_peak_memory() - base)
    assert max(peaks) < 1.1 * size  # keys or values of one layer are a quarter
    assert max(peaks[3:]) - min(peaks[3:]) < 1 << 14


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9000), st.data())
def test_kth_largest(n: int, data: st.DataObject) -> None:
    """Ties across blocks, padding that wins, and rows of −∞ are where a search by block maxima goes wrong."""
    k = data.draw(st.integers(1, min(n, 300)))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = random.normal(size=(2, n)).astype(np.float32)
    if data.draw(st.booleans()):
        rows = np.round(rows)  # mostly ties
    rows[:, random.random(n) < data.draw(st.sampled_from([0, 0.5, 1]))] = -np.inf
    assert np.array_equal(kth_largest(mx.array(rows), k), np.sort(rows, axis=-1)[:, n - k : n - k + 1])


@pytest.mark.parametrize(
    ("recipe", "limit"), [("uniform-4", 5.5e9), ("mixed-4-8", 5.4e9), ("4/64", 5.0e9), ("uniform-3", 4.4e9)]
)
def test_bytes_of_a_frame_of_7b(recipe: str, limit: float) -> None:
    """The budget that decides whether a Mac holds 80 ms, from the arrays themselves; nothing is allocated."""
    before = mx.get_active_memory()
    moshi = random_moshi("moshiko-q4", recipe, lazy=True)
    state = SessionState(moshi.lm.make_state(0, kv_bits=8), moshi.mimi.make_state())
    counted = count_bytes(moshi, state, 3000)
    assert counted["reads"]["now"] == counted["reads"]["full"]
    assert 0.9 * limit < counted["reads"]["full"]["language_model"] <= limit
    assert counted["held"]["all"] <= 6.1e9
    assert mx.get_active_memory() - before < 1 << 20


def test_an_early_conversation_reads_little() -> None:
    """A ring that is read whole from the first frame costs a full window of bandwidth before anything was said."""
    moshi = random_moshi("moshiko-q4", lazy=True)
    ring = moshi.lm.make_state(0, kv_bits=8).transformer
    assert kv_read(ring, 100) * 11 < kv_read(ring, 3000) == kv_read(ring, 100_000)


def test_filled_context_is_read_whole(moshi: Moshi) -> None:
    """`bench --context` must measure a full window: an offset that leaves the position behind measures an empty one."""
    session = Session(moshi, seed=1)
    fill(session, 1000)
    reply = session.step(np.zeros(FRAME, np.float32))
    assert reply.frame == 1000
    assert session.state.lm.transformer.position.item() == session.state.lm.transformer.offset == 1001


def test_memory_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over-wiring froze 16 GB Macs; a Mac before macOS 15 raises."""
    told: dict[str, int] = {}
    monkeypatch.setattr(mx, "set_wired_limit", lambda n: told.update(wired=n))
    monkeypatch.setattr(mx, "set_cache_limit", lambda n: told.update(cache=n))
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 10 << 30})
    assert memory.limit_memory(5 << 30) == 0  # no Metal here
    assert "wired" not in told
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(memory.platform, "mac_ver", lambda: ("14.7.1", ("", "", ""), "arm64"))
    assert memory.limit_memory(5 << 30) == 0
    assert "wired" not in told
    monkeypatch.setattr(memory.platform, "mac_ver", lambda: ("15.0", ("", "", ""), "arm64"))
    assert memory.limit_memory(5 << 30) == told["wired"] == 6 << 30
    assert memory.limit_memory(50 << 30) == told["wired"] == 10 << 30
    assert told["cache"] <= 1 << 30


def test_a_broken_compiler_is_survived(tmp_path: Path) -> None:
    """On Linux MLX compiles with g++ while it runs: one that fails ended the first frame in a traceback."""
    fake = tmp_path / "g++"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\nexit 1\n')
    fake.chmod(0o755)
    program = (
        "import mlx.core as mx; from moshi_mlx.models.compiled import settle; settle();"
        "print(mx.compile(lambda x: mx.exp(x) * 3 + x)(mx.zeros(3)).tolist())"
    )
    env = {k: v for k, v in os.environ.items() if k != "MLX_DISABLE_COMPILE"}
    env |= {"PATH": f"{tmp_path}:{env['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[3.0, 3.0, 3.0]"), done.stderr
