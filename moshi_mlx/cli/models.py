"""Models: what is known and what is on this disk; what one is made of; getting, verifying, merging.

  moshi-mlx models list                       known models, sizes, bits, licences, and what is here
  moshi-mlx models show moshiko-q4            configuration, parameters, bits, bytes a frame, memory
  moshi-mlx models get moshiko-q4             fetch, or bring up to date; goes on where it was cut
  moshi-mlx models verify FOLDER              hashes, shapes, NaN, scales; exit status 1 if anything is wrong
  moshi-mlx models merge LORA --base MODEL -o FOLDER

MODEL is a folder, an alias, a Hub id (org/repo, org/repo@revision) or hf://org/repo/file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..frame import MoshiError
from .options import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("action", choices=("list", "show", "get", "verify", "merge"))
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default for show and verify: the embedded model")
    parser.add_argument("--base", metavar="MODEL", help="merge: the model that the LoRA was trained on")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="merge: the folder to make")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--json", action="store_true", help="print data instead of tables")


def run(args: argparse.Namespace) -> int:
    """One action."""
    if (args.output or args.base) and args.action != "merge":
        raise UsageError("--base and --output belong to `models merge`")
    if args.action in ("get", "merge") and args.model is None:
        raise UsageError(f"which one? moshi-mlx models {args.action} MODEL; `models list` shows what is known")
    if args.action == "list" and args.model is not None:
        raise UsageError(f"`models list` takes no MODEL; did you mean `models show {args.model}`?")
    actions = {"list": _list, "show": _show, "get": _get, "verify": _verify, "merge": _merge}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    from .console import data_console
    from .inventory import inventory

    rows = inventory()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("model", "what", "GB", "bits", "licence", "on this disk"):
        table.add_column(name, no_wrap=name != "model", overflow="fold")
    for row in rows:
        size, bits = (f"{row[key]:.3g}" if row[key] else "" for key in ("gigabytes", "bits"))
        table.add_row(row["model"], row["note"], size, bits, row["licence"], row["where"] or "–")
    data_console().print(table)
    return 0


def _show(args: argparse.Namespace) -> int:
    from .inventory import describe

    found = describe(args.model, offline=args.offline)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    from .console import data_console

    console = data_console()
    configuration, parts = found.pop("configuration", None), found.pop("parts", {})
    for name, value in found.items():
        if value is None:
            continue
        unit = " (" + f"{value / 1e9:.3f} GB)" if ("bytes" in name or "memory" in name) and value > 1e6 else ""
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else value
        console.print(f"{name.replace('_', ' '):<26}{shown}{unit}", soft_wrap=True)
    if parts:
        table = Table("part", "parameters", "bits", "MB", "MB a frame")
        for name, part in parts.items():
            cells = (
                f"{part['parameters']:,}",
                f"{part['bits']:.3g}",
                *(f"{part[k] / 1e6:.3f}" for k in ("nbytes", "frame")),
            )
            table.add_row(name, *cells)
        console.print(table)
    if configuration:
        console.print_json(json.dumps(configuration))


def _get(args: argparse.Namespace) -> int:
    from ..checkpoints.locate import address_of, get
    from .forewarn import forewarn

    if args.offline:
        raise UsageError("`models get` asks the Hub; without the network, `models verify` checks what is here")
    address = address_of(args.model)
    if address is None:
        raise MoshiError(f"{args.model} is a place on this disk; name an alias, a Hub id or an hf:// address")
    forewarn(args.model)
    print(get(address))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ..checkpoints.verify import verify

    findings = []
    for finding in verify(args.model, offline=args.offline):
        findings.append(finding)
        if not args.json:
            print(f"{'good ' if finding.good else 'WRONG'}  {finding.file}: {finding.text}", flush=True)
    if args.json:
        print(json.dumps([{"file": f.file, "good": f.good, "text": f.text} for f in findings], indent=1))
    return 0 if all(finding.good for finding in findings) else 1


def _merge(args: argparse.Namespace) -> int:
    from ..checkpoints.merging import merge_to

    if args.output is None:
        raise UsageError("where to? moshi-mlx models merge LORA --base MODEL -o FOLDER")
    merge_to(args.model, args.base, args.output, offline=args.offline)
    print(f"wrote {args.output}; try `moshi-mlx chat --model {args.output}`", file=sys.stderr)
    return 0
