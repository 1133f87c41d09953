"""Will Moshi run on this machine, and with which checkpoint? Works without a model, a microphone or a network.

Checks MLX's kernels against NumPy, measures the memory bandwidth, predicts what a frame of each known checkpoint costs,
and looks for disk space, sound devices, the microphone's permission and weights that are here already.

  moshi-mlx doctor
  moshi-mlx doctor --json > doctor.json      what we ask owners of Macs to send
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import cache
from typing import Any

from ..checkpoints.known import KNOWN, Known
from ..frame import FRAME_MS
from .machine import GB, Forecast, Machine, Needs, choose, forecasts, verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--no-sound", action="store_true", help="leave devices and microphone alone")
    parser.add_argument("--json", action="store_true", help="everything found, as JSON")


def run(args: argparse.Namespace) -> int:
    """Looks at everything, then says what follows. Status 1 if MLX gives wrong results here."""
    from rich.console import Console

    from . import examine

    with Console(stderr=True).status("looking at this machine …"):
        kernels = examine.kernels()
        machine = examine.machine()
        found: dict[str, Any] = {
            "versions": examine.versions(),
            "system": examine.system(),
            "kernels": kernels,
            "machine": asdict(machine),
            "checkpoints": [asdict(one) for one in forecasts(machine, needs())],
            "weights": examine.weights(),
            "disk": examine.disk(),
            "sound": {"skipped": True} if args.no_sound else examine.sound(),
        }
        chosen = best(machine) if kernels["right"] else None
        found["verdict"] = {
            "checkpoint": chosen.name if chosen else None,
            "kv_bits": chosen.kv_bits if chosen else None,
            "why": kernels["problem"] or verdict(machine, _moshi()),
        }
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _print(found)
    return 0 if kernels["right"] else 1


@cache
def needs() -> tuple[Needs, ...]:
    """What each known checkpoint that converses needs."""
    return tuple(one for known in KNOWN if (one := needs_of(known)) is not None)


def best(machine: Machine) -> Forecast | None:
    """The best Moshi that talks in real time on a machine; None if none does."""
    return choose(machine, _moshi())


def _moshi() -> list[Needs]:
    """Those between which the verdict chooses; the other voice needs the same."""
    return [one for one in needs() if one.name.startswith("moshiko")]


def needs_of(known: Known) -> Needs | None:
    """Counted from the shapes of the published model, no weight is made; None for one that does not converse."""
    from ..models.memory import nbytes
    from ..models.published import PUBLISHED
    from ..quantization.formats import kv_bytes
    from .bench_count import frame_bytes
    from .bench_random import random_moshi

    if not known.alias.startswith(tuple(PUBLISHED)):
        return None
    moshi = random_moshi(known.alias, lazy=True)
    read = frame_bytes(moshi)
    return Needs(
        name=known.alias,
        rank=known.bits,
        weights=nbytes(moshi.lm.parameters()),
        codec=nbytes(moshi.mimi.parameters()),
        frame=sum(read.values()),
        window=kv_bytes(moshi.config.lm, None),
        window_8=kv_bytes(moshi.config.lm, 8) or None,
    )


def _print(found: dict[str, Any]) -> None:
    """For a person: one line a finding, a table, the verdict last."""
    from rich.table import Table

    from .console import clean, data_console

    console = data_console()
    system, machine, sound = found["system"], found["machine"], found["sound"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    errors = ", ".join(f"{name} {error:.2%}" for name, error in found["kernels"]["errors"].items())
    lines = {
        "machine": f"{system['chip']}, {machine['memory'] / 2**30:.0f} GB, {system['os']}",
        "versions": versions,
        "kernels": f"{'right' if found['kernels']['right'] else 'WRONG'} (largest errors: {errors})",
        "memory": f"{machine['working_set'] / GB:.1f} GB for {machine['gpu'] or 'MLX, which runs on the processor'}",
        "bandwidth": f"{machine['bandwidth'] / GB:.1f} GB/s, measured by copying",
        "disk": f"{found['disk']['free'] / GB:.0f} GB free in {found['disk']['folder']}",
        "weights": ", ".join(found["weights"]) or "none but the embedded demonstration",
        "sound": "not looked at" if sound.get("skipped") else clean(sound["said"]),
    }
    for name, line in lines.items():
        console.print(f"{name:<10} {line}", soft_wrap=True)
    table = Table("", "GB", "GB a frame", "ms a frame", "", box=None, pad_edge=False)
    for one in found["checkpoints"]:
        table.add_row(
            one["name"] + (" (kv 8 bit)" if one["kv_bits"] else ""),
            f"{one['memory'] / GB:.1f}",
            f"{one['bytes_start'] / GB:.2f} to {one['bytes_full'] / GB:.2f}",
            f"{one['ms_start']:.0f} to {one['ms_full']:.0f}" if machine["gpu"] else "–",
            one["grade"],
        )
    console.print(
        f"\nPredicted from memory traffic alone, from the start to a full window; a frame has {FRAME_MS:.0f} ms:"
    )
    console.print(table)
    for one in found["checkpoints"] if machine["gpu"] else ():
        if one["problem"]:
            console.print(f"{one['name']} {one['problem']}", soft_wrap=True)
    console.print(f"\n{found['verdict']['why']}", soft_wrap=True)
