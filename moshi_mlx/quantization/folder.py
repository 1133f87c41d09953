"""DEST: a complete, self-describing checkpoint folder, which appears only when it is whole.

Everything is written to `DEST.partial` beside it, which is renamed at the end and removed after a failure or an
interrupt.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoints.load import Files
from ..frame import MoshiError
from .describe import describe
from .formats import Format
from .writer import disk_error

_LORA = ("lora", "lora_name", "lora_rank", "lora_scaling")  # merged into the weights that were read
_KINDS = {  # role of a companion → its key in config.json and the name that it gets if its own is taken
    "mimi": ("mimi_name", "mimi.safetensors"),
    "tokenizer": ("tokenizer_name", "tokenizer.model"),
    "mimi_config": ("mimi_config_name", "mimi.json"),
}


@contextmanager
def destination(path: Path, source: Path) -> Iterator[Path]:
    """The folder to write into, which becomes `path` when the block ends well. source: the folder that is read.

    Raises MoshiError, before anything is written, if `path` is there already or cannot be made.
    """
    if path.exists() or path.is_symlink():
        if path.is_dir() and path.resolve() == source.resolve():
            raise MoshiError(f"{path} is the model that is read; give the result another folder")
        raise MoshiError(f"{path} exists already; choose another name or remove it first")
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


def companions(files: Files, weights: str) -> dict[str, tuple[Path, str]]:
    """By role: codec, tokenizer and the codec's configuration, where they are, and what they are called in DEST."""
    found = {"mimi": files.mimi, "tokenizer": files.tokenizer}
    if name := (files.raw or {}).get("mimi_config_name"):
        found["mimi_config"] = files.located.file(name)
    taken, result = {weights, "config.json"}, {}
    for kind, path in found.items():
        name = path.name if path.name not in taken else _KINDS[kind][1]
        taken.add(name)
        result[kind] = (path, name)
    return result


def check_space(folder: Path, nbytes: int) -> None:
    """Raises MoshiError if the disk of a folder cannot take so much."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise MoshiError(
            f"the result takes {nbytes / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB left; free some space"
        )


def copy(path: Path, target: Path) -> None:
    """A companion, byte for byte; MoshiError if the disk does not take it."""
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise disk_error(target, error) from None


def write_text(path: Path, text: str) -> None:
    """A small file, beside its name first."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise disk_error(path, error) from None
    finally:
        beside.unlink(missing_ok=True)


def config_json(
    files: Files, weights: str, names: Mapping[str, tuple[Path, str]], quantization: Mapping[str, Any]
) -> dict[str, Any]:
    """The result's config.json: the source's, or one that says in full what the source left unsaid."""
    raw = files.raw if files.raw and ("dim" in files.raw or "delays" in files.raw) else {}
    result = describe(files.config) | {key: value for key, value in raw.items() if key not in _LORA}
    result |= {"moshi_name": weights} | {_KINDS[kind][0]: name for kind, (_, name) in names.items()}
    return result | {"quantization": quantization}


def quantization_object(recipe: str, plan: Mapping[str, Format], kept: list[str]) -> dict[str, Any]:
    """What config.json says about the weights: the format of most matrices, then every exception by its name in the
    file. Our own loader goes by the tensors themselves.
    """
    formats = list(plan.values())
    most = max(sorted(set(formats)), key=formats.count)
    other: dict[str, Any] = {
        name: {"bits": how.bits, "group_size": how.group} for name, how in plan.items() if how != most
    }
    return {
        "recipe": recipe,
        "mode": "affine",
        "bits": most.bits,
        "group_size": most.group,
        "exceptions": other | dict.fromkeys(kept, False),
    }
