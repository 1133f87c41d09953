"""Parity at full size: python tools/parity_full.py --reference PYTHON [--part mimi|lm] [--folder FOLDER].

PYTHON is the interpreter of an environment with `moshi` 0.2.13 and `rustymimi` 0.4.1 (never one with this package); it
runs as a child. Prints a line a comparison and exits 1 if one is beyond its bound. Minutes and 3 GB of memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from moshi_mlx.checkpoints.codec_of import load_mimi
from moshi_mlx.checkpoints.config_file import moshi_config, read_json
from moshi_mlx.checkpoints.header import read_header
from moshi_mlx.checkpoints.load import load_codec, make_lm, read_tensors
from moshi_mlx.frame import FRAME
from moshi_mlx.models.config import MimiConfig
from moshi_mlx.models.lm import Lm
from moshi_mlx.models.mimi import Mimi
from moshi_mlx.models.sampling import Sampling

LATENTS, PCM, CODES = 1e-4, 5e-5, 0.995  # spec, mimi.md section 6
FILLED = 125  # frames until the window of 250 steps is full; PyTorch and Rust differ by one key after it
GREEDY = Sampling(text_temperature=0, audio_temperature=0)


class Report:
    """Lines with bounds."""

    def __init__(self) -> None:
        self.good = True

    def line(self, what: str, value: float, bound: float, at_least: bool = False) -> None:
        good = value >= bound if at_least else value <= bound
        self.good &= good
        print(
            f"{'ok  ' if good else 'BAD '} {what:<66} {value:<11.4g} {'≥' if at_least else '≤'} {bound:g}", flush=True
        )


def worst(a: object, b: np.ndarray) -> float:
    return float(np.abs(np.array(a) - b).max())


def error(a: object, true: np.ndarray) -> float:
    return float(np.square(np.array(a) - true).mean() ** 0.5)


def latents(mimi: Mimi, pcm: np.ndarray, frames: int) -> np.ndarray:
    """Latents of a stream of calls of that many frames."""
    state = mimi.make_state().encoder
    parts = []
    for start in range(0, pcm.shape[1], frames * FRAME):
        parts.append(mimi.latents(mx.array(pcm[:, start : start + frames * FRAME]), state))
        mx.eval(parts[-1])
    return np.concatenate(parts, axis=1)


def decoded(mimi: Mimi, codes: np.ndarray, frames: int) -> np.ndarray:
    """Sound of a stream of calls of that many frames."""
    state = mimi.make_state()
    return np.concatenate([mimi.decode(codes[..., n : n + frames], state) for n in range(0, codes.shape[2], frames)], 1)


def near_tie(mimi: Mimi, latent: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far apart, relatively, the two choices of the first level that differs are; latent (width,), codes (K,)."""
    level = int(np.argmax(ours != theirs))
    part, start = (mimi.quantizer.rvq_first, 0) if level == 0 else (mimi.quantizer.rvq_rest, 1)
    residual = np.array(part.input_proj(mx.array(latent)), np.float64)
    books = np.array(part.codebooks, np.float64)
    for k in range(start, level):
        residual = residual - books[k - start, theirs[k]]
    a, b = (((residual - books[level - start, codes[level]]) ** 2).sum() for codes in (ours, theirs))
    return float(abs(a - b) / b)


def compare_mimi(folder: Path, report: Report) -> None:
    """The codec at full size."""
    said = np.load(folder / "arrays.npz")
    pcm = said["pcm"].astype(np.float32).transpose(0, 2, 1) / 32768
    want = said["decoded"].transpose(0, 2, 1)
    mimi = load_mimi(folder / "mimi.safetensors", 32)
    for frames in (pcm.shape[1] // FRAME, 3, 1):
        how = "offline" if frames > 3 else f"{frames} frame{'s' * (frames > 1)} a call"
        report.line(
            f"PyTorch offline, latents, ours {how}", worst(latents(mimi, pcm, frames), said["latents"]), LATENTS
        )
        report.line(
            f"PyTorch offline, sound of given codes, ours {how}", worst(decoded(mimi, said["given"], frames), want), PCM
        )
    same = np.array(mimi.quantizer.encode(mx.array(said["latents"]))) == said["codes"]
    report.line("PyTorch, codes of its latents, share equal", same.mean(), 0.9999, at_least=True)
    codes = np.array(mimi.encode(pcm))
    report.line("PyTorch, codes end to end, share equal", (codes == said["codes"]).mean(), CODES, at_least=True)
    differ = np.flatnonzero((codes != said["codes"]).any(axis=1)[0])
    ties = [near_tie(mimi, said["latents"][0, n], codes[0, :, n], said["codes"][0, :, n]) for n in differ]
    report.line(f"the {len(ties)} frames that differ: widest tie", max(ties, default=0), 1e-4)
    eight = load_mimi(folder / "mimi.safetensors", 8)
    report.line(
        "PyTorch, the 8 codebooks of Moshi", (np.array(eight.encode(pcm)) == said["codes"][:, :8]).mean(), CODES, True
    )

    before = slice(0, FILLED)
    rust = said["rust_decoded"].transpose(0, 2, 1)
    report.line(
        "rustymimi, codes, frames < 125", (codes == said["rust_codes"])[..., before].mean(), CODES, at_least=True
    )
    samples = slice(0, FILLED * FRAME)
    report.line(
        "rustymimi, sound, frames < 125", worst(decoded(mimi, said["given"], 1)[:, samples], rust[:, samples]), PCM
    )
    config = MimiConfig(codebooks=32)
    wide = replace(config, transformer=replace(config.transformer, context=251))
    other = load_codec(folder / "mimi.safetensors", wide)
    report.line(
        "rustymimi, sound, all frames, ours with its 251 keys", worst(decoded(other, said["given"], 1), rust), PCM
    )


def load_lm(folder: Path) -> tuple[Lm, dict[str, np.ndarray]]:
    path = folder / "model.safetensors"
    config = moshi_config(read_json(folder / "config.json"), str(folder), MimiConfig())
    return make_lm(config, read_tensors(path), path), dict(np.load(folder / "arrays.npz"))


def greedy(lm: Lm, user: np.ndarray) -> np.ndarray:
    """A session without the codec: what every step samples, (steps, 1 + dep_q)."""
    state, said = lm.make_state(seed=0), []
    for codes in [np.array(lm.config.initial[1 + lm.config.dep_q :]), *user.T]:
        said.append(np.array(lm.step(mx.array(codes)[None], state, GREEDY)[0]))
    return np.stack(said)


def compare_lm(folder: Path, report: Report) -> None:
    """Moshi 7B's topology, narrow."""
    lm, said = load_lm(folder / "fp32")
    got = lm.logits(said["codes"])
    for name, ours in (("text", got.text), ("audio", got.audio)):
        want, true = said[f"{name}_logits"], said[f"true_{name}_logits"]
        apart, theirs = (worst(x, want) / np.abs(want).max() for x in (ours, true))
        print(f"     {name} logits, share of the largest: ours to PyTorch {apart:.2g}, fp64 to PyTorch {theirs:.2g}")
        report.line(
            f"{name} logits: our error over PyTorch's, both to fp64", error(ours, true) / error(want, true), 1.5
        )
    ours = greedy(lm, said["live_user"])
    theirs = np.concatenate([said["live_text"][:, None], said["live_audio"]], axis=1)
    gaps = np.concatenate([said["text_margins"][:, None], said["audio_margins"]], axis=1).reshape(-1)
    first = int(np.argmin(np.append((ours == theirs).reshape(-1), False)))
    steps, streams = theirs.shape
    equal, window = min(first // streams, steps), lm.config.transformer.context
    print(f"     greedy session: {equal} of {steps} steps equal (window {window})")
    if first < gaps.size:
        report.line("the first token that differs: distance of the two best logits", gaps[first], 1e-3)

    bf16, said = load_lm(folder / "bf16")
    path = folder / "bf16" / "model.safetensors"
    raw, stored = path.read_bytes(), read_tensors(path)
    exact = [raw[t.start : t.end] == bytes(memoryview(stored[n])) for n, t in read_header(path).tensors.items()]
    report.line(f"bf16, share of {len(exact)} tensors equal bit for bit", float(np.mean(exact)), 1, at_least=True)
    tensors = {name: value.astype(mx.float32) for name, value in stored.items()}
    truth = make_lm(moshi_config(read_json(folder / "bf16" / "config.json"), "", MimiConfig()), tensors, path)
    exact_logits, ours = truth.logits(said["codes"]), bf16.logits(said["codes"])
    for name in ("text", "audio"):
        true = np.array(getattr(exact_logits, name))
        ratio = error(getattr(ours, name), true) / error(said[f"{name}_logits"], true)
        report.line(f"bf16 {name} logits: our error over PyTorch's", ratio, 1.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="python of the reference's environment")
    parser.add_argument("--part", choices=["mimi", "lm"], help="only this one")
    parser.add_argument("--folder", type=Path, help="keep the reference's files here, and use those that are here")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        for part, compare in (("mimi", compare_mimi), ("lm", compare_lm)):
            if args.part in (part, None):
                folder = (args.folder or Path(temporary)) / part
                if not folder.exists():
                    folder.mkdir(parents=True)
                    child = Path(__file__).parent / "fixtures" / "full.py"
                    subprocess.run([args.reference, str(child), part, str(folder)], check=True)
                compare(folder, report)
    return 0 if report.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
