"""From a model whose weights are still in its file to a quantized file: matrix by matrix, rows by rows.

Values become bfloat16 (as in the published files), then what `mx.quantize` makes of them. A source that is quantized is
restored first. Memory holds one matrix of the source and a block of rows of the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from ..checkpoints.names import split_audio_tables
from ..checkpoints.transfer import Progress
from ..checkpoints.writer import Spec, TensorWriter
from ..models.lm import Lm
from .formats import Format, Plan

BLOCK = 1 << 23  # weights worked on at once
SAMPLE = 1 << 20  # weights of a matrix that its error is measured on
DTYPE = mx.bfloat16


def restored(lm: Lm) -> dict[str, mx.array]:
    """The weights of a model under the file's names (format A), lazily, none of them quantized; floats as bfloat16."""
    parameters = dict(tree_flatten(lm.parameters()))
    for name, module in lm.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            weight, scales, biases = (parameters.pop(f"{name}.{leaf}") for leaf in ("weight", "scales", "biases"))
            parameters[f"{name}.weight"] = mx.dequantize(weight, scales, biases, module.group_size, module.bits)
    named = split_audio_tables(parameters, lm.config)
    # All slices of one depth matrix in turn: they may be parts of one tensor, which must not wait in memory.
    order = sorted(named, key=lambda name: (re.sub(r"slices\.\d+", "", name), name))
    return {name: named[name].astype(DTYPE) for name in order}


def file_plan(plan: Plan, tensors: dict[str, mx.array]) -> dict[str, Format]:
    """A plan under the names of the file, where the audio tables are apart."""
    result = {}
    for name in tensors:
        module = name.removesuffix(".weight")
        own = "audio_emb" if module.startswith("audio_embs.") else module
        if name.endswith(".weight") and own in plan:
            result[module] = plan[own]
    return result


def specs(tensors: dict[str, mx.array], plan: dict[str, Format]) -> dict[str, Spec]:
    """Names, dtypes and shapes of the result."""
    result: dict[str, Spec] = {}
    for name, value in tensors.items():
        how, shape = plan.get(name.removesuffix(".weight")), tuple(value.shape)
        if how is None:
            result[name] = (DTYPE, shape)
            continue
        rows, columns = shape
        result[name] = (mx.uint32, (rows, columns * how.bits // 32))
        for leaf in ("scales", "biases"):
            result[name.removesuffix("weight") + leaf] = (DTYPE, (rows, columns // how.group))
    return result


def convert(tensors: dict[str, mx.array], plan: dict[str, Format], path: Path, progress: Progress) -> dict[str, float]:
    """Writes `tensors`, which is emptied on the way, to `path`; gives ‖quantized − source‖ / ‖source‖ by matrix.

    plan: under the file's names.
    """
    found = {}
    with TensorWriter(path, specs(tensors, plan)) as out:
        while tensors:
            name = next(iter(tensors))
            value = tensors.pop(name)
            module = name.removesuffix(".weight")
            how = plan.get(module)
            if how is None:
                out.write(name, value)
            else:
                found[module] = _write_quantized(out, module, value, how)
            del value
            mx.clear_cache()
            progress(path.name, out.written, out.nbytes)
    return found


def _write_quantized(out: TensorWriter, module: str, value: mx.array, how: Format) -> float:
    """One matrix; gives its relative error."""
    mx.eval(value)
    for rows in _blocks(value):
        packed = mx.quantize(rows, how.group, how.bits)
        mx.eval(*packed)
        for leaf, part in zip(("weight", "scales", "biases"), packed, strict=True):
            out.write(f"{module}.{leaf}", part)
    return float(errors(value, [how])[0][1] ** 0.5)


def requantized(value: mx.array, how: Format, dtype: mx.Dtype = mx.float32) -> mx.array:
    """What a format leaves of a matrix, lazily, to the precision of dtype."""
    packed, *steps = mx.quantize(value.astype(DTYPE), how.group, how.bits)
    scales, biases = (step.astype(dtype) for step in steps)
    return mx.dequantize(packed, scales, biases, how.group, how.bits)


def errors(value: mx.array, formats: Sequence[Format], sample: int = SAMPLE) -> list[tuple[float, float]]:
    """By format, the mean square error of a matrix and the same as a share of its mean square.

    Of evenly spaced rows with about `sample` weights: on a CPU it takes eight times as long to restore a weight and to
    compare it as to quantize it, and a million weights tell the error as well as fifty million do.
    """
    exact = value[:: max(1, value.size // sample)].astype(mx.float32)
    lost = mx.stack([mx.square(requantized(exact, how) - exact).mean() for how in formats])
    power = mx.maximum(mx.square(exact).mean(), 1e-30)
    return list(zip(np.array(lost).tolist(), np.array(lost / power).tolist(), strict=True))


def _blocks(value: mx.array) -> Iterator[mx.array]:
    step = max(1, BLOCK // value.shape[1])
    for start in range(0, value.shape[0], step):
        yield value[start : start + step]
