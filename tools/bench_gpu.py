"""What moshi_mlx does on the GPU that is here: right answers, then milliseconds, memory and bandwidth of Moshi 7B.

    python tools/bench_gpu.py --out measured            Metal or CUDA, whichever MLX was built for; no download
    python tools/bench_gpu.py --only q4-3000 tiny       some of the steps

Every step is a process of its own with a time limit, and leaves its output in the folder at once: a run that is cut
short still tells what came before. The 7B models have random weights, made on the GPU. `measured/summary.json` has the
figures, the last lines on stdout are a table of them. Status 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIVE = 80.0  # milliseconds: a frame of sound
ANSWER = "My name is Moshi."  # to examples/question.wav, in any wording around it
FRAMES = "100"
Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A child process. row: what the table shows of its stdout; raises ValueError where that is not what it must be."""

    name: str
    words: list[str]
    row: Callable[[str], Row]
    limit: float = 60
    environ: Mapping[str, str] = field(default_factory=dict)


def doctor_row(out: str) -> Row:
    """Device, self-test and a copy's bandwidth."""
    found = json.loads(out)
    machine = found["machine"]
    if not found["kernels"]["right"]:
        raise ValueError(found["kernels"]["problem"])
    return {
        "device": machine["gpu"] or "no GPU",
        "memory": round(machine["working_set"] / 1e9, 1),
        "copy": round(machine["bandwidth"] / 1e9),
        "errors": {name: round(error, 5) for name, error in found["kernels"]["errors"].items()},
        "why": found["verdict"]["why"],
    }


def bench_row(out: str) -> Row:
    """The figures of one `moshi-mlx bench --json`."""
    report = json.loads(out)
    frame, stages, bandwidth = report["frame_ms"], report["stages_ms"], report["bandwidth"]
    return {
        "p50": round(frame["p50"], 2),
        "p95": round(frame["p95"], 2),
        "max": round(frame["max"], 2),
        "live": round(LIVE / frame["p50"], 1),
        "stages": {name: round(times["p50"], 2) for name, times in stages.items()},
        "processor": round(report["processor_ms"]["p50"], 2),
        "read": round(report["reads"]["now"]["frame"] / 1e9, 3),
        "achieved": round(bandwidth["achieved"] / 1e9),
        "copy": round(bandwidth["copy"] / 1e9),
        "share": round(bandwidth["share"], 3),
        "active": round(report["memory"]["active"] / 1e9, 2),
        "peak": round(report["memory"]["peak"] / 1e9, 2),
        "warm_up": round(report["warm_up_s"], 1),
        "load": round(report["load_s"], 1),
        "counts": [report["evaluations"], report["host_reads"], report["traces"]],
    }


def answer_row(out: str) -> Row:
    """What the embedded model said."""
    text = " ".join(out.split())
    if ANSWER not in text:
        raise ValueError(f"it said {text!r}, not {ANSWER!r}")
    return {"said": text}


def passed_row(out: str) -> Row:
    """pytest's last line."""
    return {"tests": out.strip().splitlines()[-1].strip("= ")}


def steps() -> list[Step]:
    """The most telling first: what is left when the time is over is the least."""

    def bench(name: str, *words: str, limit: float = 60, **environ: str) -> Step:
        command = ["-m", "moshi_mlx.cli.main", "bench", "--json", "--frames", FRAMES, *words]
        return Step(name, command, bench_row, limit, environ)

    def seven(alias: str, context: int, *words: str) -> list[str]:
        return ["--random", f"moshiko-{alias}", "--context", str(context), *words]

    run = ["-m", "moshi_mlx.cli.main", "run", "examples/question.wav", "--tail", "3", "--seed", "1"]
    # with CUDA, a product of many rows with a packed matrix is compiled for minutes: live, there is one row
    parity = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not quantized"]
    parity += ["tests/test_lm_parity.py", "tests/test_mimi_parity.py"]
    # TF32 rounds a product to ten bits; plugins that happen to be installed may warn, and a warning is an error
    strict = {"MLX_ENABLE_TF32": "0", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return [
        Step("doctor", ["-m", "moshi_mlx.cli.main", "doctor", "--no-sound", "--json"], doctor_row),
        bench("q4-0", *seven("q4", 0), limit=120),
        bench("q4-3000", *seven("q4", 3000)),
        bench("q8-3000", *seven("q8", 3000)),
        Step("tiny", run, answer_row),
        Step("parity", parity, passed_row, 120, strict),
        bench("q8-0", *seven("q8", 0)),
        bench("bf16-3000", *seven("bf16", 3000)),
        bench("bf16-0", *seven("bf16", 0)),
        bench("q4-3000-kv8", *seven("q4", 3000, "--kv-bits", "8")),
        bench("q4-3000-graph", *seven("q4", 3000), MLX_MAX_OPS_PER_BUFFER="400", MLX_MAX_MB_PER_BUFFER="4000"),
        bench("q4-3000-plain", *seven("q4", 3000), MLX_DISABLE_COMPILE="1"),
    ]


def measure(step: Step, folder: Path) -> Row:
    """Runs one step. stdout and stderr go to files as they come; the row says what became of it."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    out, err = folder / f"{step.name}.out", folder / f"{step.name}.err"
    before, status = time.perf_counter(), "right"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            command = [sys.executable, *step.words]
            done = subprocess.run(
                command, cwd=ROOT, env=environ | dict(step.environ), stdout=stdout, stderr=stderr, timeout=step.limit
            )
            if done.returncode:
                status = f"status {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {step.limit:.0f} s"
    seconds = round(time.perf_counter() - before, 1)
    row: Row = {}
    try:
        row = step.row(out.read_text(errors="replace"))
    except (ValueError, KeyError, IndexError) as error:
        status = f"{error}" if status == "right" else status
    if status != "right":
        last = err.read_text(errors="replace").strip().splitlines()[-1:]
        row["last"] = " ".join(last)[:300]
    return {"step": step.name, "status": status, "seconds": seconds, **row}


def table(rows: list[Row]) -> list[str]:
    """For a person. Stages are medians apart, each waiting for the GPU; GB read a frame, GB/s, share of a copy."""
    stages = ("encode", "temporal", "depth", "decode")
    head = f"{'ms a frame':<15}{'p50':>8}{'p95':>8}{'max':>8}" + "".join(f"{name:>10}" for name in stages)
    lines = [head + f"{'GB':>7}{'GB/s':>7}{'share':>7}{'peak GB':>9}{'warm-up s':>11}{'took s':>8}"]
    for row in rows:
        if "p50" in row:
            line = f"{row['step']:<15}{row['p50']:8.2f}{row['p95']:8.2f}{row['max']:8.2f}"
            line += "".join(f"{row['stages'][name]:10.2f}" for name in stages)
            line += f"{row['read']:7.2f}{row['achieved']:7d}{row['share']:7.0%}{row['peak']:9.2f}{row['warm_up']:11.1f}"
            lines.append(line + f"{row['seconds']:8.1f}")
        else:
            kept = {key: value for key, value in row.items() if key not in ("step", "status", "seconds", "last")}
            said = ", ".join(f"{key} {value}" for key, value in kept.items())
            lines.append(f"{row['step']:<15}{said} ({row['seconds']} s)")
        if row["status"] != "right":
            lines.append(f"{'':<15}{row['status']}: {row.get('last', '')}")
    return lines


def main() -> int:
    """Step by step; the summary is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {step.name: step for step in steps()}
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for outputs and summary.json")
    parser.add_argument("--only", nargs="+", choices=list(known), metavar="STEP", help=", ".join(known))
    parser.add_argument("--budget", type=float, default=600, metavar="S", help="start no step after so many seconds")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start, rows = time.perf_counter(), []
    for name in args.only or known:
        if time.perf_counter() - start > args.budget:
            rows.append({"step": name, "status": "no time left", "seconds": 0})
            continue
        rows.append(measure(known[name], args.out))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        (args.out / "summary.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    print("\n" + "\n".join(table(rows)))
    return int(any(row["status"] != "right" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
