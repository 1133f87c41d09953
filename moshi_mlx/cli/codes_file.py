"""A file of codec frames: 32 bytes of header, then one packed record a frame, 11 bytes for 8 codebooks of 2,048.

header: magic, bits a code, codebooks (uint16), the first 8 bytes of the SHA-256 of the codec's tables (two codecs of
one shape exist; mixed up, they decode to noise), zeros. All little-endian. The file appears when it is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..frame import MoshiError
from ..recording.codes import packed_bytes, unpack

MAGIC = b"MIMICODES1"
_HEADER = struct.Struct("<10sHH8s10x")
PIECE = 32  # frames read at once


def header(bits: int, codebooks: int, codec: bytes) -> bytes:
    """The file's first bytes. codec: 8 bytes that tell the codec."""
    return _HEADER.pack(MAGIC, bits, codebooks, codec)


class CodesFile:
    """A file of codes, opened: bits, codebooks, codec (8 bytes), frames. MoshiError if it is none, or cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(_HEADER.size)
        except OSError as error:
            raise MoshiError(
                f"{path} cannot be read: {error.strerror}; name a file that `codec encode` wrote"
            ) from None
        if len(head) < _HEADER.size or not head.startswith(MAGIC):
            raise MoshiError(f"{path} is not a file of codes; make one with `moshi-mlx codec encode`")
        _, self.bits, self.codebooks, self.codec = _HEADER.unpack(head)
        if not (1 <= self.bits <= 16 and 1 <= self.codebooks <= 128):
            raise MoshiError(f"{path} claims {self.codebooks} codebooks of {self.bits} bits: it is damaged")
        self.frames, rest = divmod(size - _HEADER.size, packed_bytes(self.bits, self.codebooks))
        if rest or not self.frames:
            raise MoshiError(f"{path} is cut short: it does not hold whole frames; encode it again")

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        """codes (codebooks, up to 32 frames)."""
        with self.path.open("rb") as file:
            file.seek(_HEADER.size)
            while data := file.read(PIECE * packed_bytes(self.bits, self.codebooks)):
                rows = np.frombuffer(data, np.uint8).reshape(-1, packed_bytes(self.bits, self.codebooks))
                yield unpack(rows, self.bits, self.codebooks).T
