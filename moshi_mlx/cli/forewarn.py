"""Whether a real model talks on this machine, said before its gigabytes are fetched. `doctor` knows; this asks it."""

from __future__ import annotations

import sys
from pathlib import Path


def forewarn(source: str | Path | None, *, offline: bool = False, kv_bits: int | None = None) -> None:
    """A line on stderr if `source` is a known model that would be fetched now and cannot talk here in real time."""
    from ..checkpoints.known import KNOWN
    from ..checkpoints.locate import address_of, on_disk
    from . import examine

    address = address_of(source) if source is not None else None
    known = next((one for one in KNOWN if address is not None and one.repo == address.repo), None)
    if offline or known is None or on_disk(str(source)):
        return
    from .doctor import needs_of
    from .machine import forecast

    needs = needs_of(known)
    if needs is None:
        return
    here = examine.machine(processor=False)
    if problem := forecast(here, needs, kv_bits).problem:
        eased = kv_bits is None and not forecast(here, needs, 8).problem
        remedy = "with --kv-bits 8 it does talk" if eased else "it will not talk in real time"
        print(f"moshi-mlx: note: {known.alias} {problem}: {remedy} here; see `moshi-mlx doctor`", file=sys.stderr)


def real_model(command: str) -> str:
    """A sentence for who hears the demonstration: the command that gets the best real model for this machine."""
    from ..checkpoints.known import BY_ALIAS
    from ..models.memory import gpu_name

    best = None
    if gpu_name():
        from . import doctor, examine

        best = doctor.best(examine.machine())
    if best is None:
        return "The real one will not talk in real time on this machine: `moshi-mlx doctor` says why."
    size = BY_ALIAS[best.name].gigabytes + BY_ALIAS["mimi"].gigabytes
    keys = f" --kv-bits {best.kv_bits}" if best.kv_bits else ""
    return f"The real one: `moshi-mlx {command} --model {best.name}{keys}` (a download of {size:.1f} GB, once)."
