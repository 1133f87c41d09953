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
from .device import Block
from .ring import Signal
from .virtual import VirtualDevice


class FileDevice(VirtualDevice):
    """Plays a file into the model and writes what the loudspeaker would play, 24 kHz mono; then the conversation ends
    by itself.

    realtime: as a sound device would, on a thread of its own; else as fast as the model goes, on a clock for which the
    model takes no time. tail: seconds of silence that the model hears after the file. target None writes nothing.
    """

    def __init__(
        self, source: Path | str, target: Path | str | None, *, realtime: bool = False, tail: float = 0.0
    ) -> None:
        try:
            self._input = soundfile.SoundFile(source)
        except (OSError, soundfile.LibsndfileError) as error:
            raise MoshiError(f"cannot read {source}: {error}; give a WAV, FLAC or Ogg file") from error
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
        self.frames = ceil((self._input.frames / rate + tail) * FRAME_RATE)
        self._target = Path(target) if target is not None else None
        self._output: Any = None
        self._realtime = realtime
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self, capture: Block, fill: Block) -> None:
        if self._target is not None:
            try:
                self._output = soundfile.SoundFile(self._part(self._target), "w", RATE, 1, "PCM_16", format="WAV")
            except (OSError, soundfile.LibsndfileError) as error:
                raise MoshiError(f"cannot write {self._target}: {error}; choose another place") from error
        super().start(capture, fill)
        if self._realtime:
            self._ticker = threading.Thread(target=self._tick, name="moshi-files", daemon=True)
            self._ticker.start()

    def close(self, timeout: float) -> bool:
        super().close(timeout)
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join(timeout)
        if self._output is not None and self._target is not None:
            self._output.close()
            self._part(self._target).replace(self._target)
            self._output = None
        return self._ticker is None or not self._ticker.is_alive()

    def now(self) -> float:
        return time.monotonic() if self._realtime else super().now()

    def wait(self, signal: Signal, timeout: float) -> None:
        if self._realtime:
            signal.wait(timeout)
        else:
            super().wait(signal, timeout)

    def _tick(self) -> None:
        begin = time.monotonic()
        while not self._ended.wait(max(0.0, begin + self.next - time.monotonic())):
            self._step()

    def _read(self, start: int, count: int) -> Pcm:
        pcm = self._input.read(count, dtype="float32", always_2d=True, fill_value=0)
        return np.asarray(pcm.mean(axis=1), np.float32)

    def _write(self, block: Pcm) -> None:
        if self._output is not None:
            self._output.write(block)

    @staticmethod
    def _part(target: Path) -> Path:
        return target.with_name(target.name + ".part")
