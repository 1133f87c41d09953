"""Sound files as microphone and loudspeaker."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moshi_mlx.frame import RATE, MoshiError, Pcm
from moshi_mlx.realtime import Conversation, FileDevice
from tools.soak_realtime import EchoingStepper


def _speech(path: Path, rate: int) -> Pcm:
    sound = (0.2 * np.sin(2 * np.pi * 300 * np.arange(rate * 2) / rate)).astype(np.float32)
    soundfile.write(path, np.column_stack([sound, sound]), rate, subtype="FLOAT")
    return sound


def test_a_file_goes_through_the_same_loop_as_fast_as_possible(tmp_path: Path) -> None:
    """Every source is the same caller; a file's last frame and its tail must come out, and only under its name."""
    _speech(tmp_path / "in.wav", 44_100)
    device = FileDevice(tmp_path / "in.wav", tmp_path / "out.wav", tail=0.5)
    talk = Conversation(device, lambda report: EchoingStepper())
    talk.start()
    assert talk.wait(20)
    talk.check()
    assert talk.statistics().frames == 32  # 2.5 s
    assert talk.statistics().underruns == 0
    out, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == RATE
    loud = np.flatnonzero(np.abs(out) > 0.02)
    assert (loud[-1] - loud[0]) / RATE == pytest.approx(2, abs=0.01)
    assert np.sqrt(np.mean(out[loud[0] + 500 : loud[-1] - 500] ** 2)) == pytest.approx(0.2 / np.sqrt(2), rel=0.02)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.wav", "out.wav"]


def test_a_file_in_real_time_takes_its_time(tmp_path: Path) -> None:
    """In real time a file must behave as a device does: on its own thread, while the model steps."""
    soundfile.write(tmp_path / "in.wav", np.zeros(RATE // 2, np.float32), RATE)
    talk = Conversation(FileDevice(tmp_path / "in.wav", None, realtime=True), lambda report: EchoingStepper(time.sleep))
    begin = time.monotonic()
    talk.start()
    assert talk.wait(20)
    talk.check()
    assert 0.5 < time.monotonic() - begin < 10
    assert talk.statistics().frames == 7


def test_a_file_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    """Untrusted input: not a traceback, and not libsndfile's "System error" for whatever the system said."""
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    for name, reason in (("bad.wav", "not a sound file"), ("absent.wav", "No such file"), (".", "Is a directory")):
        with pytest.raises(MoshiError, match=f"{name}.*{reason}"):
            FileDevice(tmp_path / name, None)


def test_a_file_goes_on_where_it_was_when_it_is_reopened(tmp_path: Path) -> None:
    """The key `d`, or a process that had stood still, closed the file for ever: the clock's thread ended at once, was
    taken for dead, and was opened again for ever; and the sound until then was overwritten."""
    _speech(tmp_path / "in.wav", 44_100)
    device = FileDevice(tmp_path / "in.wav", tmp_path / "out.wav", realtime=True)
    talk = Conversation(device, lambda report: EchoingStepper())
    talk.start()
    while talk.statistics().seconds < 1:
        time.sleep(0.01)
    talk.reopen()
    assert talk.wait(60)
    talk.check()
    statistics = talk.statistics()
    assert statistics.reopened == 1
    assert statistics.frames == 25
    out, _ = soundfile.read(tmp_path / "out.wav")
    loud = np.flatnonzero(np.abs(out) > 0.02) / RATE
    assert len(out) / RATE > 1.9
    assert loud[0] < 0.5
    assert loud[-1] > 1.5
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.wav", "out.wav"]


def test_a_file_that_is_damaged_further_on_ends_the_conversation_with_its_reason(tmp_path: Path) -> None:
    """The clock's thread died of it, with a traceback across the screen, and the device was reopened for ever."""
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "in.flac", noise, RATE)
    data = (tmp_path / "in.flac").read_bytes()
    (tmp_path / "in.flac").write_bytes(data[: len(data) // 2])
    for realtime in (True, False):
        talk = Conversation(FileDevice(tmp_path / "in.flac", None, realtime=realtime), lambda report: EchoingStepper())
        talk.start()
        assert talk.wait(60)
        with pytest.raises(MoshiError, match=r"in\.flac is damaged after \d\.\d s"):
            talk.check()


def test_sound_that_cannot_get_its_name_is_a_failure_that_says_where_it_is(tmp_path: Path) -> None:
    """A folder of that name: the engine's thread ended with a traceback, and the command with status 0."""
    soundfile.write(tmp_path / "in.wav", np.zeros(RATE // 2, np.float32), RATE)
    (tmp_path / "out.wav").mkdir()
    talk = Conversation(FileDevice(tmp_path / "in.wav", tmp_path / "out.wav"), lambda report: EchoingStepper())
    talk.start()
    assert talk.wait(60)
    assert talk.statistics().state == "failed"
    with pytest.raises(MoshiError, match=r"out\.wav cannot be written .*out\.wav\.part"):
        talk.check()
    assert soundfile.info(tmp_path / "out.wav.part").frames > 0
