"""`moshi-mlx codec` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_kit
import numpy as np
import pytest
import soundfile
from conftest import FIXTURES

from moshi_mlx.checkpoints.codec_of import load_codec_of
from moshi_mlx.cli.codes_file import CodesFile, header
from moshi_mlx.cli.fidelity import Fidelity
from moshi_mlx.cli.main import main
from moshi_mlx.frame import FRAME, RATE
from moshi_mlx.recording.codes import pack, packed_bytes, unpack


def speech(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(2)
    time = np.arange(round(RATE * seconds)) / RATE
    return (0.3 * np.sin(2 * np.pi * 200 * time) * np.sin(6 * time) + 0.02 * rng.standard_normal(len(time))).astype(
        "f4"
    )


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "in.wav", speech(3.3), RATE, subtype="FLOAT")
    return tmp_path / "in.wav"


def codec(*words: object) -> int:
    return main(["codec", *map(str, words)])


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_encode_then_decode_is_the_codec(
    checkpoint: Callable, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In pieces and through a file, the codes and the sound must be those of one offline call."""
    model = checkpoint("moshi")
    assert codec("encode", sound, tmp_path / "a.codes", "--model", model, "--json") == 0
    said = figures(capsys)
    assert (said["frames"], said["codebooks"], said["bits_per_second"]) == (42, 8, 8 * 5 * 12.5)
    mimi, _ = load_codec_of(model)
    padded = np.pad(speech(3.3), (0, 42 * FRAME - round(3.3 * RATE)))
    want = np.array(mimi.encode(padded[None, :, None]))[0]
    file = CodesFile(tmp_path / "a.codes")
    assert np.array_equal(np.concatenate(list(file), axis=1), want)
    assert (tmp_path / "a.codes").stat().st_size == 32 + 42 * 5
    assert codec("decode", tmp_path / "a.codes", tmp_path / "b.wav", "--model", model) == 0
    want_pcm = np.clip(np.array(mimi.decode(want[None]))[0, :, 0], -1, 1)
    assert np.abs(soundfile.read(tmp_path / "b.wav")[0] - want_pcm).max() < 1e-4
    assert codec("decode", tmp_path / "a.codes", tmp_path / "c.wav", "--model", model, "--codebooks", 2) == 0
    two, _ = load_codec_of(model, 2)
    want_pcm = np.clip(np.array(two.decode(want[None, :2]))[0, :, 0], -1, 1)
    assert np.abs(soundfile.read(tmp_path / "c.wav")[0] - want_pcm).max() < 1e-4


def test_roundtrip_measures(
    checkpoint: Callable, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The WAV must be that of encode and decode, the figures those of the two signals."""
    out = tmp_path / "out.wav"
    assert codec("roundtrip", sound, out, "--model", checkpoint("moshi"), "--codebooks", 3, "--json") == 0
    said = figures(capsys)
    got = soundfile.read(out)[0]
    given = np.pad(speech(3.3), (0, len(got) - round(3.3 * RATE)))
    assert said["codebooks"] == 3
    assert abs(said["snr_db"] - 10 * np.log10((given**2).sum() / ((given - got) ** 2).sum())) < 0.05
    assert said["log_mel_db"] > 1
    assert said["encode_rtf"] > 0
    assert said["decode_rtf"] > 0
    assert codec("roundtrip", sound, out, "--model", checkpoint("moshi")) == 0
    assert "log_mel_db" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["mimi", "hf", "hf-moshi", "file", "model"])
def test_codec_of_anything(tmp_path: Path, checkpoint: Callable, kind: str) -> None:
    """A codec file, a folder like kyutai/mimi, a sharded Moshi, a checkpoint: all hold the same codec here."""
    if kind == "mimi":
        source = hf_kit.write_mimi(tmp_path / "x")
    elif kind == "hf-moshi":
        source = hf_kit.write_moshi(tmp_path / "x")
    elif kind == "hf":
        source = hf_kit.write_mimi(tmp_path / "x") / "model.safetensors"
    else:
        source = checkpoint("moshi") / {"file": "mimi.safetensors", "model": "model.safetensors"}[kind]
    mimi, _ = load_codec_of(source)
    want, _ = load_codec_of(checkpoint("moshi"))
    pcm = speech(0.8)[None, :, None]
    assert np.array_equal(np.array(mimi.encode(pcm)), np.array(want.encode(pcm)))


def test_memory_and_pieces(checkpoint: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be gathered: every call of the codec sees at most 16 frames."""
    from moshi_mlx.models.mimi import Mimi

    seen: list[int] = []
    encode = Mimi.encode
    monkeypatch.setattr(
        Mimi, "encode", lambda self, pcm, state=None: seen.append(pcm.shape[1]) or encode(self, pcm, state)
    )
    soundfile.write(tmp_path / "in.wav", speech(6), 16_000)
    assert codec("encode", tmp_path / "in.wav", tmp_path / "a", "--model", checkpoint("moshi")) == 0
    assert max(seen) == 16 * FRAME
    assert sum(seen) == -(-9 * RATE // FRAME) * FRAME


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["encode", "none.wav", "a.codes"], 1, "none.wav"),
        (["encode", "in.wav", "none/a.codes"], 1, "folder that exists"),
        (["encode", "in.wav", "in.wav"], 2, "same file"),
        (["encode", "in.wav", "/dev/null"], 1, "cannot be written"),  # as root, it became a file
        (["encode", "in.wav", "a.codes", "--codebooks", "9"], 1, "1 to 8"),
        (["encode", "in.wav", "a.codes", "--codebooks", "0"], 2, "--codebooks"),
        (["roundtrip", "in.wav", "out.mp3"], 1, "ends in .wav"),
        (["decode", "in.wav", "out.wav"], 1, "not a file of codes"),
        (["decode", "cut.codes", "out.wav"], 1, "cut short"),
        (["decode", "other.codes", "out.wav"], 1, "another codec"),
        (["decode", "lie.codes", "out.wav"], 1, "damaged"),
        (["decode", "two.codes", "out.wav", "--codebooks", "3"], 1, "holds 2 codebooks"),
    ],
)
def test_wrong_use(
    checkpoint: Callable,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    says: str,
) -> None:
    """One line, the right status, and nothing written."""
    monkeypatch.chdir(tmp_path)
    Path("cut.codes").write_bytes(header(5, 8, b"12345678") + b"123")
    Path("other.codes").write_bytes(header(5, 8, b"12345678") + b"12345")
    Path("two.codes").write_bytes(header(5, 2, b"12345678") + b"12")
    Path("lie.codes").write_bytes(header(60, 8, b"12345678") + b"12")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert codec(*words, "--model", checkpoint("moshi")) == status
    err = capsys.readouterr().err
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("bits", "codebooks"), [(11, 8), (5, 3), (1, 1), (16, 32)])
def test_packing(bits: int, codebooks: int) -> None:
    """A bit lost in packing is another sound."""
    codes = np.random.default_rng(0).integers(0, 1 << bits, (7, codebooks)).astype(np.int32)
    rows = np.frombuffer(pack(codes, bits), np.uint8).reshape(7, packed_bytes(bits, codebooks))
    assert np.array_equal(unpack(rows, bits, codebooks), codes)


def test_fidelity_of_known_signals() -> None:
    """An unscaled metric misleads: half the amplitude is 6 dB of both SNR and log-mel distance, whatever the pieces."""
    noise = np.random.default_rng(1).standard_normal(RATE).astype("f4") / 3
    for step in (1000, 24_000):
        fidelity = Fidelity()
        for i in range(0, RATE, step):
            fidelity.add(noise[i : i + step], noise[i : i + step] / 2)
        assert abs(fidelity.snr - 6.02) < 0.01
        assert abs(fidelity.log_mel - 6.02) < 0.01
    fidelity = Fidelity()
    fidelity.add(noise[:100], noise[:100])
    assert fidelity.snr is None
    assert fidelity.log_mel is None


def test_the_embedded_codec_is_default(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --model the command must work at once and say what it used."""
    assert codec("roundtrip", sound, tmp_path / "o.wav") == 0
    assert "--model mimi" in capsys.readouterr().err
    shutil.copy(FIXTURES / "tokenizer.model", tmp_path / "t.wav")
    assert codec("roundtrip", tmp_path / "t.wav", tmp_path / "p.wav") == 1
    assert not (tmp_path / "p.wav").exists()
