"""The language model against PyTorch (tests/fixtures): every variation that concerns Moshi, every layout of file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import CONDITIONS, FIXTURES, Arrays, copy_checkpoint
from mlx import nn
from mlx.utils import tree_flatten, tree_map

import moshi_mlx
from moshi_mlx.checkpoints.load import Moshi, open_checkpoint, read_tensors
from moshi_mlx.checkpoints.names import split_audio_tables
from moshi_mlx.frame import MoshiError
from moshi_mlx.models.lm import Lm, Logits
from moshi_mlx.models.sampling import Sampling

SHARE = 2e-5  # of the largest logit
NAMES = ("moshi", "hibiki", "own", "grouped")
GREEDY = Sampling(text_temperature=0, audio_temperature=0)


def logits(moshi: Moshi, codes: np.ndarray, name: str = "") -> Logits:
    return moshi.lm.logits(codes, moshi.lm.condition(CONDITIONS.get(name, {})))


def share(got: mx.array, want: np.ndarray) -> float:
    """The largest difference as a share of the largest value."""
    assert got.shape == want.shape
    return float(np.abs(np.array(got) - want).max() / np.abs(want).max())


def same(a: Logits, b: Logits) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def live(moshi: Moshi, user: np.ndarray, name: str = "") -> tuple[np.ndarray, np.ndarray]:
    """A greedy conversation without the codec: text tokens by step, Moshi's frames (dep_q, frames)."""
    lm, config = moshi.lm, moshi.lm.config
    state, condition = lm.make_state(seed=0), lm.condition(CONDITIONS.get(name, {}))
    text, frames = [], []
    initial = np.array(config.initial[1 + config.dep_q :])
    for step, codes in enumerate([initial, *user.T]):
        sampled = lm.step(mx.array(codes)[None], state, GREEDY, condition)
        text.append(sampled[0, 0].item())
        if step >= config.max_delay:
            frames.append(np.array(state.columns.complete(config)[0]))
    return np.array(text), np.stack(frames, axis=1)


@pytest.mark.parametrize("name", NAMES)
def test_teacher_forced_logits(load: Callable, arrays: Callable[[str], Arrays], name: str) -> None:
    """Window or RoPE off by one, gate and up swapped, wrong sets of a schedule, delays twice, −1 as a row."""
    want = arrays(name)
    got = logits(load(name), want["codes"], name)
    assert share(got.text, want["text_logits"]) < SHARE
    assert share(got.audio, want["audio_logits"]) < SHARE
    assert np.array_equal(got.text_mask, want["text_mask"])
    assert np.array_equal(got.audio_mask, want["audio_mask"])


@pytest.mark.parametrize("name", NAMES)
def test_live_session_is_the_reference_runner(load: Callable, arrays: Callable[[str], Arrays], name: str) -> None:
    """User codes a frame early or late, a ring read in slot order after it wraps: plausible speech, wrong tokens."""
    want = arrays(name)
    moshi = load(name)
    assert want["live_user"].shape[1] > 3 * moshi.lm.config.transformer.context
    text, frames = live(moshi, want["live_user"], name)
    assert np.array_equal(text, want["live_text"])
    assert np.array_equal(frames, want["live_frames"])


@pytest.mark.parametrize("name", NAMES)
def test_live_session_is_teacher_forced(load: Callable, arrays: Callable[[str], Arrays], name: str) -> None:
    """What the session said, put back as codes, is the most likely everywhere: both paths have one timing."""
    moshi, user = load(name), arrays(name)["live_user"]
    text, frames = live(moshi, user, name)
    length = frames.shape[1]
    codes = np.concatenate([text[None, :length], frames, user[:, :length]])
    got = logits(moshi, codes[None], name)
    assert np.array_equal(np.argmax(got.text[0], axis=-1), text[:length])
    known = np.array(got.audio_mask[0])
    assert np.array_equal(np.argmax(got.audio[0], axis=-1)[known], frames[known])


def test_context_shows(load: Callable, arrays: Callable[[str], Arrays]) -> None:
    """Guards the fixture: it must tell a window of `context` keys from one more or one fewer."""
    moshi, want = load("moshi"), arrays("moshi")
    for change in (-1, 1):
        config = moshi.lm.config
        transformer = replace(config.transformer, context=config.transformer.context + change)
        other = Lm(replace(config, transformer=transformer))
        other.update(moshi.lm.parameters())
        assert share(other.logits(want["codes"]).text, want["text_logits"]) > 100 * SHARE


def test_pieces_of_a_long_sequence_join(load: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher forcing works in pieces; a seam would only show in sequences longer than one."""
    moshi = load("moshi")
    codes = np.random.default_rng(0).integers(0, 32, (1, 17, 50))
    whole = logits(moshi, codes)
    monkeypatch.setattr("moshi_mlx.models.lm.PIECE", 7)
    assert share(logits(moshi, codes).text, np.array(whole.text)) < SHARE


def _write(folder: Path, tensors: dict[str, mx.array], name: str = "model.safetensors") -> Moshi:
    (folder / "model.safetensors").unlink()
    mx.save_safetensors(str(folder / name), tensors)
    config = json.loads((folder / "config.json").read_text()) | {"moshi_name": name}
    (folder / "config.json").write_text(json.dumps(config))
    return moshi_mlx.load(folder)


def format_a(lm: Lm) -> dict[str, mx.array]:
    return split_audio_tables(dict(tree_flatten(lm.parameters())), lm.config)


@pytest.mark.parametrize("name", NAMES)
def test_format_a_is_format_b(load: Callable, arrays: Callable[[str], Arrays], writable: Callable, name: str) -> None:
    """The MLX layout of a model must be the model: format A holds copies where B shares sets and norms."""
    moshi = load(name)
    tensors = format_a(moshi.lm)
    assert "audio_embs.1.weight" in tensors
    assert "depformer.slices.1.transformer.layers.0.norm1.weight" in tensors
    again = _write(writable(name), tensors)
    codes = arrays(name)["codes"]
    assert same(logits(again, codes, name), logits(moshi, codes, name))


def test_both_spellings_of_format_b(load: Callable, arrays: Callable[[str], Arrays], writable: Callable) -> None:
    """Published files stack the weight sets of a layer, exports of the current classes keep one tensor a set."""
    folder = writable("moshi")
    stacked = read_tensors(FIXTURES / "moshi" / "model.safetensors")
    split: dict[str, mx.array] = {}
    for name, value in stacked.items():
        sets = 8 if name.startswith("depformer.") else 1
        for one, many in (("self_attn.in_proj_weight", "in_projs"), ("self_attn.out_proj.weight", "out_projs")):
            if name.endswith(one):
                stem = name.removesuffix(one) + "self_attn." + many
                split |= {f"{stem}.{i}.weight": part for i, part in enumerate(mx.split(value, sets))}
                break
        else:
            split[name] = value
    assert len(split) > len(stacked)
    codes = arrays("moshi")["codes"]
    assert same(logits(_write(folder, split), codes), logits(load("moshi"), codes))


def test_format_c_is_format_b(load: Callable, arrays: Callable[[str], Arrays], writable: Callable) -> None:
    """The Rust layout: format B's names for the temporal part, one slice a codebook for the depth part."""
    moshi = load("moshi")
    tensors: dict[str, mx.array] = {}
    for name, value in format_a(moshi.lm).items():
        name = name.replace("audio_embs.", "emb.").replace("depformer.slices.", "depformer.")
        name = name.replace("in_proj.weight", "in_proj_weight")
        if "norm" in name:
            name, value = name.replace(".weight", ".alpha"), value.reshape(1, 1, -1)
        tensors[name] = value
    codes = arrays("moshi")["codes"]
    assert same(logits(_write(writable("moshi"), tensors), codes), logits(moshi, codes))


@pytest.mark.parametrize(("bits", "group", "name"), [(4, 32, "q4"), (8, 64, "q8"), (4, 64, "odd"), (6, 32, "odd")])
def test_quantized_a_is_its_own_numbers(
    tmp_path: Path, arrays: Callable[[str], Arrays], bits: int, group: int, name: str
) -> None:
    """Bits and group come from shapes, not from the file's name; in quantized embeddings −1 stays the zero vector."""
    folder, lm = _wide(tmp_path)
    nn.quantize(lm, group, bits)
    tensors = format_a(lm)
    assert tensors["audio_embs.0.weight"].dtype == mx.uint32
    plain: dict[str, mx.array] = {}
    for key, value in tensors.items():
        module, _, leaf = key.rpartition(".")
        if f"{module}.scales" not in tensors:
            plain[key] = value
        elif leaf == "weight":
            scales, biases = tensors[f"{module}.scales"], tensors[f"{module}.biases"]
            plain[key] = mx.dequantize(value, scales, biases, group, bits)
    codes = np.random.default_rng(0).integers(-1, 32, (2, 17, 25))
    shutil.copytree(folder, tmp_path / "plain")
    got = logits(_write(folder, tensors, f"model.{name}.safetensors"), codes)
    want = logits(_write(tmp_path / "plain", plain), codes)
    assert share(got.text, np.array(want.text)) < SHARE
    assert share(got.audio, np.array(want.audio)) < SHARE


def _wide(tmp_path: Path) -> tuple[Path, Lm]:
    """A checkpoint whose widths all divide into groups of 64, and its model with random weights."""
    folder = copy_checkpoint("moshi", tmp_path / "wide")
    config = json.loads((folder / "config.json").read_text())
    config |= {"dim": 64, "hidden_scale": 3, "depformer_dim": 64, "depformer_dim_feedforward": 192}
    (folder / "config.json").write_text(json.dumps(config))
    lm = Lm(open_checkpoint(folder).config.lm)
    mx.random.seed(0)
    lm.update(tree_map(lambda a: (a.ndim == 1) + mx.random.normal(a.shape) * a.shape[-1] ** -0.5, lm.parameters()))
    return folder, lm


def test_bf16_is_kept_and_exact(load: Callable, arrays: Callable[[str], Arrays]) -> None:
    """A detour over fp16 or a cast would change the weights of every published model without a sign."""
    moshi, want = load("bf16"), arrays("bf16")
    stored = read_tensors(FIXTURES / "bf16" / "model.safetensors")
    assert {value.dtype for value in format_a(moshi.lm).values()} == {mx.bfloat16}
    assert np.array_equal(
        format_a(moshi.lm)["audio_embs.3.weight"].view(mx.uint16), stored["emb.3.weight"].view(mx.uint16)
    )
    # In bf16 two implementations differ by rounding; ours must be as near to the fp32 truth as PyTorch's.
    truth = moshi_mlx.load(moshi.located.folder, dtype=mx.float32).lm.logits(want["codes"])
    for got, reference, exact in (
        (moshi.lm.logits(want["codes"]).text, want["text_logits"], truth.text),
        (moshi.lm.logits(want["codes"]).audio, want["audio_logits"], truth.audio),
    ):
        ours, theirs = np.array(got) - np.array(exact), reference - np.array(exact)
        assert got.dtype == mx.float32
        assert 0 < np.sqrt((ours**2).mean()) < 1.5 * np.sqrt((theirs**2).mean())


def test_condition_changes_the_model(load: Callable, arrays: Callable[[str], Arrays]) -> None:
    """Upstream's guidance tiled one condition into both halves: a no-op that nobody saw."""
    moshi, codes = load("hibiki"), arrays("hibiki")["codes"]
    good = moshi.lm.logits(codes, moshi.lm.condition({"description": "very_good"}))
    for other in ({"description": "very_bad"}, {"description": None}, {}):
        assert not same(good, moshi.lm.logits(codes, moshi.lm.condition(other)))
    with pytest.raises(MoshiError, match="very_bad, very_good"):
        moshi.lm.condition({"description": "excellent"})


@pytest.mark.parametrize("shape", [(17, 5), (1, 16, 5), (1, 17, 0), (1, 18, 5)])
def test_codes_of_a_wrong_shape(load: Callable, shape: tuple[int, ...]) -> None:
    """A forgotten batch axis must not broadcast."""
    with pytest.raises(MoshiError, match="shape"):
        load("moshi").lm.logits(np.zeros(shape, np.int32))


@pytest.mark.parametrize(("row", "code"), [(0, 10**7), (1, 300), (3, -2)])
def test_codes_that_no_table_has_are_refused(load: Callable, row: int, code: int) -> None:
    """A code too large read a row of the next codebook's table, or ended the process."""
    lm = load("moshi").lm
    codes = np.zeros((1, lm.config.streams, 3), np.int64)
    codes[0, row, 1] = code
    with pytest.raises(MoshiError, match="a code is below -1 or above the last of its table"):
        lm.logits(codes)
