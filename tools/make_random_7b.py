"""Writes a checkpoint of RANDOM numbers in the full size and layout of Moshi 7B, to measure memory and time with.

Format A and no config.json, as published, in bf16 (15.4 GB) or in 4 or 8 bits (4.8, 8.2 GB); a codec of full size and a
toy tokenizer beside it. Tensor by tensor, so it needs little memory itself. --try loads it and makes two frames.

  python tools/make_random_7b.py /tmp/7b
  python tools/make_random_7b.py /tmp/7b-q4 --bits 4 --try
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

sys.path.insert(0, str(Path(__file__).parents[1]))

from moshi_mlx.checkpoints.known import MOSHI_MIMI, MOSHI_TOKENIZER
from moshi_mlx.checkpoints.meter import Meter
from moshi_mlx.checkpoints.writer import Spec, TensorWriter
from moshi_mlx.models.config import LmConfig, MimiConfig
from moshi_mlx.models.lm import Lm

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
Shape = tuple[int, ...]

GROUPS = {4: 32, 8: 64}  # bits → weights a scale, as published
BLOCK = 1 << 24  # random numbers that are drawn once; tensors take them from different places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bits", type=int, choices=sorted(GROUPS), help="quantized as the published files are")
    parser.add_argument("--try", dest="attempt", action="store_true", help="load it and make two frames")
    args = parser.parse_args()
    folder: Path = args.folder
    folder.mkdir(parents=True)
    lm: dict[str, Spec] = {name: (mx.bfloat16, shape) for name, shape in lm_shapes(LmConfig()).items()}
    codec: dict[str, Spec] = {name: (mx.float32, shape) for name, shape in codec_shapes(MimiConfig()).items()}
    if args.bits:
        lm = quantized(lm, args.bits)
    write(folder / (f"model.q{args.bits}.safetensors" if args.bits else "model.safetensors"), lm, args.bits)
    write(folder / MOSHI_MIMI, codec)
    shutil.copyfile(FIXTURES / "bytes.model", folder / MOSHI_TOKENIZER)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:14,}  {path}")
    if args.attempt:
        attempt(folder)


def attempt(folder: Path) -> None:
    """Loads the checkpoint and makes two frames; prints the time of each stage and the peak of MLX's memory."""
    from moshi_mlx import FRAME, Session, load

    mx.clear_cache()
    mx.reset_peak_memory()

    def stage(name: str, since: float) -> float:
        now = time.perf_counter()
        print(f"{name:<12} {now - since:7.1f} s, peak {mx.get_peak_memory():,} bytes", flush=True)
        return now

    now = time.perf_counter()
    moshi = load(folder)
    now = stage("load", now)
    session = Session(moshi, seed=0)
    now = stage("prime", now)
    for n in range(2):
        reply = session.step(np.zeros(FRAME, np.float32))
        now = stage(f"frame {n}", now)
        assert reply.codes is not None
        assert np.isfinite(reply.pcm).all()


def quantized(specs: dict[str, Spec], bits: int) -> dict[str, Spec]:
    """Every matrix as packed values, scales and biases, as MLX's `nn.quantize` writes them."""
    result: dict[str, Spec] = {}
    for name, (dtype, shape) in specs.items():
        if len(shape) == 1:
            result[name] = (dtype, shape)
            continue
        module, (rows, columns) = name.removesuffix(".weight"), shape
        result[name] = (mx.uint32, (rows, columns * bits // 32))
        for leaf in ("scales", "biases"):
            result[f"{module}.{leaf}"] = (dtype, (rows, columns // GROUPS[bits]))
    return result


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


def write(path: Path, specs: dict[str, Spec], bits: int | None = None) -> None:
    """Vectors of ones; matrices random, with a spread of columns ** −½; packed values random bits."""
    normal = mx.random.normal((2 * BLOCK,))
    packed = mx.random.randint(0, 1 << 16, (4 * BLOCK,)).astype(mx.uint16).view(mx.uint32)
    mx.eval(normal, packed)
    report = Meter()
    with TensorWriter(path, specs) as out:
        for index, (name, (dtype, shape)) in enumerate(specs.items()):
            if len(shape) == 1:
                out.write(name, mx.ones(shape, dtype))
                continue
            row = math.prod(shape[1:])
            rows = max(1, BLOCK // row)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                place = (index * 7919 + start) * 64 % BLOCK
                cut = slice(place, place + count * row)
                if dtype == mx.uint32:
                    piece = packed[cut]
                elif (
                    bits
                ):  # packed values are 0 … 2 ** bits − 1: a scale for the spread, a bias that makes the middle 0
                    middle = (2**bits - 1) / 2
                    scale = (row * GROUPS[bits]) ** -0.5 * 3**0.5 / middle
                    piece = (
                        scale * (1 + 0.1 * normal[cut])
                        if name.endswith("scales")
                        else mx.full(count * row, -middle * scale)
                    )
                else:
                    piece = normal[cut] * row**-0.5
                out.write(name, piece.astype(dtype).reshape(count, *shape[1:]))
            report(path.name, out.written, out.nbytes)


if __name__ == "__main__":
    main()
