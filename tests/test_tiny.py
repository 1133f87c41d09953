"""The embedded model `weights/tiny`: it answers, and it is the same model in PyTorch and here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
TINY, DEMO = ROOT / "weights" / "tiny", ROOT / "weights" / "demo"
FRAME = 1920


@pytest.fixture(scope="module")
def said() -> dict[str, np.ndarray]:
    """What PyTorch `moshi` 0.2.13 hears and says, greedily and in float32 (tools/train_tiny fixture)."""
    return dict(np.load(ROOT / "tests" / "fixtures" / "tiny.npz"))


@pytest.fixture(scope="module")
def session() -> object:
    """A greedy session in float32."""
    import mlx.core as mx

    import moshi_mlx

    greedy = moshi_mlx.Sampling(text_temperature=0, audio_temperature=0)
    return moshi_mlx.Session(moshi_mlx.load(TINY, dtype=mx.float32), seed=0, sampling=greedy)


def user(name: str) -> np.ndarray:
    """A demonstration user in whole frames, (frames, 1920)."""
    wave, rate = soundfile.read(DEMO / f"{name}.wav", dtype="float32")
    assert rate == 24000
    return wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)


def test_greedy_tokens_are_the_references(session: object, said: dict[str, np.ndarray]) -> None:
    """Guards the whole published layout: a misread config key, a transposed matrix or a wrong delay changes tokens."""
    session.reset()
    text, codes = [session.state.text_token], []
    for column in said["user"].T:
        token, frame = session.step_codes(column)
        text.append(token)
        codes.append(frame)
    frames = said["text"].shape[0]
    assert text[:frames] == said["text"].tolist()
    assert np.array_equal(np.stack(codes[:frames]).T, said["codes"][:, : len(codes)])


def test_the_codec_hears_what_the_references_codec_hears(session: object, said: dict[str, np.ndarray]) -> None:
    """Guards the tiny Mimi's own configuration (widths, window, codebooks): a default of the big one would not fail,
    but hear other codes."""
    wave = user("greeting").reshape(1, -1, 1)
    codes = np.array(session.moshi.mimi.encode(wave))[0]
    assert (codes[:, : said["user"].shape[1]] == said["user"]).mean() > 0.98  # a near-tie now and then


def test_the_codec_sounds_as_the_references_codec_sounds(session: object, said: dict[str, np.ndarray]) -> None:
    """Noise that was loud enough passed for a voice."""
    first = int(np.flatnonzero(said["text"] > 3)[0])
    wanted = said["sound"] / 32767
    codes = said["codes"][None, :, : first + len(wanted) // FRAME].astype(np.int32)
    sound = np.array(session.moshi.mimi.decode(codes)).reshape(-1)[-len(wanted) :]
    assert np.sqrt(np.mean(wanted**2)) > 0.02
    assert np.abs(sound - wanted).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("greeting", ("Hello, I am Moshi.", "Both of us may speak at once.", "You are welcome.")),
        ("interruption", ("Why did the robot", "The capital is Tokyo.", "Goodbye, see you soon.")),
        ("story", ("Mm-hm.", "Sorry, I did not understand.", "I answer simple questions.")),
    ],
)
def test_the_demonstrations_are_answered(session: object, name: str, answers: tuple[str, ...]) -> None:
    """A model that loads and answers nothing, or the wrong thing, passed every other test."""
    session.reset()
    text, loud = "", 0
    for frame in user(name):
        reply = session.step(frame)
        text += reply.text
        loud += float(np.sqrt(np.mean(reply.pcm**2))) > 0.01
    position = 0
    for answer in answers:
        assert answer in text[position:], text
        position = text.index(answer, position) + len(answer)
    assert loud > 10 * len(answers) // 2


def test_it_stays_silent_in_noise(session: object) -> None:
    """The feasibility study's model talked to a hiss of 2e-3."""
    session.reset()
    draw = np.random.default_rng(0)
    for level in (0.0, 1e-3, 1e-2):
        for _ in range(25):
            assert session.step((level * draw.standard_normal(FRAME)).astype(np.float32)).text == ""


def test_it_is_small_enough_to_be_embedded() -> None:
    """The checkpoint travels in the repository and in the wheel."""
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 20_000_000
