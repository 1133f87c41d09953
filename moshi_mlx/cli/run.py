"""A sound file in, the conversation out: what Moshi says to a recording, as text and as sound.

The text goes to stdout as it comes, everything else to stderr. IN may have any rate and number of channels; OUT is a
stereo WAV, the user on the left and Moshi on the right, at 24 kHz. Hibiki is told where IN ends, and goes on until it
has translated all of it.

  moshi-mlx run question.wav -o conversation.wav
  moshi-mlx run question.wav --model moshiko-q4 --seed 7 --json > words.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..frame import FRAME, FRAME_MS, FRAME_RATE, MoshiError, Pcm
from ..models.config import EOS
from .console import clean, leave_stdout
from .options import UsageError, add_kv_bits, add_model, add_sampling, check_sampling, open_session

if TYPE_CHECKING:
    from ..session import Session
    from .sound import Frames, Writer


TAIL, LONGEST = 4.0, 60.0  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("input", type=Path, metavar="IN", help="what the user says: WAV, FLAC, Ogg or MP3")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.wav", help="write the conversation as sound")
    parser.add_argument("--mono", action="store_true", help="only Moshi's voice in OUT")
    parser.add_argument(
        "--tail",
        type=float,
        metavar="SECONDS",
        help=f"silence after IN (default {TAIL:.0f}; Hibiki: until it is done, {LONGEST:.0f} at most)",
    )
    parser.add_argument("--json", action="store_true", help="words with their times, instead of plain text")
    add_model(parser)
    add_kv_bits(parser)
    add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Checks files first, then loads, then steps through them."""
    from .sound import Writer, frames

    if args.tail is not None and not 0 <= args.tail <= 3600:
        raise UsageError("--tail takes 0 to 3600 seconds")
    if args.mono and args.output is None:
        raise UsageError("--mono says how to write OUT; add -o OUT.wav")
    check_sampling(args)
    source = frames(args.input)
    if args.output is not None and args.output.exists() and args.output.samefile(args.input):
        raise UsageError("IN and OUT are the same file; give OUT another name")
    with contextlib.ExitStack() as stack:
        writer = None
        if args.output is not None:
            writer = stack.enter_context(Writer(args.output, 1 if args.mono else 2))
        session = open_session(args, "run")
        if args.seed is None:
            print(f"seed {session.seed}", file=sys.stderr)
        talk = _Talk(session, writer, args.mono, args.json)
        ended: BaseException | None = None
        try:
            talk.all(source, args.tail)
        except (KeyboardInterrupt, MoshiError) as error:  # what has been said until now is kept
            if not talk.frames:
                raise
            ended = error
        talk.finish()
    if writer is not None:
        print(f"wrote {args.output}", file=sys.stderr)
    if isinstance(ended, MoshiError):
        raise ended
    return 130 if ended else 0


class _Talk:
    """Steps through a file and gives out what comes."""

    def __init__(self, session: Session, writer: Writer | None, mono: bool, as_json: bool) -> None:
        self._session, self._writer, self._mono, self._json = session, writer, mono, as_json
        self._pieces: list[tuple[int, str]] = []
        self.frames = 0
        self._seconds = 0.0
        self._over = False  # whether the user's sound has ended, for a model that is told so
        self._left: int | None = None  # frames to go, once a model that ends has told that it is done

    def all(self, source: Frames, tail: float | None) -> None:
        """The file, then `tail` seconds of silence, None: as long as this model wants."""
        lm = self._session.moshi.config.lm
        seconds = (LONGEST if lm.ends else TAIL) if tail is None else tail
        for pcm in self._shown(source, round(seconds * FRAME_RATE)):
            start = time.perf_counter()
            reply = self._session.end() if pcm is None else self._session.step(pcm)
            self._seconds += time.perf_counter() - start
            self.frames += 1
            if self._writer is not None:
                user = np.zeros(FRAME, np.float32) if pcm is None else pcm
                self._writer.write(reply.pcm if self._mono else np.stack([user, reply.pcm], axis=1))
            if reply.text and self._json:
                self._pieces.append((reply.frame + max(0, lm.max_delay - 1), reply.text))  # where OUT.wav has it
            elif reply.text:
                self._print(clean(reply.text))
            if self._left is not None:
                self._left -= 1
            elif self._over and reply.text_token == EOS:
                self._left = lm.max_delay  # its sound is so much later
            if self._left == 0:
                break

    def _shown(self, source: Frames, tail: int) -> Iterator[Pcm | None]:
        """The user's frames, None where they end for a model that wants to know, with a bar on stderr where it does not
        run into the text on stdout."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        hidden = not console.is_terminal or (sys.stdout.isatty() and not self._json)
        columns = (TextColumn("{task.fields[speed]}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
            task = progress.add_task("", total=None if source.total is None else source.total + tail, speed="")
            for pcm in source:
                yield pcm
                progress.update(task, advance=1, speed=self._speed())
            if self._session.moshi.config.lm.ends:
                self._over = True
                yield None
            for _ in range(tail):
                yield np.zeros(FRAME, np.float32)
                progress.update(task, advance=1, speed=self._speed())

    def _speed(self) -> str:
        factor = self._seconds * FRAME_RATE / max(1, self.frames)
        return f"{self.frames / FRAME_RATE:.1f} s of sound, real-time factor {factor:.2f}"

    def _print(self, text: str) -> None:
        """On stdout. Once nobody reads there any more (`| head`), OUT is still wanted."""
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:
            if self._writer is None:
                raise
            leave_stdout()

    def finish(self) -> None:
        """Ends the text and says how fast it was."""
        if self._json:
            from ..recording.folder import Piece
            from ..recording.words import words_of

            words = words_of([Piece(frame, text) for frame, text in self._pieces])
            data = {
                "frames": self.frames,
                "frame_ms": FRAME_MS,
                "seed": self._session.seed,
                "text": " ".join(word.text for word in words),
                "words": [{"text": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in words],
            }
            self._print(json.dumps(data, ensure_ascii=False, indent=1) + "\n")
        else:
            self._print("\n")
        print(self._speed(), file=sys.stderr)
