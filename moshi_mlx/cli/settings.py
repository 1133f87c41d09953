"""What is remembered between runs: the chosen devices, by name, in the platform's folder for settings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..frame import MoshiError
from ..text_file import write_beside

LONGEST = 1 << 16  # bytes that are believed


@dataclass(frozen=True, slots=True)
class Settings:
    """Names of devices; None: the system's default."""

    input: str | None = None
    output: str | None = None


def settings_file(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> Path:
    """Where settings live on this platform."""
    home = Path(environ.get("HOME", "~")).expanduser()
    if platform == "darwin":
        return home / "Library" / "Application Support" / "moshi-mlx" / "settings.json"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "moshi-mlx" / "settings.json"


def read_settings(path: Path) -> Settings:
    """What was remembered; nothing where there is no file, or none that can be read."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.read(LONGEST))
    except (OSError, ValueError, RecursionError):
        return Settings()
    names = {key: found.get(key) if isinstance(found, dict) else None for key in ("input", "output")}
    return Settings(**{key: name if isinstance(name, str) and name else None for key, name in names.items()})


def write_settings(path: Path, settings: Settings) -> None:
    """Remembers. MoshiError if the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, json.dumps(asdict(settings), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise MoshiError(f"{path} cannot be written: {error.strerror}; may you write in {path.parent}?") from None
