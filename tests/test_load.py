"""Checkpoint folders → models: what is missing, unknown, wrongly shaped, unsupported or broken is one readable line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import FIXTURES
from load_kit import refusal, rewrite
from mlx.utils import tree_flatten

import moshi_mlx
from moshi_mlx.frame import MoshiError


def test_difference_is_readable(writable: Callable[[str], Path]) -> None:
    """'20 missing keys' or 800 names in a row: neither tells whether it is the wrong file or a wrong key."""
    folder = writable("moshi")

    def edit(tensors: dict[str, mx.array]) -> None:
        for k in range(12):
            del tensors[f"transformer.layers.{k % 2}.{_PARTS[k // 2]}"]
        tensors["vision.patch.weight"] = mx.zeros((2, 2))
        tensors["text_linear.weight"] = mx.zeros((40, 7))

    rewrite(folder / "model.safetensors", edit)
    message = refusal(folder)
    assert "model.safetensors" in message
    assert "12 missing" in message
    assert "and 2 more" in message
    assert "1 unknown: vision.patch.weight" in message
    assert "text_linear.weight is (40, 7) instead of (40, 24)" in message


_PARTS = (
    "self_attn.in_proj_weight",
    "self_attn.out_proj.weight",
    "gating.linear_in.weight",
    "gating.linear_out.weight",
    "norm1.alpha",
    "norm2.alpha",
)


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.pop("emb.3.weight"),
        lambda t: t.update({"emb.16.weight": t["emb.3.weight"]}),
        lambda t: t.update({"emb.3.weight": t["emb.3.weight"][:-1]}),
        lambda t: t.update({"emb.3.weight": t["emb.3.weight"].reshape(-1)}),
        lambda t: t.pop("depformer_in.7.weight"),
        lambda t: t.update({"depformer_in.8.weight": t["depformer_in.7.weight"]}),
        lambda t: t.update({"transformer.layers.0.self_attn.in_projs.0.weight": t["text_linear.weight"]}),
        lambda t: t.update({"depformer.layers.0.self_attn.in_proj_weight": mx.zeros((385, 16))}),
        lambda t: t.update({"depformer.layers.0.self_attn.in_proj_weight": mx.array(0.0)}),
        lambda t: t.update({"out_norm.alpha": mx.zeros((1, 1, 25))}),
        lambda t: t.update({"text_linear.scales": mx.zeros((40, 1))}),
        lambda t: t.update({"text_linear.weight": mx.zeros((40, 24), mx.int8), "text_linear.weight_scb": mx.zeros(40)}),
        lambda t: t.update({"text_linear.weight": mx.zeros((40, 24), mx.int32)}),
        lambda t: t.update({"text_linear.weight": mx.zeros((40, 24), mx.bool_)}),
        lambda t: t.clear(),
    ],
)
def test_damaged_language_model(writable: Callable[[str], Path], edit: Callable[[dict[str, mx.array]], object]) -> None:
    """Any of these may load by luck and speak nonsense."""
    folder = writable("moshi")
    rewrite(folder / "model.safetensors", edit)
    assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.pop("downsample.conv.conv.conv.weight"),
        lambda t: t.update({"decoder.model.2.convtr.convtr.weight": mx.zeros((16, 16))}),
        lambda t: t.update({"encoder.model.0.conv.conv.weight": t["encoder.model.0.conv.conv.weight"][..., :-1]}),
        lambda t: t.pop("quantizer.rvq_rest.vq.layers.6._codebook.cluster_usage"),
        lambda t: t.pop("quantizer.rvq_first.vq.layers.0._codebook.embedding_sum"),
        lambda t: t.update({"quantizer.rvq_rest.vq.layers.2._codebook.embedding_sum": mx.zeros((32, 15))}),
        lambda t: t.update({"quantizer.rvq_rest.input_proj.weight": mx.zeros((16, 24))}),
        lambda t: t.update({"upsample.convtr.convtr.convtr.weight": mx.array(0.0)}),
        lambda t: t.update({"extra": mx.zeros(3)}),
    ],
)
def test_damaged_codec(writable: Callable[[str], Path], edit: Callable[[dict[str, mx.array]], object]) -> None:
    """A transposed weight of square shape cannot be seen, all others must be."""
    folder = writable("moshi")
    rewrite(folder / "mimi.safetensors", edit)
    assert "codec" in (message := refusal(folder)) or "mimi.safetensors" in message


@pytest.mark.parametrize("name", ["model.safetensors", "mimi.safetensors", "tokenizer.model"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04pickle", None])
def test_broken_files(writable: Callable[[str], Path], name: str, content: bytes | None) -> None:
    """Half a download, a web page, a pickle: named as the file that it is."""
    folder = writable("moshi")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2] if content is None else content)
    assert name in refusal(folder)


def test_wrong_folders(tmp_path: Path) -> None:
    """The commonest mistake of all: the folder above, or another one."""
    assert "none" in refusal(tmp_path / "none")
    assert "no weights" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "model.safetensors" in refusal(tmp_path)


def test_weights_are_there_when_load_returns(writable: Callable[[str], Path]) -> None:
    """A lazy array is read on the thread that first uses it, perhaps in the middle of a conversation."""
    folder = writable("moshi")
    moshi = moshi_mlx.load(folder)
    codes = np.zeros((1, 17, 3), np.int32)
    want = np.array(moshi.lm.logits(codes).text)
    again = moshi_mlx.load(folder)
    for name in ("model.safetensors", "mimi.safetensors"):
        with (folder / name).open("r+b") as file:
            file.truncate(8)
    assert np.array_equal(again.lm.logits(codes).text, want)
    assert np.isfinite(np.array(again.mimi.decode(np.zeros((1, 8, 1), np.int32)))).all()


def test_dtype_casts_the_language_model_only(checkpoint: Callable[[str], Path]) -> None:
    """The codec is fp32 in every published use; bf16 convolutions hiss."""
    moshi = moshi_mlx.load(checkpoint("moshi"), dtype=mx.bfloat16)
    assert {value.dtype for _, value in tree_flatten(moshi.lm.parameters())} == {mx.bfloat16}
    assert {value.dtype for _, value in tree_flatten(moshi.mimi.parameters())} == {mx.float32}


def test_never_two_copies(checkpoint: Callable[[str], Path]) -> None:
    """7B in bf16 has 15 GB: a second copy while loading is the difference between running and not."""
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    moshi = moshi_mlx.load(checkpoint("moshi"))
    held = mx.get_active_memory() - before
    size = sum(value.nbytes for _, value in tree_flatten((moshi.lm.parameters(), moshi.mimi.parameters())))
    assert held < 1.15 * size
    assert mx.get_peak_memory() - before < 1.3 * size


def test_codec_alone(tmp_path: Path) -> None:
    """`load_mimi` reads published codec files; a small one does not fit and says so, but ours has a configuration."""
    assert moshi_mlx.load_mimi(FIXTURES.parents[1] / "weights" / "tiny" / "mimi.safetensors").config.codebooks == 8
    with pytest.raises(MoshiError, match=r"mimi\.safetensors.*wrongly shaped"):
        moshi_mlx.load_mimi(FIXTURES / "mimi" / "mimi.safetensors")
    for count in (0, 33):
        with pytest.raises(MoshiError, match="1 to 32"):
            moshi_mlx.load_mimi(FIXTURES / "mimi" / "mimi.safetensors", num_codebooks=count)
