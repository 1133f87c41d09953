"""Names of transformers' tensors → the published ones (spec, checkpoints.md section 6).

transformers rotates halves, the published files interleaved pairs, so the rows of q and k stand in another order
wherever there is a rotation: in the codec and in the temporal transformer, not in the depth transformer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import mlx.core as mx

from ..frame import MoshiError
from ..models.config import LmConfig, MimiConfig

Tensors = Mapping[str, mx.array]

CODEC = "audio_encoder."  # before the codec's names in the file of a whole Moshi
_QKV = re.compile(r"(.+\.self_attn\.)([qkv])_proj(?:\.linear)?\.weight")
_MIMI_TABLE = [
    (re.compile(r"^((?:en|de)coder)\.layers\.(\d+)\.block\.(\d+)\.conv\."), r"\1.model.\2.block.\3.conv.conv."),
    (re.compile(r"^downsample\.conv\."), "downsample.conv.conv.conv."),
    (re.compile(r"^upsample\.conv\."), "upsample.convtr.convtr.convtr."),
    (re.compile(r"^((?:en|de)coder_transformer)\.layers\."), r"\1.transformer.layers."),
    (re.compile(r"\.mlp\.fc([12])\."), r".linear\1."),
    (re.compile(r"\.input_layernorm\."), ".norm1."),
    (re.compile(r"\.post_attention_layernorm\."), ".norm2."),
    (re.compile(r"\.self_attn_layer_scale\."), ".layer_scale_1."),
    (re.compile(r"\.mlp_layer_scale\."), ".layer_scale_2."),
    (re.compile(r"\.self_attn\.o_proj\."), ".self_attn.out_proj."),
    (re.compile(r"\.semantic_residual_vector_quantizer\.layers\."), ".rvq_first.vq.layers."),
    (re.compile(r"\.acoustic_residual_vector_quantizer\.layers\."), ".rvq_rest.vq.layers."),
    (re.compile(r"\.semantic_residual_vector_quantizer\."), ".rvq_first."),
    (re.compile(r"\.acoustic_residual_vector_quantizer\."), ".rvq_rest."),
]
_CONV = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.conv\.(\w+)$")
_LM_TABLE = [
    (re.compile(r"^embed_tokens\."), "audio_embs."),
    (re.compile(r"^decoder\.model\.embed_tokens\."), "text_emb."),
    (re.compile(r"^decoder\.model\.norm\."), "out_norm."),
    (re.compile(r"^decoder\.lm_head\."), "text_linear."),
    (re.compile(r"^decoder\.model\.layers\."), "transformer.layers."),
]
_LAYER_TABLE = [
    (re.compile(r"\.self_attn\.o_proj\.linear\."), ".self_attn.out_proj."),
    (re.compile(r"\.mlp\.fc1\."), ".gating.linear_in."),
    (re.compile(r"\.mlp\.fc2\."), ".gating.linear_out."),
    (re.compile(r"\.input_layernorm\."), ".norm1."),
    (re.compile(r"\.post_attention_layernorm\."), ".norm2."),
]
_DEPTH_TABLE = [
    (re.compile(r"^depth_decoder\.layers\."), "transformer.layers."),
    (re.compile(r"^depth_decoder\.input_projections\."), "linear_in."),
    (re.compile(r"^depth_decoder\.lm_heads\."), "linear_out."),
]
_DEPTH_EMB = re.compile(r"^depth_decoder\.embed_tokens\.(\d+)\.(\w+)$")


def is_hf_mimi(names: Collection[str]) -> bool:
    """Whether these are transformers' names of the codec."""
    return "encoder.layers.0.conv.weight" in names


def is_hf_moshi(names: Collection[str]) -> bool:
    """Whether these are transformers' names of a whole Moshi, or of its language model."""
    return "decoder.model.norm.weight" in names


def mimi_from_hf(tensors: Tensors, config: MimiConfig) -> dict[str, mx.array]:
    """The codec under its published names, still in PyTorch's layouts."""
    result, heads = {}, config.transformer.heads
    transposed = {str(2 + 3 * i) for i in range(len(config.ratios))}
    for name, value in _joined(tensors, lambda _: heads).items():
        target = name
        if match := _CONV.match(name):
            side, index, leaf = match.groups()
            kind = "convtr" if side == "decoder" and index in transposed else "conv"
            target = f"{side}.model.{index}.{kind}.{kind}.{leaf}"
        result[_renamed(target, _MIMI_TABLE)] = value
    return result


def lm_from_hf(tensors: Tensors, config: LmConfig) -> dict[str, mx.array]:
    """The language model in format A; names that are not of it stay as they are."""
    result: dict[str, mx.array] = {}
    temporal = config.transformer.heads
    joined = _joined(tensors, lambda name: temporal if name.startswith("decoder.") else None)
    for name, value in joined.items():
        if match := _DEPTH_EMB.match(name):
            result[f"depformer.slices.{int(match[1]) + 1}.emb.{match[2]}"] = value
        elif name.startswith("depth_decoder.text_embed_tokens."):
            result[f"depformer.slices.0.emb.{name.rsplit('.', 1)[1]}"] = value
        elif name.startswith("depth_decoder."):
            target = _renamed(name, [*_DEPTH_TABLE, *_LAYER_TABLE])
            shared = "norm" in target  # one for all codebooks; everything else is stacked along the first axis
            if not shared and value.shape[0] != config.dep_q:
                raise MoshiError(f"{name} holds {value.shape[0]} codebooks, the configuration says {config.dep_q}")
            for k in range(config.dep_q):
                result[f"depformer.slices.{k}.{target}"] = value if shared else value[k]
        else:
            result[_renamed(name, [*_LM_TABLE, *_LAYER_TABLE])] = value
    return result


def _renamed(name: str, table: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, spelling in table:
        name = pattern.sub(spelling, name)
    return name


def _joined(tensors: Tensors, heads_of: Callable[[str], int | None]) -> dict[str, mx.array]:
    """q, k and v as one `in_proj.weight`. heads_of: name → heads whose rows of q and k are in halves, or None."""
    result: dict[str, mx.array] = {}
    parts: dict[str, dict[str, mx.array]] = {}
    for name, value in tensors.items():
        if match := _QKV.fullmatch(name):
            parts.setdefault(match[1], {})[match[2]] = value
        else:
            result[name] = value
    for stem, found in parts.items():
        if len(found) < 3:
            raise MoshiError(f"{stem} has only {', '.join(sorted(found))} of q, k, v; get the file again")
        heads = heads_of(stem)
        rows = [found["q"], found["k"], found["v"]]
        if heads is not None:
            rows[:2] = [_interleaved(value, heads, stem) for value in rows[:2]]
        result[f"{stem}in_proj.weight"] = mx.concatenate(rows, axis=-2)
    return result


def _interleaved(value: mx.array, heads: int, name: str) -> mx.array:
    """Rows of halves → rows of pairs: our row 2i + j of a head of size s is their row j · s/2 + i."""
    rows, columns = value.shape
    if rows % (2 * heads):
        raise MoshiError(f"{name}q_proj has {rows} rows, which {heads} heads cannot share")
    return value.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
