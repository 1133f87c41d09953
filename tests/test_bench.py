"""`moshi-mlx bench` as typed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from moshi_mlx.cli import bench_random, bench_time
from moshi_mlx.cli.bench_plot import drawing, histogram
from moshi_mlx.cli.main import main
from moshi_mlx.models.config import DepthConfig, LmConfig, MimiConfig, TransformerConfig


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of 256 MB tells a bandwidth, and takes seconds where memory is slow."""
    monkeypatch.setattr(bench_time, "COPY", 1 << 20)


def bench(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["bench", *words]) == 0
    return capsys.readouterr().out


def test_json_is_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A figure that is missing, or talk on stdout, breaks whoever collects reports."""
    drawn = tmp_path / "times.svg"
    report = json.loads(bench(capsys, "--frames", "4", "--context", "20", "--json", "--plot", str(drawn)))
    assert (report["evaluations"], report["host_reads"]) == (1, 1)
    assert len(report["times_ms"]) == 4
    assert report["frame_ms"]["p50"] <= report["frame_ms"]["p99"] <= report["frame_ms"]["max"]
    assert set(report["stages_ms"]) == {"encode", "temporal", "depth", "decode"}
    assert set(report["primitives"]) == {"encode", "language model", "decode"}
    assert all(0 < report["kernels"][part] < count for part, count in report["primitives"].items())
    assert report["reads"]["now"]["frame"] < report["held"]["all"]
    assert report["bandwidth"]["share"] > 0
    assert report["memory"]["peak"] >= report["memory"]["active"] > 0
    assert ET.parse(drawn).getroot().tag.endswith("svg")


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines a person reads."""
    out = bench(capsys, "--frames", "3")
    for words in ("whole frame", "temporal alone", "real-time factor", "1 evaluation, 1 host read", "for a copy", "█"):
        assert words in out


def test_count_makes_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """7B in 4 bits is 4.8 GB: counting it must work on a machine that could never hold it."""
    report = json.loads(bench(capsys, "--random", "moshiko-q4", "--kv-bits", "8", "--count", "--json"))
    assert report["held"]["language model"] == 4_805_385_728  # the published file's data, to the byte
    assert "frame_ms" not in report


@pytest.mark.parametrize("recipe", ["mixed-4-8", "bf16"])
def test_random_weights_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """Packed random words, scales and a stand-in tokenizer must make a model that steps."""
    trunk = TransformerConfig(64, 1, 2, 64, context=300)
    depth = DepthConfig(TransformerConfig(64, 2, 1, 64, rope=None))
    small = LmConfig(trunk, depth, text_card=500, text_card_out=500, card=64)
    inner = TransformerConfig(32, 2, 1, 64, context=6, gated=False)
    codec = MimiConfig(filters=2, width=32, transformer=inner, codebook_width=16, codebook_size=64)
    monkeypatch.setattr(bench_random, "PUBLISHED", {"moshiko": small})
    monkeypatch.setattr(bench_random, "MimiConfig", lambda: codec)
    words = ["--random", "moshiko-q4", "--recipe", recipe, "--kv-bits", "8", "--context", "290", "--frames", "14"]
    report = json.loads(bench(capsys, *words, "--json"))
    assert len(report["times_ms"]) == 14
    assert report["reads"]["now"]["kv"] == report["reads"]["full"]["kv"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--random", "moshiko"], "moshiko-q4"),
        (["--random", "mimi"], "moshiko-q4"),
        (["--random", "moshiko-q4", "--recipe", "9/64", "--count"], "BITS/GROUP"),
        (["--random", "moshiko-q4", "--model", "x"], "one of them"),
        (["--recipe", "4/64"], "--random"),
        (["--frames", "0"], "--frames"),
        (["--plot", "/nowhere/times.svg"], "--plot"),
        (["--count", "--plot", "times.svg"], "--plot"),
    ],
)
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    """A traceback, or exit status 1, for what the user can mend; and a name that cannot be written (--plot) cost the
    whole report, after all frames were timed."""
    assert main(["bench", *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_drawings_of_odd_times() -> None:
    """One frame, equal times, an outlier, a name with markup."""
    for times in ([5.0], [5.0] * 9, [1.0] * 99 + [5000.0]):
        ET.fromstring(drawing("<model> & co", times))
        assert sum(int(line.split("ms")[1].split()[0]) for line in histogram(times)) == len(times)
