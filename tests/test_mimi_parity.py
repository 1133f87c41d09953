"""The codec against PyTorch (tests/fixtures/mimi) and its streams against its own offline path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from conftest import FIXTURES, Arrays

from moshi_mlx.checkpoints.load import load_codec
from moshi_mlx.frame import FRAME, MoshiError
from moshi_mlx.models.mimi import Mimi
from moshi_mlx.models.state import leaves

LATENTS, PCM = 1e-4, 5e-5  # spec, mimi.md section 6


@pytest.fixture(scope="module")
def mimi(load: Callable) -> Mimi:
    return load("moshi").mimi


@pytest.fixture(scope="module")
def said(arrays: Callable[[str], Arrays]) -> Arrays:
    """The fixture in our layouts: pcm and decoded (1, samples, 1)."""
    made = arrays("mimi")
    return made | {
        "pcm": made["pcm"].astype(np.float32).transpose(0, 2, 1) / 32768,
        "decoded": made["decoded"].transpose(0, 2, 1),
    }


def latents(mimi: Mimi, pcm: np.ndarray) -> np.ndarray:
    return np.array(mimi.latents(mx.array(pcm), mimi.make_state(pcm.shape[0]).encoder))


def cuts(total: int, sizes: list[int]) -> Iterator[slice]:
    """Slices of the sizes in turn, round and round, until `total` is used up."""
    start = turn = 0
    while start < total:
        end = min(total, start + sizes[turn % len(sizes)])
        yield slice(start, end)
        start, turn = end, turn + 1


def worst(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def test_latents_equal_the_reference(mimi: Mimi, said: Arrays) -> None:
    """Plausible to the ear: no causal mask, tanh GELU, a window off by one, zeros before the downsampler."""
    assert worst(latents(mimi, said["pcm"]), said["latents"]) < LATENTS


def test_quantizer_equals_the_reference(mimi: Mimi, said: Arrays) -> None:
    """Acoustics quantized from the semantic residual, or usage without its floor, which makes dead entries win."""
    assert np.array_equal(mimi.quantizer.encode(mx.array(said["latents"])), said["codes"])


def test_codes_equal_the_reference(mimi: Mimi, said: Arrays) -> None:
    """The whole encoder, as a user calls it."""
    assert (np.array(mimi.encode(said["pcm"])) == said["codes"]).mean() >= 0.995


def test_sound_equals_the_reference(mimi: Mimi, said: Arrays) -> None:
    """A transposed convolution's bias added twice, its axes swapped, the upsampler's taps in the wrong order."""
    assert worst(np.array(mimi.decode(said["given"])), said["decoded"]) < PCM


@pytest.mark.parametrize("change", [-1, 1])
def test_the_window_shows(mimi: Mimi, said: Arrays, change: int) -> None:
    """Guards the fixture: it must tell its window from one that is a frame shorter or longer."""
    other = load_codec(FIXTURES / "mimi" / "mimi.safetensors", _with_context(mimi, change))
    assert worst(latents(other, said["pcm"]), said["latents"]) > 100 * LATENTS
    assert worst(np.array(other.decode(said["given"])), said["decoded"]) > 100 * PCM


def _with_context(mimi: Mimi, change: int):  # type: ignore[no-untyped-def]
    transformer = mimi.config.transformer
    return replace(mimi.config, transformer=replace(transformer, context=transformer.context + change))


@pytest.mark.parametrize("sizes", [[1], [3], [1, 2, 5], [4, 1, 1, 40], [1, 1, 1, 1, 1, 1, 1, 6, 2, 9]])
def test_any_division_is_offline(mimi: Mimi, said: Arrays, sizes: list[int]) -> None:
    """A ring of `context` slots loses a key for the first of two steps a call: results depend on the call size."""
    pcm = np.concatenate([said["pcm"], said["pcm"][:, ::-1]], axis=1)  # 36 frames, 12 windows
    given = np.concatenate([said["given"], said["given"][..., ::-1]], axis=2)
    state, heard, codes, sound = mimi.make_state(), [], [], []
    other = mimi.make_state()
    for cut in cuts(given.shape[2], sizes):
        piece = pcm[:, cut.start * FRAME : cut.stop * FRAME]
        heard.append(mimi.latents(mx.array(piece), other.encoder))
        codes.append(mimi.encode(piece, state))
        sound.append(mimi.decode(given[..., cut], state))
    assert worst(np.concatenate(heard, axis=1), latents(mimi, pcm)) < LATENTS
    assert (np.concatenate(codes, axis=2) == np.array(mimi.encode(pcm))).mean() >= 0.998
    assert worst(np.concatenate(sound, axis=1), np.array(mimi.decode(given))) < PCM


def test_long_call_is_cut_alike(mimi: Mimi, said: Arrays) -> None:
    """Offline works in pieces of 32 frames; a seam between them would only show in recordings longer than 2.5 s."""
    pcm = np.tile(said["pcm"], (1, 4, 1))  # 72 frames
    whole = latents(mimi, pcm)
    assert worst(np.array(mimi.quantizer.encode(mx.array(whole))), np.array(mimi.encode(pcm))) == 0


def test_encoder_and_decoder_do_not_touch(mimi: Mimi, said: Arrays) -> None:
    """Upstream's offline encode reset the caches of a live stream."""
    state = mimi.make_state()
    first = mimi.encode(said["pcm"][:, : 9 * FRAME], state)
    mimi.decode(said["given"], state)
    mimi.encode(said["pcm"])
    second = mimi.encode(said["pcm"][:, 9 * FRAME :], state)
    assert np.array_equal(mx.concatenate([first, second], axis=2), said["codes"])


def test_decoding_leaves_the_encoder_alone(mimi: Mimi, said: Arrays) -> None:
    """The state is one object; a decoder that writes into the encoder's half would corrupt the user's side."""
    state = mimi.make_state()
    mimi.encode(said["pcm"][:, :FRAME], state)
    before = [np.array(leaf) for leaf in leaves(state.encoder)]
    mx.eval(mimi.decode(said["given"], state))
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(state.encoder), strict=True))


def test_signals_of_a_batch_are_apart(mimi: Mimi, said: Arrays) -> None:
    """A reduction over the wrong axis mixes the signals of a batch and leaves batch 1 right."""
    pcm = np.concatenate([said["pcm"], -said["pcm"], 0 * said["pcm"]])
    codes = np.array(mimi.encode(pcm))
    assert codes.shape == (3, *said["codes"].shape[1:])
    for row, single in zip(codes, pcm, strict=True):
        assert (row == np.array(mimi.encode(single[None]))[0]).mean() >= 0.998
    sound = np.array(mimi.decode(np.concatenate([said["given"], said["codes"]])))
    assert worst(sound[:1], said["decoded"]) < PCM


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_codebooks_are_the_first_ones(mimi: Mimi, said: Arrays, count: int) -> None:
    """The file always has all levels; a strict load failed on the unused ones, and K = 1 has no acoustic part."""
    config = replace(mimi.config, codebooks=count)
    few = load_codec(FIXTURES / "mimi" / "mimi.safetensors", config)
    assert np.array_equal(few.encode(said["pcm"]), said["codes"][:, :count])
    assert few.decode(said["codes"][:, :count]).shape == said["pcm"].shape


def test_end_is_padded(mimi: Mimi, said: Arrays) -> None:
    """Offline pads the end with zeros to a whole frame, as the reference does; padding the start shifts all."""
    cut = said["pcm"][:, : 5 * FRAME + 7]
    padded = np.pad(cut, [(0, 0), (0, FRAME - 7), (0, 0)])
    assert np.array_equal(mimi.encode(cut), mimi.encode(padded))
    assert mimi.encode(cut[:, :1]).shape == (1, 8, 1)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int32])
def test_codes_of_any_integer_type(mimi: Mimi, said: Arrays, dtype: type) -> None:
    """Codes come from NumPy files as well as from the model."""
    assert worst(np.array(mimi.decode(said["given"].astype(dtype))), said["decoded"]) < PCM
    assert worst(np.array(mimi.decode(mx.array(said["given"].astype(dtype)))), said["decoded"]) < PCM


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.encode(np.zeros((1, FRAME), np.float32)),
        lambda m: m.encode(np.zeros((1, 0, 1), np.float32)),
        lambda m: m.encode(np.zeros((1, FRAME, 2), np.float32)),
        lambda m: m.encode(np.zeros((1, FRAME + 1, 1), np.float32), m.make_state()),
        lambda m: m.decode(np.zeros((1, 7, 3), np.int32)),
        lambda m: m.decode(np.zeros((1, 8, 0), np.int32)),
        lambda m: m.decode(np.zeros((8, 3), np.int32)),
        lambda m: m.decode(np.full((1, 8, 3), 32)),
        lambda m: m.decode(np.full((1, 8, 3), -1)),
    ],
)
def test_bad_input(mimi: Mimi, call: Callable[[Mimi], object]) -> None:
    """A partial frame misaligns a stream for ever; a code outside the codebook reads another level's row."""
    with pytest.raises(MoshiError) as caught:
        call(mimi)
    assert "\n" not in str(caught.value)
