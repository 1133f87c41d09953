"""This package beside the other implementations, on the same random weights, in one run.

  python tools/compare_peers.py --kyutai KYUTAI --reference REFERENCE [--rounds 5] [--json FILE]

KYUTAI and REFERENCE are interpreters of environments of their own (Kyutai's port has our import name: never both in one
environment):

  python3 -m venv kyutai
  kyutai/bin/pip install 'mlx[cpu]' numpy sentencepiece huggingface_hub safetensors sphn rustymimi==0.4.1
  kyutai/bin/pip install --no-deps moshi_mlx==0.3.0
  python3 -m venv reference
  reference/bin/pip install torch==2.13.0 einops safetensors sentencepiece huggingface_hub 'numpy<2.3' aiohttp
  reference/bin/pip install sounddevice
  reference/bin/pip install --no-deps moshi==0.2.13 sphn==0.2.1

(On a Mac `mlx` instead of `mlx[cpu]`. With an NVIDIA GPU `mlx[cuda]` alone: it owns the same files as `mlx[cpu]`.)
Each round starts every peer once, in turn, as a child; a peer's figure in a round is its median frame. The table gives
the median of the rounds, their range, and the ratio of ours to it, round by round (median and range; below 1 we are
faster). Processor time of all threads unless --clock: on a shared machine the clock measures the neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
WORKS = {
    "codec": ("Mimi, encode and decode of a frame, full size", ("ours", "kyutai", "reference", "rusty")),
    "narrow-7b": ("live frame of the language model, topology of 7B, width 64", ("ours", "kyutai", "reference")),
    "1b": ("live frame of the language model, width 2048, 4 layers", ("ours", "kyutai", "reference")),
}
OURS = "ours"
Rounds = dict[str, list[dict[str, Any]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kyutai", required=True, help="python with moshi_mlx 0.3.0 and rustymimi")
    parser.add_argument("--reference", required=True, help="python with torch and moshi 0.2.13; makes the weights")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=["codec", "narrow-7b"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8, help="frames a round (codec; four times as many otherwise)")
    parser.add_argument("--clock", action="store_true", help="compare wall-clock time, for a GPU or a quiet machine")
    parser.add_argument("--folder", type=Path, help="where the weights are made, and kept (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    args = parser.parse_args()
    python = {OURS: sys.executable, "kyutai": args.kyutai, "rusty": args.kyutai, "reference": args.reference}
    measured: dict[str, Rounds] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for work in args.works:
            if not (folder / f"{work}.safetensors").exists():
                child(args.reference, "make.py", folder, work)
            peers = WORKS[work][1]
            frames = args.frames if work == "codec" else 4 * args.frames
            measured[work] = {peer: [] for peer in peers}
            for turn in range(args.rounds):
                for peer in peers[turn % len(peers) :] + peers[: turn % len(peers)]:
                    line = child(python[peer], f"{peer}.py", folder, work, frames)
                    measured[work][peer].append(json.loads(line))
            print("\n".join(table(work, measured[work], "clock_ms" if args.clock else "processor_ms")), flush=True)
    if args.json:
        args.json.write_text(json.dumps(measured))
    return 0


def child(python: str, program: str, *words: object) -> str:
    """The last line that a peer prints. Ends with its own words if it fails."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLX_DISABLE_COMPILE")}
    command = [python, str(PEERS / program), *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def table(work: str, rounds: Rounds, key: str) -> list[str]:
    """Lines for a terminal; a peer a line."""
    kind = "clock" if key == "clock_ms" else "processor"
    lines = [f"{WORKS[work][0]}: ms of {kind} time, {len(rounds[OURS])} rounds"]
    times = {peer: [statistics.median(one[key]) for one in many] for peer, many in rounds.items()}
    for peer, own in times.items():
        ratios = [ours / other for ours, other in zip(times[OURS], own, strict=True)]
        facts = rounds[peer][0]
        more = "".join(f", {facts[name]} {name}" for name in ("primitives", "waits") if name in facts)
        lines.append(
            f"  {peer:<10}{statistics.median(own):9.1f} ({min(own):.1f} to {max(own):.1f})   ours / it "
            f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})   {facts['version']}{more}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
