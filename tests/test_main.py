"""The command line as a process: what it prints without a command, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminal_kit import QUESTION, ROOT

from moshi_mlx.cli.main import COMMANDS, main

MOSHI = (sys.executable, "-m", "moshi_mlx.cli.main")


def test_no_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Who types `moshi-mlx` to see what there is was told that an argument is required."""
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"  {name} " in err for name in COMMANDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_leaves_no_half_of_a_file(number: signal.Signals, tmp_path: Path) -> None:
    """A SIGTERM, or a closed window, left `.conversation.wav.part` behind; Ctrl-C did not. What was said is kept."""
    out = tmp_path / "conversation.wav"
    words = ["run", str(QUESTION), "-o", str(out), "--tail", "3600", "--seed", "1"]
    process = subprocess.Popen(
        [*MOSHI, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whatever nohup left to the tests
    )
    try:
        wait_for(tmp_path / ".conversation.wav.part")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert not list(tmp_path.glob(".*"))


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """`nohup moshi-mlx quantize …` must outlive its terminal."""
    command = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from moshi_mlx.cli import main, models\n"
        "models.run = lambda args: os.kill(os.getpid(), signal.SIGHUP) or 0\n"
        "sys.argv = ['moshi-mlx', 'models', 'list']; main.entry()\n"
    )
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode == 0


def wait_for(path: Path) -> None:
    """Until it is there."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("words", "environ"),
    [("models list", {"PYTHONIOENCODING": "latin-1"}), ("models list >&-", {}), ("models list <&- 2>&-", {})],
)
def test_any_terminal_and_any_supervisor(words: str, environ: dict[str, str]) -> None:
    """A dash on a terminal of Latin letters, or a stream that a supervisor had closed, was a traceback."""
    line = f"{shlex.quote(sys.executable)} -m moshi_mlx.cli.main {words}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env={**os.environ, **environ}, check=False)
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_gpu_that_gives_up_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """MLX raises a RuntimeError when a Mac's memory is full: a traceback, and no remedy."""
    said = "[METAL] Command buffer execution failed: Insufficient Memory\n(kIOGPUCommandBufferCallbackErrorOutOfMemory)"

    def fail(*_: object) -> int:
        raise RuntimeError(said)

    monkeypatch.setattr("moshi_mlx.cli.main.run_command", fail)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().err
    assert "--kv-bits 8" in told
    assert len(told.splitlines()) == 1
    said = "a fault of ours"
    with pytest.raises(RuntimeError):
        main(["doctor"])
