"""What the chat's tests share: numbers of a conversation, a model without weights, and a view to draw."""

from __future__ import annotations

import threading
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from moshi_mlx.cli.screen import View
from moshi_mlx.frame import FRAME, Pcm, Reply
from moshi_mlx.realtime import Statistics

ZEROS: dict[Any, Any] = {int: 0, float: 0.0, str: "", bool: False}


def numbers(**known: Any) -> Statistics:
    """Statistics of a running conversation, all zero but for what is given."""
    hints = typing.get_type_hints(Statistics)
    values = {name: ZEROS.get(kind) for name, kind in hints.items()}
    return Statistics(**{**values, "flags": {}, "state": "running", "stage": "ready", **known})


def view(**known: Any) -> View:
    """A view of these; `now` serves as the numbers too."""
    now = known.pop("now", numbers())
    return View(**{"now": now, "numbers": now, **known})


class Echo:
    """A stepper that says "hello" at every tenth frame and plays back what it hears; remembers its threads."""

    def __init__(self) -> None:
        self.frame = 0
        self.heard: list[float] = []
        self.threads: set[int] = {threading.get_ident()}

    def step(self, pcm: Pcm) -> Reply:
        self.threads.add(threading.get_ident())
        self.heard.append(float(np.abs(pcm).max()))
        text = " hello" if self.frame % 10 == 0 else ""
        codes = np.zeros(8, np.int32)
        reply = Reply(self.frame, pcm.copy(), text, 5, codes, codes)
        self.frame += 1
        return reply

    def reset(self) -> None:
        self.frame = 0


def factory_of(stepper: Echo) -> Callable[[Callable[[str, float | None], None]], Echo]:
    """A factory that gives this stepper."""

    def make(progress: Callable[[str, float | None], None]) -> Echo:
        progress("load", 0.5)
        return stepper

    return make


SILENCE = np.zeros(FRAME, np.float32)
