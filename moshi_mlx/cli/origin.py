"""Where a recording comes from: the `SessionInfo` of a session, with the hash of each file that shapes what is said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import hub
from ..checkpoints.load import open_checkpoint
from ..checkpoints.locate import address_of
from ..recording.info import MAX_TEXT, MAX_TITLE, SessionInfo
from .examine import versions

if TYPE_CHECKING:
    from ..session import Session

PROGRAMS = ("mlx", "numpy", "sentencepiece")


def session_info(session: Session, source: str | Path | None, *, live: bool, title: str = "") -> SessionInfo:
    """source: as it was given to `load`. Reads a file to hash it, where nothing on this disk tells its hash."""
    config = session.moshi.config.lm
    files = open_checkpoint(source, offline=True)
    paths = [files.weights, *files.shards, files.mimi, files.tokenizer, *([files.lora] if files.lora else ())]
    texts = (name for name in ("config.json", files.located.files().mimi_config) if name)
    paths += [files.located.file(name) for name in texts if files.located.has(name)]
    model = session.moshi.located.label if source is None else source
    if source is not None and address_of(source) is None:
        model = Path(source).expanduser().absolute()  # a replay may stand elsewhere
    return SessionInfo(
        model=str(model)[:MAX_TEXT],
        seed=session.seed,
        codebooks=config.dep_q,
        user_codebooks=config.user_q,
        card=config.card,
        acoustic_delay=config.max_delay,
        title=title[:MAX_TITLE],
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        live=live,
        kv_bits=session.kv_bits,
        files=_hashes(paths),
        sampling=asdict(session.sampling),
        versions=versions(PROGRAMS),
    )


def _hashes(paths: Sequence[Path]) -> dict[str, str]:
    """By name, with its folder where another file has the same."""
    found: dict[str, str] = {}
    for path in paths:
        name = path.name if path.name not in found else f"{path.parent.name}/{path.name}"
        found[name] = sha256(path)
    return found


def sha256(path: Path) -> str:
    """Of a file's content. A file of the Hugging Face cache bears it as its name, and was checked when it came."""
    if (known := hub.digest_of(path)) is not None and len(known) == 64:
        return known
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
