"""What `chat` is asked for, checked before anything is loaded: options that belong together, devices, files."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from .options import UsageError, check_new, check_sampling, replaceable

if TYPE_CHECKING:
    from ..realtime.device import Device

FILE_TAIL = 4.0  # seconds of silence after a file, in which Moshi answers


def check(args: argparse.Namespace) -> None:
    """Refuses what cannot work before anything is loaded."""
    if args.device is not None and not args.device.startswith("file:"):
        raise UsageError("--device takes file:IN.wav,OUT.wav; a sound device is named with --input and --output")
    if args.device is not None and (args.input or args.output):
        raise UsageError("--device replaces the sound devices; leave --input and --output out")
    if args.echo == "cancel" and not cancels():
        from ..realtime.echo import how_to_get

        raise UsageError(f"--echo cancel needs livekit: {how_to_get()}, or use --echo duck")
    if args.record is not None:
        check_new(args.record, " for --record")
    if args.stats is not None and not replaceable(args.stats):
        raise UsageError(f"{args.stats} cannot be written; name a file in a folder that exists for --stats")
    files = named(args.device) if args.device is not None else []
    if args.stats is not None and args.stats.resolve() in [file.resolve() for file in files]:
        raise UsageError(f"--stats would overwrite {args.stats}; give it a name of its own")
    if args.latency not in ("low", "high") and not (args.latency.isdecimal() and 1 <= int(args.latency) <= 1000):
        raise UsageError("--latency takes low, high, or 1 to 1000 milliseconds")
    check_sampling(args)


def cancels() -> bool:
    """Whether the echo canceller is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec("livekit.rtc") is not None
    return False


def device_of(args: argparse.Namespace) -> Device:
    """The sound devices, or the files, that the options ask for."""
    from ..realtime import AudioDevice, FileDevice, list_devices
    from ..realtime.listing import choose_device
    from .devices import available
    from .settings import read_settings, settings_file

    if args.device is not None:
        return FileDevice(*_files(args.device), realtime=True, tail=FILE_TAIL)
    devices = list_devices()
    wanted = available(devices, read_settings(settings_file()))
    for kind in wanted:
        wanted[kind] = getattr(args, kind) or wanted[kind]
        choose_device(devices, wanted[kind], kind)  # a wrong name is told before the model is loaded
    latency = args.latency if args.latency in ("low", "high") else int(args.latency) / 1000
    return AudioDevice(wanted["input"], wanted["output"], latency, seen=devices)


def named(words: str) -> list[Path]:
    """IN, or IN and OUT, of file:IN[,OUT.wav]."""
    first, comma, last = words.removeprefix("file:").rpartition(",")
    return [Path(first), Path(last)] if comma else [Path(last)]


def _files(words: str) -> tuple[Path, Path | None]:
    """IN and OUT of file:IN[,OUT.wav], both looked at before anything is loaded."""
    from .sound import frames

    source, *rest = named(words)
    target = rest[0] if rest else None
    frames(source).close()
    if target is not None and target.exists() and target.samefile(source):
        raise UsageError("IN and OUT are the same file; give OUT another name")
    if target is not None and not replaceable(target):
        raise UsageError(f"{target} cannot be written; name a file in a folder that exists for OUT")
    return source, target
