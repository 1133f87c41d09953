"""Is a checkpoint whole? Headers, hashes, shapes and values of every file, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..frame import MoshiError
from .codec_of import load_codec_of
from .header import read_header
from .helium import load_helium
from .hub import digest_of, has_digest
from .known import SHA256
from .load import load, read_tensors
from .locate import Located, locate

SHOWN = 5  # faults of one file


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one file, or in the whole (`file` is then the label). good: nothing is wrong."""

    file: str
    good: bool
    text: str


def verify(source: str | Path | None, *, offline: bool = False) -> Iterator[Finding]:
    """Checks file by file, then whether the files belong together; MoshiError only if there is nothing to check."""
    located = locate(source, offline=offline)
    paths = [located.file(name) for name in located.files().all()]
    tensors = 0
    for path in paths:
        faults, count, notes = [*_hash_faults(path)], 0, []
        if path.suffix == ".safetensors":
            try:
                header = read_header(path)
                count = len(header.tensors)
                notes.append(f"{count} tensors, {header.nbytes:,} bytes")
                faults += _value_faults(path)
            except MoshiError as error:
                faults.append(str(error))
        digest = _expected(path)
        notes.append("hash as published" if digest else "no published hash to compare with")
        tensors += count
        yield Finding(path.name, not faults, "; ".join(faults[:SHOWN] if faults else notes))
    try:
        _load(located, source, offline)
    except MoshiError as error:
        yield Finding(located.label, False, str(error))
    else:
        yield Finding(located.label, True, f"{len(paths)} files, {tensors} tensors fit their configuration")


def _load(located: Located, source: str | Path | None, offline: bool) -> None:
    """Builds the model, which checks names and shapes; weights of a Moshi stay in the file."""
    family = located.files().family
    if family == "helium":
        load_helium(located)
    elif family == "hf-mimi":
        load_codec_of(source, offline=offline)
    else:
        load(source, lazy=True, offline=offline)


def _expected(path: Path) -> str | None:
    """The published hash of a file: by its name, or what the Hugging Face cache calls its content."""
    return digest_of(path) or SHA256.get(path.name)


def _hash_faults(path: Path) -> Iterator[str]:
    digest = _expected(path)
    if digest is not None and not has_digest(path, digest):
        yield f"its content is not what was published (hash {digest[:12]}…): get it again"


def _value_faults(path: Path) -> Iterator[str]:
    """NaN, infinities, scales that are zero, matrices that are zero (a file that was made large and never filled)."""
    tensors = read_tensors(path)
    for name in list(tensors):
        value = tensors.pop(name)
        if mx.issubdtype(value.dtype, mx.floating) and not mx.isfinite(value).all().item():
            yield f"{name} holds NaN or infinite values"
        elif value.ndim == 2 and value.size > 1 and not value.any().item():
            yield f"{name} holds only zeros"
        del value
        mx.clear_cache()
