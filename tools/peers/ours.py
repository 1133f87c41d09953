"""This package: python ours.py FOLDER WORK FRAMES."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from clock import report
from shapes import CODEC

sys.path.insert(0, str(Path(__file__).parents[2]))

from moshi_mlx.checkpoints.codec_of import load_mimi
from moshi_mlx.checkpoints.config_file import moshi_config, read_json
from moshi_mlx.checkpoints.load import make_lm, read_tensors
from moshi_mlx.cli.bench_count import primitives
from moshi_mlx.models.config import MimiConfig
from moshi_mlx.models.sampling import Sampling
from moshi_mlx.models.state import leaves

folder, work, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
facts = {"version": f"this tree, mlx {version('mlx')}"}

if work == CODEC:
    mimi = load_mimi(folder / f"{work}.safetensors")
    state = mimi.make_state()
    pcm = mx.random.normal((1, 1920, 1)) * 0.1

    def codec() -> None:
        codes = mimi.encode_frames(pcm, state.encoder)
        sound = mimi.decode_frames(codes, state.decoder)
        mx.eval(sound, leaves(state))
        np.array(sound)

    report(codec, frames, **facts)
else:
    config = moshi_config(read_json(folder / f"{work}.json"), work, MimiConfig())
    path = folder / f"{work}.safetensors"
    lm = make_lm(config, read_tensors(path), path)
    mx.eval(lm.parameters())
    lm_state = lm.make_state(0)
    user = mx.zeros((1, 8), mx.int32)

    def step() -> None:
        sampled = lm.step(user, lm_state, Sampling())
        mx.eval(sampled, leaves(lm_state))
        np.array(sampled)

    step()
    sampled = lm.step(user, lm_state, Sampling())
    facts["primitives"] = sum(primitives(sampled, *leaves(lm_state)).values())
    mx.eval(sampled, leaves(lm_state))
    report(step, frames, **facts)
