"""The figures of the model card: the table in weights/tiny/README.md is what evaluation.json holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.S)


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = [f"| {name} | {_shown(value)} |\n" for name, value in results.items()]
    return "| | |\n|---|---|\n" + "".join(lines)


def _shown(value: Any) -> str:
    return " · ".join(str(part) for part in value) if isinstance(value, list) else str(value)


def write(checkpoint: Path) -> None:
    """Bring the card of a checkpoint folder up to its evaluation.json."""
    card, results = checkpoint / "README.md", json.loads((checkpoint / "evaluation.json").read_text())
    if card.exists():
        card.write_text(_TABLE.sub(lambda _: table(results), card.read_text()))
