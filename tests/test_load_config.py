"""config.json and the codec's configuration: what is published loads, all else is refused in one line that names it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from load_kit import change, refusal

import moshi_mlx
from moshi_mlx.checkpoints.load import open_checkpoint
from moshi_mlx.models.config import MoshiConfig
from moshi_mlx.models.sampling import MOST


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


def test_hibiki_1b_does_not_say_what_it_is(writable: Callable[[str], Path]) -> None:
    """Its published config.json has no model_type: it was taken for a Moshi, not told the end, and cut off."""
    config = open_checkpoint(change(writable("hibiki"), model_type=...)).config
    assert (config.name, config.lm.ends) == ("hibiki", True)


def test_null_stands_for_the_default(writable: Callable[[str], Path]) -> None:
    """Exported configs write null where the reference's class has None; they were refused."""
    folder = change(writable("moshi"), depformer_dim_feedforward=24)
    want = open_checkpoint(folder).config
    assert open_checkpoint(change(folder, depformer_dim_feedforward=None, text_card_out=None)).config == want


@pytest.mark.parametrize(("key", "value"), [("top_k_text", 50.5), ("top_k", "many"), ("temp", -1)])
def test_wishes_for_sampling(writable: Callable[[str], Path], key: str, value: Any) -> None:
    """What a file wishes was heard by the commands only, and top-k as a float, which no Sampling takes."""
    folder = change(writable("moshi"), lm_gen_config={"temp": 0.5, "temp_text": 0.25, "top_k": 7, "top_k_text": 0})
    session = moshi_mlx.Session(moshi_mlx.load(folder))
    assert session.sampling == moshi_mlx.Sampling(0.25, MOST - 1, 0.5, 7)  # 0: all, as in the reference
    assert key in refusal(change(folder, lm_gen_config={key: value}))


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
