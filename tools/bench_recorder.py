"""What the recorder costs the thread that steps the model, and whether an hour stays aligned.

python tools/bench_recorder.py                  milliseconds that `Recorder.add` takes, live, one frame each 10 ms
python tools/bench_recorder.py --aligned 60     so many minutes of virtual time, every sample of both lanes checked
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from moshi_mlx.frame import FRAME, FRAME_RATE, Reply
from moshi_mlx.recording.folder import open_recording
from moshi_mlx.recording.info import SessionInfo
from moshi_mlx.recording.recorder import Recorder

INFO = SessionInfo(model="none", seed=0, codebooks=8, user_codebooks=8, card=2_048)
PART_BYTES = 64_000_000
CYCLE = 32_768  # sample n holds n modulo this, exactly


def reply(frame: int) -> tuple[Reply, np.ndarray]:
    """Frame n of a conversation in which each sample of the user tells its index, and Moshi's its negative."""
    pcm = ((frame * FRAME + np.arange(FRAME)) % CYCLE / CYCLE).astype(np.float32)
    codes = np.full(8, frame % 2_048, np.int32)
    return Reply(frame, -pcm, " word" if frame % 4 == 0 else "", 7, codes, codes), pcm


def measure(folder: Path, frames: int, pace: float) -> str:
    """Times `add` as a live conversation calls it."""
    took = np.empty(frames)
    with Recorder(folder, INFO, live=True) as recorder:
        for n in range(frames):
            one, pcm = reply(n)
            begin = time.perf_counter()
            recorder.add(one, pcm, {"step_ms": 40.0, "lag_ms": 120.0, "played_at": n / FRAME_RATE})
            took[n] = 1_000 * (time.perf_counter() - begin)
            time.sleep(pace)
    if recorder.failure:
        raise SystemExit(recorder.failure)
    p50, p99 = np.percentile(took, [50, 99])
    return f"{frames} frames: add takes {p50:.3f} ms (p50), {p99:.3f} ms (p99), {took.max():.3f} ms (longest)"


def aligned(folder: Path, frames: int) -> str:
    """Records as fast as it goes, then checks every sample."""
    with Recorder(folder, INFO, part_limit=PART_BYTES) as recorder:
        for n in range(frames):
            recorder.add(*reply(n))
    at = 0
    parts = open_recording(folder).parts
    for part in parts:
        for lanes in soundfile.blocks(part, 1 << 20, dtype="int16"):
            expected = (at + np.arange(len(lanes))) % CYCLE
            if not (np.array_equal(lanes[:, 0], expected) and np.array_equal(lanes[:, 1], -expected)):
                raise SystemExit(f"NOT aligned near sample {at}")
            at += len(lanes)
    if at != frames * FRAME:
        raise SystemExit(f"NOT complete: {at} samples of {frames * FRAME}")
    return (
        f"{frames / FRAME_RATE / 60:g} minutes in {len(parts)} parts: {at} samples of both lanes, each where it belongs"
    )


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2_000)
    parser.add_argument("--pace", type=float, default=0.01, metavar="SECONDS", help="between two frames")
    parser.add_argument("--aligned", type=float, metavar="MINUTES")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "recording"
        if args.aligned is not None:
            print(aligned(folder, round(args.aligned * 60 * FRAME_RATE)))
        else:
            print(measure(folder, args.frames, args.pace))


if __name__ == "__main__":
    main()
