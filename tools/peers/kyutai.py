"""Kyutai's MLX port, `moshi_mlx` 0.3.0: python kyutai.py FOLDER WORK FRAMES."""

from __future__ import annotations

import io
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from clock import report
from moshi_mlx.models.generate import LmGen
from moshi_mlx.utils.sampling import Sampler
from shapes import CODEC

from moshi_mlx.models.lm import Lm, LmConfig
from moshi_mlx.models.mimi import Mimi, mimi_202407

folder, work, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
facts: dict[str, object] = {"version": f"moshi_mlx {version('moshi_mlx')}, mlx {version('mlx')}"}


def primitives(lm: Lm, generator: LmGen, user: mx.array) -> int:
    """Of one frame. Its checks of token values wait for the device in the middle: counted, and answered "no"."""
    checks: list[mx.array] = []
    check: Any = mx.array.any

    class No:
        def __init__(self, asked: mx.array) -> None:
            checks.append(asked)

        def __bool__(self) -> bool:
            return False

    mx.array.any = lambda self: No(check(self))
    try:
        text = generator.step(user)
        text = text[0] if isinstance(text, tuple) else text
        codes = generator.last_audio_tokens()
    finally:
        mx.array.any = check
    rings = [array for layer in lm.transformer_cache for array in layer.self_attn.state]
    graph = io.StringIO()
    mx.export_to_dot(graph, text, codes, generator.gen_sequence, *rings, *checks)
    mx.eval(text, codes, generator.gen_sequence, *rings)
    facts["waits"] = len(checks)
    return len(re.findall("shape=rectangle", graph.getvalue()))


if work == CODEC:
    mimi = Mimi(mimi_202407(8))
    mimi.load_pytorch_weights(str(folder / f"{work}.safetensors"), strict=False)
    mx.eval(mimi.parameters())
    pcm = mx.random.normal((1, 1, 1920)) * 0.1

    def codec() -> None:
        np.array(mimi.decode_step(mimi.encode_step(pcm)))

    report(codec, frames, **facts)
else:
    config = LmConfig.from_config_dict(json.loads((folder / f"{work}.json").read_text()))
    lm = Lm(config)
    lm.load_pytorch_weights(str(folder / f"{work}.safetensors"), config)
    mx.eval(lm.parameters())
    generator = LmGen(lm, 4000, Sampler(), Sampler())  # its chat programs' settings
    user = mx.zeros((1, 8), mx.int32)

    def step() -> None:
        text = generator.step(user)
        mx.eval(text)
        codes = generator.last_audio_tokens()
        if codes is not None:
            np.array(codes)

    for _ in range(3):
        step()
    facts["primitives"] = primitives(lm, generator, user)
    report(step, frames, **facts)
