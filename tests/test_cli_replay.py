"""What a replay believes of a recording, which may come from anyone, and where it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hf_kit import save
from test_lora import adapters

from moshi_mlx import FRAME, Sampling, Session
from moshi_mlx.cli.main import main
from moshi_mlx.cli.origin import session_info
from moshi_mlx.recording.folder import open_recording
from moshi_mlx.recording.recorder import Recorder

Checkpoint = Callable[[str], Path]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "user.wav", np.zeros(2 * 1_920), 24_000)
    return tmp_path / "user.wav"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moshi_mlx.recording.script.MONOLOGUE", 0.3)


def record(folder: Path, sound: Path, model: Path | str, *more: str) -> None:
    assert main(["record", str(folder), str(sound), "--model", str(model), "--seed", "1", *more]) == 0


def test_nothing_is_fetched_at_a_recordings_wish(
    checkpoint: Checkpoint, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A stranger's session.json named a repository, and replay fetched it."""
    record(tmp_path / "r", sound, checkpoint("moshi"))
    path = tmp_path / "r" / "session.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "stranger/anything"}))
    monkeypatch.setattr("moshi_mlx.checkpoints.locate.get", lambda *_, **__: pytest.fail("asked the Hub"))
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "r")]) == 1
    told = capsys.readouterr().err
    assert "stranger/anything is not on this disk" in told
    assert "--model" in told


def test_a_replay_with_a_reset_writes_the_same_transcript(
    load: Callable, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reset, the first word had a space before it that the recording's has not."""
    session = Session(load("moshi"), seed=3, sampling=Sampling(text_temperature=2.0))
    info = session_info(session, checkpoint("moshi"), live=False)
    with Recorder(tmp_path / "r", info) as recorder:
        for frame in range(40):
            if frame == 20:
                session.reset()
                recorder.event("reset", frame)
            reply = session.step(np.zeros(FRAME, np.float32))
            recorder.add(replace(reply, frame=frame), np.zeros(FRAME, np.float32))
    assert main(["replay", str(tmp_path / "r"), "--out", str(tmp_path / "again")]) == 0
    was, now = ((tmp_path / name / "transcript.jsonl").read_text() for name in ("r", "again"))
    assert was.count("\n") > 10
    assert now == was


@pytest.mark.parametrize("where", ["", "~/"])
def test_a_model_is_found_from_another_folder(
    checkpoint: Checkpoint, sound: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path was kept as it was typed."""
    model = checkpoint("moshi")
    monkeypatch.setenv("HOME", str(model.parent))
    monkeypatch.chdir(model.parent)
    record(tmp_path / "r", sound, where + model.name)
    monkeypatch.chdir(tmp_path)
    assert main(["replay", "r"]) == 0


def test_an_older_recording_is_not_accused(
    checkpoint: Checkpoint, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not hashed when it was made cannot have changed; and a replay that differs must not pass for that."""
    record(tmp_path / "r", sound, checkpoint("moshi"))
    path = tmp_path / "r" / "session.json"
    info = json.loads(path.read_text())
    del info["files"]["mimi.json"]
    path.write_text(json.dumps(info | {"seed": 2}))
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "r"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["changed_files"] == []


def test_files_of_one_name_are_all_hashed(writable: Checkpoint, sound: Path, tmp_path: Path) -> None:
    """The codec's hash took the place of the language model's, and other weights went unnoticed."""
    model = writable("moshi")
    (model / "codec").mkdir()
    (model / "mimi.safetensors").rename(model / "codec" / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"mimi_name": "codec/model.safetensors"}))
    record(tmp_path / "r", sound, model)
    files = open_recording(tmp_path / "r").info.files
    assert files["model.safetensors"] != files["codec/model.safetensors"]


def test_a_changed_model_file_is_noticed(
    writable: Checkpoint, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against comparing with a model that was replaced under the same name."""
    copy = writable("moshi")
    record(tmp_path / "r", sound, copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "r"), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["changed_files"] == ["model.safetensors"]
    assert "model.safetensors is not the file that was recorded with" in told.err


def test_a_changed_lora_is_noticed(
    writable: Checkpoint, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only some of a model's files were hashed; with another LoRA, replay blamed the model."""
    model = writable("moshi")
    lora, _ = adapters("moshi", "split")
    save(model / "lora.safetensors", {name: value for name, value in lora.items() if "lora_" in name})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"lora": True, "lora_rank": 3, "lora_scaling": 0.01}))
    record(tmp_path / "r", sound, model)
    assert {"mimi.json", "config.json"} <= open_recording(tmp_path / "r").info.files.keys()
    save(model / "lora.safetensors", {name: 2 * value for name, value in lora.items() if "lora_" in name})
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "r"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed_files"] == ["lora.safetensors"]


def test_titles_can_be_read_again(checkpoint: Checkpoint, sound: Path, tmp_path: Path) -> None:
    """A title that a recording could be written with and not read made a good recording unreadable."""
    folder = tmp_path / "r"
    record(folder, sound, checkpoint("moshi"))
    assert main(["record", str(folder), "--finish", "--title", "t" * 901]) == 2
    assert main(["record", str(folder), "--finish", "--title", "t" * 900]) == 0
    assert main(["replay", str(folder), "--out", str(tmp_path / "again")]) == 0
    assert open_recording(tmp_path / "again").info.title == "t" * 900


def test_out_is_tried_first_and_keeps_odd_events(
    checkpoint: Checkpoint, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A place where nothing can be written was told after the whole replay; an event named "self" was a traceback."""
    record(tmp_path / "r", sound, checkpoint("moshi"))
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "r"), "--out", "/proc/self/new"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "cannot be made" in told.err
    with (tmp_path / "r" / "events.jsonl").open("a") as file:
        file.write('{"frame": 1, "kind": "mark", "self": 1}\n')
    assert main(["replay", str(tmp_path / "r"), "--out", str(tmp_path / "again")]) == 0
    assert [event.frame for event in open_recording(tmp_path / "again").events("mark")] == [1]


def test_a_stopped_replay_is_kept(
    checkpoint: Checkpoint, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Ctrl-C after an hour of it lost the hour."""
    record(tmp_path / "r", sound, checkpoint("moshi"))
    reply_to, count = Session.reply_to, iter(range(100))

    def until(self: Session, *given: object, **more: object) -> object:
        if next(count) == 3:
            raise KeyboardInterrupt
        return reply_to(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "reply_to", until)
    assert main(["replay", str(tmp_path / "r"), "--out", str(tmp_path / "again")]) == 130
    assert "stopped after 3 of" in capsys.readouterr().err
    assert len(open_recording(tmp_path / "again").codes().text_tokens) == 3
