"""The sound of a conversation: stereo 16-bit WAV files that are valid at every moment.

Left is the user, right is Moshi. Samples are appended first, then the header is rewritten in one call: whoever is
killed in between leaves a header that speaks of a little less than there is, never of more. A part ends before 4 GB,
the most a WAV can say.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..frame import FRAME, RATE, MoshiError, Pcm

HEADER_BYTES = 44
SAMPLE_BYTES = 4  # two lanes of 16 bits
PART_LIMIT = 2**32 - 2**20  # bytes of one part, header included; 12.4 hours


def part_name(number: int) -> str:
    """File name of a part, from 1: `conversation.wav`, `conversation-2.wav`, …"""
    return "conversation.wav" if number == 1 else f"conversation-{number}.wav"


def find_parts(folder: Path) -> list[Path]:
    """The parts of a recording in order. Raises MoshiError for one that is not a plain file: a link could lead out of
    the folder.
    """
    parts: list[Path] = []
    while (path := folder / part_name(len(parts) + 1)).exists() or path.is_symlink():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise MoshiError(f"{path} is not a plain file: replace it by the recording itself")
        parts.append(path)
    return parts


def header(samples: int) -> bytes:
    """The 44 bytes before `samples` stereo samples."""
    size = samples * SAMPLE_BYTES
    riff = struct.pack("<4sI4s", b"RIFF", HEADER_BYTES - 8 + size, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, RATE * SAMPLE_BYTES, SAMPLE_BYTES, 16)
    return riff + form + struct.pack("<4sI", b"data", size)


def pcm16(pcm: Pcm) -> NDArray[np.int16]:
    """float32 in [−1, 1] → int16. What was read from 16 bits comes back unchanged; what is not finite is silence."""
    scaled = np.rint(np.nan_to_num(pcm, nan=0.0, posinf=0.0, neginf=0.0) * 32_768.0)
    clipped: NDArray[np.int16] = np.clip(scaled, -32_768, 32_767).astype(np.int16)
    return clipped


def write_all(descriptor: int, data: bytes) -> None:
    """os.write until nothing is left (a full disk may take a part first and raise at the rest)."""
    while data:
        data = data[os.write(descriptor, data) :]


class StereoWriter:
    """Appends stereo samples to `conversation.wav` and its further parts. Every method may raise OSError."""

    def __init__(self, folder: Path, limit: int = PART_LIMIT) -> None:
        """Starts the first part in an existing folder; a part holds at most `limit` bytes."""
        self.folder = folder
        self.capacity = (limit - HEADER_BYTES) // (FRAME * SAMPLE_BYTES) * FRAME  # samples, in whole frames
        self.part = 0
        self._descriptor = -1
        self._next_part()

    def write(self, user: Pcm, moshi: Pcm) -> None:
        """Appends two lanes of equal length, float32 (samples,)."""
        stereo = np.stack([pcm16(user), pcm16(moshi)], axis=1)  # (samples, 2)
        while len(stereo):
            if self.samples == self.capacity:
                self._next_part()
            now = stereo[: self.capacity - self.samples]
            write_all(self._descriptor, now.astype("<i2").tobytes())
            self.samples += len(now)
            os.pwrite(self._descriptor, header(self.samples), 0)
            stereo = stereo[len(now) :]

    def check(self) -> None:
        """Raises FileNotFoundError if the file is no longer where it was: writing to a deleted file succeeds in
        silence.
        """
        path = self.folder / part_name(self.part)
        if not os.path.samestat(path.stat(), os.fstat(self._descriptor)):
            raise FileNotFoundError(f"{path} was replaced")

    def close(self) -> None:
        """Brings the last part to the disk and closes it; harmless when repeated."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _next_part(self) -> None:
        self.close()
        self.part += 1
        self.samples = 0
        path = self.folder / part_name(self.part)
        fresh = path.with_name(path.name + ".new")  # it gets its name once its header is whole
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        write_all(self._descriptor, header(0))
        fresh.rename(path)


def trim(path: Path) -> int:
    """Cuts off what a killed writer left behind the length in the header; gives the samples that remain.

    Raises MoshiError if this is no part that StereoWriter began.
    """
    with path.open("r+b") as file:
        head = file.read(HEADER_BYTES)
        there = file.seek(0, os.SEEK_END) - HEADER_BYTES
        size = struct.unpack("<I", head[40:])[0] if len(head) == HEADER_BYTES else 0
        if head != header(size // SAMPLE_BYTES):
            raise MoshiError(f"{path} does not begin as a recording does: it was made or changed by another program")
        samples = min(size, there) // SAMPLE_BYTES
        file.truncate(HEADER_BYTES + samples * SAMPLE_BYTES)
        file.seek(0)
        file.write(header(samples))
    return samples
