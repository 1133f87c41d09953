"""`moshi-mlx quantize` as a person types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quantization_kit import make_source

import moshi_mlx
from moshi_mlx.cli import quantize
from moshi_mlx.cli.main import main
from moshi_mlx.cli.quantize import default_sounds
from moshi_mlx.cli.sound import frames
from moshi_mlx.quantization.recipes import AUTO, RECIPES
from moshi_mlx.quantization.work import WIDER

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("cli") / "source")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name DEST"),
        (["dest", "--recipe", "auto"], "auto needs a budget"),
        (["dest", "--recipe", "auto", "--target-bits", "4", "--target-gb", "4"], "one of them"),
        (["dest", "--target-bits", "4"], "belongs to --recipe auto"),
        (["dest", "--recipe", "auto", "--target-gb", "nan"], "above 0"),
        (["dest", "--recipe", "auto", "--target-bits", "-1"], "above 0"),
        (["dest", "--recipe", "auto", "--target-bits", "4", "--no-measure"], "contradicts"),
        (["--report", "r", "--uniform", "4"], "needs DEST"),
        (["--report", "r", "--no-measure"], "contradicts"),
        (["dest", "--frames", "3"], "--frames takes"),
        (["dest", "--no-measure", "--frames", "9"], "how to measure"),
        (["dest", "--no-measure", "--audio", "none.wav"], "how to measure"),
        (["dest", "--report", "dest"], "the same"),
        (["--report", str(ROOT / "tests")], "already exists"),
        (["dest", "--recipe", "mixed-5-9"], "invalid choice"),
        (["dest", "--uniform", "7"], "invalid choice"),
        (["dest", "--uniform", "4", "--recipe", "mixed-4-8"], "not allowed with"),
    ],
)
def test_wrong_use_is_status_2_and_one_sentence(
    source: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    """Guards against options that are silently ignored, and against loading a model to find out."""
    try:
        status = main(["quantize", str(source), *options])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert says in capsys.readouterr().err


def test_the_recipes_on_the_help_page_are_those_that_exist() -> None:
    """Guards against a help page that promises another set: it is written out, so that --help loads nothing."""
    assert set(quantize.RECIPES) == {*RECIPES, AUTO}
    assert quantize.DEFAULT in RECIPES
    assert all(name in quantize.__doc__ for name in ("uniform-4, -8", "mixed-4-8", "mixed-3-6", "auto"))


@pytest.mark.parametrize(
    ("argument", "says"),
    [("nothing/here", "does not exist"), ("moshiko-q5", "moshiko-q4")],
)
def test_an_unknown_source_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, says: str
) -> None:
    """Guards against a traceback, and against an empty DEST."""
    name = str(tmp_path / argument) if "/" in argument else argument
    assert main(["quantize", name, str(tmp_path / "out"), "--offline"]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_dest_is_looked_at_before_anything_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifteen gigabytes were fetched, then DEST was refused."""
    for dest, says in ((tmp_path, "exists already"), (tmp_path / "none" / "dest", "is no folder")):
        assert main(["quantize", "moshiko-bf16", str(dest), "--offline"]) == 1
        assert says in capsys.readouterr().err


def test_it_is_told_that_the_loss_cannot_be_measured(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four dashes in the table, status 0, and the reason in DEST alone."""
    monkeypatch.setattr("moshi_mlx.quantization.work.usable_memory", lambda: 10_000)
    assert main(["quantize", str(source), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert told.index("its loss will not be measured: that takes") < told.index("wrote")


@pytest.mark.parametrize("text", [b"", b"no sound at all", b"RIFF\x00\x00\x00\x00WAVE"])
def test_a_bad_sound_is_known_before_anything_is_made(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    """Guards against an hour of converting that ends because the calibration sound cannot be read."""
    (tmp_path / "bad.wav").write_bytes(text)
    status = main(["quantize", str(source), str(tmp_path / "out"), "--audio", str(tmp_path / "bad.wav")])
    assert status == 1
    assert "bad.wav" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_clone_makes_a_checkpoint_that_talks(source: Path, tmp_path: Path) -> None:
    """Guards against a launcher that needs an installation, a table among the talk of stderr, and a result that is not
    a whole checkpoint: it is moved away from its source and loaded."""
    command = [sys.executable, str(ROOT / "tools" / "quantize.py"), str(source), "made", "--uniform", "4"]
    environment = {**os.environ, "MLX_DISABLE_COMPILE": "1"}
    run = subprocess.run(
        [*command, "--frames", "16", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    result = json.loads(run.stdout)["made"]
    assert result["name"] == "made"
    assert result["loss"]["kl"][0] > 0
    assert result["peak_resident_bytes"] > 10e6
    assert "model.q4.safetensors" in run.stderr
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "made").rename(tmp_path / "elsewhere" / "moved")
    moshi = moshi_mlx.load(tmp_path / "elsewhere" / "moved")
    moshi_mlx.Session(moshi, 0).step_codes([1, 2])


def test_tables_go_to_stdout_and_kept_matrices_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against exceptions that only the JSON file knows."""
    narrow = make_source(tmp_path / "source", depformer_dim=48, depformer_dim_feedforward=72)
    assert main(["quantize", str(narrow), str(tmp_path / "out"), "--no-measure"]) == 0
    shown = capsys.readouterr()
    assert "mixed-4-8" in shown.out
    assert "kept in bfloat16" in shown.err
    assert "depformer.slices.1.emb" in shown.err


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_process_leaves_no_checkpoint_under_the_name(source: Path, tmp_path: Path, kind: int) -> None:
    """Guards against half a checkpoint under the name that was asked for, however the process ends."""
    slow = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run in the background
        "from moshi_mlx.checkpoints import writer\n"
        "from moshi_mlx.cli.main import entry\n"
        "written = writer.TensorWriter.write\n"
        "def write(self, *a):\n"
        "    written(self, *a)\n"
        "    print('.', flush=True)\n"
        "    time.sleep(0.1)\n"
        "writer.TensorWriter.write = write\n"
        "entry()\n"
    )
    command = [sys.executable, "-c", slow, "quantize", str(source), str(tmp_path / "out"), "--no-measure"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b".\n"  # the first tensor is on the disk
        time.sleep(0.2)
        process.send_signal(kind)
        _, told = process.communicate(timeout=60)
    assert process.returncode == (-kind if kind == signal.SIGKILL else 128 + kind)
    assert (b"stopped; nothing was written" in told) == (kind != signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").exists() == (kind == signal.SIGKILL)


def test_what_is_heard_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sounds too short for `auto` and its proof were heard by both; and in an installation, those of strangers."""
    (talk,) = default_sounds()
    assert sum(1 for _ in frames(talk)) >= (WIDER + 1) * 500  # frames that both take by default
    (tmp_path / "weights" / "demo").mkdir(parents=True)
    (tmp_path / "weights" / "demo" / "talk.ogg").write_bytes(b"")
    monkeypatch.setattr("moshi_mlx.checkpoints.locate.EMBEDDED", (tmp_path / "weights" / "tiny",))
    assert default_sounds() == []
