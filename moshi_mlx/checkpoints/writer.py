"""A safetensors file written piece by piece: the header first, from shapes that are known, then the bytes as they come.

`mx.save_safetensors` needs all tensors at once; here a piece is written and forgotten, so a file may be larger than the
memory.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import mlx.core as mx
import numpy as np

from ..frame import MoshiError

Spec = tuple[mx.Dtype, tuple[int, ...]]

_DTYPES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.float32: "F32",
    mx.uint64: "U64",
    mx.int64: "I64",
}


class TensorWriter:
    """Writes the tensors that `specs` announces, each in pieces along its first axis and in any order of tensors.

    The file is whole when the `with` block ends without an exception; what is there before that is worth nothing.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec]) -> None:
        self.path = path
        entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
        position, self._at, self._end = 0, {}, {}
        for name, (dtype, shape) in specs.items():
            end = position + math.prod(shape) * dtype.size
            entries[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [position, end]}
            self._at[name], self._end[name], position = position, end, end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start, self._specs = 8 + len(text), specs
        self.nbytes, self.written = position, 0
        self._file = path.open("wb", buffering=0)
        try:
            self._put(0, len(text).to_bytes(8, "little") + text)
        except BaseException:
            self._file.close()
            raise

    def write(self, name: str, piece: mx.array) -> None:
        """The next rows of a tensor, of the announced dtype and width; MoshiError if the disk does not take them."""
        dtype, shape = self._specs[name]
        if piece.dtype != dtype or tuple(piece.shape[1:]) != shape[1:]:
            raise ValueError(f"{name}: a piece {piece.dtype} {piece.shape} of a tensor {dtype} {shape}")
        raw = np.array(mx.contiguous(piece).view(mx.uint8) if piece.ndim else piece.reshape(1).view(mx.uint8))
        if self._at[name] + raw.nbytes > self._end[name]:
            raise ValueError(f"{name}: more rows than announced")
        self._put(self._start + self._at[name], raw.data)
        self._at[name] += raw.nbytes
        self.written += raw.nbytes

    def _put(self, position: int, data: bytes | memoryview) -> None:
        try:
            self._file.seek(position)
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise disk_error(self.path, error) from None

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                return
            if short := [name for name, at in self._at.items() if at != self._end[name]]:
                raise ValueError(f"{short[0]} is not complete")
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise disk_error(self.path, error) from None


def disk_error(path: Path, error: OSError) -> MoshiError:
    """One line for a disk that does not take what it is given."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MoshiError(f"the disk is full: {path.parent} takes no more; free some space or choose another place")
    return MoshiError(f"{path} cannot be written: {error.strerror}; choose another place")
