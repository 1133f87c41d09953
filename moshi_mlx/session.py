"""One conversation: a frame of the user in, a `Reply` out. All that changes is in one `SessionState`.

A frame is built lazily (encode, temporal step, text, depth, decode) and evaluated once, with the whole state; the
host reads once, after it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from .checkpoints import session_file
from .checkpoints.fingerprint import fingerprint
from .checkpoints.load import Moshi
from .frame import FRAME, Codes, MoshiError, Pcm, Reply
from .models.lm import LmState
from .models.mimi import MimiState
from .models.sampling import Sampling, seed_of
from .models.state import leaves

LOUDEST = 1e3  # a sample beyond is none: 1e38 would leave NaN in the codec's keys, as NaN and ±∞ do
PRACTICE = 3  # frames: kernels are built in the first, nothing is new in the third


@dataclass
class SessionState:
    """Everything that changes from frame to frame, changed in place.

    frames: user frames taken. text_token: the newest one, which belongs to frame `frames`. unsaid: its text while no
    reply has carried it (the priming step's). pending: bytes of a character that is not complete. started: some text
    was given out.
    """

    lm: LmState
    mimi: MimiState
    frames: int = 0
    text_token: int = 0
    unsaid: str = ""
    pending: bytes = b""
    started: bool = False


def to_host(array: mx.array) -> NDArray[Any]:
    """The one place where a frame leaves the device."""
    return np.array(array)


class Session:
    """A conversation with a model. Many sessions can share one model; each is stepped on the thread that made it."""

    def __init__(
        self, moshi: Moshi, seed: int | None = None, sampling: Sampling | None = None, kv_bits: int | None = None
    ) -> None:
        """Primes the model with one all-initial step.

        seed: replays a conversation; None: entropy. sampling: None is what the model's file wishes, else the
        reference's default. kv_bits: 8 keeps the
        temporal keys and values in 8 bits, None in the model's dtype.
        """
        self.moshi, self.kv_bits = moshi, kv_bits
        self.sampling = sampling or Sampling(**moshi.config.sampling)
        self.seed = secrets.randbits(32) if seed is None else seed_of(seed)
        self._condition = moshi.lm.best_condition()
        self.reset()

    def reset(self) -> None:
        """As new, seeded alike."""
        self.state = self._empty()
        config = self.moshi.config.lm
        initial = mx.array([config.initial[1 + config.dep_q :]], mx.int32)
        self.state.unsaid = self._text(int(self._finish(self._sample(initial))[0]))

    def warm_up(self, progress: Callable[[float], None] = lambda done: None) -> None:
        """Builds all that any later frame needs, then starts anew. Tells the fraction done."""
        ring, user = self.state.lm.transformer, mx.zeros((1, self.moshi.config.lm.user_q), mx.int32)
        turns = ring.turns()
        for done in range(PRACTICE):
            self.step(np.zeros(FRAME, np.float32))
            progress((done + 1) / (PRACTICE + len(turns)))
        for done, offset in enumerate(turns):
            ring.offset = offset  # as if so many frames had passed
            mx.eval(self._sample(user), *leaves(self.state.lm))  # Metal builds a kernel when it first runs
            progress((PRACTICE + done + 1) / (PRACTICE + len(turns)))
        self.reset()

    def step(self, pcm: Pcm) -> Reply:
        """One user frame, float32 (1920,) in [−1, 1] → Moshi's frame (see `frame.Reply`). A sample that is no
        number counts as silence.
        """
        given = np.asarray(pcm)
        if given.shape != (FRAME,):
            raise MoshiError(f"a frame is {FRAME} samples, not an array of shape {given.shape}")
        if given.dtype.kind != "f":
            raise MoshiError(f"samples are float32 in [−1, 1], not {given.dtype}; divide int16 by 32768")
        sound = mx.array(np.where(np.abs(given) < LOUDEST, given, 0).astype(np.float32)).reshape(1, FRAME, 1)
        codes = self.moshi.mimi.encode_frames(sound, self.state.mimi.encoder)
        return self._reply(codes[:, : self.moshi.config.lm.user_q, 0])

    def end(self) -> Reply:
        """A frame that says that the user's sound is over, instead of sound: Hibiki then translates what is left and
        samples EOS.
        """
        lm = self.moshi.config.lm
        return self._reply(mx.full((1, lm.user_q), lm.card, mx.int32))

    def reply_to(self, user_codes: NDArray[Any] | mx.array, sound: bool = True) -> Reply:
        """A frame of the user as codes, (user_q,), any integer dtype. sound: False leaves Moshi's undecoded: zeros."""
        lm = self.moshi.config.lm
        codes = np.asarray(user_codes)
        whole = codes.shape == (lm.user_q,) and codes.dtype.kind in "iu"
        if not whole or ((codes < 0) | (codes > lm.card)).any():
            raise MoshiError(
                f"user codes are {lm.user_q} whole numbers from 0 to {lm.card}, not {codes.dtype} {codes.shape}"
            )
        return self._reply(mx.array(codes.astype(np.int32))[None], sound)

    def step_codes(self, user_codes: NDArray[Any] | mx.array) -> tuple[int, Codes | None]:
        """A frame without the codec: the user's codes → text token and Moshi's codes (dep_q,), None while the delays
        have not filled.
        """
        reply = self.reply_to(user_codes, sound=False)
        return reply.text_token, reply.codes

    def _reply(self, user: mx.array, sound: bool = True) -> Reply:
        """One frame, of the user's codes (1, user_q)."""
        lm, mimi = self.moshi.config.lm, self.moshi.mimi
        sampled = self._sample(user)
        own = self.state.lm.columns.complete(lm)
        parts = [sampled, own, user]
        speaks = self.state.frames + 1 >= lm.max_delay  # whether this step completes a frame of Moshi's
        if speaks and sound:
            parts.append(mimi.decode_frames(own[..., None], self.state.mimi.decoder)[..., 0])
        host = self._finish(*parts)
        token, ends = int(host[0]), np.cumsum([1 + lm.dep_q, lm.dep_q, lm.user_q])
        codes, users = host[ends[0] : ends[1]].astype(np.int32), host[ends[1] : ends[2]].astype(np.int32)
        out = host[ends[2] :] if speaks and sound else np.zeros(FRAME, np.float32)
        self.state.frames += 1
        return Reply(self.state.frames - 1, out, self._text(token), token, codes if speaks else None, users)

    def save(self, path: str | Path) -> None:
        """Writes the conversation's state to a safetensors file, beside it first, then renamed."""
        kept = {"seed": self.seed, "kv_bits": self.kv_bits, "sampling": asdict(self.sampling)}
        session_file.write(Path(path), self.state, {"model": fingerprint(self.moshi), **kept})

    @classmethod
    def restore(cls, moshi: Moshi, path: str | Path) -> Session:
        """The session that `save` wrote, with the model it was saved with. Raises MoshiError for any other file."""
        path, session = Path(path), cls.__new__(cls)
        with session_file.reading(path) as head:
            session.moshi, session.seed, session.kv_bits = moshi, seed_of(head["seed"]), head["kv_bits"]
            session.sampling = Sampling(**head["sampling"])
            if head["model"] != fingerprint(moshi):
                raise ValueError("another model")
            session._condition = moshi.lm.best_condition()
            session.state = session._empty()
            session_file.fill(session.state, path, head["plain"])
            session_file.check(session.state, session._empty(), moshi.config.lm)
        return session

    def _empty(self) -> SessionState:
        recent = self.sampling.repetition_context if self.sampling.repetition_penalty != 1 else 1
        lm = self.moshi.lm.make_state(self.seed, recent=recent, kv_bits=self.kv_bits)
        return SessionState(lm, self.moshi.mimi.make_state())

    def _sample(self, user: mx.array) -> mx.array:
        return self.moshi.lm.step(user, self.state.lm, self.sampling, self._condition)

    def _finish(self, *parts: mx.array) -> NDArray[Any]:
        """Evaluates the frame and the whole state at once and reads the parts as one float32 row (tokens stay exact
        below 2²⁴).
        """
        packed = mx.concatenate([part.reshape(-1).astype(mx.float32) for part in parts])
        mx.eval(packed, *leaves(self.state))
        return to_host(packed)

    def _text(self, token: int) -> str:
        """The text that a new token completes, with what was unsaid before it."""
        state = self.state
        state.text_token = token
        text, state.pending = self.moshi.tokenizer.add(token, state.pending)
        text, state.unsaid = state.unsaid + text, ""
        if text and not state.started:
            state.started, text = True, text.removeprefix(" ")
        return text
