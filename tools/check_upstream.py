"""Does Kyutai's moshi_mlx read what `moshi-mlx quantize --uniform 4|8` writes, and say the same?

  python tools/check_upstream.py --python /path/to/its/venv/bin/python [SOURCE] [--frames N]

Each layout is made from SOURCE (default: the embedded model, some of whose widths 64 does not divide, and a random one
that has none such), loaded strictly by Kyutai's program in a process and an environment of its own (the import name is
the same), and both hold the same conversation: user codes given, greedy, arithmetic in fp32. Prints one line a layout;
status 1 where a token differs. Stay below SOURCE's context: past it Kyutai's window is off by one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def child(folder: Path, codes: Path, out: Path) -> None:
    """Kyutai's side: strict load as its run_inference.py does it, then a greedy session."""
    import mlx.core as mx
    from mlx import nn

    from moshi_mlx import models, utils

    raw = json.loads((folder / "config.json").read_text())
    model = models.Lm(models.LmConfig.from_config_dict(raw))
    model.set_dtype(mx.bfloat16)
    bits, group = (4, 32) if raw["moshi_name"].endswith(".q4.safetensors") else (8, 64)
    nn.quantize(model, bits=bits, group_size=group)
    model.load_weights(str(folder / raw["moshi_name"]), strict=True)
    model.set_dtype(mx.float32)
    user = np.load(codes)
    greedy = utils.Sampler(temp=0.0)
    audio: list[Any] = []
    gen = models.LmGen(
        model, user.shape[1], greedy, greedy, on_audio_hook=lambda tokens: audio.append(np.array(tokens))
    )
    text = [int(gen.step(mx.array(user[None, :, n]))[0].item()) for n in range(user.shape[1])]  # (text, hidden state)
    np.savez(out, text=text, audio=np.stack(audio).reshape(len(text), -1))


def ours(folder: Path, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our side: text by step, and Moshi's codes by frame."""
    import mlx.core as mx

    import moshi_mlx

    moshi = moshi_mlx.load(folder, dtype=mx.float32)
    greedy = moshi_mlx.Sampling(text_temperature=0, audio_temperature=0)
    session = moshi_mlx.Session(moshi, 0, greedy)
    text, frames = [session.state.text_token], []
    for n in range(user.shape[1] - 1):
        token, codes = session.step_codes(user[:, n])
        text.append(token)
        if codes is not None:
            frames.append(codes)
    return np.array(text), np.stack(frames)


def random_source(folder: Path) -> str:
    """A checkpoint of random numbers whose every width can be cut into groups of 64."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from quantization_kit import make_source

    wide = {"dim": 256, "num_heads": 4, "hidden_scale": 4.125, "context": 200, "n_q": 16, "dep_q": 8}
    deep = {"depformer_dim": 256, "depformer_dim_feedforward": 1056, "depformer_num_heads": 4, "depformer_context": 8}
    fixed = {"causal": True, "layer_scale": None, "gating": "silu", "norm": "rms_norm_f32", "max_period": 10_000}
    delays = [0, 0, *[1] * 7, 0, *[1] * 7]
    said = {"depformer_pos_emb": "none", "depformer_weights_per_step": True, "existing_text_padding_id": 3}
    return str(make_source(folder, **wide, **deep, **fixed, **said, delays=delays))


def check(source: str | None, bits: int, python: str, frames: int, folder: Path) -> bool:
    """One layout; prints its line."""
    from moshi_mlx.checkpoints.load import open_checkpoint
    from moshi_mlx.quantization.job import quantize

    made = folder / f"q{bits}"
    result, _ = quantize(source, made, f"uniform-{bits}", lambda *_: None, print, measure=False)
    if result["kept"]:
        print(f"q{bits}: {len(result['kept'])} matrices kept, for which Kyutai's reader has no form; not compared")
        return True
    lm = open_checkpoint(made).config.lm
    user = np.random.default_rng(1).integers(lm.card, size=(lm.user_q, min(frames, lm.transformer.context or frames)))
    np.save(folder / "codes.npy", user.astype(np.int32))
    # -I: neither PYTHONPATH nor a working directory may put our package, of the same import name, in its way.
    command = [python, "-I", __file__, "--child", str(made), str(folder / "codes.npy"), str(folder / "theirs.npz")]
    subprocess.run(command, check=True)
    theirs = np.load(folder / "theirs.npz")
    text, codes = ours(made, user)
    delays = lm.delays[1 : 1 + lm.dep_q]
    aligned = np.stack([theirs["audio"][d : d + len(codes), k] for k, d in enumerate(delays)], axis=1)
    same = [int((a == b).sum()) for a, b in ((text, theirs["text"]), (codes, aligned))]
    print(
        f"q{bits}: strict load; {len(text)} steps, {len(set(text.tolist()))} different text tokens: "
        f"{same[0]} of {text.size} text tokens and {same[1]} of {codes.size} codes equal"
    )
    return same == [text.size, codes.size]


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(*map(Path, sys.argv[2:]))
        return 0
    sys.path.insert(0, str(Path(__file__).parents[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?")
    parser.add_argument("--python", required=True)
    parser.add_argument("--frames", type=int, default=200)
    args = parser.parse_args()
    passed = []
    with tempfile.TemporaryDirectory() as folder:
        for source in [args.source] if args.source else [None, random_source(Path(folder) / "random")]:
            for bits in (4, 8):
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    passed.append(check(source, bits, args.python, args.frames, Path(own)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
