"""A recording's folder read back: what was written, what was damaged, what would lead out of it."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_kit import INFO, MockStepper, ramp, record

from moshi_mlx.frame import MoshiError, Reply
from moshi_mlx.recording.codes import CodesLayout, read_codes
from moshi_mlx.recording.finish import finish
from moshi_mlx.recording.folder import open_recording
from moshi_mlx.recording.info import read_info, write_info
from moshi_mlx.recording.recorder import Recorder
from moshi_mlx.recording.script import say


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 16), st.integers(1, 17), st.integers(1, 17), st.data())
def test_codes_survive_packing(bits: int, user: int, moshi: int, data: st.DataObject) -> None:
    """Guards against codes that straddle bytes coming back changed; a cut record is dropped."""
    layout = CodesLayout(bits, user, moshi)
    chance = np.random.default_rng(data.draw(st.integers(0, 1_000)))
    replies = [
        Reply(
            n,
            np.zeros(0, np.float32),
            "",
            int(chance.integers(0, 2**31)),
            None if n == 0 else chance.integers(0, 2**bits, moshi, np.int32),
            chance.integers(0, 2**bits, user, np.int32),
        )
        for n in range(4)
    ]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"codes-{os.getpid()}.bin"
    path.write_bytes(layout.header() + b"".join(map(layout.record, replies)) + b"cut"[: data.draw(st.integers(0, 3))])
    read = read_codes(path)
    path.unlink()
    assert read.text_tokens.tolist() == [reply.text_token for reply in replies]
    assert read.spoken.tolist() == [False, True, True, True]
    assert np.array_equal(read.user, [reply.user_codes for reply in replies])
    assert np.array_equal(read.moshi[1:], [reply.codes for reply in replies[1:]])


def test_the_rate_of_the_codes(tmp_path: Path) -> None:
    """Guards against codes kept as text or 32-bit numbers: 11 bytes a side and frame are 1.1 kbit/s."""
    record(tmp_path / "r", 10)
    assert (tmp_path / "r" / "codes.bin").stat().st_size == 16 + 10 * (4 + 11 + 11)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("session.json", b"{}"),
        ("session.json", b"\xff\xfe"),
        ("session.json", b"[" * 100_000),
        ("session.json", b" " * 2_000_000),
        ("session.json", b'{"format":"moshi-recording 1","model":"m","seed":NaN}'),
        ("session.json", b'{"format":"moshi-recording 1","model":"m","seed":1}'),
        (
            "session.json",
            b'{"format":"moshi-recording 1","model":["m"],"seed":1,"codebooks":8,"user_codebooks":8,"card":9}',
        ),
        (
            "session.json",
            b'{"format":"moshi-recording 1","model":"m","seed":1,"codebooks":1e99,"user_codebooks":8,"card":9}',
        ),
        ("transcript.jsonl", b'{"frame":-1,"text":"a"}\n'),
        ("transcript.jsonl", b'{"frame":1e9,"text":"a"}\n'),
        ("transcript.jsonl", b'{"frame":5,"text":"a"}\n{"frame":4,"text":"a"}\n'),
        ("transcript.jsonl", b'{"frame":5,"text":"\\ud800"}\n'),
        ("transcript.jsonl", b"x" * 100_000),
        ("events.jsonl", b'{"frame":1,"kind":7}\n'),
        ("events.jsonl", b"[]\n"),
        ("codes.bin", b"MOSHICODE1\xff\xff\xff\xff\xff\xff"),
        ("codes.bin", b""),
        ("conversation.wav", b"RIFF\xff\xff\xff\xffWAVE" + bytes(100)),
    ],
)
def test_damaged_folders_get_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    """Guards against tracebacks, and memory taken at the word of a damaged file."""
    folder = record(tmp_path / "r", 3)
    (folder / name).write_bytes(content)

    def read_everything() -> None:
        finish(folder)
        open_recording(folder).codes()

    with pytest.raises(MoshiError) as caught:
        read_everything()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_damage_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Guards against an exception that is no MoshiError, whichever bytes of whichever file are damaged."""
    folder = record(tmp_path_factory.mktemp("damaged") / "r", 12, MockStepper({2: " Hello", 6: " you"}))
    names = ["session.json", "transcript.jsonl", "codes.bin", "conversation.wav"]
    path = folder / data.draw(st.sampled_from(names))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 400) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path.write_bytes(content)
    with contextlib.suppress(MoshiError):
        finish(folder)
    with contextlib.suppress(MoshiError):
        open_recording(folder).codes()


@pytest.mark.parametrize("words", [b"word " * 2_000, b"\x01" * 10_000, b"\xff" * 10_000])
def test_the_longest_words_of_a_script_come_back(tmp_path: Path, words: bytes) -> None:
    """Guards against "said" in place of words that a script takes, and a line of events too long to be read."""
    (tmp_path / "a.txt").write_bytes(words)
    line = say(tmp_path / "a.wav", lambda path: [])
    with Recorder(tmp_path / "r", INFO) as recorder:
        recorder.add(MockStepper().step(ramp(0)), ramp(0))
        recorder.event("said", 0, label=line.words)
    (event,) = open_recording(tmp_path / "r").events("said")
    assert len(event.label) >= 9_999
    assert event.label == line.words


def test_longer_labels_are_not_taken(tmp_path: Path) -> None:
    """Guards against a folder from elsewhere that fills a page with one label, or another value read so long."""
    folder = record(tmp_path / "r", 1)
    event = {"frame": 0, "kind": "said", "label": "a" * 10_001, "side": "a" * 1_001}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    (read,) = open_recording(folder).events("said")
    assert read.label == "said"
    assert read.values == {}


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Guards against a folder from elsewhere whose finish would cut or overwrite a file outside of it."""
    folder = record(tmp_path / "r", 3)
    outside = tmp_path / "precious"
    outside.write_text("kept")
    for name in ("player.html", "player.html.new", "transcript.txt", "session.json.new"):
        (folder / name).symlink_to(outside)
    finish(folder)
    assert outside.read_text() == "kept"
    assert not (folder / "player.html").is_symlink()
    (folder / "conversation-2.wav").symlink_to(outside)
    with pytest.raises(MoshiError, match="not a plain file"):
        finish(folder)


def test_session_json_comes_back(tmp_path: Path) -> None:
    """Guards against a field that is written but not read, or refused though we wrote it; later keys are let pass."""
    info = replace(
        INFO, kv_bits=8, files={"a": "b"}, sampling={"t": 0.7}, versions={"mlx": "0"}, created="2026", live=True
    )
    path = tmp_path / "session.json"
    write_info(tmp_path, info)
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert read_info(tmp_path) == info
