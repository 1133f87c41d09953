"""Sound files at the edge of the program: any file in as frames, WAV out.

`frames(path)` reads a file of any rate and number of channels piece by piece, so an hour costs no more memory than a
second. `Writer` writes beside its target and renames when all went well. Failures are one MoshiError each.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ..frame import FRAME, FRAME_MS, RATE, MoshiError, Pcm
from ..sound_file import LONGEST, open_sound

RATES = (2_000, 768_000)  # Hz, lowest and highest that are believed
UNFINISHED = 4096  # bytes: a file of more holds sound, whatever its header says
BLOCK = 0.5  # seconds read at a time


class Frames:
    """Iterates once over a sound file: float32 (1920,), 24 kHz, mono, in [−1, 1]; the last frame is filled with zeros.

    total: how many frames there will be, by the file's header; None where that does not know.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_sound(self.path)
        self.rate, self.channels = int(self._file.samplerate), int(self._file.channels)
        seconds = self._file.frames / self.rate
        try:
            if not RATES[0] <= self.rate <= RATES[1]:
                raise MoshiError(f"{path} has a rate of {self.rate} Hz, which no sound has; convert it to 24 kHz WAV")
            if seconds <= 0 and self.path.stat().st_size > UNFINISHED:
                raise MoshiError(f"{path} was never finished by what wrote it; `sox --ignore-length IN OUT` mends it")
            if seconds <= 0:
                raise MoshiError(f"{path} holds no sound; record it again")
            if seconds < FRAME_MS / 1000:
                raise MoshiError(
                    f"{path} lasts {1000 * seconds:.0f} ms; at least one frame, {FRAME_MS:.0f} ms, is needed"
                )
        except MoshiError:
            self.close()
            raise
        self.total = math.ceil(round(seconds * RATE, 3) / FRAME) if seconds < LONGEST else None

    def close(self) -> None:
        """Closes the file of which no more is wanted; iterating to the end does so too."""
        self._file.close()

    def __iter__(self) -> Iterator[Pcm]:
        waiting = np.zeros(0, np.float32)
        with self._file:
            for pcm in self._resampled():
                waiting = np.concatenate([waiting, np.clip(pcm, -1, 1)])
                whole = len(waiting) - len(waiting) % FRAME
                yield from waiting[:whole].reshape(-1, FRAME)
                waiting = waiting[whole:]
        if len(waiting):
            yield np.pad(waiting, (0, FRAME - len(waiting)))

    def _resampled(self) -> Iterator[Pcm]:
        """Mono pieces at 24 kHz."""
        if self.rate == RATE:
            yield from self._mono()
            return
        stream = soxr.ResampleStream(self.rate, RATE, 1, dtype="float32")
        for pcm in self._mono():
            yield stream.resample_chunk(pcm)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)

    def _mono(self) -> Iterator[Pcm]:
        """Mono pieces at the file's rate."""
        done, block = 0, int(BLOCK * self.rate)
        while True:
            try:
                pcm: NDArray[np.float32] = self._file.read(block, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise MoshiError(
                    f"{self.path} is damaged after {done / self.rate:.1f} s ({error}); convert it to WAV"
                ) from None
            if not len(pcm):
                return
            mono = pcm.mean(axis=1, dtype=np.float32)
            if not np.isfinite(mono).all():
                raise MoshiError(
                    f"{self.path} holds NaN or infinite samples near {done / self.rate:.1f} s; export it again"
                )
            done += len(pcm)
            yield mono


def frames(path: str | Path) -> Frames:
    """Opens a sound file to be read frame by frame; MoshiError if it cannot be."""
    return Frames(path)


class Writer:
    """A 16-bit WAV at 24 kHz that appears under its name only when the `with` block ends without an exception."""

    def __init__(self, path: str | Path, channels: int = 1) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".wav":
            raise MoshiError(f"{path}: sound is written as WAV; give it a name that ends in .wav")
        if (self.path.exists() and not self.path.is_file()) or not self.path.parent.is_dir():
            raise MoshiError(f"{path} cannot be written; name a file in a folder that exists")
        self._target = self.path.resolve()  # what a link names
        self._part = self._target.with_name(f".{self._target.name}.part")
        try:
            self._file = soundfile.SoundFile(self._part, "w", RATE, channels, "PCM_16", format="WAV")
        except UnicodeEncodeError:
            raise MoshiError(f"{str(path)!a} is no UTF-8: choose another name") from None
        except soundfile.SoundFileError:
            raise MoshiError(f"{path} cannot be written; may you write in {self.path.parent.absolute()}?") from None

    def write(self, pcm: NDArray[np.float32]) -> None:
        """Appends float32 (samples,) or (samples, channels); values beyond ±1 are clipped."""
        try:
            self._file.write(pcm)
        except (soundfile.SoundFileError, AssertionError):  # an AssertionError is soundfile's word for a short write
            raise MoshiError(f"{self.path} cannot be written; is the disk full?") from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            if kind is None:
                self._part.replace(self._target)
        except (soundfile.SoundFileError, OSError):
            raise MoshiError(f"{self.path} cannot be written; is the disk full?") from None
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink()
