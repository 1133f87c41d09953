"""Names of repositories and their files: `org/repo`, `org/repo@revision`, `hf://org/repo/path/to/file`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..frame import MoshiError

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """A repository of the Hub, a revision (None: main) and perhaps one file of it."""

    repo: str
    revision: str | None = None
    file: str | None = None


def is_plain(name: str) -> bool:
    """Whether a relative name cannot lead out of the folder it is looked up in."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts) and ".." not in parts and parts[0] != "/" and not set(name) & {"\\", "\0", ":"} and len(name) < 1024
    )


def looks_like_id(text: str) -> bool:
    """Whether `text` has the form org/repo or org/repo@revision."""
    repo, _, revision = text.partition("@")
    return bool(_ID.fullmatch(repo)) and ("@" not in text or bool(_REVISION.fullmatch(revision)))


def parse(text: str) -> Address:
    """`[hf://]org/repo[@revision][/path/to/file]`; MoshiError if it is not of this form."""
    parts = text.removeprefix("hf://").split("/", 2)
    file = parts[2] if len(parts) == 3 else None
    if not looks_like_id("/".join(parts[:2])) or (file is not None and not is_plain(file)):
        raise MoshiError(f"{text[:120]!r} is not an address; write org/repo or hf://org/repo/path/to/file")
    repo, _, revision = "/".join(parts[:2]).partition("@")
    return Address(repo, revision or None, file)
