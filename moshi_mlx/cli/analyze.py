"""Turn-taking of a conversation: who speaks when, how fast answers come, how much is said at once.

FILE is a stereo recording (left the user, right Moshi) in any format; FOLDER one that `record` or `chat --record` made.
Voice activity is found by level: a lane speaks above its own noise floor. All parameters are printed.

  moshi-mlx analyze demo/
  moshi-mlx analyze call.wav --json --timeline call.svg
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .options import UsageError, replaceable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("path", type=Path, metavar="FILE|FOLDER", help="a stereo recording, or a recording's folder")
    parser.add_argument("--json", action="store_true", help="all that was found, as data")
    parser.add_argument("--timeline", type=Path, metavar="OUT.svg", help="draw who speaks when")


def run(args: argparse.Namespace) -> int:
    """Analyses, prints, draws. Changes nothing in a folder."""
    from ..recording.activity import measure_levels
    from ..recording.finish import understand
    from ..recording.timeline import timeline_svg
    from ..recording.turns import analyze_levels
    from ..text_file import write_beside

    if args.timeline is not None and (args.timeline.suffix != ".svg" or not replaceable(args.timeline)):
        raise UsageError("--timeline takes a name that ends in .svg, in a folder that exists")
    if args.path.is_dir():
        found = understand(args.path)
        turns, words, title = found.turns, found.words, found.recording.info.title
    else:
        turns, words, title = analyze_levels(measure_levels([args.path])), [], args.path.name
    if args.json:
        print(json.dumps(turns.to_json(), indent=1))
    else:
        from .tables import print_report

        print_report(turns)
    if args.timeline is not None:
        write_beside(args.timeline, timeline_svg(turns, words, title))
        print(f"wrote {args.timeline}", file=sys.stderr)
    return 0
