"""Named recipes: which part of the model gets how many bits.

`uniform-4` and `uniform-8` are the published layouts, to the group and to the file name. Every other recipe falls back
to groups of 32 where 64 does not divide a matrix; what no group divides is kept, and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .formats import TEMPORAL, Format, Matrix, Plan

WEIGHTS = "model.safetensors"
SMALLEST = 32  # group


@dataclass(frozen=True)
class Recipe:
    """`temporal` for the temporal transformer, `rest` for depth transformer, heads and embeddings. published: the
    layout of Kyutai's files, whose readers know one group size and take it from the file name.
    """

    name: str
    temporal: Format
    rest: Format
    published: bool = False

    @property
    def weights_name(self) -> str:
        """The file of the weights."""
        return f"model.q{self.rest.bits}.safetensors" if self.published else WEIGHTS

    @property
    def least_group(self) -> int:
        """The smallest group that it falls back to."""
        return self.rest.group if self.published else SMALLEST


def _uniform(bits: int, group: int = 64, published: bool = False) -> Recipe:
    return Recipe(f"uniform-{bits}", Format(bits, group), Format(bits, group), published)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _uniform(3),
        _uniform(4, 32, published=True),
        _uniform(5),
        _uniform(6),
        _uniform(8, published=True),
        Recipe("mixed-3-6", Format(3, 64), Format(6, 64)),
        Recipe("mixed-4-8", Format(4, 64), Format(8, 64)),
    )
}
AUTO = "auto"


def fitted(matrix: Matrix, wanted: Format) -> Format | None:
    """The format with the largest possible group, None where no group divides the matrix."""
    for how in (wanted, Format(wanted.bits, SMALLEST)):
        if matrix.fits(how):
            return how
    return None


def plan(recipe: Recipe, parts: Sequence[Matrix]) -> Plan:
    """What the recipe means for these matrices; those that are missing are kept."""
    result = {}
    for matrix in parts:
        wanted = recipe.temporal if matrix.role == TEMPORAL else recipe.rest
        how = (wanted if matrix.fits(wanted) else None) if recipe.published else fitted(matrix, wanted)
        if how is not None:
            result[matrix.name] = how
    return result
