"""A model in memory whose matrices are stored as one plan after another, to measure each plan without a file of it."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ..models.lm import Lm, Logits
from .convert import requantized
from .formats import Format, Plan
from .measure import Codes, Loss, compare, logits


class Trial:
    """Holds one model and, while it changes, one matrix: only those in which two plans differ are read again.

    read: gives the source without quantization, its weights still in the file; called anew for every plan.
    """

    def __init__(self, read: Callable[[], Lm]) -> None:
        self._read, self._lm, self._plan = read, read(), dict[str, Format]()
        mx.eval(self._lm.parameters())

    def lm(self, plan: Plan) -> Lm:
        """The model with the values that the plan leaves of its weights; good until the next plan."""
        fresh, own = (dict(lm.named_modules()) for lm in (self._read(), self._lm))
        for name in dict.fromkeys([*plan, *self._plan]):
            how = plan.get(name)
            if how != self._plan.get(name):
                weight = fresh[name].pop("weight")  # so that it is forgotten when the next one is taken
                own[name].weight = weight if how is None else requantized(weight, how, weight.dtype)
                mx.eval(own[name].weight)
        self._plan = dict(plan)
        return self._lm

    def loss(self, plan: Plan, codes: Codes, reference: Logits) -> Loss:
        """Of a plan, where the source itself predicts `reference`."""
        return compare(reference, logits(self.lm(plan), codes))
