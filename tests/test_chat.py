"""`moshi-mlx chat` as a person uses it: on a terminal, on a pipe, on sound hardware that is none, and ended at any
moment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pulse
import pytest
import soundfile
from needs import needs
from terminal_kit import CHAT, QUESTION, ROOT, Terminal

from moshi_mlx.cli.chat import _keep_numbers, _leave, _live
from moshi_mlx.cli.endings import Endings
from moshi_mlx.cli.main import main
from moshi_mlx.frame import RATE, MoshiError
from moshi_mlx.recording.folder import open_recording


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
        "import sys, os; from moshi_mlx import realtime; from moshi_mlx.cli import chat_options, main\n"
        f"made, chat_options.FILE_TAIL = realtime.FileDevice, {tail}\n"
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
    assert "scripted demonstration of 324 questions" in run.stderr
    assert 'Try "hello Moshi"' in run.stderr
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
        (["--device", f"file:{QUESTION}", "--stats", "/dev/null"], "--stats"),  # root made a file of it
        (["--device", f"file:{QUESTION}", "--model", "none/at/all", "--record", "/proc/self/new"], "cannot be made"),
        (["--device", f"file:{QUESTION}", "--stats", str(QUESTION)], "would overwrite"),
        (["--latency", "soon"], "--latency takes"),
        (["--device", f"file:{QUESTION}", "--text-temperature", "-1"], "temperature"),
        (["--device", f"file:{QUESTION}", "--seed", "-1"], "seed"),
        (["--device", f"file:{QUESTION},{QUESTION}"], "IN and OUT are the same file"),
        (["--device", f"file:{QUESTION},tests"], "tests cannot be written"),
        (["--device", f"file:{QUESTION},/nowhere/out.wav"], "/nowhere/out.wav cannot be written"),
        (["--device", "file:nowhere.wav"], "nowhere.wav cannot be read: No such file"),
        (["--device", "file:tests"], "tests cannot be read: Is a directory"),
        (["--device", "file:README.md"], "is not a sound file"),
    ],
)
def test_wrong_use_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option ended in a traceback, or only after the model was loaded; a file that is none in libsndfile's
    "System error"; OUT under the name of IN overwrote the recording that was played."""
    before = QUESTION.read_bytes()
    assert main(["chat", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1
    assert QUESTION.read_bytes() == before


@pytest.mark.parametrize(("rate", "seconds", "says"), [(1, 80, "a rate of 1 Hz"), (RATE, 0, "no sound")])
def test_a_sound_that_cannot_be(
    rate: int, seconds: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A WAV of 1 Hz kept the chat waiting for ever ("20000 ms wait for the model"), an empty one talked to silence."""
    soundfile.write(tmp_path / "in.wav", np.zeros(rate * seconds, np.float32), rate)
    assert main(["chat", "--device", f"file:{tmp_path}/in.wav"]) == 1
    assert says in capsys.readouterr().err


def test_a_recording_that_does_not_begin_leaves_no_folder(tmp_path: Path) -> None:
    """A place that cannot be written was told after minutes of loading; now it is tried, and only what was made for it
    may go again."""
    (tmp_path / "mine").mkdir()
    for name in ("new/rec", "mine/rec", "mine"):
        words = ["--device", f"file:{QUESTION}", "--model", "none/at/all", "--record", str(tmp_path / name)]
        assert main(["chat", *words]) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_reading_the_weights_again_for_a_recording_is_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen stood at "warm up 100 %" while gigabytes were hashed."""
    told, factory = [], SimpleNamespace()
    monkeypatch.setattr("moshi_mlx.cli.stepper.SessionFactory", lambda args: factory)
    monkeypatch.setattr("moshi_mlx.cli.stepper.facts_of", lambda session: None)
    monkeypatch.setattr("moshi_mlx.cli.origin.session_info", lambda *rest, **known: told.append("read"))
    device: Any = SimpleNamespace()
    _live(Namespace(device="file:x", record=tmp_path / "rec", echo="auto", kv_bits=None, model=None), device)
    factory.on_ready(None, lambda stage, done: told.append(stage))
    assert told == ["fingerprint", "read"]


def test_numbers_that_cannot_be_kept_do_not_cost_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--stats on a disk that was full by then: an OSError instead of the summary, and of where the recording is."""
    (tmp_path / "stats").mkdir()
    live: Any = SimpleNamespace(talk=SimpleNamespace(json_lines=lambda: ""))
    assert not _keep_numbers(tmp_path / "stats", live)
    assert "stats cannot be written" in capsys.readouterr().err


def test_a_device_that_closes_slowly_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gives a device two seconds to close and has one to end: `q` after a good conversation gave status 1,
    and a conversation that had failed did not say why."""
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    talk = SimpleNamespace(statistics=lambda: SimpleNamespace(frames=100), check=lambda: None)
    live: Any = SimpleNamespace(summary=list, talk=talk)
    _leave(live, Endings(), None, stopped=False)
    assert left == [0]

    def failed() -> None:
        raise MoshiError("the weights are damaged")

    talk.check = failed
    with pytest.raises(MoshiError, match="damaged"):
        _leave(live, Endings(), None, stopped=False)


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


def test_speech_in_speech_and_text_out_on_sound_hardware(tmp_path: Path) -> None:
    """The whole way on PortAudio: a question played into a virtual microphone, Moshi's sound recorded from a virtual
    loudspeaker, its text read from the screen of a real terminal (tmux)."""
    needs(*pulse.PACKAGES, "tmux")
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
                wait_on_screen(tmux, environ, "you    spoke")
                text = wait_on_screen(tmux, environ, "  Moshi  ")  # which may come after it where the machine is busy
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
