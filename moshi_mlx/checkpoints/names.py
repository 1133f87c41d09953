"""Names of language-model tensors in every file layout → format A (spec, checkpoints.md sections 3 to 5).

A layout's table maps one stored tensor to one or more of format A: renamed, cut into the depth slices, or copied to
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import mlx.core as mx

from ..frame import MoshiError
from ..models.config import LmConfig

Tensors = Mapping[str, mx.array]

# One spelling of projections and norms for all layouts.
_SPELLING = [
    (re.compile(r"self_attn\.(in|out)_proj(?:_weight|s\.0\.weight)$"), r"self_attn.\1_proj.weight"),
    (re.compile(r"(norm[12]?)\.alpha$"), r"\1.weight"),
    (re.compile(r"^emb\.(\d+)\."), r"audio_embs.\1."),
    (re.compile(r"^depformer_text_emb\."), "depformer.slices.0.emb."),
    (re.compile(r"^linears\.(\d+)\."), r"depformer.slices.\1.linear_out."),
    (re.compile(r"^depformer_norms\.(\d+)\."), r"depformer.slices.\1.norm."),
    (re.compile(r"^depformer\.(\d+)\."), r"depformer.slices.\1."),  # format C (Rust)
]
_DEPTH_EMB = re.compile(r"^depformer_emb\.(\d+)\.(.+)$")
_DEPTH_IN = re.compile(r"^depformer_in\.(\d+)\.(.+)$")
_DEPTH_STACKED = re.compile(
    r"^depformer\.layers\.(\d+)\.self_attn\.(in|out)_proj_weight$|"
    r"^depformer\.layers\.(\d+)\.self_attn\.(out)_proj\.weight$"
)
_DEPTH_SPLIT = re.compile(r"^depformer\.layers\.(\d+)\.self_attn\.(in|out)_projs\.(\d+)\.weight$")
_DEPTH_GATING = re.compile(r"^depformer\.layers\.(\d+)\.gating\.(\d+)\.(.+)$")
_DEPTH_NORM = re.compile(r"^depformer\.layers\.(\d+)\.(norm[12])\.alpha$")


def is_format_a(names: set[str]) -> bool:
    """Whether these are the names of the MLX files."""
    return "out_norm.weight" in names and "out_norm.alpha" not in names


def to_format_a(tensors: Tensors, config: LmConfig) -> dict[str, mx.array]:
    """Tensors of format A, B (stacked or one per step) or C under their names in format A; unknown names stay as
    they are.
    """
    result: dict[str, mx.array] = {}
    for name, value in tensors.items():
        for target, part in _targets(name, value, config):
            if target in result:
                raise MoshiError(f"two tensors of the file both give {target}; one of them is {name}")
            result[target] = part.reshape(-1) if re.search(r"norm[12]?\.weight$", target) else part
    return result


def _targets(name: str, value: mx.array, config: LmConfig) -> Iterator[tuple[str, mx.array]]:
    schedule = config.depth.schedule

    def slices(index: int, rest: str) -> list[tuple[str, mx.array]]:
        """The weight set `index` under the name of every codebook that uses it; a set that none uses is unknown."""
        users = [k for k, used in enumerate(schedule) if used == index]
        return [(f"depformer.slices.{k}.{rest}", value) for k in users] or [(name, value)]

    if match := _DEPTH_EMB.match(name):
        yield f"depformer.slices.{int(match[1]) + 1}.emb.{match[2]}", value
    elif match := _DEPTH_IN.match(name):
        yield from slices(int(match[1]), f"linear_in.{match[2]}")
    elif match := _DEPTH_STACKED.match(name):
        layer, side = (match[1], match[2]) if match[2] else (match[3], match[4])
        sets = max(schedule) + 1
        if value.ndim != 2 or value.shape[0] % sets:
            raise MoshiError(f"{name} of shape {tuple(value.shape)} does not hold {sets} weight sets")
        parts = mx.split(value, sets, axis=0)
        for k, used in enumerate(schedule):
            yield f"depformer.slices.{k}.transformer.layers.{layer}.self_attn.{side}_proj.weight", parts[used]
    elif match := _DEPTH_SPLIT.match(name):
        yield from slices(int(match[3]), f"transformer.layers.{match[1]}.self_attn.{match[2]}_proj.weight")
    elif match := _DEPTH_GATING.match(name):
        yield from slices(int(match[2]), f"transformer.layers.{match[1]}.gating.{match[3]}")
    elif match := _DEPTH_NORM.match(name):
        for k in range(config.dep_q):
            yield f"depformer.slices.{k}.transformer.layers.{match[1]}.{match[2]}.weight", value
    else:
        for pattern, spelling in _SPELLING:
            name = pattern.sub(spelling, name)
        yield name, value


def join_audio_tables(tensors: Tensors, config: LmConfig) -> dict[str, mx.array]:
    """Format A → the parameters of `Lm`: the tables audio_embs.{k} become one, so that a frame needs one lookup."""
    result = dict(tensors)
    for leaf in ("weight", "scales", "biases"):
        names = [f"audio_embs.{k}.{leaf}" for k in range(config.n_q)]
        if names[0] in tensors:
            result[f"audio_emb.{leaf}"] = mx.concatenate([result.pop(name) for name in names])
    return result


def split_audio_tables(tensors: Tensors, config: LmConfig) -> dict[str, mx.array]:
    """The inverse: parameters of `Lm` → format A."""
    result = {name: value for name, value in tensors.items() if not name.startswith("audio_emb.")}
    for leaf in ("weight", "scales", "biases"):
        if (whole := tensors.get(f"audio_emb.{leaf}")) is not None:
            for k, part in enumerate(mx.split(whole, config.n_q, axis=0)):
                result[f"audio_embs.{k}.{leaf}"] = part
    return result
