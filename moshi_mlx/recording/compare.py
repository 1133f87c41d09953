"""Several conversations beside each other: takes of one script, or a recording and its replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .finish import Understood

ROWS: dict[str, Callable[[Understood, dict[str, Any]], str]] = {
    "Moshi's words": lambda found, figures: str(len(found.words)),
    "Moshi speaks": lambda found, figures: f"{figures['moshi']['speaking_share']:.0%}",
    "response p50": lambda found, figures: milliseconds(figures["moshi"]["response_p50"]),
    "response p95": lambda found, figures: milliseconds(figures["moshi"]["response_p95"]),
    "overlap a minute": lambda found, figures: f"{figures['overlaps']['seconds_per_minute']:.1f} s",
    "you interrupt": lambda found, figures: str(figures["user"]["interruptions"]),
    "Moshi yields": lambda found, figures: str(figures["user"]["other_yields"]),
    "yields within p50": lambda found, figures: milliseconds(figures["user"]["other_yields_p50"]),
    "Moshi's back-channels": lambda found, figures: str(figures["moshi"]["backchannels"]),
    "seed": lambda found, figures: str(found.recording.info.seed),
    "model": lambda found, figures: found.recording.info.model,
}


def compare(found: Mapping[str, Understood]) -> dict[str, list[str]]:
    """name → recording: the rows of a table, a cell for each recording; the last row is what Moshi says."""
    figures = [item.turns.summary() for item in found.values()]
    rows = {
        name: [cell(item, figure) for item, figure in zip(found.values(), figures, strict=True)]
        for name, cell in ROWS.items()
    }
    rows["Moshi says"] = [spoken(item) for item in found.values()]
    return rows


def compare_json(found: Mapping[str, Understood]) -> dict[str, Any]:
    """The same as data."""
    return {name: {"summary": item.turns.summary(), "text": spoken(item)} for name, item in found.items()}


def spoken(found: Understood) -> str:
    """All that Moshi says."""
    return " ".join(word.text for word in found.words)


def milliseconds(seconds: float | None) -> str:
    """0.25 → 250 ms; nothing where there is nothing."""
    return "–" if seconds is None else f"{seconds * 1_000:.0f} ms"
