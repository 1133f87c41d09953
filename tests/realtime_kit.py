"""A conversation on a virtual clock, with all that was exchanged and played, for the tests of the real-time loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moshi_mlx.frame import Pcm
from moshi_mlx.realtime import Conversation, Exchange, VirtualDevice
from tools.soak_realtime import EchoingStepper, audit, tone


class Run:
    """A conversation with an echoing stepper on a virtual device: what was exchanged, what was played."""

    def __init__(
        self, cost: Callable[[float], float] = lambda now: 0.04, source: object = None, **settings: object
    ) -> None:
        self.rate = int(settings.get("output_rate", 48_000))  # type: ignore[call-overload]
        self.blocks: list[Pcm] = []
        self.times: list[float] = []
        self.exchanges: list[Exchange] = []
        self.above: list[tuple[float, float]] = []  # when, and the lag above its target
        self.device = VirtualDevice(
            source or tone(int(settings.get("input_rate", 48_000))),  # type: ignore[arg-type, call-overload]
            self._sink,
            **settings,  # type: ignore[arg-type]
        )
        self.stepper = EchoingStepper(self.device.sleep, lambda: cost(self.device.now()))
        self.talk = Conversation(self.device, lambda report: self.stepper, on_exchange=self._look)

    def until(self, seconds: float) -> Run:
        self.device.at(seconds, self.talk.stop)
        self.talk.start()
        assert self.talk.wait(60)
        self.talk.check()
        return self

    def played(self) -> Pcm:
        return np.concatenate(self.blocks)

    def level(self, start: float, end: float) -> float:
        sound = [block for when, block in zip(self.times, self.blocks, strict=True) if start <= when < end]
        return float(np.sqrt(np.mean(np.square(np.concatenate(sound)))))

    def _sink(self, block: Pcm) -> None:
        self.blocks.append(block)
        self.times.append(self.device.now())

    def _look(self, exchange: Exchange) -> None:
        loop = self.talk._engine.loop
        assert loop is not None
        audit(loop)
        self.exchanges.append(exchange)
        self.above.append((self.device.now(), exchange.lag_ms - loop.target_ms()))
