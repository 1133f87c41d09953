"""Stage `export`: the trained models as a checkpoint folder, which PyTorch `moshi` and moshi_mlx both read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import tokens
from .codes import load_encoder
from .decoder import load_decoder
from .shapes import MIMI_CONFIG, lm_config

WEIGHTS, MIMI, MIMI_JSON = "model.safetensors", "mimi.safetensors", "mimi.json"


def export(folder: Path, target: Path) -> None:
    """Write config.json, the two safetensors files (bf16 and fp16), Mimi's configuration and the tokenizer."""
    target.mkdir(parents=True, exist_ok=True)
    processor = tokens.make(folder)
    (target / tokens.NAME).write_bytes((folder / tokens.NAME).read_bytes())
    config = {
        "moshi_name": WEIGHTS,
        "mimi_name": MIMI,
        "mimi_config_name": MIMI_JSON,
        "tokenizer_name": tokens.NAME,
        "model_type": "moshi",
        **lm_config(processor.get_piece_size()),
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (target / MIMI_JSON).write_text(json.dumps(MIMI_CONFIG, indent=2) + "\n")
    lm = torch.load(folder / "lm.pt", map_location="cpu")["shipped"]
    save_file(published_names({name: value.to(torch.bfloat16) for name, value in lm.items()}), target / WEIGHTS)
    mimi = load_decoder(folder) if (folder / "decoder.pt").exists() else load_encoder(folder)
    save_file(published_names(_plain_codebooks(mimi.state_dict())), target / MIMI)
    total = sum(path.stat().st_size for path in target.iterdir() if path.is_file())
    print(f"export: {total / 1e6:.1f} MB in {target}")


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Projections kept one by one in memory are one stacked tensor in published files."""
    out: dict[str, Tensor] = {}
    groups: dict[str, list[tuple[int, Tensor]]] = {}
    for name, value in state.items():
        found = re.fullmatch(r"(.*self_attn\.)(in|out)_projs\.(\d+)\.weight", name)
        if found:
            joined = f"{found[1]}in_proj_weight" if found[2] == "in" else f"{found[1]}out_proj.weight"
            groups.setdefault(joined, []).append((int(found[3]), value))
        else:
            out[name] = value.contiguous()
    for name, members in groups.items():
        out[name] = torch.cat([value for _, value in sorted(members, key=lambda member: member[0])]).contiguous()
    return out


def _plain_codebooks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """float16, each codebook with usage 1, so that its table is `embedding_sum` itself."""
    out = {}
    for name, value in state.items():
        if name.endswith("embedding_sum"):
            usage = state[name.replace("embedding_sum", "cluster_usage")].clamp(min=1e-5)
            value = value / usage[:, None]
        elif name.endswith("cluster_usage"):
            value = torch.ones_like(value)
        out[name] = value.to(torch.float16)
        if not out[name].isfinite().all():
            raise ValueError(f"{name} does not fit into float16")
    return out
