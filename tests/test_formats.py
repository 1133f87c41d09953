"""Every layout gives the logits and codes of the same weights in the published one, exactly in fp32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_kit
import mlx.core as mx
import numpy as np
import pytest
from conftest import FIXTURES
from hf_kit import CODES, PCM, equal, logits, save

import moshi_mlx
from moshi_mlx.checkpoints.hf_config import hf_mimi_config, hf_moshi_config
from moshi_mlx.checkpoints.load import load_codec, read_tensors
from moshi_mlx.checkpoints.recognise import recognise
from moshi_mlx.frame import MoshiError
from moshi_mlx.models.config import LmConfig, MimiConfig, MoshiConfig


def test_d1_codec(tmp_path: Path, load: Callable) -> None:
    """Unpermuted rows of q and k load without an error and sound almost right."""
    folder = hf_kit.write_mimi(tmp_path / "mimi")
    config = hf_mimi_config(hf_kit.MIMI_CONFIG, "config.json")
    assert config == load("moshi").config.mimi
    ours, theirs = load("moshi").mimi, load_codec(folder / "model.safetensors", config)
    codes = np.array(ours.encode(PCM))
    assert np.array_equal(np.array(theirs.encode(PCM)), codes)
    assert np.array_equal(np.array(theirs.decode(codes)), np.array(ours.decode(codes)))
    with pytest.raises(MoshiError, match="moshi-mlx codec"):
        moshi_mlx.load(folder)


def test_d2_whole_moshi(tmp_path: Path, load: Callable) -> None:
    """Sharded, with the codec among the weights; depth rows are not permuted, temporal rows are."""
    ours, theirs = load("moshi"), moshi_mlx.load(hf_kit.write_moshi(tmp_path / "hf"))
    assert theirs.config == MoshiConfig(ours.config.lm, ours.config.mimi)
    assert equal(logits(theirs), logits(ours))
    codes = np.array(ours.mimi.encode(PCM))
    assert np.array_equal(np.array(theirs.mimi.encode(PCM)), codes)
    reply = moshi_mlx.Session(theirs, seed=1).step(PCM[0, :1920, 0])
    assert reply.user_codes.shape == (8,)


def test_published_hf_configs_are_ours() -> None:
    """transformers' defaults are the published models: nothing may have to be said twice."""
    assert hf_mimi_config({"model_type": "mimi"}, "x") == MimiConfig(codebooks=32)
    assert hf_moshi_config({"depth_decoder_config": {}, "audio_encoder_config": {}}, "x").lm == LmConfig()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
        ({"num_codebooks": 7}, "num_codebooks"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"head_dim": 8}, "head_dim"),
        ({"audio_vocab_size": 64}, "audio_vocab_size"),
        ({"audio_encoder_config": {"pad_mode": "reflect"}}, "pad_mode"),
        ({"depth_decoder_config": []}, "depth_decoder_config"),
        ({"ffn_dim": "48"}, "ffn_dim"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_theta"),
        ({"hidden_size": 32}, "does not fit|divide|must be"),
    ],
)
def test_damaged_hf_configs(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """Another model under the same name must not be run as if it were this one."""
    folder = hf_kit.write_moshi(tmp_path / "hf", 1)
    (folder / "config.json").write_text(json.dumps(hf_kit.MOSHI_CONFIG | change))
    with pytest.raises(MoshiError, match=says) as caught:
        moshi_mlx.load(folder)
    assert "\n" not in str(caught.value)


def test_damaged_hf_tensors(tmp_path: Path) -> None:
    """A shard that is gone, a projection that is gone, a tensor that comes twice."""
    folder = hf_kit.write_moshi(tmp_path / "hf", 2)
    shard = folder / "model-00002-of-00002.safetensors"
    kept = hf_kit.arrays_of(shard)
    save(shard, {name: value for name, value in kept.items() if not name.endswith("k_proj.linear.weight")})
    with pytest.raises(MoshiError, match="of q, k, v"):
        moshi_mlx.load(folder)
    other = hf_kit.arrays_of(folder / "model-00001-of-00002.safetensors")
    save(shard, kept | {next(iter(other)): next(iter(other.values()))})
    with pytest.raises(MoshiError, match="repeats"):
        moshi_mlx.load(folder)
    shard.unlink()
    with pytest.raises(MoshiError, match="00002-of-00002"):
        moshi_mlx.load(folder)


def test_against_transformers(tmp_path: Path) -> None:
    """The inverse table could be wrong the same way: transformers itself reads the folder and must agree.

    (transformers applies no window within one call, so the window is as long as the call.)
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = hf_kit.write_moshi(tmp_path / "hf")
    (folder / "config.json").write_text(json.dumps(hf_kit.MOSHI_CONFIG | {"sliding_window": 30}))
    config = transformers.MoshiConfig.from_pretrained(folder)
    config._attn_implementation = config.audio_encoder_config._attn_implementation = "eager"
    model, info = transformers.MoshiForConditionalGeneration.from_pretrained(
        folder, config=config, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ours = moshi_mlx.load(folder)
    delays, initial = ours.config.lm.delays, ours.config.lm.initial
    columns = np.stack(
        [
            np.concatenate([np.full((2, 1 + d), initial[k]), CODES[:, k, : 30 - d]], axis=1)[:, :31]
            for k, d in enumerate(delays)
        ],
        axis=1,
    )
    given, targets = torch.tensor(columns[:, :, :-1]), columns[:, :, 1:]
    with torch.no_grad():
        out = model(input_ids=given[:, 0], moshi_audio_codes=given[:, 1:9], user_audio_codes=given[:, 9:])
        hidden = out.last_hidden_state.reshape(-1, 1, 24)
        depth_in = torch.tensor(targets[:, :8].transpose(0, 2, 1).reshape(-1, 8))
        everything = torch.ones(60, 8)  # without a mask, transformers' depth attention is not even causal
        depth = model.depth_decoder(last_hidden_state=hidden, input_ids=depth_in, attention_mask=everything)
        depth = depth.logits.numpy().reshape(2, 30, 8, 32)
        codes = model.audio_encoder.encode(torch.tensor(PCM.transpose(0, 2, 1))).audio_codes.numpy()
        sound = model.audio_encoder.decode(torch.tensor(codes)).audio_values.numpy()
    text, audio, _, mask = logits(ours)
    assert np.abs(out.logits.numpy() - text).max() < 5e-5
    for k, d in enumerate(delays[1:9]):
        assert mask[:, k, : 30 - d].all()
        assert np.abs(depth[:, d:, k] - audio[:, k, : 30 - d]).max() < 5e-4
    assert np.mean(np.array(ours.mimi.encode(PCM)) == codes) > 0.99
    assert np.abs(np.array(ours.mimi.decode(codes))[..., 0] - sound[:, 0]).max() < 5e-5


def test_recognised(tmp_path: Path) -> None:
    """A file is named as what it is, by the names in it alone."""
    for folder, want in (("moshi", "B"), ("hibiki", "B"), ("bf16", "B")):
        assert recognise(read_tensors(FIXTURES / folder / "model.safetensors"), "x") == want
    assert recognise(read_tensors(FIXTURES / "mimi" / "mimi.safetensors"), "x") == "Mimi"
    assert recognise(hf_kit.mimi_tensors(), "x") == "D1"
    assert recognise(hf_kit.lm_tensors(), "x") == "D2"
    assert recognise({"a": 1}, "x") == recognise([], "x") == "unknown"
    a = {"out_norm.weight", "audio_embs.0.weight", "text_linear.weight"}
    assert recognise(a, "x") == "A"
    assert recognise(a | {"text_linear.scales"}, "x") == "A, quantized"
    assert recognise({"out_norm.weight", "text_emb.weight"}, "x") == recognise({"model.norm.weight"}, "x") == "Helium"
    assert recognise({"emb.0.weight", "depformer.0.linear_in.weight"}, "x") == "C"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["emb.0.weight", "image_prefix.norm_xa.alpha"], "MoshiVis"),
        (["emb.0.weight", "transformer.layers.0.cross_attention.in_proj_weight"], "cross attention"),
        (["emb.0.weight", "text_linear.weight", "text_linear.weight_scb"], "int8"),
        (["emb.0.weight", "out_norm.alpha"], "speech to text"),
        (["emb.0.weight", "extra_heads.0.weight"], "extra heads"),
        (["speaker_wavs"], "voice"),
    ],
)
def test_known_but_not_supported(names: list[str], says: str, writable: Callable) -> None:
    """'403 unknown tensors' does not tell that this is a model which sees images."""
    with pytest.raises(MoshiError, match=says):
        recognise(names, "x")
    folder = writable("moshi")
    mx.save_safetensors(str(folder / "model.safetensors"), {name: mx.zeros(2) for name in names})
    with pytest.raises(MoshiError, match=says):
        moshi_mlx.load(folder)


def test_codec_named_as_weights(writable: Callable) -> None:
    """The 'tokenizer-….safetensors' is the codec: taking it for the model is an everyday mistake."""
    with pytest.raises(MoshiError, match="kind Mimi, not the weights"):
        moshi_mlx.load(writable("moshi") / "mimi.safetensors")
