"""Bits by matrix, chosen from what an error of each matrix does to the predictions.

1. *Sensitivity* (sensitivity.py): the loss, in nats a frame, of each matrix in each format.
2. *Path*: from the fewest bytes everywhere, upgrade after upgrade, the one that saves most loss a byte first. The path
   does not know the budget.
3. *Choice*: of the path's plans at fixed steps and the named recipes, those within the budget are measured as wholes,
   and the best one wins.

Since all budgets choose from one family, more budget never means more loss on the codes that are measured, and no named
recipe within the budget is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..frame import MoshiError
from .formats import Format, Matrix, Plan
from .recipes import RECIPES, SMALLEST, fitted, plan

BITS = (3, 4, 5, 6, 8)
GROUPS = (128, 64, SMALLEST)
STEP = 1 / 16  # bits a weight between the path's plans that are measured
Bytes = Callable[[Matrix, Format | None], int]
Losses = Mapping[str, Mapping[Format, float]]  # by matrix, by format: nats a frame


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
    """So many bits a weight, on average over what a frame reads: of embeddings a few rows, so that they get many."""
    weights = sum(matrix.read for matrix in matrices)
    limit = round(bits * weights / 8, 3)  # what another plan takes is a whole number, whatever floats make of it
    return Budget(limit, Matrix.frame_bytes, weights)


def size_budget(nbytes: float, matrices: Sequence[Matrix], others: int) -> Budget:
    """So many bytes for all weights, `others` of them outside the matrices."""
    return Budget(nbytes - others, Matrix.nbytes, sum(matrix.weights for matrix in matrices))


def formats(matrix: Matrix) -> list[Format]:
    """All that a matrix may get; none where no group divides it."""
    return [how for bits in BITS for group in GROUPS if matrix.fits(how := Format(bits, group))]


def path(matrices: Sequence[Matrix], losses: Losses, nbytes: Bytes) -> list[Plan]:
    """Plans from the fewest bytes to the most, each holding the one before it with one matrix upgraded."""
    chosen: dict[str, Format] = {}
    upgrades = []
    for matrix in matrices:
        sizes = {how: nbytes(matrix, how) for how in formats(matrix)}
        if not sizes:
            continue
        loss, now = losses[matrix.name], min(sizes, key=lambda how: sizes[how])
        if sizes[now] == max(sizes.values()):  # never read while it talks
            now = fitted(matrix, Format(BITS[-1], 64)) or now
        chosen[matrix.name] = now
        # The steepest step that remains: slopes fall along a matrix, so that sorting all of them keeps their order.
        while steps := {
            how: (loss[now] - loss[how]) / (sizes[how] - sizes[now]) for how in sizes if sizes[how] > sizes[now]
        }:
            now = max(steps, key=lambda how: (steps[how], sizes[how]))
            upgrades.append((steps[now], matrix.name, now))
    plans: list[Plan] = [dict(chosen)]
    for _, name, how in sorted(upgrades, key=lambda upgrade: -upgrade[0]):
        chosen[name] = how
        plans.append(dict(chosen))
    return plans


def candidates(along: Sequence[Plan], matrices: Sequence[Matrix], budget: Budget) -> dict[str, Plan]:
    """What may be chosen within a budget: a family that only grows with it."""
    least, rung = budget.spent(along[0], matrices), -1
    if least > budget.limit:
        raise MoshiError(
            f"the budget is too small: the smallest formats take {8 * least / budget.weights:.2f} bits a weight, "
            f"{least / 1e9:.3f} GB; ask for more"
        )
    result = {}
    for name, recipe in RECIPES.items():
        if budget.spent(chosen := plan(recipe, matrices), matrices) <= budget.limit:
            result[name] = chosen
    for chosen in along:
        spent = budget.spent(chosen, matrices)
        if spent > budget.limit:
            break
        bits = 8 * spent / budget.weights
        if int(bits / STEP) > rung:  # the first plan beyond each rung of a ladder that no budget moves
            rung = int(bits / STEP)
            result[f"{bits:.2f} bits"] = chosen
    return result
