"""Writes a checkpoint of RANDOM numbers in the full size and layout of Moshi 7B: python tools/make_random_7b.py FOLDER.

bf16, 15.4 GB, format A, and no config.json, as published; a codec of full size and a toy tokenizer beside it. It says
noise: it is for measuring memory and time. Tensor by tensor, so it needs little memory itself. A 4-bit file (4.8 GB):

  python tools/make_random_7b.py /tmp/7b
  python tools/quantize.py /tmp/7b /tmp/7b-q4 --uniform 4 --no-measure
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

sys.path.insert(0, str(Path(__file__).parents[1]))

from moshi_mlx.checkpoints.known import MOSHI_MIMI, MOSHI_TOKENIZER
from moshi_mlx.checkpoints.meter import Meter
from moshi_mlx.models.config import LmConfig, MimiConfig
from moshi_mlx.models.lm import Lm
from moshi_mlx.quantization.writer import TensorWriter

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
Shape = tuple[int, ...]

BLOCK = 1 << 24  # random numbers that are drawn once; tensors take them from different places


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    write(folder / "model.safetensors", lm_shapes(LmConfig()), mx.bfloat16)
    write(folder / MOSHI_MIMI, codec_shapes(MimiConfig()), mx.float32)
    shutil.copyfile(FIXTURES / "bytes.model", folder / MOSHI_TOKENIZER)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:14,}  {path}")


def lm_shapes(config: LmConfig) -> dict[str, Shape]:
    """Format A."""
    shapes: dict[str, Shape] = {}
    for name, value in tree_flatten(Lm(config).parameters()):  # lazy: nothing is drawn
        if name == "audio_emb.weight":
            shapes |= {f"audio_embs.{k}.weight": (config.card + 1, value.shape[1]) for k in range(config.n_q)}
        else:
            shapes[name] = tuple(value.shape)
    return shapes


def codec_shapes(config: MimiConfig) -> dict[str, Shape]:
    """The published names and layouts (spec, checkpoints.md section 5)."""
    shapes: dict[str, Shape] = {}
    wide, width, kernel = config.filters, config.width, config.residual_kernel
    largest = wide << len(config.ratios)

    def conv(name: str, out: int, size: int, into: int, kind: str = "conv") -> None:
        """A convolution and its bias; `size` is the second axis."""
        shapes[f"{name}.{kind}.{kind}.weight"] = (out, size, into)
        shapes[f"{name}.{kind}.{kind}.bias"] = (out if kind == "conv" else size,)

    def block(name: str, channels: int) -> None:
        conv(f"{name}.block.1", channels // config.compress, channels, kernel)
        conv(f"{name}.block.3", channels, channels // config.compress, 1)

    conv("encoder.model.0", wide, 1, config.kernel)
    conv("decoder.model.0", largest, width, config.kernel)
    for i, ratio in enumerate(config.ratios):
        narrow, deep = wide << len(config.ratios) - i - 1, largest >> i
        conv(f"decoder.model.{2 + 3 * i}", deep, deep // 2, 2 * ratio, "convtr")
        block(f"decoder.model.{3 + 3 * i}", narrow)
        j = len(config.ratios) - 1 - i
        block(f"encoder.model.{1 + 3 * j}", narrow)
        conv(f"encoder.model.{3 + 3 * j}", 2 * narrow, narrow, 2 * ratio)
    last = 2 + 3 * len(config.ratios)
    conv(f"encoder.model.{last}", width, largest, config.last_kernel)
    conv(f"decoder.model.{last}", 1, wide, config.last_kernel)
    shapes["downsample.conv.conv.conv.weight"] = (width, width, 4)
    shapes["upsample.convtr.convtr.convtr.weight"] = (width, 1, 4)
    for side in ("encoder", "decoder"):
        for layer in range(config.transformer.layers):
            name, hidden = f"{side}_transformer.transformer.layers.{layer}", config.transformer.hidden
            shapes |= {f"{name}.{leaf}": (width,) for leaf in ("layer_scale_1.scale", "layer_scale_2.scale")}
            shapes |= {f"{name}.norm{n}.{leaf}": (width,) for n in (1, 2) for leaf in ("weight", "bias")}
            shapes |= {f"{name}.self_attn.in_proj_weight": (3 * width, width)}
            shapes |= {f"{name}.self_attn.out_proj.weight": (width, width)}
            shapes |= {f"{name}.linear1.weight": (hidden, width), f"{name}.linear2.weight": (width, hidden)}
    for part, levels in (("first", 1), ("rest", config.codebooks_in_file - 1)):
        name = f"quantizer.rvq_{part}"
        shapes[f"{name}.input_proj.weight"] = (config.codebook_width, width, 1)
        shapes[f"{name}.output_proj.weight"] = (width, config.codebook_width, 1)
        for level in range(levels):
            book = f"{name}.vq.layers.{level}._codebook"
            shapes[f"{book}._initialized"] = (1,)
            shapes[f"{book}.cluster_usage"] = (config.codebook_size,)
            shapes[f"{book}.embedding_sum"] = (config.codebook_size, config.codebook_width)
    return shapes


def write(path: Path, shapes: dict[str, Shape], dtype: mx.Dtype) -> None:
    """Vectors of ones, everything else random."""
    numbers = mx.random.normal((2 * BLOCK,)).astype(dtype)
    mx.eval(numbers)
    report = Meter()
    with TensorWriter(path, {name: (dtype, shape) for name, shape in shapes.items()}) as out:
        for index, (name, shape) in enumerate(shapes.items()):
            if len(shape) == 1:
                out.write(name, mx.ones(shape, dtype))
                continue
            row = math.prod(shape[1:])
            rows = max(1, BLOCK // row)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                place = (index * 7919 + start) * 64 % BLOCK
                piece = numbers[place : place + count * row].reshape(count, *shape[1:])
                out.write(name, (piece * row**-0.5).astype(dtype))
            report(path.name, out.written, out.nbytes)


if __name__ == "__main__":
    main()
