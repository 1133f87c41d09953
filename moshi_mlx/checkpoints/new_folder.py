"""DEST: a complete, self-describing checkpoint folder, which appears only when it is whole.

Everything is written to `DEST.partial` beside it, which is renamed at the end and removed after a failure or an
interrupt.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..frame import MoshiError
from ..text_file import write_beside
from .describe import describe, describe_codec
from .hf_names import CODEC, is_hf_mimi, mimi_from_hf
from .load import Files, read_codec
from .writer import TensorWriter, disk_error

_LORA = ("lora", "lora_name", "lora_rank", "lora_scaling")  # merged into the weights that were read
_KINDS = {  # role of a companion → its key in config.json and the name that it gets if its own is taken
    "mimi": ("mimi_name", "mimi.safetensors"),
    "tokenizer": ("tokenizer_name", "tokenizer.model"),
    "mimi_config": ("mimi_config_name", "mimi.json"),
}


def check_vacant(path: Path, source: str | Path | None) -> None:
    """Raises MoshiError if `path` is there already, or nothing can be there. source: what is read, in the user's words.

    For the time before gigabytes are fetched; `destination` looks again.
    """
    if path.exists() or path.is_symlink():
        if source is not None and path.is_dir() and Path(source).exists() and path.samefile(source):
            raise MoshiError(f"{path} is the model that is read; give the result another folder")
        raise MoshiError(f"{path} exists already; choose another name or remove it first")
    if not path.absolute().parent.is_dir():
        raise MoshiError(f"{path} cannot be made: {path.parent} is no folder; name a place that is there")


@contextmanager
def destination(path: Path) -> Iterator[Path]:
    """The folder to write into, which becomes `path` when the block ends well.

    Raises MoshiError, before anything is written, if `path` is there already or cannot be made.
    """
    check_vacant(path, None)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.mkdir()
    except FileExistsError:
        raise MoshiError(
            f"{partial} exists: another run is writing there, or one was killed; remove it if none is running"
        ) from None
    except OSError as error:
        raise MoshiError(f"{path} cannot be made: {error.strerror}; name a place where you may write") from None
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError as error:
            raise MoshiError(f"{path} cannot be made: {error.strerror}; choose another name") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def companions(files: Files, weights: str) -> dict[str, tuple[Path | None, str]]:
    """By role: codec, tokenizer and the codec's configuration; where they are (None: in the weights of the source) and
    what they are called in DEST.
    """
    inside = files.mimi == files.weights
    found: dict[str, Path | None] = {"mimi": None if inside else files.mimi, "tokenizer": files.tokenizer}
    if inside:
        found["mimi_config"] = None
    elif name := (files.raw or {}).get("mimi_config_name"):
        found["mimi_config"] = files.located.file(name)
    taken, result = {weights, "config.json"}, {}
    for kind, path in found.items():
        name = path.name if path is not None and path.name not in taken else _KINDS[kind][1]
        taken.add(name)
        result[kind] = (path, name)
    return result


def write_companions(files: Files, names: Mapping[str, tuple[Path | None, str]], folder: Path) -> None:
    """Copies them, byte for byte; a codec in the weights of the source becomes a file in the published layout."""
    for path, name in names.values():
        if path is not None:
            _copy(path, folder / name)
    if names["mimi"][0] is None:
        tensors = _inner_codec(files)
        with TensorWriter(folder / names["mimi"][1], {k: (v.dtype, tuple(v.shape)) for k, v in tensors.items()}) as out:
            for name, value in tensors.items():
                out.write(name, value)
        write_json(folder / names["mimi_config"][1], describe_codec(files.config.mimi))


def companions_size(files: Files, names: Mapping[str, tuple[Path | None, str]]) -> int:
    """Bytes that they take."""
    size = sum(path.stat().st_size for path, _ in names.values() if path is not None)
    return size + (sum(v.nbytes for v in _inner_codec(files).values()) if names["mimi"][0] is None else 0)


def _inner_codec(files: Files) -> dict[str, mx.array]:
    """The codec that lies in the file of the language model, lazily."""
    tensors = read_codec(files)
    own = {name.removeprefix(CODEC): value for name, value in tensors.items() if name.startswith(CODEC)}
    return mimi_from_hf(own, files.config.mimi) if is_hf_mimi(own) else own


def check_space(folder: Path, nbytes: int) -> None:
    """Raises MoshiError if the disk of a folder cannot take so much."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise MoshiError(
            f"the result takes {nbytes / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB left; free some space"
        )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """A small JSON file."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """`write_beside`; MoshiError if the disk does not take it."""
    try:
        write_beside(path, text)
    except OSError as error:
        raise disk_error(path, error) from None


def _copy(path: Path, target: Path) -> None:
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise disk_error(target, error) from None


def config_json(
    files: Files, weights: str, names: Mapping[str, tuple[Path | None, str]], quantization: Mapping[str, Any]
) -> dict[str, Any]:
    """The result's config.json: the source's, or one that says in full what the source left unsaid."""
    raw = files.raw if files.raw and ("dim" in files.raw or "delays" in files.raw) else {}
    result = describe(files.config) | {key: value for key, value in raw.items() if key not in _LORA}
    result |= {"moshi_name": weights} | {_KINDS[kind][0]: name for kind, (_, name) in names.items()}
    return result | {"quantization": quantization}
