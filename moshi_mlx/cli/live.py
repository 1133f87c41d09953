"""One chat without its terminal: the conversation, its transcript, its recording, and what the keys do.

The engine's thread calls `ready` and `heard`; all else belongs to the thread that shows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..frame import FRAME_MS, FRAME_RATE, MoshiError, StepperFactory
from ..realtime import Conversation, Exchange, Statistics
from ..realtime.device import Device
from ..realtime.statistics import level
from ..recording.finish import finish
from ..recording.recorder import Recorder
from .hints import advice
from .screen import View, clock
from .stepper import Facts, Memory
from .transcript import Heard, Transcript

if TYPE_CHECKING:
    from ..recording.info import SessionInfo

MEASURES = ("seconds", "step_ms", "lag_ms", "dropped_ms")  # of a frame, that a recording keeps
MEMORY_EVERY = 25  # frames between two looks at the memory
NUMBERS_EVERY = 5  # views between two changes of the digits
NOTICE_VIEWS = 50  # for which a notice stays
DISK_TIME = 5.0  # seconds the disk has to take the last of a recording: no signal can hurry it
PAGES_TIME = 0.5  # seconds that pages may take in any case
HELD = 0.2  # seconds: a key that is held down comes again within them
LAYOUTS = str.maketrans("ьзкиврйμπρβδηצפרנגי", "mprbdhqmprbdhmprbdh")  # the same keys, other alphabets
BEHIND = 10_000  # frames that wait for a terminal that takes none


class Live:
    """A chat that runs.

    echo: from the output's name to the echo mode and why. live: a microphone, not a file. folder: where it is recorded.
    measure: tells the memory, on the engine's thread.
    """

    def __init__(
        self,
        device: Device,
        factory: StepperFactory,
        *,
        echo: Callable[[str], tuple[str, str]],
        live: bool = True,
        folder: Path | None = None,
        measure: Callable[[], Memory] | None = None,
    ) -> None:
        self.talk = Conversation(device, factory, echo=lambda output: echo(output)[0], on_exchange=self.heard)
        self.transcript = Transcript()
        self.banner = self.known = ""  # as in a `View`
        self.quit = False
        self.facts: Facts | None = None
        self._echo, self._live, self._folder, self._measure = echo, live, folder, measure
        self._recorder: Recorder | None = None
        self._unfinished = f"; `moshi-mlx record {folder} --finish` makes its pages"
        self._incoming: deque[Heard] = deque(maxlen=BEHIND)
        self._key, self._key_at = "", 0.0  # the last one, and when
        self._talk_until: float | None = None  # when a tap, or the letting go of the space bar, ends it
        self._memory: Memory | None = None
        self._frames = 0
        self._xruns = {"underruns": 0, "overruns": 0}  # those that the recording knows of
        self._help = False
        self._stages: list[str] = []
        self._views = 0
        self._numbers: Statistics | None = None
        self._notice, self._told = "", 0  # told: the view at which the notice came
        self._heeded = ""  # the engine's notice that was told last

    # the engine's thread

    def ready(self, facts: Facts, info: SessionInfo | None) -> None:
        """The model stands: its facts, and where it is recorded what tells where the recording comes from."""
        self.facts = facts
        if self._folder is not None and info is not None:
            self._recorder = Recorder(self._folder, info, live=True, on_failure=self._tell)

    @property
    def recorded(self) -> bool:
        """Whether a recording began."""
        return self._recorder is not None and self._recorder.frames > 0

    def heard(self, exchange: Exchange) -> None:
        """One frame."""
        reply = exchange.reply
        lead = self.facts.lead if self.facts else 1  # the text belongs to a frame after this one
        due = exchange.seconds + (exchange.lag_ms + lead * FRAME_MS) / 1000
        anew = reply.frame == 0 and self._frames > 0
        self._incoming.append(Heard(exchange.seconds, due, reply.text, level(exchange.user), anew))
        if self._recorder is not None:
            if anew:
                self._recorder.event("reset", self._frames)
            reply = replace(reply, frame=self._frames)  # a reset begins at 0 again, a recording does not
            measures = {name: round(getattr(exchange, name), 3) for name in MEASURES}
            self._recorder.add(reply, exchange.user, measures)
        if self._measure is not None and self._frames % MEMORY_EVERY == 0:
            self._memory = self._measure()
        self._frames += 1

    def _tell(self, text: str) -> None:
        self._notice, self._told = text, self._views

    # the thread that shows

    def press(self, key: str) -> None:
        """What a key does; a key that does nothing is ignored."""
        now, at, key = self.talk.statistics(), time.monotonic(), key.lower().translate(LAYOUTS)
        held = key == self._key and at - self._key_at < HELD
        self._key, self._key_at = key, at
        if held and key != " ":
            return
        match key:
            case "m":
                self.talk.mute(not now.muted)
            case " " if now.push_to_talk and now.talking:
                self._talk_until = at + HELD
            case " " if now.push_to_talk:
                self.talk.talk(True)
            case " ":
                self._tell("the space bar talks in push-to-talk mode: start with --push-to-talk")
            case "p":
                self.talk.pause(not now.paused)
            case "r":
                self.talk.reset()
                self._tell("a new conversation")
            case "b":
                self._mark(now.seconds)
            case "d":
                self.talk.reopen()
                self._tell("opening the devices again")
            case "h":
                self._help = not self._help
            case "q":
                self.quit = True

    def view(self, platform: str, environ: Mapping[str, str]) -> View:
        """What there is to show now."""
        if self._talk_until is not None and time.monotonic() >= self._talk_until:
            self._talk_until = None
            self.talk.talk(False)
        now = self.talk.statistics()
        self._keep_xruns(now)
        while self._incoming:
            self.transcript.add(self._incoming.popleft())
        self.transcript.advance(now.seconds)
        if now.stage and now.stage not in self._stages:
            self._stages.append(now.stage)
        if self._numbers is None or self._views % NUMBERS_EVERY == 0:
            self._numbers = now
        self._views += 1
        if self._views - self._told > NOTICE_VIEWS:
            self._notice = ""
        if now.notice != self._heeded:  # the engine's stands until the next one; what is over is told for a while only
            self._heeded = now.notice
            self._tell(now.notice)
        lasting = now.notice if now.state == "reopening" else ""
        failure = self._recorder.failure if self._recorder else None
        return View(
            now=now,
            numbers=self._numbers,
            lines=self.transcript.lines(),
            title=self.facts.label if self.facts else "",
            banner=self.banner,
            known=self.known,
            context=self.facts.context if self.facts else 0,
            memory=str(self._memory) if self._memory else "",
            echo_reason=self._echo(now.output_name)[1] if now.output_name else "",
            recording=self._recorder is not None and failure is None,
            advice=advice(now, self._live, platform, environ),
            notice=self._notice or (f"the conversation goes on; {failure}" if failure else lasting),
            stages=self._stages,
            help=self._help,
        )

    def end(self, timeout: float) -> bool:
        """Ends the conversation and closes its files; False when the engine did not end in time."""
        stopped = self.talk.stop(timeout)
        while self._incoming:
            self.transcript.add(self._incoming.popleft())
        self.transcript.finish()
        if self._recorder is not None:
            self._keep_xruns(self.talk.statistics())
            self._recorder.close(DISK_TIME)
        return stopped

    def _keep_xruns(self, now: Statistics) -> None:
        """Tells the recording of every underrun and overrun since it was last told."""
        counts = {kind: getattr(now, kind) for kind in self._xruns}
        if self._recorder is not None and counts != self._xruns:
            new = {kind: counts[kind] - known for kind, known in self._xruns.items()}
            self._recorder.event("xrun", self._frames, **new, lag_ms=round(now.lag_ms, 1))
            self._xruns = counts

    def finish(self, hurried: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Makes the recording's pages; they are left to `record --finish` once it is hurried and a moment has
        passed.
        """
        if self._recorder is None or self._recorder.failure or not self.recorded:
            return
        pages = threading.Thread(target=self._make_pages, name="pages", daemon=True)
        pages.start()
        pages.join(PAGES_TIME)
        if pages.is_alive() and not hurried():
            say("making the recording's pages; Ctrl-C leaves them out")
        while pages.is_alive() and not hurried():
            pages.join(0.1)

    def _make_pages(self) -> None:
        assert self._folder is not None
        try:
            finish(self._folder)
            self._unfinished = ""
        except (MoshiError, OSError) as error:
            self._unfinished = f"; its pages failed: {error}"

    def summary(self) -> list[str]:
        """What is worth knowing afterwards, in lines; none if the conversation did not begin."""
        now = self.talk.statistics()
        if not now.frames:
            return []
        lines = [
            f"{clock(now.seconds)} of conversation, {now.frames} frames; the model took {now.frame_p50:.0f} ms a frame "
            f"(p95 {now.frame_p95:.0f}, longest {now.frame_max:.0f}, {now.misses} over {FRAME_MS:.0f})",
            f"{now.underruns} underruns ({now.underrun_ms:.0f} ms), {now.overruns} overruns ({now.overrun_ms:.0f} ms), "
            f"{now.dropped_ms:.0f} ms of your speech dropped, {now.skipped_ms:.0f} ms of Moshi skipped",
        ]
        if self.facts:
            lines.append(f"model: {self.facts.label}, seed {self.facts.seed}")
        if self._recorder is not None:
            lines.append(self._recorder.failure or f"recorded in {self._folder}{self._unfinished}")
        return lines

    def _mark(self, seconds: float) -> None:
        if self._recorder is None or self._recorder.failure is not None:
            self._tell("a bookmark needs a recording" + ("" if self._recorder else ": start with --record FOLDER"))
            return
        self._recorder.event("mark", self._frames, label=f"bookmark at {clock(self._frames / FRAME_RATE)}")
        self.transcript.note(seconds, "bookmark")
