"""A WAV file as the microphone and a WAV file as the loudspeaker."""

from __future__ import annotations

import threading
import time
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..frame import FRAME_RATE, RATE, MoshiError, Pcm
from ..sound_file import count_samples, open_sound
from .device import Block
from .ring import Signal
from .virtual import VirtualDevice

_STOOD = 0.5  # seconds by which the clock may be late before it is taken to have stood still


class FileDevice(VirtualDevice):
    """Plays a file into the model and writes what the loudspeaker would play, 24 kHz mono; then the conversation ends
    by itself.

    realtime: as a sound device would, on a thread of its own; else as fast as the model goes, on a clock for which the
    model takes no time. tail: seconds of silence that the model hears after the file. target None writes nothing.
    Reopened, both go on where they were.
    """

    def __init__(
        self, source: Path | str, target: Path | str | None, *, realtime: bool = False, tail: float = 0.0
    ) -> None:
        self._input = open_sound(Path(source))
        rate = self._input.samplerate
        super().__init__(
            self._read,
            self._write,
            input_rate=rate,
            output_rate=RATE,
            input_block=ceil(rate / 100),
            output_block=RATE // 100,
        )
        self.input_name, self.output_name = str(source), str(target or "nowhere")
        self.frames = ceil((count_samples(self._input, Path(source)) / rate + tail) * FRAME_RATE)
        self._target = Path(target).resolve() if target is not None else None  # what a link names
        self._output: Any = None
        self._written = False  # there is something under the target's name, and it is ours
        self._failure = ""  # what went wrong on the clock's thread
        self._realtime = realtime
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self, capture: Block, fill: Block) -> None:
        if self._target is not None:
            try:
                self._output = self._continued(self._target)
            except (OSError, soundfile.LibsndfileError) as error:
                raise MoshiError(f"cannot write {self._target}: {error}; choose another place") from error
        super().start(capture, fill)
        self._ended.clear()
        if self._realtime:
            self._ticker = threading.Thread(target=self._tick, name="moshi-files", daemon=True)
            self._ticker.start()

    def close(self, timeout: float) -> bool:
        super().close(timeout)
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join(timeout)
        if self._output is not None and self._target is not None:
            output, self._output = self._output, None
            try:
                output.close()
                _part(self._target).replace(self._target)
            except (OSError, soundfile.LibsndfileError) as error:
                raise MoshiError(f"{self._target} cannot be written ({error}); see {_part(self._target)}") from error
            self._written = True
        return self._ticker is None or not self._ticker.is_alive()

    def now(self) -> float:
        return time.monotonic() if self._realtime else super().now()

    def wait(self, signal: Signal, timeout: float) -> None:
        if self._failure:
            raise MoshiError(self._failure)
        if self._realtime:
            signal.wait(timeout)
        else:
            super().wait(signal, timeout)

    def _tick(self) -> None:
        """Real time for the virtual clock. A process that stood still (Ctrl-Z) goes on where it was."""
        begin = time.monotonic() - super().now()
        while not self._ended.wait(max(0.0, begin + self.next - time.monotonic())):
            begin += max(0.0, time.monotonic() - begin - self.next - _STOOD)
            self._step()

    def _read(self, start: int, count: int) -> Pcm:
        try:
            pcm = self._input.read(count, dtype="float32", always_2d=True, fill_value=0)
        except soundfile.LibsndfileError as error:
            seconds = start / self.input_rate
            self._failure = f"{self.input_name} is damaged after {seconds:.1f} s ({error}); convert it to WAV"
            return np.zeros(count, np.float32)
        return np.asarray(pcm.mean(axis=1), np.float32)

    def _write(self, block: Pcm) -> None:
        if self._output is None:
            return
        try:
            self._output.write(block)
        except (soundfile.LibsndfileError, AssertionError):  # an AssertionError is soundfile's word for a short write
            self._failure = f"{self.output_name} cannot be written; is the disk full?"

    def _continued(self, target: Path) -> Any:
        """The file for the loudspeaker's sound, under another name until it is closed; with what a device that was
        closed before has written.
        """
        part = _part(target)
        if not self._written:
            return soundfile.SoundFile(part, "w", RATE, 1, "PCM_16", format="WAV")
        target.replace(part)
        output = soundfile.SoundFile(part, "r+")
        output.seek(0, soundfile.SEEK_END)
        return output


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")
