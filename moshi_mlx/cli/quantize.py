"""Make a smaller checkpoint, and prove what it costs.

SOURCE is anything that --model takes elsewhere; DEST becomes a complete folder: weights, config.json, codec, tokenizer,
a model card and report.json with the measured loss. Recipes:

  uniform-3, -5, -6  all matrices alike, groups of 64     uniform-4, -8  the published layouts (groups of 32 and 64)
  mixed-4-8          temporal transformer 4 bits; depth transformer, heads and embeddings 8    (the default)
  mixed-3-6          the same with 3 and 6 bits
  auto               bits matrix by matrix, where they save most loss, within --target-bits (a weight, of what a frame
                     reads whole) or --target-gb (of the whole file); needs the memory to run the source

  moshi-mlx quantize moshiko-bf16 moshiko-mixed
  moshi-mlx quantize moshiko-bf16 moshiko-4.5 --recipe auto --target-bits 4.5 --audio talk.wav
  moshi-mlx quantize moshiko-bf16 --report compared        every recipe, and auto with as many bytes a frame as each,
                                                           measured and drawn; no weights written
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..frame import FRAME, Pcm
from .options import UsageError, check_new

if TYPE_CHECKING:
    from ..quantization.report import Table
    from ..quantization.work import Calibration, Target

RECIPES = ("uniform-3", "uniform-4", "uniform-5", "uniform-6", "uniform-8", "mixed-3-6", "mixed-4-8", "auto")
DEFAULT = "mixed-4-8"
FRAMES, MAX_FRAMES = 500, 45_000  # the latter: an hour


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("source", metavar="SOURCE", help="folder, alias (moshiko-bf16), Hub id or hf:// address")
    parser.add_argument("dest", metavar="DEST", type=Path, nargs="?", help="the folder to make; it must not exist yet")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--recipe", choices=RECIPES, metavar="NAME", help=f"one of those above (default {DEFAULT})")
    how.add_argument("--uniform", type=int, choices=(3, 4, 5, 6, 8), metavar="BITS", help="short for uniform-BITS")
    parser.add_argument("--target-bits", type=float, metavar="BITS", help="budget of auto: bits a weight, from 3.25")
    parser.add_argument("--target-gb", type=float, metavar="GB", help="budget of auto: 10⁹ bytes of weights")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="measure all recipes; table, JSON and plot")
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--audio",
        type=Path,
        nargs="+",
        default=[],
        metavar="WAV",
        help="what the user says (default: what ships)",
    )
    measuring.add_argument("--frames", type=int, metavar="N", help=f"frames to measure on (default {FRAMES})")
    measuring.add_argument("--no-measure", action="store_true", help="write DEST only")
    parser.add_argument("--json", action="store_true", help="data on stdout instead of tables")
    parser.add_argument("--offline", action="store_true", help="never touch the network")


def run(args: argparse.Namespace) -> int:
    """Checks the options, then works; what it finds out goes to stdout."""
    recipe = f"uniform-{args.uniform}" if args.uniform else args.recipe or DEFAULT
    target = _check(args, recipe)

    import mlx.core as mx

    from ..checkpoints.meter import Meter
    from ..models.memory import CACHE
    from ..quantization.job import compare_recipes, quantize

    mx.set_cache_limit(CACHE)
    results: dict[str, object] = {}
    tables: list[tuple[str, Table]] = []
    calibration = None if args.no_measure else _calibration(args)
    try:
        if args.dest is not None:
            made, found = quantize(
                args.source,
                args.dest,
                recipe,
                Meter(),
                _say,
                target=target,
                calibration=calibration,
                measure=not args.no_measure,
                offline=args.offline,
            )
            results["made"], tables = made, found
            _say(f"wrote {args.dest}")
            if made["kept"]:
                _say(f"kept in bfloat16, no group divides their width: {', '.join(made['kept'])}")
        if args.report is not None:
            results["compared"], found = compare_recipes(
                args.source, args.report, _say, calibration=calibration, offline=args.offline
            )
            tables += found
            _say(f"wrote {args.report / 'loss.svg'} and report.json")
    except KeyboardInterrupt:
        whole = args.dest is not None and args.dest.exists()
        _say(f"stopped; {f'{args.dest} is whole' if whole else 'nothing was written'}")
        raise
    _print(results, tables, args.json)
    return 0


def _check(args: argparse.Namespace, recipe: str) -> Target | None:
    """`auto`'s budget; raises UsageError for options that contradict each other."""
    budgets = [value for value in (args.target_bits, args.target_gb) if value is not None]
    if args.dest is None and args.report is None:
        raise UsageError("name DEST, the folder to make, or --report FOLDER to compare the recipes")
    if args.dest is None and (args.recipe or args.uniform or budgets):
        raise UsageError("a recipe needs DEST, the folder to make")
    if recipe == "auto" and len(budgets) != 1:
        raise UsageError("auto needs a budget: --target-bits or --target-gb, one of them")
    if recipe != "auto" and budgets:
        raise UsageError("a budget belongs to --recipe auto")
    if any(not 0 < value < 1e6 for value in budgets):
        raise UsageError("a budget is a number above 0")
    if args.no_measure and (recipe == "auto" or args.report is not None):
        raise UsageError("--no-measure contradicts auto and --report, which measure")
    if args.no_measure and (args.audio or args.frames is not None):
        raise UsageError("--audio and --frames say how to measure; leave them, or --no-measure, away")
    if args.report is not None:
        check_new(args.report, " for --report")
        if args.dest is not None and args.report.absolute() == args.dest.absolute():
            raise UsageError("DEST and --report FOLDER are the same; both get a report.json")
    if args.frames is not None and not 8 <= args.frames <= MAX_FRAMES:
        raise UsageError(f"--frames takes 8 to {MAX_FRAMES}")
    if not budgets:
        return None
    from ..quantization.work import Target

    return Target(args.target_bits, args.target_gb)


def _calibration(args: argparse.Namespace) -> Calibration:
    from ..quantization.calibration import SEQUENCES
    from ..quantization.work import WIDER, Calibration

    sounds = args.audio or default_sounds()
    frames = args.frames or FRAMES
    sequences = min(SEQUENCES, frames)
    return Calibration([_sound(path, (WIDER + 1) * frames) for path in sounds], sequences, frames // sequences)


def default_sounds() -> list[Path]:
    """The talk that ships in a clone; an installation has none."""
    from ..checkpoints.locate import EMBEDDED

    talk = EMBEDDED[0].parent / "demo" / "talk.ogg"
    return [talk] if EMBEDDED[0].is_dir() and talk.is_file() else []


def _sound(path: Path, most: int) -> Pcm:
    """A sound at 24 kHz, no more of it than `auto` and the proof of what it chose take together."""
    import numpy as np

    from .sound import frames

    pieces: list[Pcm] = []
    for piece in frames(path):
        pieces.append(piece)
        if len(pieces) >= most:
            break
    return np.concatenate(pieces) if pieces else np.zeros(FRAME, np.float32)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(results: dict[str, object], tables: Sequence[tuple[str, Table]], as_json: bool) -> None:
    from ..quantization.report import plain

    if as_json:
        print(json.dumps(results, indent=1))
        return
    print("\n\n".join(f"{title}\n{plain(table)}" for title, table in tables))
