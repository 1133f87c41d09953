"""`moshi-mlx`: finds the command, runs it, turns failures into one line.

A command is a module of this package with `add_arguments(parser)` and `run(args) -> int`; its docstring is its help. It
is imported only when called, and imports what is heavy inside `run`, so that every `--help` answers in under a second.
Exit status: 0 done, 1 failed, 2 wrong use, 128 + n ended by signal n (130: Ctrl-C).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..frame import MoshiError, gpu_failure
from .console import leave_stdout
from .endings import QUIET, Ended, Endings
from .options import UsageError

COMMANDS = {
    "chat": "talk: microphone, loudspeaker, screen",
    "run": "a WAV in, the conversation out",
    "record": "make a demo: a folder with a player page",
    "replay": "a recorded user, the model again",
    "analyze": "turn-taking of a stereo recording",
    "codec": "encode and decode with Mimi alone",
    "devices": "list, test and choose audio devices",
    "doctor": "will it run here, and with which weights",
    "bench": "milliseconds, memory and bandwidth of each stage",
    "models": "what is known, what is on disk; get, verify, merge",
    "quantize": "make 8-, 6-, 4-, 3-bit and mixed checkpoints, with the measured loss",
    "text": "Helium, the text model",
}


def build_parser() -> argparse.ArgumentParser:
    """The top parser alone: it knows the commands' names, not their modules."""
    lines = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="moshi-mlx",
        usage="moshi-mlx COMMAND [options]",
        description="Moshi listens while it talks. Everything runs on this machine; nothing leaves it.",
        epilog=f"commands:\n{lines}\n\n`moshi-mlx COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"moshi-live {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser


def run_command(name: str, argv: Sequence[str]) -> int:
    """Runs one command with its own arguments; raises what the command raises."""
    module = importlib.import_module(f".{name}", __package__)
    parser = argparse.ArgumentParser(
        prog=f"moshi-mlx {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    args = parser.parse_args(argv)
    return int(module.run(args))


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning is one line too."""
    print(f"moshi-mlx: note: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    if not words:
        build_parser().print_help(sys.stderr)
        return 2
    args = build_parser().parse_args(words[:1])
    try:
        return run_command(args.command, words[1:])
    except Ended as end:
        return 128 + end.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` closed stdout: nobody is left to tell
        leave_stdout()
        return 1
    except (MoshiError, OSError, RuntimeError) as error:
        gave_up = gpu_failure(error)
        if "--debug" in words or (isinstance(error, RuntimeError) and not gave_up):
            raise
        said = gave_up or str(error)
        if isinstance(error, OSError) and error.filename is not None:
            said = f"{error.filename}: {error.strerror}"
        print(f"moshi-mlx: {' '.join(said.split())}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _complete_streams() -> None:
    """What a supervisor has closed leads nowhere, and a letter that the terminal has no sign for is a question mark."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def entry() -> NoReturn:
    """`moshi-mlx` as a process of its own, which ends at once when all is done and written. Told to end, or left by its
    terminal, it tidies up as after Ctrl-C: no half of a file stays.

    MLX and the sound libraries release what belongs to their threads a moment after Python has joined these; an
    interpreter that is being taken down meanwhile aborts.
    """
    _complete_streams()
    with Endings(QUIET) as endings:
        status = main()
    status = 128 + endings.asked if endings.asked else status
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the reader has gone
        status = status or 1
    os._exit(status)


if __name__ == "__main__":
    entry()
