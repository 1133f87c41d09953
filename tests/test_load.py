"""Checkpoint folders → models: what is missing, unknown, wrongly shaped, unsupported or broken is one readable line."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import FIXTURES
from mlx.utils import tree_flatten

import moshi_mlx
from moshi_mlx.checkpoints.load import open_checkpoint, read_tensors
from moshi_mlx.frame import MoshiError
from moshi_mlx.models.config import MoshiConfig


def change(folder: Path, file: str = "config.json", **changes: Any) -> Path:
    """Rewrites keys of a JSON file; a value of ... deletes the key. `a__b` is key b of object a."""
    config = json.loads((folder / file).read_text())
    for name, value in changes.items():
        *path, key = name.split("__")
        place = config
        for part in path:
            place = place[part]
        if value is ...:
            del place[key]
        else:
            place[key] = value
    (folder / file).write_text(json.dumps(config))
    return folder


def rewrite(path: Path, edit: Callable[[dict[str, mx.array]], object]) -> None:
    """Edits the tensors of a file."""
    tensors = read_tensors(path)
    mx.eval(list(tensors.values()))
    edit(tensors)
    path.unlink()
    mx.save_safetensors(str(path), tensors)


def refusal(folder: Path) -> str:
    """The one line that `load` refuses a folder with."""
    with pytest.raises(MoshiError) as caught:
        moshi_mlx.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_config_means_moshi_7b(tmp_path: Path) -> None:
    """The published 7B repositories have no config.json; calling that an error locks them out."""
    for name in ("model.q4.safetensors", "tokenizer-e351c8d8-checkpoint125.safetensors", "tokenizer_spm_32k_3.model"):
        (tmp_path / name).write_bytes(b"")
    files = open_checkpoint(tmp_path)
    assert files.config == MoshiConfig()
    assert files.weights.name == "model.q4.safetensors"
    assert (files.config.lm.transformer.hidden, files.config.lm.depth.transformer.hidden) == (11264, 2816)
    assert (files.config.mimi.codebooks, files.config.lm.max_delay) == (8, 1)


@pytest.mark.parametrize("name", ["moshi", "hibiki", "own", "grouped", "bf16"])
def test_published_keys_give_no_warning(checkpoint: Callable[[str], Path], name: str) -> None:
    """A warning for every ordinary file teaches people to ignore warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_checkpoint(checkpoint(name))


def test_codebooks_follow_the_model(load: Callable) -> None:
    """max(dep_q, n_q − dep_q): one too few cuts the user off, more wastes time on every frame."""
    assert [load(name).mimi.config.codebooks for name in ("moshi", "hibiki", "own", "grouped")] == [8, 4, 4, 2]


def test_unknown_key_is_a_named_warning(writable: Callable[[str], Path]) -> None:
    """A misspelt key silently ignored is a model with another value than its author meant."""
    with pytest.warns(UserWarning, match="contxt"):
        open_checkpoint(change(writable("moshi"), contxt=5))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dim": "32"}, "dim"),
        ({"dim": 0}, "dim"),
        ({"dim": True}, "dim"),
        ({"num_heads": 5}, "num_heads"),
        ({"num_heads": 24}, "num_heads"),
        ({"context": 0}, "context"),
        ({"delays": [0, 0]}, "delays"),
        ({"delays": [0] * 16 + [-1]}, "delays"),
        ({"n_q": 0}, "n_q"),
        ({"dep_q": 17}, "dep_q"),
        ({"gating": "gelu"}, "gating"),
        ({"norm": "layer_norm"}, "norm"),
        ({"cross_attention": True}, "cross_attention"),
        ({"demux_second_stream": True}, "demux_second_stream"),
        ({"depformer_pos_emb": "rope"}, "depformer_pos_emb"),
        ({"depformer_multi_linear": False}, "depformer_multi_linear"),
        ({"depformer_weights_per_step_schedule": [0, 1]}, "schedule"),
        ({"positional_embedding": "sin"}, "positional_embedding"),
        ({"kv_repeat": 3}, "kv_repeat"),
        ({"model_type": "tts"}, "tts"),
        ({"moshi_name": "../model.safetensors"}, "model.safetensors"),
        ({"moshi_name": "/etc/passwd"}, "passwd"),
        ({"moshi_name": 3}, "moshi_name"),
        ({"mimi_name": "none.safetensors"}, "none.safetensors"),
        ({"tokenizer_name": "mimi.json"}, "tokenizer|SentencePiece"),
        ({"text_card": 20}, "tokenizer"),
        ({"hidden_scale": float("nan")}, "hidden_scale"),
        ({"max_period": 1e400}, "max_period"),
    ],
)
def test_bad_configuration(writable: Callable[[str], Path], changes: dict[str, Any], says: str) -> None:
    """Each gave another model than the file's, a traceback from inside MLX, or a file outside the folder."""
    message = refusal(change(writable("moshi"), **changes))
    assert re.search(says, message), message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample_rate": 16000}, "sample_rate"),
        ({"seanet__ratios": [8, 6, 5]}, "ratios"),
        ({"seanet__norm": "weight_norm"}, "norm"),
        ({"seanet__n_residual_layers": 2}, "n_residual_layers"),
        ({"transformer__gating": "silu"}, "gating"),
        ({"transformer__d_model": 16}, "d_model"),
        ({"quantizer__n_q": 4}, "codebook"),
        ({"quantizer": 5}, "quantizer"),
    ],
)
def test_bad_codec_configuration(writable: Callable[[str], Path], changes: dict[str, Any], says: str) -> None:
    """The codec's configuration is a file of its own, and as untrusted."""
    assert says in refusal(change(writable("moshi"), "mimi.json", **changes))


def test_broken_json_names_file_and_line(writable: Callable[[str], Path]) -> None:
    """A shipped configuration lacks a comma; 'Expecting , delimiter' alone helps nobody."""
    folder = writable("moshi")
    text = (folder / "config.json").read_text().replace(',\n "n_q"', '\n "n_q"')
    (folder / "config.json").write_text(text)
    line = text[: text.index('"n_q"')].count("\n") + 1
    message = refusal(folder)
    assert "config.json" in message
    assert f"line {line}" in message


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
    """`load_mimi` reads published codec files; a small one does not fit and says so."""
    with pytest.raises(MoshiError, match=r"mimi\.safetensors.*wrongly shaped"):
        moshi_mlx.load_mimi(FIXTURES / "mimi" / "mimi.safetensors")
    for count in (0, 33):
        with pytest.raises(MoshiError, match="1 to 32"):
            moshi_mlx.load_mimi(FIXTURES / "mimi" / "mimi.safetensors", num_codebooks=count)
