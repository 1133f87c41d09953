"""tools/bench_gpu.py without a GPU: what a step leaves when it fails, hangs or lies, and the table of the rest."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

import pytest

from moshi_mlx.cli import examine
from moshi_mlx.cli.machine import Needs, verdict
from tools import bench_gpu
from tools.bench_gpu import Step, answer_row, bench_row, doctor_row, measure, passed_row, steps, table

TIMES = {"p50": 10.0, "p95": 12.0, "p99": 13.0, "max": 14.0}
REPORT = {
    "frame_ms": TIMES,
    "processor_ms": TIMES,
    "stages_ms": dict.fromkeys(("encode", "temporal", "depth", "decode"), TIMES),
    "bandwidth": {"achieved": 5e11, "copy": 2e12, "share": 0.25},
    "reads": {"now": {"frame": 5_000_000_000}},
    "memory": {"active": 6e9, "peak": 7e9, "cache": 1},
    "warm_up_s": 1.5,
    "load_s": 2.5,
    "evaluations": 1,
    "host_reads": 1,
    "traces": 0,
}


def child(name: str, code: str, row: object = passed_row, limit: float = 30) -> Step:
    return Step(name, ["-c", code], row, limit)  # type: ignore[arg-type]


def test_a_good_step(tmp_path: Path) -> None:
    """A row that has no figures, or loses the output they came from, cannot be checked later."""
    row = measure(child("q4-0", f"print({json.dumps(json.dumps(REPORT))})", bench_row), tmp_path)
    assert (row["status"], row["p50"], row["live"], row["achieved"], row["share"]) == ("right", 10.0, 8.0, 500, 0.25)
    assert json.loads((tmp_path / "q4-0.out").read_text()) == REPORT
    shown = "\n".join(table([row]))
    assert "5.00    500    25%     7.00        1.5" in shown


def test_a_step_that_fails_hangs_or_lies(tmp_path: Path) -> None:
    """On a rented machine one broken step must not cost the others."""
    failed = measure(child("a", "import sys; print('cut'); sys.exit('no kernel image')", bench_row), tmp_path)
    assert failed["status"] == "status 1"
    assert failed["last"] == "no kernel image"
    hung = measure(child("b", "print('so far', flush=True); import time; time.sleep(60)", limit=3), tmp_path)
    assert hung["status"] == "stopped after 3 s"
    assert hung["tests"] == "so far"
    lied = measure(child("c", "print('My name is Mosche.')", answer_row), tmp_path)
    assert "Mosche" in lied["status"]
    assert "no kernel image" in "\n".join(table([failed, hung, lied]))


def test_a_wrong_kernel_is_a_failure() -> None:
    """Times of a model that calculates noise were taken for good ones."""
    kernels = {"right": False, "problem": "q4 is off by 90%"}
    with pytest.raises(ValueError, match="off by 90%"):
        doctor_row(json.dumps({"kernels": kernels, "machine": {}}))


def test_the_summary_grows_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was cut short had written nothing."""
    seen = [child("one", "print('1 passed')"), child("two", "import sys; sys.exit(2)"), child("three", "")]
    monkeypatch.setattr(bench_gpu, "steps", lambda: seen)
    monkeypatch.setattr("sys.argv", ["bench_gpu.py", "--out", str(tmp_path), "--only", "one", "two"])
    assert bench_gpu.main() == 1
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [row["status"] for row in rows] == ["right", "status 2"]
    assert "1 passed" in capsys.readouterr().out


def test_steps_are_commands_that_exist() -> None:
    """A renamed option would be found out on the rented machine."""
    names = [step.name for step in steps()]
    assert len(set(names)) == len(names)
    for step in steps():
        if step.words[1] == "moshi_mlx.cli.main":
            parser = argparse.ArgumentParser(exit_on_error=False)
            import_module(f"moshi_mlx.cli.{step.words[2]}").add_arguments(parser)
            assert parser.parse_args(step.words[3:])
        assert all((bench_gpu.ROOT / word).exists() for word in step.words if "/" in word)


def test_a_card_counts_as_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux with CUDA doctor said "No Apple GPU here" and looked at the wrong memory."""
    import mlx.core as mx

    from moshi_mlx.cli import bench_time
    from moshi_mlx.models import memory

    assert (memory.gpu_name(), memory.gpu_memory()) == ("", 0) or mx.default_device().type == mx.DeviceType.gpu
    card = {"device_name": "NVIDIA H100 80GB HBM3", "total_memory": 80 * 10**9}
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
    monkeypatch.setattr(mx, "device_info", lambda: card)
    monkeypatch.setattr(bench_time, "copy_bandwidth", lambda: 3e12)
    found = examine.machine()
    assert (found.gpu, found.working_set, found.bandwidth) == ("NVIDIA H100 80GB HBM3", 72 * 10**9, 3e12)
    needs = Needs("moshiko-q4", 5, 4_800_000_000, 4 * 10**8, 5_000_000_000, 1_500_000_000, 800_000_000)
    assert verdict(found, [needs]).startswith("Take moshiko-q4")
    card["max_recommended_working_set_size"] = 11  # a Mac's
    assert memory.gpu_memory() == 11


def test_packed_rings_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--kv-bits 8` ended in "no implementation for problem shape": CUDA's product takes no slice of a packed ring."""
    import mlx.core as mx

    from moshi_mlx.models.cache import QuantizedRing, Step, TransformerState
    from moshi_mlx.models.config import TransformerConfig

    copies: list[tuple[int, ...]] = []
    contiguous = mx.contiguous

    def copied(part: mx.array) -> mx.array:
        copies.append(part.shape)
        return contiguous(part)

    monkeypatch.setattr(mx, "contiguous", copied)

    def attended() -> mx.array:
        state = TransformerState.make(TransformerConfig(64, 1, 1, 64, context=300), 1, 1, mx.float32, kv_bits=8)
        ring, step = state.rings[0], state.begin(1)
        assert isinstance(ring, QuantizedRing)
        assert isinstance(step, Step)
        q, k, v = mx.random.normal((3, 1, 1, 1, 64), key=mx.random.key(1))
        return ring.attend(q, k, v, step)

    plain = attended()
    assert copies == []
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    assert mx.array_equal(attended(), plain)
    assert len(copies) == 6
    assert {shape[2] for shape in copies} == {256}
