"""Measuring the loss, on which codes, and drawing it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from quantization_kit import BASE, HIBIKI, SMALL, make_source, random_lm

import moshi_mlx
from moshi_mlx.frame import FRAME
from moshi_mlx.quantization.calibration import calibrate, converse, hear
from moshi_mlx.quantization.measure import compare, logits
from moshi_mlx.quantization.plot import Point, drawing


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("measure") / "source", **SMALL)


def test_loss_is_zero_for_itself_and_positive_otherwise(source: Path) -> None:
    """Guards against a divergence the wrong way round, or one that averages over masked frames."""
    lm = moshi_mlx.load(source).lm
    codes = np.random.default_rng(0).integers(32, size=(2, 5, 9)).astype(np.int32)
    codes[0, :, 4:] = -1  # half of one sequence is unknown
    reference = logits(lm, codes)
    same = compare(reference, reference)
    assert same.total == 0
    assert set(same.agreement) == {1.0}
    other = logits(random_lm(BASE | SMALL | {"max_period": 50}), codes)
    loss = compare(reference, other)
    for stream, (a, b, mask) in enumerate(
        [(reference.text, other.text, reference.text_mask)]
        + [(reference.audio[:, k], other.audio[:, k], reference.audio_mask[:, k]) for k in range(2)]
    ):
        p, q = (np.exp(np.array(x, np.float64)) for x in (a, b))
        p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
        known = np.array(mask)
        assert 0 < known.sum() < known.size
        assert loss.kl[stream] == pytest.approx((p * np.log(p / q)).sum(-1)[known].mean(), rel=1e-3)
        assert loss.agreement[stream] == pytest.approx((p.argmax(-1) == q.argmax(-1))[known].mean())


def test_calibration_codes_are_the_models_own_conversation(source: Path) -> None:
    """Guards against misaligned streams: Moshi's side must be likely under the model that said it, at every frame, and
    the user's side must be what was heard."""
    moshi = moshi_mlx.load(source)
    user = np.random.default_rng(3).integers(32, size=(2, 2, 30)).astype(np.int32)
    codes = converse(moshi.lm, user, seed=4)
    assert codes.shape == (2, 5, 30)
    assert np.array_equal(codes[:, 3:], user)
    assert codes[:, 1:].max() < 32
    again = converse(moshi.lm, user, seed=4)
    assert np.array_equal(codes, again)
    own = moshi.lm.logits(codes)
    shifted = moshi.lm.logits(np.roll(codes, 1, axis=2))

    def likelihood(out: object, tokens: np.ndarray) -> float:
        log = np.array(mx.softmax(out.audio.astype(mx.float32), axis=-1)) + 1e-9
        picked = np.take_along_axis(np.log(log), tokens[:, 1:3, :, None], axis=-1)[..., 0]
        return float(picked[np.array(out.audio_mask)].mean())

    assert likelihood(own, codes) > likelihood(shifted, codes) + 0.5
    assert likelihood(own, codes) > np.log(1 / 32) + 0.5


@pytest.mark.parametrize("changes", [{}, HIBIKI, {"n_q": 2, "dep_q": 2, "delays": [0, 0, 1]}])
def test_calibration_with_and_without_sound(tmp_path: Path, changes: dict) -> None:
    """Guards against shapes that only hold for one kind of model: with conditions, with no user streams, with sounds
    shorter and longer than what is wanted."""
    moshi = moshi_mlx.load(make_source(tmp_path / "source", **changes))
    rng = np.random.default_rng(0)
    for sounds in ((), [rng.normal(0, 0.1, 5 * FRAME + 7).astype(np.float32)], [np.zeros(40 * FRAME, np.float32)] * 2):
        codes = calibrate(moshi.mimi, moshi.lm, sounds, sequences=2, frames=9)
        assert codes.shape == (2, moshi.config.lm.streams, 9)
        assert codes.min() >= 0


def test_what_auto_chose_by_is_not_what_proves_it(source: Path) -> None:
    """Short sounds were taken from the beginning again, and every frame of the proof was one that `auto` had heard."""
    moshi, rng = moshi_mlx.load(source), np.random.default_rng(1)
    sounds = [rng.normal(0, 0.2, 30 * FRAME).astype(np.float32), rng.normal(0, 0.1, 20 * FRAME).astype(np.float32)]
    heard = np.concatenate([hear(moshi.mimi, pcm, 2) for pcm in sounds], axis=1)
    talks = []
    for part in ((0, 0.8), (0.8, 1)):
        codes = calibrate(moshi.mimi, moshi.lm, sounds, sequences=3, frames=20, part=part)
        talks.append({tuple(column) for column in codes[:, 3:].transpose(0, 2, 1).reshape(-1, 2).tolist()})
    assert talks[0] == {tuple(column) for column in heard[:, :40].T.tolist()}
    assert talks[1] == {tuple(column) for column in heard[:, 40:].T.tolist()}
    assert talks[1] - talks[0]


def test_measuring_keeps_no_more_than_it_needs(source: Path) -> None:
    """Rings of a full window for every sequence were 25 GB beside a 7B, for 10 s of talk."""
    lm = random_lm(BASE | SMALL | {"context": 20_000})
    user = np.zeros((4, 2, 5), np.int32)
    for work in (lambda: converse(lm, user, 0), lambda: logits(lm, np.zeros((4, 5, 20), np.int32))):
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        work()
        assert mx.get_peak_memory() - before < 2e6  # a full window: 20 MB


def test_kv_bits_cost_something_and_little(source: Path) -> None:
    """Guards against a measurement of 8-bit keys and values that does not use them."""
    lm = moshi_mlx.load(source).lm
    codes = np.random.default_rng(0).integers(32, size=(1, 5, 30)).astype(np.int32)
    reference = logits(lm, codes)
    assert 0 < compare(reference, logits(lm, codes, 8)).total < compare(reference, logits(lm, codes * 0, 8)).total


@pytest.mark.parametrize(
    "points",
    [
        [Point("uniform", "one", 5e6, 0.1)],
        [Point("uniform", "zero", 5e9, 0.0)],
        [Point("mixed", "<&>", 5e9, 1.0), Point("auto", "b", 5e9, 1.0)],
    ],
)
def test_drawing_of_odd_points_is_valid(points: list[Point]) -> None:
    """Guards against log of zero, division by an empty span and unescaped names."""
    root = ET.fromstring(drawing("a < b", points))
    assert len([node for node in root.iter() if node.tag.endswith("circle")]) >= len(points)


def test_all_sounds_are_heard(source: Path) -> None:
    """Only the first seconds of the first sound were, and the card said "3 given sounds"."""
    moshi, rng = moshi_mlx.load(source), np.random.default_rng(1)
    sounds = [rng.normal(0, level, 30 * FRAME).astype(np.float32) for level in (0.05, 0.1, 0.2)]
    codes = calibrate(moshi.mimi, moshi.lm, sounds, sequences=3, frames=6)
    for row, pcm in zip(codes, sounds, strict=True):
        assert np.array_equal(row[3:], hear(moshi.mimi, pcm, 2)[:, :6])
