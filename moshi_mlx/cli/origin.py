"""Where a recording comes from: the `SessionInfo` of a session, with the hash of each file that shapes what is said."""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..checkpoints.load import open_checkpoint
from ..recording.info import SessionInfo

if TYPE_CHECKING:
    from ..session import Session

PROGRAMS = ("mlx", "numpy", "sentencepiece")


def session_info(session: Session, source: str | Path | None, *, live: bool, title: str = "") -> SessionInfo:
    """source: as it was given to `load`. Reads a file to hash it, where nothing on this disk tells its hash."""
    config = session.moshi.config.lm
    files = open_checkpoint(source, offline=True)
    named = {path.name: path for path in (files.weights, files.mimi, files.tokenizer)}
    if files.located.has("config.json"):
        named["config.json"] = files.located.file("config.json")
    return SessionInfo(
        model=str(source) if source is not None else session.moshi.located.label,
        seed=session.seed,
        codebooks=config.dep_q,
        user_codebooks=config.user_q,
        card=config.card,
        acoustic_delay=config.max_delay,
        title=title,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        live=live,
        kv_bits=session.kv_bits,
        files={name: sha256(path) for name, path in named.items()},
        sampling=asdict(session.sampling),
        versions={"moshi-live": __version__, "python": platform.python_version(), **_versions()},
    )


def sha256(path: Path) -> str:
    """Of a file's content. A file of the Hugging Face cache bears it as its name, and was checked when it came."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name):
        return real.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
