"""The model as the live loop gets it: loaded, warmed up and stepped on one thread, the engine's.

A `SessionFactory` is a `StepperFactory` (see `frame.py`). Only numbers and texts leave that thread, as `Facts` and
`Memory`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..frame import MoshiError
from .options import check_hears, keep_resident, sampling_from

if TYPE_CHECKING:
    from ..checkpoints.load import Moshi
    from ..session import Session

Progress = Callable[[str, float | None], None]
PORTION = 64 << 20  # bytes of weights read before the progress is told


@dataclass(frozen=True, slots=True)
class Facts:
    """What the screen says of a model. context: frames it looks back on, 0 for all. lead: frames by which a text comes
    before its sound.
    """

    label: str
    context: int
    seed: int
    lead: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: in use, kept for reuse, the most that was in use."""

    active: int
    cache: int
    peak: int

    def __str__(self) -> str:
        unit, name = (1e9, "GB") if self.peak >= 1e9 else (1e6, "MB")
        return f"{self.active / unit:.1f} {name} (cache {self.cache / unit:.1f}, peak {self.peak / unit:.1f})"


class SessionFactory:
    """Makes one Session from the options of `options.add_model` and `options.add_sampling`.

    on_ready: called with the session before it is warmed up, on the thread that steps it; what takes long there tells
    the progress.
    """

    on_ready: Callable[[Session, Progress], None] | None = None

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args

    def __call__(self, progress: Progress) -> Session:
        """Loads, warms up, makes the session."""
        progress("self-test", None)
        from ..session import Session
        from .kernels import complain, kernel_errors

        if problem := complain(kernel_errors()):
            raise MoshiError(problem)
        args = self._args
        moshi = _load(args.model, args.offline, progress)
        check_hears(moshi)
        session = Session(moshi, args.seed, sampling_from(args, moshi.config.sampling), args.kv_bits)
        keep_resident(session)
        if self.on_ready is not None:
            self.on_ready(session, progress)
        session.warm_up(lambda done: progress("warm up", done))  # last: a GPU that rests for seconds starts slowly
        return session


def facts_of(session: Session) -> Facts:
    """The facts of a session."""
    lm = session.moshi.config.lm
    return Facts(session.moshi.located.label, lm.transformer.context or 0, session.seed, max(1, lm.max_delay))


def _load(source: str | Path | None, offline: bool, progress: Progress) -> Moshi:
    """As `moshi_mlx.load`, in portions, so that a person sees it go on."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from ..checkpoints.load import load

    progress("load", 0.0)
    moshi = load(source, lazy=True, offline=offline)
    trees = tree_flatten([moshi.lm.parameters(), moshi.mimi.parameters()])
    weights = [value for _, value in cast(list[tuple[str, mx.array]], trees)]
    total, done, told = sum(value.nbytes for value in weights), 0, 0
    for value in weights:
        mx.eval(value)
        done += value.nbytes
        if done - told >= PORTION or done == total:
            told = done
            progress("load", done / total)
    return moshi


def memory() -> Memory:
    """What MLX holds now; to be called on the thread that steps."""
    import mlx.core as mx

    return Memory(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())
