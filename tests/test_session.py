"""The session: one frame in, one reply out, all state in one place. What a frame costs is in test_speed.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from conftest import Arrays
from session_kit import talk

import moshi_mlx
from moshi_mlx import FRAME, MoshiError, Sampling, Session
from moshi_mlx.checkpoints.load import Moshi
from moshi_mlx.models.state import leaves

GREEDY = Sampling(text_temperature=0, audio_temperature=0)


def test_codes_are_the_reference_runner(moshi: Moshi, arrays: Callable[[str], Arrays]) -> None:
    """The session primes with one all-initial step; without it every user frame is read 80 ms early."""
    want = arrays("moshi")
    session = Session(moshi, sampling=GREEDY)
    said = [session.step_codes(codes) for codes in want["live_user"].T]
    assert [token for token, _ in said] == want["live_text"][1:].tolist()
    assert np.array_equal(np.stack([codes for _, codes in said], axis=1), want["live_frames"])


@pytest.mark.parametrize(("name", "late"), [("moshi", 0), ("grouped", 2), ("own", 0)])
def test_a_frame_is_codec_and_codes(load: Callable, pcm: np.ndarray, name: str, late: int) -> None:
    """`step` = encode, `step_codes`, decode; with a delay of d, sound begins with frame d − 1 and is silence before."""
    moshi = load(name)
    whole, parts = Session(moshi, sampling=GREEDY), Session(moshi, sampling=GREEDY)
    stream = moshi.mimi.make_state()
    for index, frame in enumerate(pcm):
        reply = whole.step(frame)
        heard = np.array(moshi.mimi.encode(frame.reshape(1, -1, 1), stream))[0, : moshi.lm.config.user_q, 0]
        token, codes = parts.step_codes(heard)
        assert (reply.frame, reply.text_token) == (index, token)
        assert np.array_equal(reply.user_codes, heard)
        assert reply.user_codes.dtype == np.int32
        assert reply.pcm.shape == (FRAME,)
        assert reply.pcm.dtype == np.float32
        if index < late:
            assert reply.codes is None
            assert codes is None
            assert not reply.pcm.any()
        else:
            assert np.array_equal(reply.codes, codes)
            sound = moshi.mimi.decode(np.array(codes).reshape(1, -1, 1), stream) if _whole(moshi) else None
            assert sound is None or np.abs(np.array(sound).reshape(-1) - reply.pcm).max() < 1e-6


def test_a_frame_may_come_as_codes(moshi: Moshi, pcm: np.ndarray) -> None:
    """A replay had a second tokenizer loop, which did not drop the space before the first word after a reset."""
    whole, coded, silent = (Session(moshi, sampling=GREEDY) for _ in range(3))
    for frame in pcm:
        want = whole.step(frame)
        got, quiet = coded.reply_to(want.user_codes), silent.reply_to(want.user_codes, sound=False)
        assert np.array_equal(got.pcm, want.pcm)
        assert not quiet.pcm.any()
        for reply in (got, quiet):
            assert (reply.frame, reply.text, reply.text_token) == (want.frame, want.text, want.text_token)
            assert np.array_equal(reply.codes, want.codes)
            assert np.array_equal(reply.user_codes, want.user_codes)


def _whole(moshi: Moshi) -> bool:
    """Whether the codec has as many codebooks as Moshi speaks."""
    return moshi.mimi.config.codebooks == moshi.lm.config.dep_q


def test_two_sessions_and_offline_calls_do_not_meet(moshi: Moshi, pcm: np.ndarray) -> None:
    """Upstream keeps caches in the model: one model is one conversation, and encoding a file wrecks it."""
    alone = talk(Session(moshi, seed=1), pcm)
    first, second, said = Session(moshi, seed=1), Session(moshi, seed=2), []
    for index, frame in enumerate(pcm):
        said += talk(first, frame[None])
        second.step(pcm[-1 - index])
        moshi.mimi.decode(moshi.mimi.encode(pcm[:3].reshape(1, -1, 1)))
        moshi.lm.logits(np.zeros((1, 17, 3), np.int32))
        mx.random.seed(index)
    assert said == alone


def test_seed_replays_and_reset_is_new(moshi: Moshi, pcm: np.ndarray) -> None:
    """Upstream has two resets, neither complete: the next conversation inherits padding, tails and positions."""
    session = Session(moshi, seed=5)
    said = talk(session, pcm)
    session.reset()
    assert talk(session, pcm) == said
    assert talk(Session(moshi, seed=5), pcm) == said
    assert talk(Session(moshi, seed=6), pcm) != said
    assert Session(moshi).seed != Session(moshi).seed


def test_memory_is_flat_for_ever(load: Callable) -> None:
    """History as a growing array died at 4,005 steps; a ring that someone else holds is copied every frame."""
    session = Session(load("grouped"), seed=1)
    sound = np.random.default_rng(0).standard_normal((7, FRAME)).astype(np.float32) * 0.1
    for n in range(40):
        session.step(sound[n % 7])
    shapes = [leaf.shape for leaf in leaves(session.state)]
    active, peaks = mx.get_active_memory(), []
    assert active > 0
    for n in range(2960):
        mx.reset_peak_memory()
        session.step(sound[n % 7])
        peaks.append(mx.get_peak_memory())
    assert session.state.frames == 3000
    assert mx.get_active_memory() <= active + 4096
    # Which buffers live at once hangs on MLX's threads, and with it a frame's peak, by up to 85 kB; what grows with the
    # frames lifts the lowest peaks too. A history of 68 bytes a frame is 190 kB.
    assert np.quantile(peaks[-200:], 0.1) <= max(peaks[:200]) + 85_000
    assert [leaf.shape for leaf in leaves(session.state)] == shapes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e38])
def test_silence_for_what_is_no_number(moshi: Moshi, pcm: np.ndarray, value: float) -> None:
    """One NaN from a sound card would stay in keys and values for ever, and so does what 1e38 makes there."""
    broken, quiet = pcm[0].copy(), pcm[0].copy()
    broken[100:200], quiet[100:200] = value, 0
    got, want = (talk(Session(moshi, seed=1), np.stack([first, *pcm[1:4]])) for first in (broken, quiet))
    assert got == want


def test_the_end_of_the_users_sound(moshi: Moshi, pcm: np.ndarray) -> None:
    """It is a frame of the language model's, of tokens that no sound has; the codec does not hear it."""
    session, codes, plain = (Session(moshi, seed=1) for _ in range(3))
    talk(plain, pcm[:2])
    talk(session, pcm[:2])
    for reply in (session.end(), session.step(pcm[2])):
        last = reply
    assert np.array_equal(last.user_codes, plain.step(pcm[2]).user_codes)
    heard = [Session(moshi, seed=1).step(pcm[0]).user_codes]
    said = [codes.step_codes(column) for column in (heard[0], np.full(8, moshi.config.lm.card))]
    session.reset()
    replies = [session.step(pcm[0]), session.end()]
    assert [reply.text_token for reply in replies] == [token for token, _ in said]
    assert np.array_equal(replies[1].codes, said[1][1])
    assert replies[1].pcm.any()


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.step(np.zeros(FRAME - 1, np.float32)),
        lambda s: s.step(np.zeros((1, FRAME), np.float32)),
        lambda s: s.step(np.full(FRAME, 20_000, np.int16)),
        lambda s: s.step_codes(np.zeros(7, np.int32)),
        lambda s: s.step_codes(np.zeros(8, np.float32)),
        lambda s: s.step_codes(np.full(8, 33)),
        lambda s: s.step_codes(np.full(8, -1)),
    ],
)
def test_bad_frames_change_nothing(moshi: Moshi, pcm: np.ndarray, call: Callable[[Session], object]) -> None:
    """A refused frame must not have moved half of the state."""
    session = Session(moshi, seed=1)
    talk(session, pcm[:3])
    with pytest.raises(MoshiError):
        call(session)
    clean = Session(moshi, seed=1)
    talk(clean, pcm[:3])
    assert talk(session, pcm[3:6]) == talk(clean, pcm[3:6])


def test_text_is_joined_pieces(load: Callable, arrays: Callable[[str], Arrays]) -> None:
    """Decoding single ids loses the spaces; ids 0 to 3 are never shown; the text begins without a space."""
    want, moshi = arrays("moshi"), load("moshi")
    session = Session(moshi, sampling=GREEDY)
    text = session.state.unsaid
    session.reset()
    replies = []
    for token in want["live_text"][1:]:
        replies.append(session._text(int(token)))
    pieces = [moshi.tokenizer.model.id_to_piece(int(t)).replace("▁", " ") for t in want["live_text"] if t > 3]
    assert text in "".join(replies)
    assert "".join(replies) == "".join(pieces).removeprefix(" ")


def test_delays_come_from_the_config(load: Callable) -> None:
    """Moshi's acoustic delay is 1, Hibiki's 2; a constant works for one of them."""
    moshi = load("moshi")
    silence = np.zeros(8, np.int32)
    for delay, first in ((0, 0), (1, 0), (2, 1), (5, 4)):
        delays = (0, 0, *[delay] * 7, 0, *[delay] * 7)
        config = replace(moshi.config, lm=replace(moshi.config.lm, delays=delays))
        lm = type(moshi.lm)(config.lm)
        lm.update(moshi.lm.parameters())
        session = moshi_mlx.Session(replace(moshi, config=config, lm=lm), seed=0)
        spoken = [session.step_codes(silence)[1] is not None for _ in range(8)]
        assert spoken.index(True) == first
        assert all(spoken[first:])
