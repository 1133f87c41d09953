"""Sound files in and out."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moshi_mlx.cli.sound import Writer, frames
from moshi_mlx.frame import FRAME, RATE, MoshiError
from moshi_mlx.realtime import FileDevice
from moshi_mlx.recording.activity import measure_levels


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    """A delay or a lost tail in the streaming resampler would shift the user against Moshi."""
    sound = tone(rate, 1.03)
    soundfile.write(tmp_path / "a.wav", np.stack([sound] * channels, axis=1), rate, subtype="FLOAT")
    source = frames(tmp_path / "a.wav")
    pieces = list(source)
    assert source.total == len(pieces) == 13
    assert all(piece.shape == (FRAME,) and piece.dtype == np.float32 for piece in pieces)
    want, got = tone(RATE, 1.03), np.concatenate(pieces)
    inner = slice(RATE // 10, RATE - RATE // 10)
    assert np.abs(got[inner] - want[inner]).max() < 2e-3
    assert not got[round(1.04 * RATE) :].any()


def test_channels_are_mixed(tmp_path: Path) -> None:
    """Taking the first channel only would lose a user recorded on the second."""
    soundfile.write(tmp_path / "a.wav", np.stack([tone(RATE, 0.2), 0 * tone(RATE, 0.2)], axis=1), RATE, subtype="FLOAT")
    assert np.allclose(np.concatenate(list(frames(tmp_path / "a.wav")))[: RATE // 5], tone(RATE, 0.2) / 2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p.write_text("this is no sound\n" * 20), "not a sound file"),
        (lambda p: p.write_bytes(b""), "not a sound file"),
        (lambda p: p.write_bytes(b"RIFF\x24\0\0\0WAVE"), "not a sound file|holds no sound"),
        (lambda p: p.mkdir(), "cannot be read"),
        (lambda p: None, "cannot be read"),
        (lambda p: soundfile.write(p, np.zeros(0, np.float32), RATE), "no sound"),
        (lambda p: soundfile.write(p, np.zeros(FRAME - 1, np.float32), RATE), "at least one frame"),
        (lambda p: soundfile.write(p, np.zeros(RATE, np.float32), 100), "rate of 100 Hz"),
        (lambda p: soundfile.write(p, np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT"), "NaN"),
        (lambda p: soundfile.write(p, np.full(RATE, np.inf, np.float32), 48_000, subtype="FLOAT"), "NaN"),
    ],
)
def test_bad_files(tmp_path: Path, make, says: str) -> None:  # type: ignore[no-untyped-def]
    """Each gave a traceback of libsndfile, or NaN that silently poisoned every later frame."""
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(MoshiError, match=says) as caught:
        list(frames(path))
    assert "\n" not in str(caught.value)


def test_cut_file_gives_what_is_there(tmp_path: Path) -> None:
    """A recording cut by a crash must still be usable."""
    soundfile.write(tmp_path / "a.wav", tone(RATE, 2.0), RATE)
    raw = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(raw[: len(raw) // 2])
    assert 12 <= len(list(frames(tmp_path / "b.wav"))) <= 13


def test_out_of_range_is_clipped(tmp_path: Path) -> None:
    """The frame promises [−1, 1]; float files may hold anything."""
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 1e9, np.float32), RATE, subtype="FLOAT")
    assert max(piece.max() for piece in frames(tmp_path / "a.wav")) == 1.0


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """An hour read at once would cost 350 MB; reading must cost the same for any length."""
    peaks = []
    for seconds in (5, 60):
        soundfile.write(tmp_path / "a.wav", tone(16_000, seconds), 16_000)
        tracemalloc.start()
        count = sum(1 for _ in frames(tmp_path / "a.wav"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == -(-seconds * RATE // FRAME)
    assert peaks[1] < 1.2 * peaks[0] < 2e6


def test_writer_renames_only_when_whole(tmp_path: Path) -> None:
    """An interrupted run left half a WAV under the wanted name, over the good one of yesterday."""
    path = tmp_path / "out.wav"
    with Writer(path, channels=2) as out:
        out.write(np.stack([tone(RATE, 0.5), -tone(RATE, 0.5)], axis=1))
        assert not path.exists()
    kept, rate = soundfile.read(path)
    assert rate == RATE
    assert np.abs(kept[:, 1] + tone(RATE, 0.5)).max() < 1e-4
    with pytest.raises(ValueError, match="shape"), Writer(path) as out:
        out.write(np.zeros((5, 3), np.float32))
    assert len(soundfile.read(path)[0]) == len(kept)
    assert [item.name for item in tmp_path.iterdir()] == ["out.wav"]


@pytest.mark.parametrize("name", ["a.mp3", "none/a.wav", "a"])
def test_writer_refuses_names(tmp_path: Path, name: str) -> None:
    """Found out after an hour of model time, a bad output name loses the hour."""
    with pytest.raises(MoshiError):
        Writer(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_stream_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    """A FLAC that was written through a pipe: all of it was heard, then it was called damaged, a chat from it never
    ended, and turn-taking refused it."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([tone(RATE, 2.5)] * 2, axis=1), RATE)
    raw = bytearray(path.read_bytes())
    raw[21] &= 0xF0  # STREAMINFO: 36 bits of the number of samples
    raw[22:26] = bytes(4)
    path.write_bytes(raw)
    source = frames(path)
    assert source.total is None
    assert np.abs(np.concatenate(list(source))[: RATE * 2] - tone(RATE, 2)).max() < 1e-3
    assert FileDevice(path, None).frames == 32
    assert measure_levels([path]).seconds == 2.5


def test_a_file_that_nobody_finished_is_not_called_empty(tmp_path: Path) -> None:
    """A recorder that was killed leaves a length of 0 in the header, and all of the sound: "record it again"."""
    soundfile.write(tmp_path / "a.wav", tone(RATE, 2.0), RATE)
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[4:8] = raw[40:44] = bytes(4)
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(MoshiError, match="--ignore-length"):
        frames(tmp_path / "a.wav")


def test_what_a_link_names_is_written(tmp_path: Path) -> None:
    """The link was replaced, and the file behind it stayed as it was."""
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    with Writer(tmp_path / "link.wav") as out:
        out.write(tone(RATE, 0.5))
    assert (tmp_path / "link.wav").is_symlink()
    assert soundfile.info(tmp_path / "real.wav").frames == RATE // 2
