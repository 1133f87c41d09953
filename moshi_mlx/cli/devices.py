"""Audio devices: list them, test them, choose the ones that `chat` uses.

moshi-mlx devices                                   the list
moshi-mlx devices --input macbook --output airpods  choose, by number or a part of the name; remembered
moshi-mlx devices --test                            record 3 s with a live bar, play a chime, measure the round trip
moshi-mlx devices --forget                          back to the system's defaults
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .options import UsageError
from .settings import Settings, read_settings, settings_file, write_settings

if TYPE_CHECKING:
    from ..realtime import DeviceInfo, Statistics
    from .soundcheck import Checked

QUIET_DB = -60.0  # a microphone in use in a room is louder
CLIPPED = 0.999


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--input", metavar="NAME", help="choose the microphone: a part of its name, or its number")
    parser.add_argument("--output", metavar="NAME", help="choose the loudspeaker, likewise")
    parser.add_argument("--forget", action="store_true", help="use the system's default devices again")
    parser.add_argument("--test", action="store_true", help="listen 3 s, play a chime, measure how long it takes")
    parser.add_argument("--json", action="store_true", help="the list, or the test's result, as JSON")


def run(args: argparse.Namespace) -> int:
    """Chooses, then tests or lists."""
    from ..realtime import list_devices
    from ..realtime.listing import choose_device

    if args.forget and (args.input or args.output):
        raise UsageError("--forget goes without --input and --output")
    path = settings_file()
    settings = Settings() if args.forget else read_settings(path)
    devices = list_devices()
    chosen = {
        kind: choose_device(devices, wanted, kind).name if (wanted := getattr(args, kind)) else getattr(settings, kind)
        for kind in ("input", "output")
    }
    for kind, name in chosen.items():
        wanted = getattr(args, kind) or ""
        if wanted.isdecimal() and choose_device(devices, name, kind).number != int(wanted):
            print(
                f"several are called {name}, and the first of them will be used: chat --{kind} {wanted}",
                file=sys.stderr,
            )
    if args.forget or args.input or args.output:
        settings = Settings(**chosen)
        write_settings(path, settings)
        print(f"remembered in {path}", file=sys.stderr)
    if args.test:
        return _test(devices, settings, args.json)
    if args.json:
        print(json.dumps({"devices": [asdict(one) for one in devices], "chosen": asdict(settings)}, indent=1))
    else:
        _print(devices, settings)
    return 0


def available(devices: list[DeviceInfo], settings: Settings) -> dict[str, str | None]:
    """The remembered names that are there today, by kind; None for the default."""
    from ..realtime.listing import of_kind

    wanted = asdict(settings)
    there = {kind: {one.name for one in of_kind(devices, kind)} for kind in wanted}
    return {kind: name if name in there[kind] else None for kind, name in wanted.items()}


def judge(found: Checked, platform: str, environ: Any) -> list[str]:
    """What a test's result means, and what to do about it, in lines."""
    from .hints import bluetooth_hint, permission_hint

    said = []
    if found.zeros:
        said.append(permission_hint(platform, environ))
    elif found.level < QUIET_DB:
        said.append(f"the microphone is very quiet ({found.level:.0f} dB): speak during the test, or raise its level")
    if found.peak > CLIPPED:
        said.append("the microphone is overdriven: lower its level")
    if hint := bluetooth_hint(found.input_name, found.input_rate):
        said.append(hint)
    if found.round_trip_ms is None:
        said.append("the chime was not heard: headphones, a muted loudspeaker, or a microphone far from it")
    else:
        said.append(f"round trip {found.round_trip_ms:.0f} ms, from handing the chime over to hearing it again")
    if found.underruns:
        said.append(f"{found.underruns} underruns during the test: the machine was busy, test again")
    return said


def _test(devices: list[DeviceInfo], settings: Settings, as_json: bool) -> int:
    from ..realtime import AudioDevice
    from .soundcheck import check

    names = available(devices, settings)
    print("Speak for three seconds; then you should hear a chime.", file=sys.stderr)
    found = check(AudioDevice(names["input"], names["output"]), show=_bar)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    said = judge(found, sys.platform, os.environ)
    if as_json:
        print(json.dumps({**asdict(found), "said": said}, indent=1, ensure_ascii=False))
    else:
        print(f"microphone   {found.input_name}, {found.input_rate} Hz: {found.level:.0f} dB, peak {found.peak:.3f}")
        print(f"loudspeaker  {found.output_name}, {found.output_rate} Hz")
        print("\n".join(said))
    return 1 if found.zeros else 0


def _bar(now: Statistics) -> None:
    """The live level, on its own line of a terminal."""
    if sys.stderr.isatty():
        full = round(30 * min(1.0, max(0.0, 1 + now.input_level / 60)))
        print(f"\r\x1b[K{'█' * full}{'·' * (30 - full)} {now.input_level:4.0f} dB", end="", file=sys.stderr, flush=True)


def _print(devices: list[DeviceInfo], settings: Settings) -> None:
    from rich.table import Table

    from ..realtime.listing import choose_device
    from .console import clean, data_console

    table = Table("", "name", "in", "out", "Hz", "latency ms", "", box=None, pad_edge=False)
    names = available(devices, settings)
    taken = {kind: choose_device(devices, name, kind).number for kind, name in names.items() if name is not None}
    for one in devices:
        marks = [
            f"{'chosen' if names[kind] else 'default'} {kind}"
            for kind, default in (("input", one.default_input), ("output", one.default_output))
            if (taken[kind] == one.number if kind in taken else default)
        ]
        latency = f"{one.input_latency:.0f} / {one.output_latency:.0f}"
        table.add_row(
            str(one.number),
            clean(one.name),
            str(one.inputs),
            str(one.outputs),
            str(one.rate),
            latency,
            ", ".join(marks),
        )
    if devices:
        data_console().print(table)
    else:
        print("no audio devices: connect a microphone and a loudspeaker", file=sys.stderr)
    for kind, name in asdict(settings).items():
        if name and names[kind] is None:
            print(f"the chosen {kind}, {clean(name)}, is not connected: the default is used", file=sys.stderr)
