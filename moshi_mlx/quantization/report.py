"""What a run found out, for people (tables) and for programs (plain data), and the model card made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .formats import Cost, Plan
from .measure import Loss

Table = list[tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """One way to store the model. loss: None if it was not measured."""

    name: str
    cost: Cost
    loss: Loss | None


def recipes_table(rows: Sequence[Row]) -> Table:
    """A line for each way, a heading first."""
    head = ("recipe", "weights", "bits", "read a frame", "bits", "with full window", "kv 8 bits")
    table: Table = [(*head, "loss text", "loss audio", "same text", "same audio")]
    for row in rows:
        c, loss = row.cost, row.loss
        cells = [size(c.nbytes), f"{c.bits:.2f}", size(c.frame), f"{c.frame_bits:.2f}", size(c.full)]
        cells.append("–" if c.full_kv8 is None else size(c.full_kv8))
        if loss is None:
            cells += ["–"] * 4
        else:
            audio = loss.agreement[1:]
            cells += [nats(loss.kl[0]), nats(sum(loss.kl[1:]))]
            cells += [f"{loss.agreement[0]:.1%}", f"{sum(audio) / len(audio):.1%}" if audio else "–"]
        table.append((row.name, *cells))
    return table


def rivals_table(pairs: Sequence[tuple[Row, Row]]) -> Table:
    """A line for each recipe and what `auto` makes of as many bytes a frame."""
    table: Table = [("recipe", "read a frame", "loss", "auto reads", "loss", "of the recipe's")]
    for one, other in pairs:
        assert one.loss is not None
        assert other.loss is not None
        share = f"{other.loss.total / one.loss.total:.0%}" if one.loss.total else "–"
        cells = (size(one.cost.frame), nats(one.loss.total), size(other.cost.frame), nats(other.loss.total), share)
        table.append((one.name, *cells))
    return table


def streams_table(losses: Mapping[str, Loss]) -> Table:
    """A line for each stream, two columns for each loss by name."""
    first = next(iter(losses.values()))
    table: Table = [("stream", *(f"{what}, {name}" for name in losses for what in ("loss", "same")))]
    for k in range(len(first.kl)):
        cells = [cell for loss in losses.values() for cell in (nats(loss.kl[k]), f"{loss.agreement[k]:.1%}")]
        table.append(("text" if k == 0 else f"codebook {k}", *cells))
    return table


def errors_table(errors: Mapping[str, float], plan: Plan, roles: Mapping[str, str]) -> Table:
    """By part of the model, the bits of its matrices, and the mean and the largest of their relative errors."""
    table: Table = [("part", "matrices", "bits", "mean error", "largest", "in")]
    for part in dict.fromkeys(roles[name] for name in errors):
        own = {name: error for name, error in errors.items() if roles[name] == part}
        bits = sorted({plan[name].bits for name in own})
        worst = max(own, key=lambda name: own[name])
        mean = sum(own.values()) / len(own)
        table.append((part, str(len(own)), ", ".join(map(str, bits)), f"{mean:.2%}", f"{own[worst]:.2%}", worst))
    return table


def plain(table: Table) -> str:
    """For a terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """For a model card."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def size(nbytes: float) -> str:
    """Bytes as people read them."""
    if nbytes >= 1e9:
        return f"{nbytes / 1e9:.2f} GB"
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.1f} kB"


def nats(loss: float) -> str:
    """A loss as people read it: 12.3, 0.0456, 7.89e-05."""
    return f"{loss:.3g}"


def loss_json(loss: Loss | None) -> dict[str, Any] | None:
    """Plain data of a loss."""
    return None if loss is None else {"total": loss.total, "kl": list(loss.kl), "agreement": list(loss.agreement)}


def row_json(row: Row) -> dict[str, Any]:
    """Plain data of a row."""
    return {"name": row.name, "cost": asdict(row.cost), "loss": loss_json(row.loss)}


def card(result: Mapping[str, Any], tables: Sequence[tuple[str, Table]]) -> str:
    """README.md of the result. result: the plain data of the run."""
    kept = result["kept"]
    lines = [
        f"# {result['name']}",
        "",
        f"Made by `moshi-mlx quantize` (recipe `{result['recipe']}`) from `{result['source']}`, whose licence applies. "
        "Codec and tokenizer are the source's, unchanged.",
        "",
        "```",
        f"moshi-mlx chat --model {result['name']}",
        "```",
        "",
    ]
    if kept:
        lines += [f"Kept in bfloat16, since no group of values divides their width: {', '.join(kept)}.", ""]
    if result["loss"] is None:
        lines += [f"**What it costs in quality was not measured** ({result['unmeasured']}).", ""]
    else:
        lines += [
            f"Measured on {result['calibration']}. *Loss* is the Kullback-Leibler divergence from the source's "
            "predictions (nats a token, teacher-forced), *same* the share of tokens for which both find the same one "
            "most likely.",
            "",
        ]
    for title, table in tables:
        lines += [f"## {title}", "", markdown(table), ""]
    return "\n".join(lines)
