"""Turn-taking on the terminal: the report of one recording, several beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from ..recording.compare import milliseconds
from ..recording.turns import SPEAKERS
from .console import clean, data_console

if TYPE_CHECKING:
    from ..recording.finish import Understood
    from ..recording.turns import TurnTaking


def print_comparison(found: Mapping[str, Understood]) -> None:
    """Recordings as columns."""
    from ..recording.compare import compare

    table = Table("")
    for name in found:
        table.add_column(clean(name), overflow="fold")
    for name, cells in compare(found).items():
        table.add_row(name, *map(clean, cells))
    data_console().print(table)


def print_report(turns: TurnTaking) -> None:
    """One recording: a side a column, then what belongs to both, then the parameters."""
    figures = turns.summary()
    console = data_console()
    sides = [figures[side] for side in SPEAKERS]
    table = Table(f"{turns.seconds:.1f} s", *SPEAKERS.values())
    for name, key, show in (
        ("speaks", "speaking_seconds", seconds),
        ("share of the time", "speaking_share", share),
        ("inter-pausal units", "units", str),
        ("responses", "responses", str),
        ("response p50", "response_p50", milliseconds),
        ("response p95", "response_p95", milliseconds),
        ("interrupts", "interruptions", str),
        ("and the other yields", "other_yields", str),
        ("within (p50)", "other_yields_p50", milliseconds),
        ("back-channels", "backchannels", str),
    ):
        table.add_row(name, *(show(side[key]) for side in sides))
    console.print(table)
    both = Table("both", "count", "seconds", "a minute")
    for name in ("pauses", "gaps", "overlaps"):
        row = figures[name]
        both.add_row(name, str(row["count"]), seconds(row["seconds"]), seconds(row["seconds_per_minute"]))
    console.print(both)
    overlaps = figures["overlaps"]
    console.print(
        f"overlap is {overlaps['share_of_speech']:.1%} of speech: {overlaps['between_turns']} between turns, "
        f"{overlaps['within_turn']} within one"
    )
    console.print("parameters: " + ", ".join(f"{name} {value:g}" for name, value in turns.parameters.items()))


def seconds(value: float) -> str:
    """3.25 → 3.25 s."""
    return f"{value:.2f} s"


def share(value: float) -> str:
    """0.25 → 25 %."""
    return f"{value:.0%}"
