"""Small random checkpoints in every layout that the loader reads, with widths that quantization groups divide."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path

from moshi_mlx.checkpoints.config_file import moshi_config
from moshi_mlx.checkpoints.names import split_audio_tables
from moshi_mlx.models.config import MimiConfig
from moshi_mlx.models.lm import Lm

FIXTURES = Path(__file__).parent / "fixtures"
BASE: dict[str, Any] = {
    "moshi_name": "model.safetensors",
    "mimi_name": "mimi.safetensors",
    "mimi_config_name": "mimi.json",
    "tokenizer_name": "tokenizer.model",
    "model_type": "moshi",
    "dim": 128,
    "text_card": 40,
    "n_q": 4,
    "dep_q": 2,
    "card": 32,
    "num_heads": 2,
    "num_layers": 2,
    "hidden_scale": 1.5,
    "context": 12,
    "positional_embedding": "rope",
    "depformer_dim": 64,
    "depformer_dim_feedforward": 96,
    "depformer_num_heads": 2,
    "depformer_num_layers": 2,
    "delays": [0, 0, 1, 0, 1],
}
NARROW = {"depformer_dim": 48, "depformer_dim_feedforward": 72}  # no group divides 48
HIBIKI = {
    "model_type": "hibiki",
    "depformer_low_rank_embeddings": 32,
    "depformer_weights_per_step_schedule": [0, 0],
    "conditioners": {
        "description": {"type": "lut", "lut": {"n_bins": 3, "dim": 16, "possible_values": ["very_bad", "very_good"]}}
    },
    "fuser": {"sum": ["description"]},
}
LAYOUTS = ("A", "A q8", "B stacked", "B split", "C")


def random_lm(raw: dict[str, Any], dtype: mx.Dtype = mx.bfloat16) -> Lm:
    """A model of this configuration whose every part shows in its output."""
    codec = MimiConfig(codebook_size=raw["card"], codebooks_in_file=8)
    lm = Lm(moshi_config(raw, "config.json", codec).lm)
    mx.random.seed(5)

    def lively(name: str, value: mx.array) -> mx.array:
        if "norm" in name:
            return (1 + 0.2 * mx.random.normal(value.shape)).astype(dtype)
        scale = 0.7 if "emb" in name else (3.0 if name.endswith("linear_out.weight") else 1.5) * value.shape[-1] ** -0.5
        return (scale * mx.random.normal(value.shape)).astype(dtype)

    lm.update(tree_map_with_path(lively, lm.parameters()))
    schedule = lm.config.depth.schedule
    for k, used in enumerate(schedule):  # slices that share a set have equal weights, and all share their norms
        first, own = lm.depformer.slices[schedule.index(used)], lm.depformer.slices[k]
        own.linear_in, own.transformer = first.linear_in, first.transformer
        for block, norms in zip(own.transformer.layers, lm.depformer.slices[0].transformer.layers, strict=True):
            block.norm1, block.norm2 = norms.norm1, norms.norm2
    return lm


def make_source(folder: Path, layout: str = "A", dtype: mx.Dtype = mx.bfloat16, **changes: Any) -> Path:
    """A checkpoint folder in one of LAYOUTS; the same numbers in all of them, "A q8" aside."""
    raw = BASE | changes
    lm = random_lm(raw, dtype)
    if layout == "A q8":
        from mlx import nn

        nn.quantize(lm, 64, 8, class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 64 == 0)
    tensors = split_audio_tables(dict(tree_flatten(lm.parameters())), lm.config)
    if layout[0] in "BC":
        tensors = _layout_c(tensors) if layout == "C" else _layout_b(tensors, lm, layout == "B split")
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "model.safetensors"), {k: mx.contiguous(v) for k, v in tensors.items()})
    (folder / "config.json").write_text(json.dumps(raw))
    for name in ("mimi.safetensors", "mimi.json"):
        shutil.copyfile(FIXTURES / "mimi" / name, folder / name)
    shutil.copyfile(FIXTURES / "tokenizer.model", folder / "tokenizer.model")
    return folder


def _torch_name(name: str) -> str:
    """Spelling of projections, norms and audio tables in PyTorch files."""
    name = name.replace("audio_embs.", "emb.").replace("in_proj.weight", "in_proj_weight")
    return re.sub(r"(norm[12]?)\.weight$", r"\1.alpha", name)


def _torch_value(name: str, value: mx.array) -> mx.array:
    return value.reshape(1, 1, -1) if name.endswith(".alpha") else value


def _layout_c(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    named = {_torch_name(name.replace("depformer.slices.", "depformer.")): value for name, value in tensors.items()}
    return {name: _torch_value(name, value) for name, value in named.items()}


def _layout_b(tensors: dict[str, mx.array], lm: Lm, split: bool) -> dict[str, mx.array]:
    result: dict[str, mx.array] = {}
    stacks: dict[str, dict[int, mx.array]] = {}
    for name, value in tensors.items():
        if not name.startswith("depformer."):
            result[_torch_name(name)] = value
            continue
        _, _, index, rest = name.split(".", 3)
        k, used = int(index), lm.config.depth.schedule[int(index)]
        if rest.startswith("emb."):
            result[f"depformer_text_emb{rest[3:]}" if k == 0 else f"depformer_emb.{k - 1}{rest[3:]}"] = value
        elif rest.startswith("linear_out"):
            result[f"linears.{k}.weight"] = value
        elif rest.startswith("linear_in"):
            result[f"depformer_in.{used}.weight"] = value
        else:
            layer, part = rest.removeprefix("transformer.layers.").split(".", 1)
            base = f"depformer.layers.{layer}"
            if "gating" in part:
                result[f"{base}.gating.{used}.{part.removeprefix('gating.')}"] = value
            elif "norm" in part:
                result[_torch_name(f"{base}.{part}")] = value
            elif split:
                result[f"{base}.{part.replace('_proj.weight', f'_projs.{used}.weight')}"] = value
            else:
                stacks.setdefault(f"{base}.{part.replace('in_proj.weight', 'in_proj_weight')}", {})[used] = value
    result |= {name: mx.concatenate([sets[i] for i in sorted(sets)]) for name, sets in stacks.items()}
    return {name: _torch_value(name, value) for name, value in result.items()}
