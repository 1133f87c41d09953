"""Bits by parts of the model, chosen from what each part's quantization does to the predictions.

1. *Sensitivity*: each part alone at each number of bits; what that costs in loss (nats a frame).
2. *Path*: from the fewest bits everywhere, upgrade after upgrade, the one that saves most loss a byte first. The path
   does not know the budget.
3. *Choice*: of the path's plans at fixed steps and the named recipes, those within the budget are measured as wholes,
   and the best one wins.

Since all budgets choose from one family, more budget never means more loss on the codes that are measured, and no named
recipe within the budget is better.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..frame import MoshiError
from .formats import DEPTH, TEMPORAL, Format, Matrix, Plan
from .recipes import RECIPES, fitted, plan

BITS = (3, 4, 5, 6, 8)
STEP = 1 / 8  # bits a weight between the path's plans that are measured
Bytes = Callable[[Matrix, Format | None], int]


@dataclass(frozen=True)
class Part:
    """Matrices that share their bits."""

    name: str
    matrices: tuple[Matrix, ...]

    def plan(self, bits: int) -> dict[str, Format]:
        """All of the part at this many bits; what no group divides is kept."""
        fits = {matrix.name: fitted(matrix, Format(bits, 64)) for matrix in self.matrices}
        return {name: how for name, how in fits.items() if how is not None}


@dataclass(frozen=True)
class Budget:
    """What may be spent: `limit` bytes as `nbytes` counts a matrix; `weights` is what the bits are spread over."""

    limit: float
    nbytes: Bytes
    weights: int

    def spent(self, chosen: Plan, matrices: Sequence[Matrix]) -> int:
        """Bytes of a plan."""
        return sum(self.nbytes(matrix, chosen.get(matrix.name)) for matrix in matrices)


def bits_budget(bits: float, matrices: Sequence[Matrix]) -> Budget:
    """So many bits a weight, on average over what every frame reads whole. Embeddings are free: a few rows are read."""
    weights = sum(matrix.weights for matrix in matrices if matrix.lookups is None)
    return Budget(bits * weights / 8, lambda m, how: m.nbytes(how) if m.lookups is None else 0, weights)


def size_budget(nbytes: float, matrices: Sequence[Matrix], others: int) -> Budget:
    """So many bytes for all weights, `others` of them outside the matrices."""
    return Budget(nbytes - others, lambda m, how: m.nbytes(how), sum(matrix.weights for matrix in matrices))


def parts(matrices: Sequence[Matrix]) -> list[Part]:
    """Attention and feed-forward of each temporal layer, each depth slice's blocks, matrices of one kind together."""
    groups: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        if matrix.role == TEMPORAL:
            key = matrix.name.rsplit(".", 1)[0]
        elif matrix.role == DEPTH and ".transformer." in matrix.name:
            key = matrix.name.split(".transformer.")[0]
        else:
            key = re.sub(r"slices\.\d+", "slices", matrix.name)
        groups.setdefault(key, []).append(matrix)
    made = [Part(name, tuple(members)) for name, members in groups.items()]
    return [part for part in made if part.plan(BITS[0])]


Sensitivity = Mapping[str, Mapping[int, float]]  # by part, by bits: nats a frame


def path(of: Sequence[Part], sensitivity: Sensitivity, nbytes: Bytes) -> list[Plan]:
    """Plans from the fewest bits to the most, each holding the one before it with one part upgraded."""
    chosen: dict[str, Format] = {}
    upgrades = []
    for part in of:
        sizes = {b: sum(nbytes(m, part.plan(b).get(m.name)) for m in part.matrices) for b in BITS}
        bits = max(b for b in BITS if sizes[b] == sizes[BITS[0]])  # all there are, where bytes do not count
        chosen |= part.plan(bits)
        while bits < BITS[-1]:
            # The steepest step that remains: slopes fall along a part, so that sorting all of them keeps their order.
            slopes = {
                b: (sensitivity[part.name][bits] - sensitivity[part.name][b]) / max(1, sizes[b] - sizes[bits])
                for b in BITS
                if b > bits
            }
            bits, slope = max(slopes.items(), key=lambda item: (item[1], item[0]))
            upgrades.append((slope, part, bits))
    plans: list[Plan] = [dict(chosen)]
    for _, part, bits in sorted(upgrades, key=lambda upgrade: -upgrade[0]):
        chosen |= part.plan(bits)
        plans.append(dict(chosen))
    return plans


def candidates(along: Sequence[Plan], matrices: Sequence[Matrix], budget: Budget) -> dict[str, Plan]:
    """What may be chosen within a budget: a family that only grows with it."""
    result = {}
    for name, recipe in RECIPES.items():
        if budget.spent(chosen := plan(recipe, matrices), matrices) <= budget.limit:
            result[name] = chosen
    least, rung = budget.spent(along[0], matrices), -1
    if least > budget.limit:
        raise MoshiError(
            f"the budget is too small: {BITS[0]} bits everywhere take {8 * least / budget.weights:.2f} bits a weight, "
            f"{least / 1e9:.3f} GB; ask for more"
        )
    for chosen in along:
        spent = budget.spent(chosen, matrices)
        if spent > budget.limit:
            break
        bits = 8 * spent / budget.weights
        if int(bits / STEP) > rung:  # the first plan beyond each rung of a ladder that no budget moves
            rung = int(bits / STEP)
            result[f"{bits:.2f} bits"] = chosen
    return result
