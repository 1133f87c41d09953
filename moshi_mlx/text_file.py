"""Writing a text file whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_beside(path: Path, text: str) -> None:
    """Writes under another name, then renames: a reader sees the old file or the new one. OSError if it cannot be.

    A link of this name is replaced: in a recording that came from anyone it may lead out of the folder.
    """
    fresh = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with fresh.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
