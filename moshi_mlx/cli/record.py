"""Make a demonstration: what a user says in, a folder with sound, transcript and player page out.

The user is one or several sound files (Moshi answers each), a script, or you (--live).

  moshi-mlx record demo/ hello.wav question.wav --title "First words"
  moshi-mlx record demo/ --script demo.txt --takes 3
  moshi-mlx record demo/ --live
  moshi-mlx record demo/ --finish          completes a folder whose recording was cut off

A script has one line for each thing that happens: the name of a sound file beside it, `pause 2 s`, `wait 1 s` (until
Moshi has answered and been silent so long) or `interrupt after 1.2 s` (of Moshi's speaking; the next line cuts in),
both of at most 30 s. Open FOLDER/player.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..frame import FRAME_RATE, MoshiError, Pcm
from ..recording.info import MAX_TITLE, is_text
from .options import UsageError, add_kv_bits, add_model, add_sampling, check_new, check_sampling, open_session

if TYPE_CHECKING:
    from ..recording.finish import Understood
    from ..recording.info import SessionInfo
    from ..recording.script import Line
    from ..session import Session

MAX_TAKES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder for the recording")
    parser.add_argument("input", type=Path, metavar="WAV", nargs="*", help="what the user says, in turn")
    parser.add_argument("--script", type=Path, metavar="FILE", help="what the user says and when, line by line")
    parser.add_argument("--live", action="store_true", help="record a conversation with you: `chat` with this folder")
    parser.add_argument("--finish", action="store_true", help="complete a folder whose recording was cut off")
    parser.add_argument("--title", metavar="TEXT", help="the title of the player page")
    parser.add_argument(
        "--takes", type=int, default=1, metavar="N", help="record N takes with consecutive seeds, and keep them all"
    )
    add_model(parser)
    add_kv_bits(parser)
    add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Checks what was asked, then records."""
    sources = (bool(args.input), args.script is not None, args.live, args.finish)
    if sum(sources) != 1:
        raise UsageError("say where the user comes from: sound files, --script FILE or --live (or --finish a folder)")
    if args.title is not None and not is_text(args.title, MAX_TITLE):
        raise UsageError(f"--title takes up to {MAX_TITLE} characters of UTF-8")
    if not 1 <= args.takes <= MAX_TAKES or (args.takes > 1 and (args.live or args.finish)):
        raise UsageError(f"--takes is 1 to {MAX_TAKES}, for sound files and scripts")
    if args.finish:
        return _finish(args.folder, args.title)
    check_new(args.folder)
    check_sampling(args)
    if args.live:
        return _live(args)
    from ..recording.recorder import place_for
    from ..recording.script import in_turn, parse_script, say

    lines = parse_script(args.script, _read) if args.script else in_turn([say(path, _read) for path in args.input])
    with place_for(args.folder):
        return _takes(args, lines)


def _finish(folder: Path, title: str | None) -> int:
    from ..recording.finish import finish
    from ..recording.info import read_info, write_info

    if title is not None:
        write_info(folder, replace(read_info(folder), title=title))
    _done(folder, finish(folder))
    return 0


def _live(args: argparse.Namespace) -> int:
    """The whole of `chat`, screen and all, with its recording switched on."""
    from . import chat

    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    options = parser.parse_args(["--record", str(args.folder)])
    shared = {name: value for name, value in vars(args).items() if name in vars(options) and name != "input"}
    status = chat.run(argparse.Namespace(**{**vars(options), **shared}))
    if args.title is not None and (args.folder / "session.json").exists():
        _finish(args.folder, args.title)
    return status


def _takes(args: argparse.Namespace, lines: Sequence[Line]) -> int:
    from ..session import Session
    from .origin import session_info

    session = open_session(args, "record")
    info = session_info(session, args.model, live=False, title=args.title or args.folder.absolute().name)
    found: dict[str, Understood] = {}
    for take in range(args.takes):
        name = f"take-{take + 1}" if args.takes > 1 else ""
        if take:
            session = Session(session.moshi, info.seed + take, session.sampling, session.kv_bits)
        one = replace(info, seed=session.seed, title=f"{info.title}, take {take + 1}" if name else info.title)
        found[name], whole = _take(session, lines, args.folder / name, one)
        _done(args.folder / name, found[name])
        if not whole:
            return 130
    if args.takes > 1:
        from .tables import print_comparison

        print_comparison(found)
    return 0


def _take(session: Session, lines: Sequence[Line], folder: Path, info: SessionInfo) -> tuple[Understood, bool]:
    """Plays the script to the model, records and finishes; False if someone interrupted it (what was said is kept)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ..recording.finish import finish
    from ..recording.recorder import Recorder
    from ..recording.script import LAST_SILENCE, Line, perform

    script = perform(lines if lines[-1].kind == "wait" else [*lines, Line("wait", LAST_SILENCE)])
    total = sum(len(line.frames) for line in lines) / FRAME_RATE + sum(line.seconds for line in lines)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    whole = True
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        Recorder(folder, info) as recorder,
    ):
        task = progress.add_task("", total=total)
        try:
            pcm, said = next(script)
            while recorder.failure is None:
                reply = session.step(pcm)
                if said:
                    recorder.event("said", reply.frame, label=said)
                recorder.add(reply, pcm)
                seconds = (reply.frame + 1) / FRAME_RATE
                progress.update(task, completed=min(seconds, total), description=f"{seconds:.1f} s recorded")
                pcm, said = script.send(reply.pcm)
        except StopIteration:
            pass
        except KeyboardInterrupt:
            whole = False
    if recorder.failure is not None:
        raise MoshiError(recorder.failure)
    if not recorder.frames:
        raise KeyboardInterrupt
    return finish(folder), whole


def _read(path: Path) -> list[Pcm]:
    from .sound import frames

    return list(frames(path))


def _done(folder: Path, found: Understood) -> None:
    """What Moshi said, on stdout; where it is, on stderr."""
    from ..recording.words import to_txt
    from .console import clean

    for line in to_txt(found.words).splitlines():
        print(clean(line))
    seconds, seed = found.turns.seconds, found.recording.info.seed
    print(f"recorded {seconds:.1f} s (seed {seed}): open {folder / 'player.html'}", file=sys.stderr)
