"""The recorder: what is on disk during, after and instead of an orderly end."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recording_kit import INFO, MockStepper, dialogue, ramp, record

from moshi_mlx.frame import FRAME, MoshiError, Reply
from moshi_mlx.recording.codes import read_codes
from moshi_mlx.recording.finish import finish
from moshi_mlx.recording.folder import open_recording
from moshi_mlx.recording.info import read_info
from moshi_mlx.recording.recorder import Recorder

HERE = Path(__file__).parent


def read_lanes(folder: Path) -> np.ndarray:
    return np.concatenate([soundfile.read(part, dtype="int16")[0] for part in open_recording(folder).parts])


def test_lanes_are_aligned_to_the_sample_across_parts(tmp_path: Path) -> None:
    """Guards against a sample lost or doubled at a part's border, and lanes that slide apart (ten minutes of virtual
    time).
    """
    frames = 7_500
    with Recorder(tmp_path / "r", INFO, part_limit=9_000_000) as recorder:
        stepper = MockStepper()
        for n in range(frames):
            recorder.add(stepper.step(ramp(n)), ramp(n))
    parts = open_recording(tmp_path / "r").parts
    assert len(parts) == 7
    at = 0
    for part in parts:
        lanes = soundfile.read(part, dtype="int16")[0].astype(int)
        expected = (at + np.arange(len(lanes))) % 32_768
        assert np.array_equal(lanes[:, 0], expected)
        assert np.array_equal(lanes[:, 1], -expected)
        at += len(lanes)
    assert at == frames * FRAME


@pytest.mark.parametrize("delay", [1, 2])
def test_user_frame_n_lies_beside_moshis_frame_n(tmp_path: Path, delay: int) -> None:
    """Guards against lanes that are one frame apart where the model's acoustic delay is 2 (reply n then carries frame n
    − 1).
    """
    with Recorder(tmp_path / "r", replace(INFO, acoustic_delay=delay)) as recorder:
        for n in range(5):
            belongs = n - (delay - 1)
            pcm = np.full(FRAME, max(belongs, 0) / 100, np.float32)
            codes = np.zeros(8, np.int32) if belongs >= 0 else None
            recorder.add(Reply(n, pcm, "", 3, codes, np.zeros(8, np.int32)), np.full(FRAME, n / 100, np.float32))
    lanes = read_lanes(tmp_path / "r")
    assert len(lanes) == 5 * FRAME
    whole = lanes[: (5 - (delay - 1)) * FRAME]
    assert np.array_equal(whole[:, 0], whole[:, 1])


def test_the_callers_buffer_may_be_used_again(tmp_path: Path) -> None:
    """Guards against recording a ring's view that the next block has overwritten."""
    buffer = np.empty(FRAME, np.float32)
    with Recorder(tmp_path / "r", INFO) as recorder:
        stepper = MockStepper()
        for n in range(20):
            buffer[:] = ramp(n)
            recorder.add(stepper.step(buffer), buffer)
            buffer[:] = np.nan
    assert np.array_equal(read_lanes(tmp_path / "r")[:, 0], np.arange(20 * FRAME) % 32_768)


def test_killed_at_50_moments(tmp_path: Path) -> None:
    """Guards against a header that lies, a file without a name or a header, and more than a second in buffers, under
    SIGKILL.
    """
    moments = 50
    chance = random.Random(5)
    begun = 0
    command = [sys.executable, HERE / "killed_recorder.py", tmp_path, str(moments)]
    child = subprocess.Popen(command, env=_env())
    try:
        for number in range(moments):
            count = tmp_path / f"{number}.count"
            while not count.exists() or len(count.read_bytes()) < 16:
                assert child.poll() is None
                time.sleep(0.002)
            moment = chance.randrange(60)  # in frames taken, for a machine may be slow; then a little later
            while int.from_bytes(count.read_bytes()[8:], "little") < moment:
                assert child.poll() is None
                time.sleep(0.001)
            time.sleep(chance.random() * 0.005)
            os.kill(int.from_bytes(count.read_bytes()[:8], "little"), signal.SIGKILL)
            while not (tmp_path / f"{number + 1}.count").exists() and child.poll() is None:  # the dead write no more
                time.sleep(0.002)
            taken = int.from_bytes(count.read_bytes()[8:], "little")
            folder = tmp_path / str(number)
            if not (folder / "conversation.wav").exists():
                assert taken == 0
                continue
            begun += 1
            frames = len(read_lanes(folder)) / FRAME
            assert frames == int(frames)
            assert taken - frames <= 12.5
            assert taken - len(read_codes(folder / "codes.bin").text_tokens) <= 12.5
            pieces = open_recording(folder).pieces()
            assert taken - (pieces[-1].frame if pieces else -3) <= 12.5 + 3
            if frames:
                finish(folder) if number % 10 == 0 else shutil.rmtree(folder)
        assert child.wait(10) == 0
    finally:
        child.kill()  # its fork ends by itself
        child.wait()
    assert begun > moments / 2


def test_finishing_what_was_cut_off(tmp_path: Path) -> None:
    """Guards against half a line, half a record or samples behind the header's length stopping the finish."""
    folder = dialogue(tmp_path / "r")
    whole = finish(folder)
    for name, tail in (
        ("conversation.wav", b"\x01\x02\x03"),
        ("codes.bin", b"\x00\x00"),
        ("transcript.jsonl", b'{"frame": 1'),
        ("events.jsonl", b"{"),
    ):
        with (folder / name).open("ab") as file:
            file.write(tail)
    for made in ("player.html", "transcript.srt", "timeline.svg"):
        (folder / made).unlink()
    again = finish(folder)
    assert (folder / "player.html").stat().st_size > 0
    assert list(again.words) == list(whole.words)
    assert (folder / "conversation.wav").stat().st_size == 44 + 180 * FRAME * 4
    info = read_info(folder)
    assert (info.finished, info.frames) == (True, 180)


def test_a_full_disk_stops_the_recording_only(tmp_path: Path) -> None:
    """Guards against a conversation that dies, or hangs on a full queue, when the disk is full; the file stays
    readable.
    """
    told: list[str] = []
    stepper = MockStepper()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Recorder(tmp_path / "r", INFO, on_failure=told.append) as recorder:
            for n in range(10):
                recorder.add(stepper.step(ramp(n)), ramp(n))
            while recorder._queue.qsize():
                time.sleep(0.001)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
            for n in range(10, 100):
                recorder.add(stepper.step(ramp(n)), ramp(n))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(told) == 1
    assert told[0] == recorder.failure
    assert "recording stopped" in told[0]
    assert "File too large; `moshi-mlx record" in told[0]
    assert "Errno" not in told[0]
    assert 9 * FRAME <= len(read_lanes(tmp_path / "r")) <= 13 * FRAME


def test_a_vanished_folder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against writing for an hour to a file that was deleted, which the system allows in silence."""
    monkeypatch.setattr("moshi_mlx.recording.recorder.CHECK_SECONDS", 0.0)
    told: list[str] = []
    stepper = MockStepper()
    with Recorder(tmp_path / "r", INFO, on_failure=told.append) as recorder:
        recorder.add(stepper.step(ramp(0)), ramp(0))
        shutil.rmtree(tmp_path / "r")
        for n in range(1, 100):
            recorder.add(stepper.step(ramp(n)), ramp(n))
    assert len(told) == 1


def test_a_live_caller_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a stalled disk that stops the model's thread."""
    stalled = threading.Event()
    monkeypatch.setattr("moshi_mlx.recording.wav.StereoWriter.write", lambda *_: stalled.wait(10))
    recorder = Recorder(tmp_path / "r", INFO, live=True)
    stepper = MockStepper()
    for n in range(500):
        recorder.add(stepper.step(ramp(n)), ramp(n))
    assert recorder.failure is not None
    assert "slower" in recorder.failure
    stalled.set()
    recorder.close()


@pytest.mark.parametrize("frames", [3, 500])
def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(
    frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waited for a stalled disk, for room in the queue and then for its thread, with every signal taken: only
    SIGKILL ended the chat."""
    stalled = threading.Event()
    monkeypatch.setattr("moshi_mlx.recording.wav.StereoWriter.write", lambda *_: stalled.wait(60))
    recorder = Recorder(tmp_path / "r", INFO, live=True)
    stepper = MockStepper()
    for n in range(frames):
        recorder.add(stepper.step(ramp(n)), ramp(n))
    recorder.close(0.1)
    assert not stalled.is_set()
    assert recorder.failure is not None
    assert ("does not answer" if frames == 3 else "slower") in recorder.failure
    stalled.set()


def test_events_and_measures_come_back(tmp_path: Path) -> None:
    """Guards against marks that lose their frame or label."""
    with Recorder(tmp_path / "r", INFO) as recorder:
        stepper = MockStepper()
        for n in range(4):
            recorder.add(stepper.step(ramp(n)), ramp(n), {"step_ms": 30.5, "played_at": n * 0.08 + 0.2})
        recorder.event("mark", 2, label="Here – 'mm-hm' & <b>")
        recorder.event("xrun", 3, side="output", missing=480)
    recording = open_recording(tmp_path / "r")
    assert [event.label for event in recording.events("mark")] == ["Here – 'mm-hm' & <b>"]
    assert recording.events("xrun")[0].values == {"side": "output", "missing": 480}
    assert [event.values["played_at"] for event in recording.events("frame")] == pytest.approx([0.2, 0.28, 0.36, 0.44])


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """Guards against a second recording written over the first."""
    record(tmp_path / "r", 2)
    (tmp_path / "file").write_text("x")
    for name, says in (("r", "not empty"), ("file", "is a file")):
        with pytest.raises(MoshiError, match=says):
            Recorder(tmp_path / name, INFO)


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
