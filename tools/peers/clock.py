"""What every child does: warm up, time frames one by one, print one line of JSON. Standard library only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

WARM = 3  # frames


def report(frame: Callable[[], object], frames: int, **facts: object) -> None:
    """Calls `frame`, which must wait for its result. Milliseconds of processor time (all threads) and of the clock."""
    for _ in range(WARM):
        frame()
    processor, clock = [], []
    for _ in range(frames):
        busy, before = time.process_time(), time.perf_counter()
        frame()
        clock.append(1e3 * (time.perf_counter() - before))
        processor.append(1e3 * (time.process_time() - busy))
    print(json.dumps({"processor_ms": processor, "clock_ms": clock, **facts}))
