"""The chat in lines that are only ever added: for pipes, logs, screen readers and terminals that cannot paint.

What was said goes to stdout, a line when it is complete; stages, advice and numbers go to stderr.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TextIO

from .console import clean
from .screen import KEYS, SAYS, clock, state
from .transcript import Transcript

if TYPE_CHECKING:
    from .screen import View

STATUS_SECONDS = 60.0  # between two lines of numbers


class Plain:
    """Writes what is new in each view."""

    def __init__(self, out: TextIO, talk: TextIO, keys: bool = False) -> None:
        """keys: whether there is a keyboard."""
        self._out, self._talk, self._keys = out, talk, keys
        self._help = False
        self._written = 0  # lines of the transcript
        self._told: dict[str, str] = {}
        self._status_at = STATUS_SECONDS

    def show(self, view: View, transcript: Transcript) -> None:
        """Takes a view and the transcript it belongs to."""
        now = view.now
        self._tell("banner", view.banner)
        self._tell("known", view.known and f"Try {view.known}.")
        if now.state == "starting":
            self._tell("stage", f"{now.stage} …" if now.stage else "")
        elif now.frames:
            end = "h names the keys, Ctrl-C ends" if self._keys else "Ctrl-C ends"
            self._tell("ready", f"Moshi listens ({view.title}; echo {now.echo}, {view.echo_reason}); {end}")
            said = state(now)[0].split(maxsplit=1)[-1]  # the word, without its sign
            self._told.setdefault("state", said)
            self._tell("state", said)
        if view.help and not self._help:
            self._say("".join(f"{key}: {what}\n" for key, _, what in KEYS).rstrip())
        self._help = view.help
        self._tell("advice", view.advice)
        self._tell("notice", view.notice)
        if now.seconds >= self._status_at:
            self._status_at += STATUS_SECONDS
            self._say(
                f"{clock(now.seconds)} · lag {now.lag_ms:.0f} ms (target {now.target_ms:.0f}) · frame "
                f"{now.frame_p50:.0f} ms, p95 {now.frame_p95:.0f} · {now.misses} misses · {now.underruns} underruns · "
                f"{now.dropped_ms:.0f} ms dropped"
            )
        self.lines(transcript)

    def lines(self, transcript: Transcript) -> None:
        """Writes what the transcript has closed since."""
        fresh = transcript.count - self._written
        self._written = transcript.count
        for line in list(transcript.closed)[-fresh:] if fresh else []:
            self._out.write(f"{clock(line.seconds)}  {SAYS[line.who]:<5}  {line.text.strip()}\n")
        self._out.flush()

    def _tell(self, kind: str, text: str) -> None:
        """Each thing once, until more of it changes than its numbers."""
        gist = re.sub(r"\d", "", text)
        if text and self._told.get(kind) != gist:
            self._told[kind] = gist
            self._say(clean(text))

    def _say(self, text: str) -> None:
        print(text, file=self._talk, flush=True)
