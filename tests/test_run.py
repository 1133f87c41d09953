"""`moshi-mlx run` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import moshi_mlx
from moshi_mlx import FRAME, RATE, Session
from moshi_mlx.cli.main import main
from moshi_mlx.cli.sound import frames

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> Run:
    """Arguments of `moshi-mlx run`, with a small model → exit status, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        try:
            status = main(["run", *map(str, words), "--model", str(checkpoint("moshi"))])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """One second of noise at 44.1 kHz, in eight channels."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (44_100, 8)).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", noise, 44_100)
    return tmp_path / "in.wav"


def test_text_and_sound(run: Run, spoken: Path, tmp_path: Path) -> None:
    """Stdout is the product alone; left is the user, right is Moshi, as long as the input and the tail."""
    status, out, err = run(spoken, "-o", tmp_path / "out.wav", "--tail", 1, "--seed", 3)
    assert status == 0
    assert out.strip()
    assert "out.wav" in err
    sound, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == RATE
    assert sound.shape == (FRAME * (13 + 12), 2)
    assert sound[: RATE // 2, 0].any()
    assert not sound[-RATE // 2 :, 0].any()
    assert sound[:, 1].any()
    assert run(spoken, "--tail", 1, "--seed", 3)[1] == out
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".wav", ".part")) == ["in.wav", "out.wav"]


def test_hibiki_is_told_the_end_and_goes_on_until_it_is_done(
    checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str], spoken: Path
) -> None:
    """A translation was cut off 4 s after its original, and an early EOS ended it."""
    session = Session(moshi_mlx.load(checkpoint("hibiki")), seed=14)
    replies = [session.step(frame) for frame in frames(spoken)]
    tokens = [reply.text_token for reply in replies]
    first = next(reply.frame for reply in replies if reply.text.strip())
    tokens.append(session.end().text_token)
    while tokens[-1] != 2:
        tokens.append(session.step(np.zeros(FRAME, np.float32)).text_token)
    assert 2 in tokens[:13], "choose a seed with an early EOS"
    assert main(["run", str(spoken), "--model", str(checkpoint("hibiki")), "--seed", "14", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["frames"] == len(tokens) + 2  # the acoustic delay
    assert found["words"][0]["start"] == pytest.approx((first + 2) * 0.08)  # where the sound has it, too


def test_mono_is_the_right_channel(run: Run, spoken: Path, tmp_path: Path) -> None:
    """--mono keeps Moshi, not the user."""
    run(spoken, "-o", tmp_path / "stereo.wav", "--tail", 0, "--seed", 3)
    run(spoken, "-o", tmp_path / "mono.wav", "--mono", "--tail", 0, "--seed", 3)
    assert np.array_equal(soundfile.read(tmp_path / "mono.wav")[0], soundfile.read(tmp_path / "stereo.wav")[0][:, 1])


def test_json_has_times(run: Run, spoken: Path) -> None:
    """Data is JSON and nothing else, also with progress on stderr."""
    status, out, _ = run(spoken, "--json", "--tail", 2, "--seed", 3)
    data = json.loads(out)
    assert status == 0
    assert data["frames"] == 13 + 25
    assert data["seed"] == 3
    assert all(0 < word["start"] < word["end"] for word in data["words"])
    starts = [word["start"] for word in data["words"]]
    assert starts
    assert starts == sorted(starts)
    assert data["text"] == " ".join(word["text"] for word in data["words"])


@pytest.mark.parametrize(
    ("sound", "says"),
    [
        (np.zeros((0, 1)), "no sound"),
        (np.zeros((1, 1)), "at least one frame"),
        (np.full((RATE, 1), np.nan), "NaN"),
        (None, "not a sound file"),
    ],
)
def test_bad_input(run: Run, tmp_path: Path, sound: np.ndarray | None, says: str) -> None:
    """One line, status 1, and no half-written output."""
    source = tmp_path / "in.wav"
    if sound is None:
        source.write_text("this is a text\n" * 100)
    else:
        soundfile.write(source, sound.astype(np.float32), RATE, subtype="FLOAT")
    status, out, err = run(source, "-o", tmp_path / "out.wav", "--seed", 1)
    assert (status, out) == (1, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_what_was_said_before_the_damage_is_kept(run: Run, tmp_path: Path) -> None:
    """One sample that is no number after an hour cost the hour: no OUT, no words."""
    sound = np.full(3 * RATE, 0.1, np.float32)
    sound[2 * RATE + 5] = np.nan
    soundfile.write(tmp_path / "in.wav", sound, RATE, subtype="FLOAT")
    status, out, err = run(tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--seed", 1, "--json")
    assert status == 1
    assert "NaN" in err.splitlines()[-1]
    assert json.loads(out)["frames"] == 25
    assert soundfile.info(tmp_path / "out.wav").frames == 25 * FRAME


def test_out_is_written_though_nobody_reads_the_text(spoken: Path, tmp_path: Path) -> None:
    """`| head` ended the run: no OUT, and not a word of it."""
    words = [sys.executable, "-m", "moshi_mlx.cli.main", "run", spoken, "-o", tmp_path / "out.wav", "--tail", "2"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        ended = subprocess.run([*words, "--seed", "1", "--text-temperature", "3"], stdout=stdout, check=False)
    assert ended.returncode == 0
    assert soundfile.info(tmp_path / "out.wav").frames == (13 + 25) * FRAME


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["none.wav"], 1),
        (["in.wav", "-o", "none/out.wav"], 1),
        (["in.wav", "-o", "."], 1),
        (["in.wav", "-o", "out.mp3"], 1),
        (["in.wav", "-o", "in.wav"], 2),
        (["in.wav", "--mono"], 2),
        (["in.wav", "--tail", "-1"], 2),
        (["in.wav", "--tail", "soon"], 2),
        (["none.wav", "-o", "in.wav"], 1),
        (["in.wav", "--text-temperature", "-1"], 2),
        (["in.wav", "--text-top-k", "0"], 2),
        (["in.wav", "--seed", "-1"], 2),
        (["in.wav", "--seed", str(1 << 64)], 2),
        ([], 2),
    ],
)
def test_wrong_use(run: Run, spoken: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int) -> None:
    """Refused before the model is loaded or anything is written; the input is never overwritten. A seed below 0 ended
    in a traceback, a top-k of 0 after the model was loaded, a missing IN in "[Errno 2]" where OUT was there already."""
    monkeypatch.chdir(spoken.parent)
    monkeypatch.setattr("moshi_mlx.checkpoints.load.load", None)
    before = spoken.read_bytes()
    got, out, err = run(*words)
    assert got == status
    assert out == ""
    assert "Traceback" not in err
    assert "[Errno" not in err
    assert spoken.read_bytes() == before
    assert [path.name for path in spoken.parent.glob("*out*")] == []


def test_a_model_that_does_not_hear_is_refused(
    checkpoint: Callable, spoken: Path, capsys: pytest.CaptureFixture
) -> None:
    """A model that makes all streams itself (PersonaPlex, text to speech) loaded, talked, and never heard the user."""
    assert main(["run", str(spoken), "--model", str(checkpoint("own"))]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "has no stream for the user" in err
    assert len(err.splitlines()) == 1
