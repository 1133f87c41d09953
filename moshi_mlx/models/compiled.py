"""`mx.compile` for functions of a streaming state.

A frame has fixed shapes, except that a ring is read in longer parts while it fills: a function is traced once for each
way of reading, and ring positions are arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from types import MethodType
from typing import Any
from weakref import WeakMethod

import mlx.core as mx

from .state import leaves, set_leaves, twin

MOST = 32  # traces that are kept: a conversation needs a fifth of them, one with other sampling as many again


class Compiled:
    """`function(state, *arrays, **options)`, which changes the state and gives arrays, compiled.

    state: its `transformer` is a TransformerState, all its other leaves are arrays. Options are hashable. What else the
    function reads are its model's weights, which do not change before `forget`. traces: how often the function ran
    in Python.
    """

    def __init__(self, function: Callable[..., Any], steps: int) -> None:
        """function: a method of the model that keeps this object. steps: positions of the transformer a call."""
        self._owned, self._steps = WeakMethod(function), steps  # no cycle: a model that is dropped is freed at once
        self._traced: dict[Hashable, Callable[..., Any]] = {}
        self.traces = 0

    def __call__(self, state: Any, *arrays: mx.array | None, **options: Hashable) -> Any:
        settle()
        ring = state.transformer
        ring.fit(self._steps)
        key = (ring.way(self._steps), ring.slots, ring.context, type(ring.rings[0]), *options.values())
        traced = self._traced.pop(key, None) or self._compile(twin(state), options)
        self._traced[key] = traced  # the last used is the last
        if len(self._traced) > MOST:
            del self._traced[next(iter(self._traced))]
        result, new = traced(leaves(state), *arrays)
        set_leaves(state, new)
        ring.offset += self._steps
        return result

    def forget(self) -> None:
        """Drops the traces, and with them what they keep alive: the weights as they were."""
        self._traced.clear()

    @property
    def _function(self) -> MethodType:
        function = self._owned()
        assert isinstance(function, MethodType)
        return function

    def _compile(self, model: Any, options: dict[str, Hashable]) -> Callable[..., Any]:
        """A compiled function of leaves and arrays → (result, new leaves). model: a state with the plain values of
        this way, to be kept."""
        set_leaves(model, [mx.array(0)] * len(leaves(model)))  # a trace must not keep a conversation's arrays alive
        owner: Any = self._function.__self__
        mx.eval(owner.parameters())  # a weight that is still lazy would be made anew in every call

        def run(old: list[mx.array], *arrays: mx.array | None) -> tuple[Any, list[mx.array]]:
            self.traces += 1
            state = twin(model)
            set_leaves(state, old)
            result = self._function(state, *arrays, **options)
            return result, leaves(state)

        return mx.compile(run)


@cache
def settle() -> None:
    """Turns `mx.compile` off where it cannot work: on a CPU, MLX compiles with g++ while it runs."""
    if mx.default_device().type == mx.DeviceType.cpu:
        try:
            mx.eval(mx.compile(lambda x: mx.exp(x) + 1)(mx.zeros(1)))
        except RuntimeError:
            mx.disable_compile()
