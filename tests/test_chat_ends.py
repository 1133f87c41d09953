"""`moshi-mlx chat`, ended at any moment and by anything: the terminal is restored, the files are whole."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from terminal_kit import CHAT, QUESTION, ROOT, Terminal

from moshi_mlx.cli.main import main
from moshi_mlx.frame import RATE
from moshi_mlx.recording.finish import finish
from moshi_mlx.recording.folder import open_recording

MOMENTS = int(os.environ.get("MOSHI_SIGINT_MOMENTS", "2"))  # 20 by command


def test_other_signals_restore_the_terminal_too() -> None:
    """A killed chat left a terminal without echo."""
    with Terminal([*CHAT, "--device", f"file:{QUESTION}"]) as terminal:
        terminal.wait_for("● live")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end(5.0) == 128 + signal.SIGTERM
        assert terminal.restored()


def test_a_terminal_that_is_not_read_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """On a stalled ssh the chat was deaf to every signal, with the microphone open."""
    soundfile.write(tmp_path / "in.wav", np.random.default_rng(0).normal(0, 0.1, 60 * RATE), RATE)
    words = ["--device", f"file:{tmp_path}/in.wav,{tmp_path}/out.wav", "--record", str(tmp_path / "rec")]
    with Terminal([*CHAT, *words]) as terminal:
        terminal.wait_for("● live")
        for number in range(60):  # each is painted anew, until the terminal is full
            terminal.resize(300 + number % 2, 100)
            time.sleep(0.12)
        terminal.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            terminal.process.wait(10)
        terminal.process.send_signal(signal.SIGTERM)  # the summary waits for its reader, and all is closed
        assert terminal.process.wait(5) == 128 + signal.SIGTERM
    assert whole(tmp_path / "rec")
    assert soundfile.info(tmp_path / "out.wav").samplerate == RATE


def test_a_download_that_is_terminated_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the chat's first half second gave the status of Ctrl-C: a supervisor took it for a person."""
    monkeypatch.setattr("moshi_mlx.checkpoints.locate.locate", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["chat", "--device", f"file:{QUESTION}"]) == 128 + signal.SIGTERM


def test_ctrl_z_stops_a_download_at_once() -> None:
    """Ctrl-Z during a download did nothing, then stopped the chat as it appeared."""
    script = (
        "import time; from moshi_mlx.cli.endings import Endings\nwith Endings(): print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTSTP)
        until = time.monotonic() + 30
        while not (stopped := os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG))[0]:
            if time.monotonic() > until:
                process.kill()
            time.sleep(0.01)
        process.kill()
    assert os.WIFSTOPPED(stopped[1])


def test_a_load_that_hangs_does_not_hold_up_the_end() -> None:
    """Ctrl-C waited for the 15 GB that a thread was reading, or the process crashed while it was taken down under
    it.
    """
    script = (
        "import sys, time; from moshi_mlx.cli import main, stepper\n"
        "stepper.SessionFactory.__call__ = lambda self, progress: (progress('slow load', 0.4), time.sleep(60))\n"
        f"sys.argv = ['moshi-mlx', 'chat', '--device', 'file:{QUESTION}']; main.entry()\n"
    )
    with Terminal([sys.executable, "-c", script]) as terminal:
        terminal.wait_for("slow load")
        terminal.press("\x03")
        assert terminal.end(5.0) == 130
        assert terminal.restored()


def whole(folder: Path) -> bool:
    """A hurried end on a busy machine may leave the pages to `record --finish`, but nothing that they are made of."""
    if not folder.exists():  # nothing came into it
        return True
    recording = open_recording(folder)
    if not recording.info.finished:
        finish(folder)
    return open_recording(folder).info.finished and (folder / "player.html").is_file()


def test_a_closed_window_ends_the_chat_with_its_files(tmp_path: Path) -> None:
    """Without its terminal the chat went on for ever, or died with half a recording."""
    folder = tmp_path / "rec"
    words = ["--device", f"file:{QUESTION},{tmp_path}/out.wav", "--record", str(folder)]
    with Terminal([*CHAT, *words]) as terminal:
        terminal.wait_for("● live")
        terminal.read(1.5)  # some frames: a recording without sound has no pages
        terminal.hang_up()
        assert terminal.process.wait(10) == 128 + signal.SIGHUP
    assert open_recording(folder).frames
    assert whole(folder)
    assert soundfile.info(tmp_path / "out.wav").samplerate == RATE


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_interrupted_at_any_moment(moment: int, tmp_path: Path) -> None:
    """Ctrl-C hung, took seconds, left a broken terminal or files that do not open (20 moments:
    MOSHI_SIGINT_MOMENTS=20).
    """
    wait = random.Random(moment).uniform(0.3, 6.0)
    folder = tmp_path / "rec"
    words = ["--device", f"file:{QUESTION},{tmp_path}/out.wav", "--record", str(folder)]
    with Terminal([*CHAT, *words]) as terminal:
        terminal.read(wait)
        began = time.monotonic()
        terminal.press("\x03")
        status = terminal.end(10.0)
        took = time.monotonic() - began
        assert terminal.restored(), terminal.output[-500:]
        assert status in (0, 130, -signal.SIGINT), (status, terminal.output[-2000:])
        assert b"Fatal" not in terminal.output
    print(f"after {wait:.2f} s: status {status}, ended in {took:.2f} s")
    if status == 0:
        assert soundfile.info(tmp_path / "out.wav").samplerate == RATE
        assert whole(folder)
        for path in folder.glob("*.wav"):
            with wave.open(str(path)) as file:
                assert file.getnchannels() == 2
