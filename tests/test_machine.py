"""The arithmetic behind doctor's verdict, on machines that are not here; and the kernels' self-test."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from moshi_mlx.checkpoints.known import KNOWN
from moshi_mlx.cli import kernels
from moshi_mlx.cli.doctor import needs_of
from moshi_mlx.cli.machine import Machine, choose, forecast, forecasts, verdict

NEEDS = [needs for known in KNOWN if (needs := needs_of(known)) is not None]
MOSHI = [needs for needs in NEEDS if needs.name.startswith("moshiko")]
Q4, Q8, BF16 = MOSHI


def machine(memory: float, bandwidth: float, share: float = 2 / 3) -> Machine:
    """GB and GB/s; macOS lends the GPU two thirds of a small memory, three quarters of a large one."""
    return Machine(round(memory * 1e9), round(memory * 1e9 * share), bandwidth * 1e9)


@pytest.mark.parametrize(
    ("here", "name", "kv_bits"),
    [
        (machine(8, 68), None, None),
        (machine(16, 68), None, None),
        (machine(16, 100), "moshiko-q4", 8),
        (machine(24, 120), "moshiko-q4", None),
        (machine(18, 150), "moshiko-q8", 8),
        (machine(36, 200), "moshiko-q8", None),
        (machine(64, 400, 0.75), "moshiko-bf16", None),
        (machine(128, 800, 0.75), "moshiko-bf16", None),
    ],
)
def test_the_right_checkpoint_for_each_machine(here: Machine, name: str | None, kv_bits: int | None) -> None:
    """People learnt after a 5 GB download that their machine cannot keep up."""
    best = choose(here, MOSHI)
    assert (best.name if best else None) == name
    if best is not None:
        assert best.kv_bits == kv_bits
        assert name in verdict(here, MOSHI)
        assert ("--kv-bits 8" in verdict(here, MOSHI)) == (kv_bits == 8)


def test_a_refusal_gives_the_figure_that_says_why() -> None:
    """ "Not supported" convinces nobody, and nobody learns what to buy."""
    assert "needs 7." in verdict(machine(8, 68), MOSHI)
    assert "5.3 GB can be used" in verdict(machine(8, 68), MOSHI)
    slow = verdict(machine(16, 68), MOSHI)
    assert "85.0 ms at 68 GB/s" in slow
    assert "8 bits" in slow
    assert "64 of 80 ms" in slow
    assert "No GPU" in verdict(Machine(64 << 30, 48 << 30, 4e11, gpu=""), MOSHI)
    assert choose(Machine(64 << 30, 48 << 30, 4e11, gpu=""), MOSHI) is None


def test_bytes_are_those_of_the_spec() -> None:
    """A count by hand was wrong by the depth transformer, or by the embedding tables that are only looked up."""
    for needs, weights, frame in ((BF16, 15.38, 14.75), (Q8, 8.17, 7.84), (Q4, 4.81, 4.61)):
        assert needs.weights / 1e9 == pytest.approx(weights, abs=0.006)
        assert (needs.frame - needs.codec) / 1e9 == pytest.approx(frame, abs=0.006)
        assert needs.window / 1e9 == pytest.approx(1.57, abs=0.005)
        assert needs.window_8 is not None
        assert needs.window_8 / needs.window == pytest.approx(8.5 / 16)
    hibiki = {needs.name: needs for needs in NEEDS}
    assert (hibiki["hibiki-1b"].frame - hibiki["hibiki-1b"].codec) / 1e9 == pytest.approx(3.14, abs=0.01)
    assert hibiki["hibiki-2b"].weights / 1e9 == pytest.approx(6.20, abs=0.01)


def test_more_bandwidth_and_memory_never_choose_worse() -> None:
    """A better machine was given the smaller model."""
    ranks = {needs.name: needs.rank for needs in MOSHI}
    for memory in (8, 16, 24, 36, 64, 128):
        chosen = [choose(machine(memory, bandwidth), MOSHI) for bandwidth in range(60, 900, 20)]
        order = [ranks[best.name] if best else 0 for best in chosen]
        assert order == sorted(order)


def test_every_known_checkpoint_is_forecast() -> None:
    """Doctor left out what it did not choose."""
    names = {one.name for one in forecasts(machine(64, 400), NEEDS)}
    assert names == {known.alias for known in KNOWN if known.kind in ("moshi", "hibiki")}
    one = forecast(machine(64, 400), Q4)
    assert one.ms_start == pytest.approx(one.bytes_start / 400e9 * 1000)


def test_kernels_agree_with_numpy_here() -> None:
    """The self-test itself was wrong, and refused good machines."""
    errors = kernels.kernel_errors()
    assert kernels.complain(errors) == ""
    assert set(errors) == {"bf16", "q8", "q4", "windows", "ring"}


def test_a_broken_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that drops a group, or gives NaN, let the model speak noise."""
    right = mx.quantized_matmul

    def wrong(x: mx.array, *rest: mx.array, bits: int, **known: int) -> mx.array:
        result = right(x, *rest, bits=bits, **known)
        return result * mx.array(np.nan) if bits == 4 else result

    monkeypatch.setattr(mx, "quantized_matmul", wrong)
    assert "q4 is off" in kernels.complain(kernels.kernel_errors())


def test_unpacking_equals_mlx() -> None:
    """Both sides of the self-test came from MLX, so that both could be wrong alike; NumPy's must be right by itself."""
    weight = mx.array(np.random.default_rng(3).normal(size=(8, 128)).astype(np.float32))
    for bits, group in kernels.QUANTIZED.values():
        packed, scales, biases = mx.quantize(weight, group_size=group, bits=bits)
        ours = kernels.unpack(np.array(packed), np.array(scales), np.array(biases), bits)
        assert np.allclose(ours, np.array(mx.dequantize(packed, scales, biases, group, bits)), atol=1e-6)
