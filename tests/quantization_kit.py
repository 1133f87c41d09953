"""Small random checkpoints in every layout that the loader reads, with widths that quantization groups divide."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import hf_kit
import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path

from moshi_mlx.checkpoints.config_file import moshi_config
from moshi_mlx.checkpoints.names import split_audio_tables
from moshi_mlx.models.config import MimiConfig
from moshi_mlx.models.lm import Lm
from moshi_mlx.quantization.job import quantize
from moshi_mlx.quantization.work import Calibration

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
SMALL = {"num_layers": 1, "depformer_num_layers": 1, "dim": 64, "num_heads": 1, "hidden_scale": 3}
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
TRANSFORMERS: dict[str, Any] = {  # the same model in the words of that library, one level of codebooks a side
    **hf_kit.MOSHI_CONFIG,
    "hidden_size": BASE["dim"],
    "num_hidden_layers": BASE["num_layers"],
    "num_attention_heads": BASE["num_heads"],
    "num_key_value_heads": BASE["num_heads"],
    "head_dim": BASE["dim"] // BASE["num_heads"],
    "ffn_dim": 256,
    "sliding_window": BASE["context"],
    "num_codebooks": BASE["dep_q"],
    "depth_decoder_config": {
        **hf_kit.MOSHI_CONFIG["depth_decoder_config"],
        "hidden_size": BASE["depformer_dim"],
        "input_size": BASE["dim"],
        "num_hidden_layers": BASE["depformer_num_layers"],
        "head_dim": BASE["depformer_dim"] // BASE["depformer_num_heads"],
        "ffn_dim": 128,
        "num_codebooks": BASE["dep_q"],
    },
}
LAYOUTS = (
    "A",
    "A q4",
    "A q8",
    "A sharded",
    "A lora",
    "B stacked",
    "B split",
    "B sharded",
    "B lora",
    "C",
    "transformers",
)
FEW = Calibration(sequences=2, frames=10)
GROUPS = {"A q4": (32, 4), "A q8": (64, 8)}  # group, bits


def make(source: Path, dest: Path, recipe: str = "mixed-4-8", **options: Any) -> dict[str, Any]:
    """A quantized checkpoint, quietly; gives the plain data of the run."""
    options = {"measure": False, "calibration": FEW} | options
    return quantize(source, dest, recipe, lambda *_: None, lambda _: None, **options)[0]


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
    """A checkpoint folder in one of LAYOUTS: the same numbers in all, quantized files and LoRAs aside."""
    raw = BASE | changes
    lm = random_lm(raw, dtype)
    if layout in GROUPS:
        group, bits = GROUPS[layout]
        nn.quantize(lm, group, bits, class_predicate=lambda _, m: _fits(m, group))
    tensors = split_audio_tables(dict(tree_flatten(lm.parameters())), lm.config)
    if layout[0] in "BC":
        tensors = _layout_c(tensors) if layout == "C" else _layout_b(tensors, lm, layout != "B stacked")
    if layout == "transformers":
        ours = {name: np.array(value.astype(mx.float32)) for name, value in _layout_b(tensors, lm, False).items()}
        return hf_kit.write_moshi(folder, 3, ours, TRANSFORMERS)
    folder.mkdir(parents=True)
    if layout.endswith("sharded"):
        raw = {key: value for key, value in raw.items() if key != "moshi_name"}
        hf_kit.write_shards(folder, {name: mx.contiguous(value) for name, value in tensors.items()}, 3)
    else:
        mx.save_safetensors(str(folder / "model.safetensors"), {k: mx.contiguous(v) for k, v in tensors.items()})
    if layout.endswith("lora"):
        raw |= {"lora": True, "lora_scaling": 1.5}
        mx.save_safetensors(str(folder / "lora.safetensors"), _adapter(tensors))
    (folder / "config.json").write_text(json.dumps(raw))
    for name in ("mimi.safetensors", "mimi.json"):
        shutil.copyfile(FIXTURES / "mimi" / name, folder / name)
    shutil.copyfile(FIXTURES / "tokenizer.model", folder / "tokenizer.model")
    return folder


def _fits(module: nn.Module, group: int) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % group == 0


def _adapter(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """A LoRA for the first temporal layer's feed-forward, and a text table of its own."""
    result = {"text_emb.weight": tensors["text_emb.weight"] + 0.5}
    for side in ("linear_in", "linear_out"):
        path = f"transformer.layers.0.gating.{side}"
        rows, columns = tensors[f"{path}.weight"].shape
        result[f"{path}.lora_A.weight"] = 0.1 * mx.random.normal((3, columns))
        result[f"{path}.lora_B.weight"] = 0.1 * mx.random.normal((rows, 3))
    return result


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
