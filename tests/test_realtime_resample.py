"""Resamplers and fades, each alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moshi_mlx.frame import RATE
from moshi_mlx.realtime.fade import FADE, Bridge
from moshi_mlx.realtime.resample import Resampler


@pytest.mark.parametrize(
    "rates", [(48_000, 24_000), (44_100, 24_000), (16_000, 24_000), (24_000, 44_100), (24_000, 96_000)]
)
def test_a_resampler_is_the_same_for_any_blocks_on_time_and_flat(rates: tuple[int, int]) -> None:
    """A stream that depends on its blocks clicks at their seams; one that is late or dull is what soxr's streams
    were.
    """
    source, target = rates
    random = np.random.default_rng(0)
    frequency = 0.42 * min(rates)
    sound = np.sin(2 * np.pi * frequency * np.arange(source // 2) / source).astype(np.float32)
    whole = Resampler(source, target).process(sound)
    stream, pieces, at = Resampler(source, target), [], 0
    while at < len(sound):
        count = int(random.integers(0, 500))
        pieces.append(stream.process(sound[at : at + count]))
        at += count
        complete = min(at, len(sound)) / source - sum(map(len, pieces)) / target
        assert complete <= stream.delay + 1 / target  # nothing is held back beyond the filter
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)
    expected = np.sin(2 * np.pi * frequency * np.arange(len(whole)) / target)
    np.testing.assert_allclose(whole[200:-200], expected[200:-200], atol=0.01)  # the gain is 1, and time has not moved
    assert stream.delay < 0.0015


def test_a_resampler_keeps_out_what_would_alias() -> None:
    """A 14 kHz whistle must not reach the model as 10 kHz."""
    sound = np.sin(2 * np.pi * 14_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(Resampler(48_000, 24_000).process(sound)[200:]).max() < 1e-3


def test_equal_rates_pass_through() -> None:
    """A resampler at equal rates must neither delay nor change."""
    sound = np.random.default_rng(0).normal(size=999).astype(np.float32)
    resampler = Resampler(RATE, RATE)
    assert np.array_equal(resampler.process(sound), sound)
    assert resampler.delay == 0


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans(), st.floats(-1, 1)), min_size=1, max_size=20))
def test_a_bridge_leaves_no_step(stretches: list[tuple[int, bool, float]]) -> None:
    """Joining constant stretches of any height, cut while an older fade still runs, must never jump: that is a
    click.
    """
    bridge, line = Bridge(RATE), [np.zeros(1, np.float32)]
    for length, _, height in stretches:
        samples = np.full(length, height, np.float32)
        bridge.join(samples, cut=True)
        line.append(samples)
    assert np.abs(np.diff(np.concatenate(line))).max() <= 2 / (RATE * FADE) + 1e-6
