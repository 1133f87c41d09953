"""The fixtures' checkpoint in transformers' layout: the table of the spec (checkpoints.md section 6) backwards."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from conftest import FIXTURES

from moshi_mlx.checkpoints.known import MOSHI_TOKENIZER
from moshi_mlx.checkpoints.load import read_tensors

Arrays = dict[str, np.ndarray]

_RNG = np.random.default_rng(4)
CODES = np.concatenate([_RNG.integers(0, 40, (2, 1, 30)), _RNG.integers(0, 32, (2, 16, 30))], axis=1)
PCM = (0.3 * _RNG.standard_normal((1, 12 * 1920, 1))).astype(np.float32)

MIMI_CONFIG: dict[str, Any] = {
    "model_type": "mimi",
    "architectures": ["MimiModel"],
    "sampling_rate": 24000,
    "audio_channels": 1,
    "hidden_size": 24,
    "num_filters": 2,
    "upsampling_ratios": [8, 6, 5, 4],
    "codebook_size": 32,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
    "num_quantizers": 8,
    "upsample_groups": 24,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "sliding_window": 6,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
}
MOSHI_CONFIG: dict[str, Any] = {
    "model_type": "moshi",
    "architectures": ["MoshiForConditionalGeneration"],
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "ffn_dim": 48,
    "sliding_window": 10,
    "audio_vocab_size": 32,
    "num_codebooks": 8,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "audio_encoder_config": MIMI_CONFIG,
    "depth_decoder_config": {
        "model_type": "moshi_depth",
        "vocab_size": 40,
        "hidden_size": 16,
        "input_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "ffn_dim": 32,
        "audio_vocab_size": 32,
        "num_codebooks": 8,
    },
}


def arrays_of(path: Path) -> Arrays:
    """The tensors of a fixture."""
    return {name: np.array(value) for name, value in read_tensors(path).items()}


def in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row j · s/2 + i of each head is our row 2i + j; element by element, so as not to share a mistake."""
    size, result = len(rows) // heads, rows.copy()
    for head in range(heads):
        for i in range(size // 2):
            for j in (0, 1):
                result[head * size + j * size // 2 + i] = rows[head * size + 2 * i + j]
    return result


def split_qkv(rows: np.ndarray, heads: int | None) -> dict[str, np.ndarray]:
    parts = dict(zip("qkv", np.split(rows, 3), strict=True))
    if heads:
        parts |= {name: in_halves(parts[name], heads) for name in "qk"}
    return parts


def mimi_tensors() -> Arrays:
    """The codec of the fixtures under D1's names."""
    result = {}
    for name, value in arrays_of(FIXTURES / "mimi" / "mimi.safetensors").items():
        name = re.sub(r"^(en|de)coder\.model\.", r"\1coder.layers.", name)
        name = re.sub(r"^(\w+_transformer)\.transformer\.", r"\1.", name)
        name = re.sub(r"\.(conv|convtr)(\.\1)+\.", ".conv.", name)
        for ours, theirs in (
            ("linear", "mlp.fc"),
            ("norm1", "input_layernorm"),
            ("norm2", "post_attention_layernorm"),
            ("layer_scale_1", "self_attn_layer_scale"),
            ("layer_scale_2", "mlp_layer_scale"),
            ("out_proj", "o_proj"),
            ("rvq_first.vq", "semantic_residual_vector_quantizer"),
            ("rvq_rest.vq", "acoustic_residual_vector_quantizer"),
            ("rvq_first", "semantic_residual_vector_quantizer"),
            ("rvq_rest", "acoustic_residual_vector_quantizer"),
            ("_codebook._initialized", "codebook.initialized"),
            ("_codebook.cluster_usage", "codebook.cluster_usage"),
            ("_codebook.embedding_sum", "codebook.embed_sum"),
        ):
            if not (ours == "out_proj" and "quantizer" in name):
                name = name.replace(ours, theirs)
        name = name.replace("quantizer.o_proj", "quantizer.output_proj")
        if name.endswith("in_proj_weight"):
            for part, rows in split_qkv(value, 4).items():
                result[name.replace("in_proj_weight", f"{part}_proj.weight")] = rows
        else:
            result[name] = value
    return result


def lm_tensors(ours: Arrays | None = None, config: dict[str, Any] = MOSHI_CONFIG) -> Arrays:
    """A language model under D2's names. ours: in format B, depth stacked; `moshi` of the fixtures by default."""
    if ours is None:
        ours = arrays_of(FIXTURES / "moshi" / "model.safetensors")
    levels, heads = config["num_codebooks"], config["num_attention_heads"]
    result = {f"embed_tokens.{k}.weight": ours[f"emb.{k}.weight"] for k in range(2 * levels)}
    result |= {
        "decoder.model.embed_tokens.weight": ours["text_emb.weight"],
        "decoder.model.norm.weight": ours["out_norm.alpha"].reshape(-1),
        "decoder.lm_head.weight": ours["text_linear.weight"],
        "depth_decoder.text_embed_tokens.weight": ours["depformer_text_emb.weight"],
        "depth_decoder.input_projections.weight": np.stack([ours[f"depformer_in.{k}.weight"] for k in range(levels)]),
        "depth_decoder.lm_heads.weight": np.stack([ours[f"linears.{k}.weight"] for k in range(levels)]),
    }
    result |= {f"depth_decoder.embed_tokens.{k}.weight": ours[f"depformer_emb.{k}.weight"] for k in range(levels - 1)}
    for i in range(config["num_hidden_layers"]):
        from_, to = f"transformer.layers.{i}", f"decoder.model.layers.{i}"
        for part, rows in split_qkv(ours[f"{from_}.self_attn.in_proj_weight"], heads).items():
            result[f"{to}.self_attn.{part}_proj.linear.weight"] = rows
        result |= {
            f"{to}.self_attn.o_proj.linear.weight": ours[f"{from_}.self_attn.out_proj.weight"],
            f"{to}.mlp.fc1.weight": ours[f"{from_}.gating.linear_in.weight"],
            f"{to}.mlp.fc2.weight": ours[f"{from_}.gating.linear_out.weight"],
            f"{to}.input_layernorm.weight": ours[f"{from_}.norm1.alpha"].reshape(-1),
            f"{to}.post_attention_layernorm.weight": ours[f"{from_}.norm2.alpha"].reshape(-1),
        }
    for i in range(config["depth_decoder_config"]["num_hidden_layers"]):
        from_, to = f"depformer.layers.{i}", f"depth_decoder.layers.{i}"
        sets = [split_qkv(rows, None) for rows in np.split(ours[f"{from_}.self_attn.in_proj_weight"], levels)]
        for part in "qkv":
            result[f"{to}.self_attn.{part}_proj.linear.weight"] = np.stack([rows[part] for rows in sets])
        gates = [[ours[f"{from_}.gating.{k}.linear_{side}.weight"] for k in range(levels)] for side in ("in", "out")]
        outs = np.split(ours[f"{from_}.self_attn.out_proj.weight"], levels)
        result |= {
            f"{to}.self_attn.o_proj.linear.weight": np.stack(outs),
            f"{to}.mlp.fc1.weight": np.stack(gates[0]),
            f"{to}.mlp.fc2.weight": np.stack(gates[1]),
            f"{to}.input_layernorm.weight": ours[f"{from_}.norm1.alpha"].reshape(-1),
            f"{to}.post_attention_layernorm.weight": ours[f"{from_}.norm2.alpha"].reshape(-1),
        }
    return result


def save(path: Path, tensors: Mapping[str, Any]) -> None:
    """NumPy's arrays or MLX's."""
    import mlx.core as mx

    mx.save_safetensors(str(path), {name: mx.array(value) for name, value in tensors.items()}, {"format": "pt"})


def write_mimi(folder: Path) -> Path:
    """A folder like `kyutai/mimi`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MIMI_CONFIG))
    save(folder / "model.safetensors", mimi_tensors())
    return folder


def write_moshi(
    folder: Path, shards: int = 3, ours: Arrays | None = None, config: dict[str, Any] = MOSHI_CONFIG
) -> Path:
    """A folder like `hf-moshiko`: language model (`lm_tensors`) and codec in shards, with an index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(FIXTURES / "tokenizer.model", folder / MOSHI_TOKENIZER)
    tensors = lm_tensors(ours, config) | {f"audio_encoder.{name}": value for name, value in mimi_tensors().items()}
    write_shards(folder, tensors, shards)
    return folder


def write_shards(folder: Path, tensors: Mapping[str, Any], shards: int) -> None:
    """The tensors in several files, and an index of them."""
    names, index = sorted(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        save(folder / file, {name: tensors[name] for name in part})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def logits(moshi: Any) -> list[np.ndarray]:
    """Teacher-forced logits and masks on fixed codes."""
    return [np.array(part) for part in moshi.lm.logits(CODES[:, : moshi.config.lm.streams])]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """To the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
