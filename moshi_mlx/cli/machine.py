"""Will a checkpoint run on a machine, and which is the best that does? Arithmetic on bytes; nothing is measured here.

A frame reads all weights, the codec's too, but of the embedding tables a row each, and the keys and values of its
window. Those bytes, divided by the memory bandwidth, are the least time that it can take; the rest of the 80 ms is for
dispatch and sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..frame import FRAME_MS

SPARE_BYTES = 1 << 30  # a frame's temporaries and MLX's cache, as `models/memory.py` reserves them
SHARE = 0.8  # of a frame that memory traffic may take
GB = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """memory, working_set: bytes there are, and bytes that the GPU may use. bandwidth: bytes a second, of a copy.

    gpu: the one that MLX runs on, Apple's or with CUDA; without one, "", the arithmetic of bytes says nothing.
    """

    memory: int
    working_set: int
    bandwidth: float
    gpu: str = "GPU"


@dataclass(frozen=True, slots=True)
class Needs:
    """What one checkpoint needs: bytes of its weights and of its codec, bytes a frame reads at the start, bytes of the
    keys and values of a full window in the model's dtype and in 8 bits (None: cannot be). rank: better ones are higher.
    """

    name: str
    rank: float
    weights: int
    codec: int
    frame: int
    window: int
    window_8: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """A checkpoint on a machine. ms and bytes a frame at the start and with a full window; memory: bytes in all.

    grade: "runs", "too large", "too slow" or "no GPU"; problem: the figure that says why, "" if it runs.
    """

    name: str
    kv_bits: int | None
    bytes_start: int
    bytes_full: int
    ms_start: float
    ms_full: float
    memory: int
    grade: str
    problem: str


def forecast(machine: Machine, needs: Needs, kv_bits: int | None = None) -> Forecast:
    """What to expect. kv_bits 8: keys and values in 8 bits."""
    window = needs.window if kv_bits is None or needs.window_8 is None else needs.window_8
    full = needs.frame + window
    memory = needs.weights + needs.codec + window + SPARE_BYTES
    ms_start, ms_full = (1000 * count / machine.bandwidth for count in (needs.frame, full))
    grade, problem = "runs", ""
    if not machine.gpu:
        grade, problem = "no GPU", "needs a GPU"
    elif memory > machine.working_set:
        grade = "too large"
        problem = f"needs {memory / GB:.1f} GB, but only {machine.working_set / GB:.1f} GB can be used"
    elif ms_full > SHARE * FRAME_MS:
        grade = "too slow"
        problem = (
            f"reads {full / GB:.1f} GB a frame with a full window, {ms_full:.1f} ms at {machine.bandwidth / GB:.0f} "
            f"GB/s, but only {SHARE * FRAME_MS:.0f} of {FRAME_MS:.0f} ms are there for that"
        )
    return Forecast(needs.name, kv_bits, needs.frame, full, ms_start, ms_full, memory, grade, problem)


def forecasts(machine: Machine, known: Sequence[Needs]) -> list[Forecast]:
    """Each checkpoint, with keys and values in 8 bits where only that helps."""
    result = []
    for needs in known:
        plain = forecast(machine, needs)
        small = forecast(machine, needs, 8) if needs.window_8 is not None else plain
        result.append(small if plain.problem and not small.problem else plain)
    return result


def choose(machine: Machine, known: Sequence[Needs]) -> Forecast | None:
    """The best checkpoint that runs in real time; None if none does."""
    rank = {needs.name: needs.rank for needs in known}
    able = [one for one in forecasts(machine, known) if not one.problem]
    return max(able, key=lambda one: rank[one.name]) if able else None


def verdict(machine: Machine, known: Sequence[Needs]) -> str:
    """One sentence or two for a person."""
    if not machine.gpu:
        return "No GPU that MLX runs on here: the embedded demonstration runs, Moshi 7B does not in real time."
    best = choose(machine, known)
    if best is not None:
        kv = f" --kv-bits {best.kv_bits}" if best.kv_bits else ""
        return (
            f"Take {best.name}: {best.memory / GB:.1f} of {machine.working_set / GB:.1f} GB, and memory traffic alone "
            f"takes {best.ms_start:.0f} ms a frame at the start, {best.ms_full:.0f} of {FRAME_MS:.0f} with a full "
            f"window (predicted, not measured). `moshi-mlx chat --model {best.name}{kv}`"
        )
    least = min(known, key=lambda needs: needs.weights)
    closest = forecast(machine, least, 8)
    return (
        f"Moshi 7B does not run in real time here: even {closest.name} with keys and values in 8 bits "
        f"{closest.problem}. The embedded demonstration does."
    )
