"""`moshi-mlx chat` as a person uses it: on a terminal, on a pipe, on sound hardware that is none, and ended at any
moment.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pulse
import pytest
import soundfile
from terminal_kit import ROOT, Terminal

from moshi_mlx.frame import RATE
from moshi_mlx.recording.finish import finish
from moshi_mlx.recording.folder import open_recording

CHAT = (sys.executable, "-m", "moshi_mlx.cli.main", "chat")
QUESTION = ROOT / "examples" / "question.wav"
MOMENTS = int(os.environ.get("MOSHI_SIGINT_MOMENTS", "2"))  # 20 by command


def chat(*words: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs the command on pipes."""
    return subprocess.run(
        [*CHAT, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, cwd=ROOT
    )


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A second of noise."""
    noise = np.random.default_rng(1).normal(0, 0.05, RATE).astype(np.float32)
    soundfile.write(tmp_path / "short.wav", noise, RATE)
    return tmp_path / "short.wav"


def in_one_process(*chats: str, tail: float) -> subprocess.CompletedProcess[str]:
    """Chats one after the other, each the words of a command line; with files as fast as they go, for on a busy machine
    real time drops frames, and then other things are said."""
    script = (
        "import sys, os; from moshi_mlx import realtime; from moshi_mlx.cli import chat, main\n"
        f"made, chat.FILE_TAIL = realtime.FileDevice, {tail}\n"
        "realtime.FileDevice = lambda *a, **known: made(*a, **{**known, 'realtime': False})\n"
        f"for words in {chats!r}: assert main.main(['chat', *words.split()]) == 0, words\n"
        "sys.stdout.flush(); sys.stderr.flush(); os._exit(0)\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_two_chats_in_one_process_differ_unless_seeded_alike(short: Path, tmp_path: Path) -> None:
    """Random numbers seeded on the main thread, or once a process, made every chat the same. And as lines on a pipe:
    no control characters, statistics, sound and a summary."""
    chats = [
        f"--device file:{short},{tmp_path}/{name}.wav --seed {seed} --audio-temperature 5 "  # at 0.8 silence is sure
        f"--record {tmp_path}/{name} --stats {tmp_path}/{name}.jsonl"
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    run = in_one_process(*chats, tail=0.5)
    assert run.returncode == 0, run.stderr
    assert "scripted demonstration" in run.stderr
    assert "frames; the model took" in run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    codes = {name: open_recording(tmp_path / name).codes() for name in "abc"}
    assert len(codes["a"].moshi) == 19
    assert np.array_equal(codes["a"].moshi, codes["b"].moshi)
    assert np.array_equal(codes["a"].text_tokens, codes["b"].text_tokens)
    assert not np.array_equal(codes["a"].moshi, codes["c"].moshi)
    summary = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])
    assert summary["frames"] == 19
    assert summary["state"] == "stopped"
    sound, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == RATE
    assert np.abs(sound).max() > 0


def test_a_question_is_answered_in_words() -> None:
    """Question in, text out: with the trained demonstration model, an answer of its script, to the letter."""
    run = in_one_process(f"--device file:{QUESTION} --seed 1", tail=3.0)
    assert run.returncode == 0, run.stderr
    said = " ".join(line[14:] for line in run.stdout.splitlines() if line[7:].startswith("Moshi"))
    assert said.strip()
    if "RANDOM" not in (ROOT / "weights" / "tiny" / "README.md").read_text():
        script = (ROOT / "tools" / "train_tiny" / "script.txt").read_text().splitlines()
        answers = [line.partition("|")[0].strip() for line in script if "|" in line]
        assert any(answer in said for answer in answers), said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "hw:0"], "--device takes file:"),
        (["--device", "file:x.wav", "--input", "a"], "leave --input"),
        (["--device", f"file:{QUESTION}", "--record", "tests"], "name a new folder"),
        (["--device", f"file:{QUESTION}", "--stats", "/nowhere/x"], "--stats"),
        (["--latency", "soon"], "--latency takes"),
        (["--device", f"file:{QUESTION}", "--text-temperature", "-1"], "temperature"),
    ],
)
def test_wrong_use_is_one_line(words: list[str], says: str) -> None:
    """A wrong option ended in a traceback, or only after the model was loaded."""
    run = chat(*words)
    assert run.returncode in (1, 2)
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_none_is_one_line() -> None:
    """A missing file ended in libsndfile's "System error"."""
    run = chat("--device", "file:nowhere.wav")
    assert run.returncode == 1
    assert "nowhere.wav" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_screen_keys_and_the_terminal_afterwards(tmp_path: Path) -> None:
    """Keys without effect; after the end no cursor, no echo, or the screen of the chat left behind."""
    with Terminal([*CHAT, "--device", f"file:{QUESTION},{tmp_path}/out.wav", "--seed", "1"]) as terminal:
        terminal.wait_for("● live")
        terminal.press("m")
        terminal.wait_for("○ muted")
        terminal.press("m\x1b[A")  # an arrow is no key of ours
        terminal.press("h")
        terminal.wait_for("begin the conversation anew")
        terminal.resize(50, 15)
        terminal.wait_for("\x1b[15;1H")
        terminal.press("q")
        assert terminal.end(5.0) == 0
        assert terminal.restored()
        assert b"of conversation" in terminal.output
    assert soundfile.info(tmp_path / "out.wav").frames > 0


def test_other_signals_restore_the_terminal_too() -> None:
    """A killed chat left a terminal without echo."""
    with Terminal([*CHAT, "--device", f"file:{QUESTION}"]) as terminal:
        terminal.wait_for("● live")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end(5.0) == 128 + signal.SIGTERM
        assert terminal.restored()


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
    recording = open_recording(folder)
    if not recording.frames:
        return True
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


def test_speech_in_speech_and_text_out_on_sound_hardware(tmp_path: Path) -> None:
    """The whole way on PortAudio: a question played into a virtual microphone, Moshi's sound recorded from a virtual
    loudspeaker, its text read from the screen of a real terminal (tmux)."""
    assert not pulse.missing()
    assert shutil.which("tmux")
    socket, heard = f"moshi-test-{os.getpid()}", tmp_path / "heard.wav"
    with pulse.sound_system() as environ:
        tmux = ["tmux", "-L", socket, "-f", "/dev/null"]
        command = f"{' '.join(CHAT)} --seed 1 --record {tmp_path}/rec; echo status $?; sleep 30"
        record = ["parec", "--device=spk.monitor", "--file-format=wav", "--rate=24000", "--channels=1", str(heard)]
        with subprocess.Popen(record, env=environ) as recorder:
            try:
                subprocess.run(
                    [*tmux, "new-session", "-d", "-x", "100", "-y", "30", command], env=environ, cwd=ROOT, check=True
                )
                wait_on_screen(tmux, environ, "● live")
                subprocess.run(["paplay", "--device=mic", str(QUESTION)], env=environ, check=True)
                text = wait_on_screen(tmux, environ, "you    spoke")
                assert any("  Moshi  " in line and line[14:].strip() for line in text.splitlines())
                subprocess.run([*tmux, "send-keys", "q"], env=environ, check=True)
                assert "status 0" in wait_on_screen(tmux, environ, "status ")
            finally:
                subprocess.run([*tmux, "kill-server"], env=environ, check=False)
                recorder.terminate()
    sound, _ = soundfile.read(heard)
    assert np.abs(sound).max() > 0.01
    recording = open_recording(tmp_path / "rec")
    assert recording.info.live
    user, _ = soundfile.read(recording.parts[0])
    assert np.abs(user[:, 0]).max() > 0.05  # the question came in
    assert any(piece.text.strip() for piece in recording.pieces())


def wait_on_screen(tmux: list[str], environ: dict[str, str], text: str, seconds: float = 60.0) -> str:
    """The screen, once it shows a text."""
    end = time.monotonic() + seconds
    while True:
        shown = subprocess.run([*tmux, "capture-pane", "-p"], env=environ, capture_output=True, text=True).stdout
        if text in shown:
            return shown
        assert time.monotonic() < end, shown
        time.sleep(0.2)
