"""`Recorder`: takes every reply of a conversation and writes the folder as it goes.

The thread that steps the model only copies and queues; a thread of the recorder's own writes. What a SIGKILL can take
is what waits in the queue and the batch being written, 12 frames (0.96 s) at most when the caller may be kept waiting;
a live caller never waits, and its queue is empty unless the disk is slow. A failure (disk full, folder gone, disk too
slow) ends the recording, never the conversation: it is told once, and everything after it is ignored.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..frame import FRAME, FRAME_RATE, MoshiError, Pcm, Reply
from .codes import CODES_FILE, CodesLayout
from .info import INFO_FILE, SessionInfo, write_info
from .wav import PART_LIMIT, StereoWriter, find_parts, write_all

TRANSCRIPT_FILE = "transcript.jsonl"
EVENTS_FILE = "events.jsonl"
TEXT_LEAD = 1  # the text token of step n belongs to Moshi's frame n + 1
QUEUE_WAITING = 6  # frames; as many again may be in the batch being written
QUEUE_LIVE = 375  # frames, 30 s: a disk slower than that is as good as full
CHECK_SECONDS = 1.0  # how often the folder is looked for

_Job = tuple[Reply | None, Pcm | None, dict[str, Any] | None]


def make_folder(folder: Path) -> None:
    """Makes the folder of a new recording; one that cannot be made, or already holds something, raises MoshiError."""
    try:
        str(folder).encode()  # libsndfile's Python binding takes no other names
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise MoshiError(f"{folder} is not empty: name a new folder for the recording")
    except (FileExistsError, NotADirectoryError):
        raise MoshiError(f"{folder} is a file: name a folder for the recording") from None
    except OSError as error:
        raise MoshiError(f"{folder} cannot be made: {error.strerror}; name a folder where you may write") from None
    except UnicodeEncodeError:
        raise MoshiError(f"{str(folder)!a} is no UTF-8: name another folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MoshiError(f"{folder} cannot be written: name a folder where you may write")


@contextlib.contextmanager
def place_for(folder: Path, began: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Holds the folder of a recording that is to come, so that a place where nothing can be written is told before
    minutes of loading. What was made for it goes again if nothing came into it. began: whether something did; then the
    disk, which may not answer, is not asked.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        make_folder(folder)
        yield
    finally:
        for path in () if began() else made:
            with contextlib.suppress(OSError):  # there is a recording in it, or it could not be made
                path.rmdir()


class Recorder:
    """Writes one conversation into a folder. A context manager; leaving it closes the files (`finish` then makes the
    pages), and takes them away again if there was not a frame.

    frames: taken so far. failure: why it stopped, in one line, or None.
    """

    def __init__(
        self,
        folder: Path,
        info: SessionInfo,
        *,
        live: bool = False,
        on_failure: Callable[[str], None] | None = None,
        part_limit: int = PART_LIMIT,
    ) -> None:
        """Begins a recording in `folder`, which is made; one that already holds something raises MoshiError.

        live: `add` never waits. on_failure: told once, in one line, on the recorder's thread, that recording has
        stopped.
        """
        self._made = not folder.exists()
        make_folder(folder)
        self.folder = folder
        self.frames = 0
        self.failure: str | None = None
        self._live = live
        self._on_failure = on_failure
        self._layout = CodesLayout((info.card - 1).bit_length(), info.user_codebooks, info.codebooks)
        self._lag = max(0, info.acoustic_delay - 1)  # reply n carries Moshi's frame n − lag
        self._waiting_user: deque[Pcm] = deque()
        self._queue: queue.Queue[_Job | None] = queue.Queue(QUEUE_LIVE if live else QUEUE_WAITING)
        write_info(folder, info)
        self._files: dict[str, int] = {}
        for name in (CODES_FILE, TRANSCRIPT_FILE, EVENTS_FILE):
            self._files[name] = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        write_all(self._files[CODES_FILE], self._layout.header())
        self._wav = StereoWriter(folder, part_limit)  # last: a folder with sound in it has all its files
        self._thread = threading.Thread(target=self._write_all, name="recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, reply: Reply, pcm: Pcm, measures: Mapping[str, float] | None = None) -> None:
        """Takes one frame of a conversation that is recorded from its frame 0: the reply, the user's sound (copied),
        and what was measured of it (kept as an event): `step_ms`, `lag_ms` (how much later than on the recording's
        timeline it is played), …
        """
        self.frames += 1
        event = {"frame": reply.frame, "kind": "frame", **measures} if measures else None
        self._put((reply, np.array(pcm, np.float32), event))

    def event(self, kind: str, frame: int, /, **values: Any) -> None:
        """Keeps something that happened at a frame: `mark`, `xrun`, `interrupt`, … `values` must be JSON."""
        self._put((None, None, {**values, "frame": frame, "kind": kind}))

    def close(self, timeout: float | None = None) -> None:
        """Writes what waits and closes the files; harmless when repeated. A disk that has not taken it all within
        `timeout` seconds is left alone, which is a failure.
        """
        until = None if timeout is None else time.monotonic() + timeout
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout)
        self._thread.join(until and max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._fail(f"{self.folder}: the disk does not answer")
        elif not self.frames:
            self._discard()

    def _put(self, job: _Job) -> None:
        if self.failure is not None:
            return
        try:
            self._queue.put(job, block=not self._live)
        except queue.Full:
            self._fail(f"the disk is slower than the conversation: {QUEUE_LIVE / FRAME_RATE:.0f} s wait to be written")

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            keep = f"; `moshi-mlx record {self.folder} --finish` makes the pages of what it took" if self.frames else ""
            self.failure = f"recording stopped: {reason}{keep}"
            if self._on_failure is not None:
                self._on_failure(self.failure)

    def _write_all(self) -> None:
        checked = time.monotonic()
        last = False
        while not last:
            jobs = [self._queue.get()]
            while len(jobs) < QUEUE_WAITING and not self._queue.empty():
                jobs.append(self._queue.get())
            last = None in jobs
            if self.failure is not None:
                continue  # drain: a caller may wait for room
            try:
                self._write([job for job in jobs if job is not None])
                if last:
                    self._finish_lanes()
                if time.monotonic() - checked > CHECK_SECONDS:
                    checked = time.monotonic()
                    self._wav.check()
            except (OSError, ValueError) as error:
                self._fail(f"{self.folder}: {_why(error)}")
        for close in (self._wav.close, *(lambda fd=fd: os.close(fd) for fd in self._files.values())):
            try:
                close()
            except OSError as error:
                self._fail(f"{self.folder}: {_why(error)}")

    def _discard(self) -> None:
        """Leaves the folder as it was found: files without a frame would only be in the way of the next try."""
        with contextlib.suppress(OSError):
            for path in (self.folder / INFO_FILE, *map(self.folder.joinpath, self._files), *find_parts(self.folder)):
                path.unlink()
            if self._made:
                self.folder.rmdir()

    def _write(self, jobs: list[_Job]) -> None:
        user, moshi = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
        codes, transcript, events = b"", "", ""
        for reply, pcm, event in jobs:
            if reply is not None and pcm is not None:
                codes += self._layout.record(reply)
                self._waiting_user.append(pcm)
                if len(self._waiting_user) > self._lag:
                    user.append(self._waiting_user.popleft())
                    moshi.append(reply.pcm)
                if reply.text:
                    heard = round((reply.frame + TEXT_LEAD) / FRAME_RATE, 3)
                    transcript += _line(
                        {"frame": reply.frame, "time": heard, "token": reply.text_token, "text": reply.text}
                    )
            if event is not None:
                events += _line(event)
        self._wav.write(np.concatenate(user), np.concatenate(moshi))
        for name, data in ((CODES_FILE, codes), (TRANSCRIPT_FILE, transcript.encode()), (EVENTS_FILE, events.encode())):
            write_all(self._files[name], data)

    def _finish_lanes(self) -> None:
        """The user's last frames, to which Moshi's answer has not come yet (acoustic delay above 1)."""
        for pcm in self._waiting_user:
            self._wav.write(pcm, np.zeros(FRAME, np.float32))


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
