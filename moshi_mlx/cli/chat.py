"""Talk with Moshi: microphone, loudspeaker, and a screen that shows what goes on.

Use headphones, or let --echo keep Moshi from hearing itself. Nothing is recorded unless you ask with --record. Keys:
m mute, space talk (with --push-to-talk), p pause, r reset, b bookmark, d reopen the devices, h help, q or Ctrl-C quit.

  moshi-mlx chat
  moshi-mlx chat --model moshiko-q4 --record evening/
  moshi-mlx chat --device file:question.wav,answer.wav      a conversation without sound hardware
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..text_file import write_beside
from .chat_options import cancels, check, device_of
from .endings import Ended, Endings
from .options import DEMONSTRATION, QUESTIONS, add_kv_bits, add_model, add_sampling

if TYPE_CHECKING:
    from ..realtime.device import Device
    from ..session import Session
    from .live import Live
    from .plain import Plain
    from .screen import View
    from .stepper import Progress
    from .terminal import Keyboard, Painter

REFRESH = 0.1  # seconds between two pictures
END_TIME = 1.0  # seconds the engine has to end: Ctrl-C takes under 2 in all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_model(parser)
    add_kv_bits(parser)
    sound = parser.add_argument_group("sound")
    sound.add_argument("--input", metavar="NAME", help="microphone: a part of its name, or its number in `devices`")
    sound.add_argument("--output", metavar="NAME", help="loudspeaker, likewise")
    sound.add_argument(
        "--latency", default="low", metavar="MS", help="latency to ask of the sound system: low, high, or milliseconds"
    )
    sound.add_argument(
        "--echo",
        choices=("auto", "cancel", "duck", "off"),
        default="auto",
        help="auto: off with headphones, else cancel where it is installed, else duck (one talks at a time)",
    )
    sound.add_argument(
        "--push-to-talk", action="store_true", help="talk only while the space bar is held, or between two taps of it"
    )
    sound.add_argument("--device", metavar="file:IN[,OUT.wav]", help="a sound file as microphone, one as loudspeaker")
    keep = parser.add_argument_group("what is kept")
    keep.add_argument("--record", type=Path, metavar="FOLDER", help="record the conversation into a new folder")
    keep.add_argument("--stats", type=Path, metavar="FILE", help="write events and measurements as JSON lines")
    parser.add_argument("--plain", action="store_true", help="lines instead of a screen; automatic when piped")
    add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Checks, fetches the model if need be, then talks until someone ends it."""
    with Endings() as endings:
        from ..checkpoints.locate import locate
        from ..recording.recorder import place_for
        from .forewarn import forewarn
        from .plain import Plain
        from .terminal import wants_screen

        check(args)
        device = device_of(args)
        live: Live | None = None

        def began() -> bool:
            return live is not None and live.recorded

        with place_for(args.record, began) if args.record else contextlib.nullcontext():
            forewarn(args.model, offline=args.offline, kv_bits=args.kv_bits)
            located = locate(args.model, offline=args.offline)  # a download shows its own line, before the screen
            live = _live(args, device)
            if located.embedded:
                live.banner, live.known = _banner(), QUESTIONS
            live.talk.push_to_talk(args.push_to_talk)
            endings.at_once = False  # from here on there is something to close
            if endings.asked:
                return 128 + endings.asked
            plain = None if wants_screen(args.plain) else Plain(sys.stdout, sys.stderr, sys.stdin.isatty())
            stopped, kept = _talk(args, live, endings, plain)
        return _leave(live, endings, plain, stopped, 0 if kept else 1)


def _talk(args: argparse.Namespace, live: Live, endings: Endings, plain: Plain | None) -> tuple[bool, bool]:
    """The conversation from its start until all is written: whether the engine ended in time, and --stats was kept."""
    live.talk.start()
    stopped = kept = False
    endings.shown = True
    try:
        _show(live, endings, plain)
    except OSError:  # the terminal has gone
        endings.asked = endings.asked or signal.SIGHUP
    finally:
        endings.shown = False
        stopped = live.end(END_TIME)
        live.finish(lambda: endings.asked > 0, lambda text: print(text, file=sys.stderr, flush=True))
        kept = _keep_numbers(args.stats, live)
    return stopped, kept


def _live(args: argparse.Namespace, device: Device) -> Live:
    from .hints import choose_echo
    from .live import Live
    from .origin import session_info
    from .stepper import SessionFactory, facts_of, memory

    hears, installed = args.device is None, cancels()
    factory = SessionFactory(args)
    live = Live(
        device,
        factory,
        echo=lambda output: choose_echo(args.echo, output if hears else "", installed),
        live=hears,
        folder=args.record,
        measure=memory,
    )

    def ready(session: Session, progress: Progress) -> None:
        if args.record:
            progress("fingerprint", None)  # of files of gigabytes, which are read once more
        info = session_info(session, args.model, live=hears) if args.record else None
        live.ready(facts_of(session), info)

    factory.on_ready = ready
    return live


def _banner() -> str:
    """What the demonstration model is, and which real ones are on this disk."""
    from .examine import weights

    there = [f"--model {name}" for name in weights() if name.startswith("moshi")]
    if there:
        return f"{DEMONSTRATION}; the real one is on this disk: {' or '.join(there)}."
    return f"{DEMONSTRATION}; `moshi-mlx doctor` names the real one for this machine."


def _pictures(live: Live, endings: Endings, keyboard: Keyboard | None) -> Iterator[View]:
    """What there is to show, ten times a second, until the conversation is to end; keys act in between."""
    while live.talk.running and not live.quit and not endings.asked:
        yield live.view(sys.platform, os.environ)
        until = time.monotonic() + REFRESH
        while (rest := until - time.monotonic()) > 0 and not endings.asked:
            if keyboard is None:
                time.sleep(rest)
            else:
                for key in keyboard.read(rest):
                    live.press(key)


def _show(live: Live, endings: Endings, plain: Plain | None) -> None:
    """Shows the conversation as lines or as a screen until it is to end."""
    from .screen import render
    from .terminal import full_screen, kept_stderr, keyboard, wants_colour

    with keyboard() as keys:
        if plain is not None:
            for view in _pictures(live, endings, keys):
                _suspend(live, endings, keys, None)
                plain.show(view, live.transcript)
            return
        with kept_stderr(), full_screen(sys.stdout.fileno(), wants_colour()) as painter:
            for view in _pictures(live, endings, keys):
                _suspend(live, endings, keys, painter)
                size = painter.size()
                painter.paint(render(view, size.columns, size.lines))


def _suspend(live: Live, endings: Endings, keys: Keyboard | None, painter: Painter | None) -> None:
    """Ctrl-Z: gives the terminal back, holds the conversation, and goes on when the shell says so."""
    if not endings.suspended:
        return
    paused = live.talk.statistics().paused
    live.talk.pause(True)
    for side in (painter, keys):
        if side is not None:
            side.leave()
    os.kill(os.getpid(), signal.SIGSTOP)
    endings.suspended = False
    for side in (keys, painter):
        if side is not None:
            side.enter()
    live.talk.pause(paused)


def _keep_numbers(path: Path | None, live: Live) -> bool:
    """Writes --stats, and whether it did; a disk that is full by now must not cost the summary."""
    if path is None:
        return True
    try:
        write_beside(path.resolve(), live.talk.json_lines())
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"moshi-mlx: {path} cannot be written: {error.strerror}", file=sys.stderr)
        return False
    return True


def _leave(live: Live, endings: Endings, plain: Plain | None, stopped: bool, status: int = 0) -> int:
    """The last lines, the summary and the exit status, `status` where nobody asked for the end."""
    with contextlib.suppress(OSError, Ended):
        endings.at_once = True  # all is closed, and a terminal that takes no line must not hold up the end
        if plain is not None:
            plain.lines(live.transcript)
        for line in live.summary():
            print(line, file=sys.stderr)
    endings.at_once = False
    began = live.talk.statistics().frames > 0
    if endings.asked and not (began and endings.asked == signal.SIGINT):
        status = 128 + endings.asked
    live.talk.check()
    if not stopped:  # a thread deep in loading must not hold up the end, nor run while the process is taken down
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
