"""`session.json`: what made a recording. Written when it begins and again when it is finished; checked when read, for
it may come from anyone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeGuard

from ..frame import MoshiError
from ..text_file import write_beside

INFO_FILE = "session.json"
FORMAT = "moshi-recording 1"
MAX_INFO_BYTES = 1 << 20
MAX_TEXT = 1_000  # characters
MAX_TITLE = 900  # that a person may give: "take 2" and "(replay)" come behind it


@dataclass(frozen=True)
class SessionInfo:
    """What is needed to tell, and to replay, where a conversation came from.

    model: as the user named it. files: name → SHA-256 of every file that decides what the model says. seed and
    sampling: as given to the Session. versions: of the programs. card: entries of a codebook. acoustic_delay: frames by
    which Moshi's sound lags the step that began it. live: from a microphone, in real time. created: ISO 8601. frames: 0
    until the recording is finished.
    """

    model: str
    seed: int
    codebooks: int
    user_codebooks: int
    card: int
    acoustic_delay: int = 1
    title: str = ""
    created: str = ""
    live: bool = False
    kv_bits: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False
    frames: int = 0


def write_info(folder: Path, info: SessionInfo) -> None:
    """Writes `session.json`."""
    write_beside(
        folder / INFO_FILE, json.dumps({"format": FORMAT, **asdict(info)}, indent=2, ensure_ascii=False) + "\n"
    )


def read_info(folder: Path) -> SessionInfo:
    """Reads `session.json`, every field checked. Raises MoshiError; keys it does not know are ignored (a later program
    wrote them).
    """
    path = folder / INFO_FILE
    if not path.is_file():
        raise MoshiError(f"{folder} holds no recording: there is no {INFO_FILE} in it")
    if path.stat().st_size > MAX_INFO_BYTES:
        raise MoshiError(f"{path} is larger than {MAX_INFO_BYTES} bytes: it is damaged")
    values = parse_object(path.read_bytes(), str(path))
    if values.get("format") != FORMAT:
        raise MoshiError(f"{path} is not of the format {FORMAT!r}: it is damaged, or a newer program made it")
    for name in (item.name for item in fields(SessionInfo)):
        if name in values and not _VALID[name](values[name]):
            raise MoshiError(f"{path}: {name} is {str(values[name])[:60]!r}, which is not valid: the file is damaged")
    try:
        return SessionInfo(**{item.name: values[item.name] for item in fields(SessionInfo) if item.name in values})
    except TypeError as error:
        raise MoshiError(f"{path} is incomplete: {error}") from None


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Bytes of JSON → dict. Raises MoshiError for anything else, the numbers NaN and Infinity included."""
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MoshiError(f"{where} is no JSON: {str(error)[:80]}") from None
    if not isinstance(value, dict):
        raise MoshiError(f"{where} holds no JSON object")
    return value


def is_count(value: object, low: int = 0, high: int = 2**31 - 1) -> TypeGuard[int]:
    """Whether `value` is a whole number from low to high."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_text(value: object, most: int = MAX_TEXT) -> TypeGuard[str]:
    """Whether `value` is a text of at most so many characters that can be written as UTF-8."""
    return isinstance(value, str) and len(value) <= most and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_map(value: Any, valid: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 1_000
        and all(is_text(key) and valid(item) for key, item in value.items())
    )


_VALID: dict[str, Any] = {
    "model": is_text,
    "seed": lambda value: is_count(value, 0, 2**64 - 1),
    "codebooks": lambda value: is_count(value, 1, 64),
    "user_codebooks": lambda value: is_count(value, 1, 64),
    "card": lambda value: is_count(value, 2, 1 << 16),
    "acoustic_delay": lambda value: is_count(value, 0, 100),
    "title": is_text,
    "created": is_text,
    "live": lambda value: isinstance(value, bool),
    "kv_bits": lambda value: value is None or is_count(value, 1, 16),
    "files": lambda value: _is_map(value, is_text),
    "sampling": lambda value: _is_map(value, is_number),
    "versions": lambda value: _is_map(value, is_text),
    "finished": lambda value: isinstance(value, bool),
    "frames": is_count,
}
