"""record, replay and analyze as a user types them, with a small random model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from recording_kit import FILES, tones

import moshi_mlx
from moshi_mlx.cli.main import main
from moshi_mlx.cli.origin import session_info
from moshi_mlx.frame import FRAME
from moshi_mlx.realtime import FileDevice
from moshi_mlx.recording.finish import finish, understand
from moshi_mlx.recording.folder import open_recording
from moshi_mlx.recording.recorder import Recorder

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Path:
    return checkpoint("moshi")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    soundfile.write(folder / "a.wav", tones(0.8, [(0.1, 0.7)]), 24_000)
    soundfile.write(folder / "b.flac", np.stack([tones(0.5, [(0.1, 0.4)], 16_000)] * 2, axis=1), 16_000)
    (folder / "a.txt").write_text("Is it <you>?")
    (folder / "s.txt").write_text("a.wav\ninterrupt after 0.4 s\nb.flac\npause 0.2 s\n")
    return folder / "s.txt"


@pytest.fixture(scope="module", autouse=True)
def quick() -> object:
    """The random model talks without end; nobody waits half a minute of frames for it to fall silent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moshi_mlx.recording.script.MONOLOGUE", 0.8)
        yield


@pytest.fixture(scope="module")
def recorded(model: Path, script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "demo"
    asked = ["record", str(folder), "--script", str(script), "--model", str(model), "--seed", "5", "--takes", "2"]
    assert main(asked) == 0
    return folder


def test_record_writes_the_folder_and_keeps_all_takes(recorded: Path) -> None:
    """Guards against takes that overwrite each other or share a seed, and a file that is forgotten."""
    for take, seed in (("take-1", 5), ("take-2", 6)):
        assert {path.name for path in (recorded / take).iterdir()} == FILES
        info = open_recording(recorded / take).info
        assert (info.seed, info.finished, info.title) == (seed, True, f"demo, {take.replace('-', ' ')}")
    page = (recorded / "take-1" / "player.html").read_text()
    assert "Is it &lt;you&gt;?" in page
    codes = [open_recording(recorded / take).codes().moshi for take in ("take-1", "take-2")]
    frames = min(map(len, codes))
    assert not np.array_equal(codes[0][:frames], codes[1][:frames])


def test_the_user_lane_is_what_was_said(recorded: Path, script: Path) -> None:
    """Guards against a user lane that is shifted, scaled or not resampled."""
    lane = soundfile.read(recorded / "take-1" / "conversation.wav", dtype="float32")[0][:, 0]
    said = soundfile.read(script.parent / "a.wav", dtype="float32")[0]
    assert np.array_equal(lane[: len(said)], said)
    units = understand(recorded / "take-1").turns.units["user"]
    assert [round(end - start, 1) for start, end in units] == [0.6, 0.3]


def test_replay_gives_identical_tokens(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against anything that a recording lacks to be replayed: a seed, a sampling, a code."""
    assert main(["replay", str(recorded / "take-1")]) == 0
    assert "Identical: all" in capsys.readouterr().out
    take = "take-2"
    assert main(["replay", str(recorded / take), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["identical"] is True
    assert outcome["frames"] == open_recording(recorded / take).frames
    assert outcome["changed_files"] == []


def test_replay_tells_a_difference(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a replay that says "identical" whatever came; the seed in the file is the one that is used."""
    folder = shutil.copytree(recorded / "take-1", tmp_path / "r")
    path = folder / "session.json"
    path.write_text(path.read_text().replace('"seed": 5', '"seed": 99'))
    assert main(["replay", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "Not identical: from frame" in told
    assert "Moshi says" in told


def test_another_model_beside_the_recording(
    recorded: Path, writable: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a comparison without sound, and a replay that cannot itself be opened, analysed and replayed."""
    out = tmp_path / "again"
    other = writable("moshi")
    path = other / "model.safetensors"
    weights = {name: array * 1.5 for name, array in dict(mx.load(str(path))).items()}
    path.unlink()
    mx.save_safetensors(str(path), weights)
    take = str(recorded / "take-1")
    assert main(["replay", take, "--model", str(other), "--out", str(out), "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert "model.safetensors" in both["changed_files"]
    assert both["replayed"]["summary"]["seconds"] == both["recorded"]["summary"]["seconds"]
    assert both["recorded"]["text"] != both["replayed"]["text"]
    assert {path.name for path in out.iterdir()} == FILES
    lanes = [soundfile.read(folder / "conversation.wav", dtype="int16")[0] for folder in (recorded / "take-1", out)]
    assert np.array_equal(lanes[0][:, 0], lanes[1][:, 0])
    assert lanes[1][:, 1].any()
    assert main(["replay", str(out)]) == 0


def test_from_wav_counts_the_codes_that_flip(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against hiding that 16 bits are not what the model heard; they nearly are."""
    assert main(["replay", str(recorded / "take-1"), "--from-wav"]) == 0
    told = re.match(r"Encoded again, (\d+) of the user's codes differ", capsys.readouterr().out)
    assert told
    assert int(told[1]) <= open_recording(recorded / "take-1").codes().user.size * 0.02


def test_a_model_with_other_codebooks_hears_the_sound_itself(
    recorded: Path, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal of other codebooks names --from-wav, which then compared rows of unequal length: a traceback."""
    take, other = str(recorded / "take-1"), str(checkpoint("hibiki"))
    assert main(["replay", take, "--model", other]) == 1
    assert "--from-wav lets it hear the sound itself" in capsys.readouterr().err
    assert main(["replay", take, "--model", other, "--from-wav"]) == 0
    assert capsys.readouterr().out.startswith("This model has other codebooks. Not identical: from frame 0 of ")
    assert main(["replay", take, "--model", other, "--from-wav", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["user_codes_differ"] is None
    assert outcome["frames_of_codes_differ"] == outcome["frames"]


def test_a_live_recording_replays_across_a_reset(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a reset that the replay does not make, or text that it decodes in another way."""
    session = moshi_mlx.Session(moshi_mlx.load(model), seed=3)
    random = np.random.default_rng(0)
    with Recorder(tmp_path / "r", session_info(session, model, live=True), live=True) as recorder:
        for frame in range(24):
            if frame == 10:
                session.reset()
                recorder.event("reset", frame)
            pcm = (random.normal(size=FRAME) * 0.1).astype(np.float32)
            recorder.add(replace(session.step(pcm), frame=frame), pcm)
    finish(tmp_path / "r")
    assert main(["replay", str(tmp_path / "r"), "--out", str(tmp_path / "again")]) == 0
    assert "Identical: all 24 frames" in capsys.readouterr().out
    texts = [[piece.text for piece in open_recording(tmp_path / name).pieces()] for name in ("r", "again")]
    assert texts[0][0] == texts[1][0]
    sounds = [soundfile.read(tmp_path / name / "conversation.wav")[0][:, 1] for name in ("r", "again")]
    assert np.abs(sounds[0] - sounds[1]).max() < 1e-3


def test_live_is_chat_with_a_recording(
    model: Path, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against an option of chat that record does not know to give, and a title that is lost."""
    device = FileDevice(script.parent / "a.wav", None)
    monkeypatch.setattr("moshi_mlx.cli.chat.device_of", lambda args: device)
    folder = tmp_path / "r"
    asked = ["record", str(folder), "--live", "--model", str(model), "--seed", "4", "--title", "Evening"]
    assert main(asked) == 0
    info = open_recording(folder).info
    assert (info.live, info.seed, info.title, info.frames) == (True, 4, "Evening", 10)
    assert {path.name for path in folder.iterdir()} == FILES
    assert len(open_recording(folder).events("frame")) == 10
    assert main(["replay", str(folder)]) == 0
    assert "Identical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        (["record", "NEW"], 2, "where the user comes from"),
        (["record", "NEW", "a.wav", "--live"], 2, "where the user comes from"),
        (["record", "NEW", "a.wav", "--takes", "0"], 2, "--takes"),
        (["record", "NEW", "--live", "--takes", "2"], 2, "--takes"),
        (["record", "DIR", "a.wav"], 2, "already exists"),
        (["record", "NEW", "none.wav"], 1, "none.wav"),
        (["record", "NEW", "--finish"], 1, "no recording"),
        (["replay", "NEW"], 1, "no recording"),
        (["replay", "TAKE", "--out", "DIR"], 2, "already exists"),
        (["record", "/proc/self/new", "MONO"], 1, "cannot be made"),
        (["record", "NEW", "MONO", "--model", "none/at/all"], 1, "none/at/all"),
        (["record", "NEW", "MONO", "--seed", "-1"], 2, "seed"),
        (["record", "NEW", "MONO", "--title", "t" * 901], 2, "--title"),
        (["record", "/tmp/\udcff", "MONO"], 1, "no UTF-8"),
        (["analyze", "NEW"], 1, "cannot be read: No such file"),
        (["analyze", "MONO", "--timeline", "/nowhere/x.svg"], 2, ".svg"),
        (["analyze", "MONO"], 1, "needs two"),
        (["analyze", "MONO", "--timeline", "x.png"], 2, ".svg"),
    ],
)
def test_wrong_use_is_one_line(
    recorded: Path, tmp_path: Path, asked: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against tracebacks, and minutes of loading before a mistake in the options is told."""
    soundfile.write(tmp_path / "mono.wav", np.zeros(4_800), 24_000)
    places = {"NEW": "new", "DIR": ".", "MONO": "mono.wav"}
    words = [str(tmp_path / places[word]) if word in places else word for word in asked]
    assert main([str(recorded / "take-1") if word == "TAKE" else word for word in words]) == status
    told = capsys.readouterr()
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_failed_record_leaves_a_folder_that_was_there(tmp_path: Path) -> None:
    """Only what the command itself made may go again."""
    (tmp_path / "mine").mkdir()
    soundfile.write(tmp_path / "mono.wav", np.zeros(4_800), 24_000)
    assert main(["record", str(tmp_path / "mine"), str(tmp_path / "mono.wav"), "--model", "none/at/all"]) == 1
    assert (tmp_path / "mine").is_dir()
