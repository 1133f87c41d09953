"""What a safetensors file says it holds, read without MLX and without trusting it.

`read_header(path)` gives name → (dtype, shape, byte span) after checking everything that a truncated, lying or hostile
file can get wrong; it reads the header only, so a 15 GB file costs milliseconds. A file that is something else (a
pickle, a zip, GGUF, a Git LFS pointer, a web page) is named as what it is. Every failure is one `MoshiError`.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..frame import MoshiError

MAX_HEADER = 16 << 20  # bytes; the largest published header (Moshi q4, 1,247 tensors) has 0.15 MB
MAX_RANK = 8

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}

_MAGIC = (
    (b"GGUF", "a GGUF file; convert it to safetensors or get the MLX files of this model"),
    (b"PK\x03\x04", "a zip archive, probably a PyTorch pickle; save it as safetensors"),
    (b"\x93NUMPY", "a NumPy file; save it as safetensors"),
    (b"version https://git-lfs", "a Git LFS pointer, not the weights; run `git lfs pull` or `moshi-mlx models get`"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"<", "a web page or XML, not weights; download it again"),
    (b"{", "a JSON file, not weights"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its safetensors dtype ("BF16", "U32", …), its shape, and its bytes [start, end) of the whole file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.end - self.start

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header. `tensors` keeps the file's order; the data begins at byte `data_start`."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 8

    @property
    def nbytes(self) -> int:
        """Bytes of data of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())


def read_header(path: str | Path) -> Header:
    """The checked header of the safetensors file at `path`; raises MoshiError if anything is wrong with it."""
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MoshiError(f"{path} is not a file; name a .safetensors file")
        with path.open("rb") as file:
            head = file.read(32)
            length = int.from_bytes(head[:8], "little")
            if head[8:9] != b"{" or not 2 <= length <= min(MAX_HEADER, status.st_size - 8):
                raise MoshiError(f"{path} {_diagnose(head, length, status.st_size)}")
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise MoshiError(f"{path} does not exist; check the name") from None
    except OSError as error:
        raise MoshiError(f"{path} cannot be read: {error.strerror}") from None
    if len(text) != length:
        raise MoshiError(f"{path} is cut short inside its header; get it again")
    tensors, metadata = _parse(path, text)
    data_start = 8 + length
    infos = {name: _tensor(path, name, entry, data_start) for name, entry in tensors.items()}
    _check_layout(path, infos, data_start, status.st_size)
    return Header(path, infos, metadata, data_start)


def _diagnose(head: bytes, length: int, size: int) -> str:
    """What a file that cannot be safetensors probably is."""
    if size == 0:
        return "is empty; get it again"
    if head[8:9] == b"{":
        what = f"declares a header of {length:,} bytes"
        if length > MAX_HEADER:
            return f"{what}, more than any model has: damaged, get it again"
        return f"{what} but has {size:,} bytes: cut short, get it again"
    for magic, what in _MAGIC:
        if head.lstrip(b" \r\n\t").startswith(magic):
            return f"is {what}"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "is a Python pickle, which is never opened; save it as safetensors"
    return "is not a safetensors file; get it again or check the name"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different (Python's reader would silently keep the last)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _parse(path: Path, text: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The JSON of the header: tensor entries, and the metadata taken out."""
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MoshiError(f"{path} has a damaged header ({type(error).__name__}: {error}); get it again") from None
    metadata = entries.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MoshiError(f"{path} has metadata that is not text; get it again")
    return entries, metadata


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tensor(path: Path, name: str, entry: object, data_start: int) -> TensorInfo:
    """One checked entry of the header."""
    label = f"{path}: tensor {name[:80]!r}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise MoshiError(f"{label} is not described by dtype, shape and data_offsets; damaged, get the file again")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise MoshiError(f"{label} has the unknown dtype {str(dtype)[:40]!r}; known are {', '.join(ITEM_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_count(n) for n in shape):
        raise MoshiError(f"{label} has an impossible shape; damaged, get the file again")
    if not isinstance(span, list) or len(span) != 2 or not all(_is_count(n) for n in span) or span[0] > span[1]:
        raise MoshiError(f"{label} has impossible offsets; damaged, get the file again")
    if math.prod(shape) * ITEM_BYTES[dtype] != span[1] - span[0]:
        raise MoshiError(f"{label} has a shape that does not fill its bytes; damaged, get the file again")
    return TensorInfo(dtype, tuple(shape), data_start + span[0], data_start + span[1])


def _check_layout(path: Path, infos: Mapping[str, TensorInfo], data_start: int, size: int) -> None:
    """The tensors follow one another without a gap and fill the file, as the format demands."""
    position = data_start
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            fault = "overlaps the one before it" if info.start < position else "leaves a gap before it"
            raise MoshiError(f"{path}: tensor {name[:80]!r} {fault}; damaged, get the file again")
        position = info.end
    if size < position:
        raise MoshiError(f"{path} is cut short: it has {size:,} of {position:,} bytes; get it again")
    if size > position:
        raise MoshiError(f"{path} has {size - position:,} bytes after its last tensor; damaged, get it again")
