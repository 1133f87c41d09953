"""Milliseconds, memory and bandwidth of each stage, on this machine.

Whole frames are timed as in a conversation: one evaluation, one read. Stages are timed apart, each waiting for the
device, so their sum is more than a frame. Bytes are counted from the arrays.

  moshi-mlx bench --model moshiko-q4
  moshi-mlx bench --random moshiko-q4 --kv-bits 8 --context 3000      how fast is this machine, without a download
  moshi-mlx bench --random moshiko-q4 --recipe mixed-4-8 --count      bytes only: nothing is allocated
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..frame import FRAME_MS
from .options import UsageError, add_kv_bits, add_model, announce, replaceable

if TYPE_CHECKING:
    from ..checkpoints.load import Moshi

GB, MB = 1e9, 1e6
Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_model(parser)
    parser.add_argument("--random", metavar="ALIAS", help="a published model with random weights: no download")
    parser.add_argument(
        "--recipe", metavar="R", help="with --random: mixed-4-8 and the like, BITS/GROUP (4/64) or bf16"
    )
    add_kv_bits(parser)
    parser.add_argument("--frames", type=int, default=100, metavar="N", help="frames to time (default 100)")
    parser.add_argument("--context", type=int, default=0, metavar="N", help="start as if N frames had passed")
    parser.add_argument("--count", action="store_true", help="count bytes only; no weight is read or made")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the frame times")
    parser.add_argument("--json", action="store_true", help="everything as JSON, each frame's time included")


def run(args: argparse.Namespace) -> int:
    """Loads or makes the model, counts, times, reports."""
    if args.frames < 1 or args.context < 0:
        raise UsageError("--frames is at least 1 and --context at least 0")
    if args.random is not None and args.model is not None:
        raise UsageError("--random makes a model and --model loads one; give one of them")
    if args.recipe is not None and args.random is None:
        raise UsageError("--recipe belongs to --random; a loaded model is measured as it is")
    if args.plot is not None and (args.count or not replaceable(args.plot)):
        raise UsageError("--plot draws frame times (not with --count) into a file in a folder that exists")
    before = time.perf_counter()
    moshi = _model(args)
    report: Report = {"model": moshi.located.label, "kv_bits": args.kv_bits, "context": args.context}
    if args.count:
        from ..session import SessionState
        from .bench_count import count_bytes

        state = SessionState(moshi.lm.make_state(0, kv_bits=args.kv_bits), moshi.mimi.make_state())
        report |= count_bytes(moshi, state, args.context)
    else:
        report["load_s"] = time.perf_counter() - before
        _measure(args, moshi, report)
    print(json.dumps(report) if args.json else "\n".join(_lines(report)))
    if args.plot is not None:
        from ..text_file import write_beside
        from .bench_plot import drawing

        write_beside(args.plot.resolve(), drawing(report["model"], report["times_ms"]))
    return 0


def _model(args: argparse.Namespace) -> Moshi:
    if args.random is not None:
        from .bench_random import random_moshi

        return random_moshi(args.random, args.recipe, lazy=args.count)
    from ..checkpoints.load import load

    moshi = load(args.model, lazy=args.count, offline=args.offline)
    announce(moshi, "bench")
    return moshi


def _measure(args: argparse.Namespace, moshi: Moshi, report: Report) -> None:
    """Times and counts by running. The order matters: counters of memory and traces start after the warm-up."""
    import mlx.core as mx

    from ..models.memory import limit_memory
    from ..session import Session
    from . import bench_count as counting
    from . import bench_time as timing

    session = Session(moshi, seed=0, kv_bits=args.kv_bits)
    limit_memory(sum(counting.held_bytes(moshi, session.state).values()))
    before = time.perf_counter()
    session.warm_up()
    report["warm_up_s"] = time.perf_counter() - before
    traced = counting.traces(moshi)
    with counting.counted_calls() as calls:
        wall, _ = timing.time_frames(session, 1, lambda done: None)
    timing.fill(session, args.context)
    report |= {"evaluations": calls.evaluations, "host_reads": calls.host_reads, "first_frame_ms": 1e3 * wall[0]}
    report |= counting.count_bytes(moshi, session.state, args.context)
    timing.time_frames(session, 2, lambda done: None)
    mx.reset_peak_memory()
    wall, processor = timing.time_frames(session, args.frames, _tell(args.frames))
    report["memory"] = {
        "active": mx.get_active_memory(),
        "cache": mx.get_cache_memory(),
        "peak": mx.get_peak_memory(),
    }
    report["traces"] = counting.traces(moshi) - traced
    report["frame_ms"] = timing.percentiles(wall)
    report["processor_ms"] = timing.percentiles(processor)
    report["rtf"] = 1e3 * sum(wall) / len(wall) / FRAME_MS
    report["times_ms"] = [1e3 * second for second in wall]
    counts = counting.frame_primitives(session)
    report["primitives"] = {part: sum(count.values()) for part, count in counts.items()}
    report["kernels"] = {
        part: sum(number for name, number in count.items() if name not in counting.VIEWS)
        for part, count in counts.items()
    }
    stages = timing.time_stages(session, min(args.frames, 50))
    report["stages_ms"] = {stage: timing.percentiles(seconds) for stage, seconds in stages.items()}
    copy = timing.copy_bandwidth()
    achieved = report["reads"]["now"]["frame"] / (report["frame_ms"]["p50"] / 1e3)
    report["bandwidth"] = {"copy": copy, "achieved": achieved, "share": achieved / copy}
    report["mlx"] = version("mlx")
    report["device"] = mx.device_info()


def _tell(frames: int) -> Any:
    """Progress on a terminal's stderr."""

    def told(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\rframe {done} of {frames}", end="\n" if done == frames else "", file=sys.stderr, flush=True)

    return told


def _lines(report: Report) -> list[str]:
    """The report for people."""
    kv = " with keys and values in 8 bits" if report["kv_bits"] else ""
    lines = [f"{report['model']}{kv}, after {report['context']} frames"]
    if "frame_ms" in report:
        lines += _time_lines(report)
    reads = report["reads"]
    lines += ["", f"{'bytes read a frame':<22}{'weights':>12}{'keys, values':>14}{'with a full window':>20}"]
    for stage in ("encode", "temporal", "depth", "decode"):
        now = full = 0
        if stage == "temporal":
            now, full = reads["now"]["kv"], reads["full"]["kv"]
        lines.append(f"  {stage:<20}{_size(reads['weights'][stage]):>12}{_size(now):>14}{_size(full):>20}")
    for name, key in (("language model", "language_model"), ("whole frame", "frame")):
        lines.append(f"  {name:<20}{_size(reads['now'][key])} now, {_size(reads['full'][key])} with a full window")
    held = ", ".join(f"{name} {_size(count)}" for name, count in report["held"].items())
    lines += ["", f"{'bytes held':<22}{held}"]
    if "memory" in report:
        memory = ", ".join(f"{name} {_size(count)}" for name, count in report["memory"].items())
        lines.append(f"{'memory in use':<22}{memory}")
    return lines


def _time_lines(report: Report) -> list[str]:
    from .bench_plot import histogram

    lines = [
        f"on {report['device'].get('device_name', 'an unnamed device')}, MLX {report['mlx']}",
        f"load {report['load_s']:.1f} s, warm-up {report['warm_up_s']:.1f} s, "
        f"first frame {report['first_frame_ms']:.1f} ms",
        "",
    ]
    lines.append(f"{'milliseconds':<22}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}")
    rows = {"whole frame": report["frame_ms"], "  processor time": report["processor_ms"]}
    rows |= {f"  {stage} alone": values for stage, values in report["stages_ms"].items()}
    for name, values in rows.items():
        lines.append(f"{name:<22}" + "".join(f"{values[key]:10.2f}" for key in ("p50", "p95", "p99", "max")))
    bandwidth = report["bandwidth"]
    lines += [
        f"real-time factor {report['rtf']:.3f} (1 is just in time, 80 ms a frame)",
        "",
        *histogram(report["times_ms"]),
        "",
        f"a frame: {report['evaluations']} evaluation, {report['host_reads']} host read, "
        f"{report['traces']} traces after warm-up",
        "primitives            " + ", ".join(f"{part} {count}" for part, count in report["primitives"].items()),
        "  of which kernels    " + ", ".join(f"{part} {count}" for part, count in report["kernels"].items()),
        f"bandwidth             {bandwidth['achieved'] / GB:.2f} GB/s of {bandwidth['copy'] / GB:.2f} measured for a "
        f"copy: {bandwidth['share']:.0%}",
    ]
    return lines


def _size(count: float) -> str:
    return f"{count / GB:.3f} GB" if count >= GB / 10 else f"{count / MB:.1f} MB"
