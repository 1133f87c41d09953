"""The tree of arrays that a streaming state is.

A state is a dataclass of arrays, plain numbers, further states and lists of them, changed in place. `leaves` lists
its arrays in a fixed order and `set_leaves` puts others in their stead, for evaluation, saving and `mx.compile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import mlx.core as mx


def _slots(state: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(owner, field name or list index, value) of every leaf that is not a state itself."""
    items: Any = (
        [(f.name, getattr(state, f.name)) for f in fields(state)] if is_dataclass(state) else list(enumerate(state))
    )
    for key, value in items:
        if is_dataclass(value) or isinstance(value, list):
            yield from _slots(value)
        else:
            yield state, key, value


def leaves(state: Any) -> list[mx.array]:
    """All arrays of a state, in a fixed order."""
    return [value for _, _, value in _slots(state) if isinstance(value, mx.array)]


def plain(state: Any) -> list[Any]:
    """All plain values of a state (numbers, strings, bytes, None), in a fixed order."""
    return [value for _, _, value in _slots(state) if not isinstance(value, mx.array)]


def _put(state: Any, values: list[Any], wanted: Callable[[Any], bool]) -> None:
    slots = [(owner, key) for owner, key, value in _slots(state) if wanted(value)]
    for (owner, key), value in zip(slots, values, strict=True):
        if isinstance(owner, list):
            owner[key] = value
        else:
            setattr(owner, key, value)


def twin(state: Any) -> Any:
    """A state of its own with the same leaves."""
    if isinstance(state, list):
        return [twin(value) for value in state]
    if is_dataclass(state) and not isinstance(state, type):
        return type(state)(**{field.name: twin(getattr(state, field.name)) for field in fields(state)})
    return state


def set_leaves(state: Any, arrays: list[mx.array]) -> None:
    """Puts `arrays` where `leaves` found the old ones."""
    _put(state, arrays, lambda value: isinstance(value, mx.array))


def set_plain(state: Any, values: list[Any]) -> None:
    """Puts `values` where `plain` found the old ones."""
    _put(state, values, lambda value: not isinstance(value, mx.array))
