"""Both sides' codes and the text tokens of a conversation: one append-only file of fixed records, `codes.bin`.

It starts with 16 bytes: the magic, then bits a code, user codebooks and Moshi codebooks (little-endian uint16). Each
frame adds one record: the text token (uint32; bit 31 tells that Moshi's codes were there), the user's codes, Moshi's
codes, each side packed to whole bytes. With 8 codebooks of 2,048 entries that is 11 bytes a side, 1.1 kbit/s. A record
that was cut off is dropped on reading.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..frame import Codes, MoshiError, Reply

CODES_FILE = "codes.bin"
MAGIC = b"MOSHICODE1"
MAX_BYTES = 1 << 28  # 229 hours
_HEADER = struct.Struct("<10sHHH")
_SPOKEN = 1 << 31


@dataclass(frozen=True)
class CodesLayout:
    """What one record holds: bits a code, codebooks a side."""

    bits: int
    user: int
    moshi: int

    def header(self) -> bytes:
        """The file's first bytes."""
        return _HEADER.pack(MAGIC, self.bits, self.user, self.moshi)

    def record(self, reply: Reply) -> bytes:
        """One frame, packed. Raises ValueError if a code does not fit: the layout is not the model's."""
        moshi = reply.codes if reply.codes is not None else np.zeros(self.moshi, np.int32)
        token = reply.text_token | (_SPOKEN if reply.codes is not None else 0)
        return struct.pack("<I", token) + self._side(reply.user_codes, self.user) + self._side(moshi, self.moshi)

    def _side(self, codes: Codes, codebooks: int) -> bytes:
        if codes.shape != (codebooks,) or codes.min(initial=0) < 0 or codes.max(initial=0) >> self.bits:
            raise ValueError(f"codes {codes.tolist()} do not fit {codebooks} codebooks of {self.bits} bits")
        return pack(codes[None], self.bits)


@dataclass(frozen=True)
class CodesRead:
    """All records of a file: user int32 (frames, codebooks), moshi likewise (zeros where `spoken` is False),
    text_tokens int64 (frames,).
    """

    layout: CodesLayout
    user: NDArray[np.int32]
    moshi: NDArray[np.int32]
    text_tokens: NDArray[np.int64]
    spoken: NDArray[np.bool_]


def read_codes(path: Path) -> CodesRead:
    """Reads `codes.bin`. Raises MoshiError if it is not one."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise MoshiError(f"{path} is missing or larger than {MAX_BYTES} bytes: the recording is damaged")
    data = path.read_bytes()
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise MoshiError(f"{path} holds no codes of a recording")
    _, bits, user, moshi = _HEADER.unpack_from(data)
    if not (1 <= bits <= 16 and 1 <= user <= 64 and 1 <= moshi <= 64):
        raise MoshiError(f"{path} claims {user} + {moshi} codebooks of {bits} bits: it is damaged")
    layout = CodesLayout(bits, user, moshi)
    user_bytes, moshi_bytes = packed_bytes(bits, user), packed_bytes(bits, moshi)
    record = 4 + user_bytes + moshi_bytes
    frames = (len(data) - _HEADER.size) // record
    rows = np.frombuffer(data, np.uint8, frames * record, _HEADER.size).reshape(frames, record)
    words = np.ascontiguousarray(rows[:, :4]).view("<u4")[:, 0].astype(np.int64)
    return CodesRead(
        layout,
        unpack(rows[:, 4 : 4 + user_bytes], bits, user),
        unpack(rows[:, 4 + user_bytes :], bits, moshi),
        words & (_SPOKEN - 1),
        words >= _SPOKEN,
    )


def packed_bytes(bits: int, codebooks: int) -> int:
    """Bytes of one frame of one side."""
    return (bits * codebooks + 7) // 8


def pack(codes: NDArray[np.int32], bits: int) -> bytes:
    """codes (frames, codebooks), each below 2^bits → each frame packed to whole bytes."""
    flat = codes[:, :, None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(flat.reshape(len(codes), -1).astype(np.uint8), axis=1).tobytes()


def unpack(rows: NDArray[np.uint8], bits: int, codebooks: int) -> NDArray[np.int32]:
    """Packed frames (frames, bytes) → codes (frames, codebooks)."""
    flat = np.unpackbits(rows, axis=1)[:, : bits * codebooks].reshape(len(rows), codebooks, bits)
    weights = 1 << np.arange(bits - 1, -1, -1)
    return (flat @ weights).astype(np.int32)
