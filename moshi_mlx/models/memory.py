"""The GPU that MLX runs on, and how much memory MLX may keep: bounded, so that neither the model is paged out nor the
machine starved."""

from __future__ import annotations

import os
import platform
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

ROOM = 1 << 30  # bytes to wire beside weights and states: a frame's temporaries
CACHE = 256 << 20  # bytes of freed buffers that MLX may keep for reuse; a frame needs a tenth
OWN = 0.9  # of a card's own memory: the rest is the driver's and the display's


def gpu_name() -> str:
    """What MLX runs on unless told otherwise, "" for a processor: a Mac's chip, or with CUDA a card."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    return str(mx.device_info().get("device_name") or "GPU") if on_gpu else ""


def gpu_memory() -> int:
    """Bytes that the GPU may use: what a Mac's system lends it, or most of a card's own; 0 without one."""
    if not gpu_name():
        return 0
    told = mx.device_info()
    return int(told.get("max_recommended_working_set_size", 0)) or round(OWN * int(told.get("total_memory", 0)))


def machine_memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> int:
    """Bytes that MLX may use: of a Mac's memory its GPU is lent two thirds to three quarters."""
    return gpu_memory() or machine_memory()


def nbytes(tree: Any) -> int:
    """Bytes of the arrays in a tree of lists and dictionaries, such as a module's parameters."""
    leaves: Any = tree_flatten(tree)
    return sum(leaf.nbytes for _, leaf in leaves if isinstance(leaf, mx.array))


def limit_memory(held: int) -> int:
    """Keeps `held` bytes (weights and states) and some room resident where the system can (macOS 15 and later, never
    more than it recommends), and the cache of freed buffers small. Gives the wired limit, 0 where there is none."""
    mx.set_cache_limit(CACHE)
    if not mx.metal.is_available() or int(platform.mac_ver()[0].partition(".")[0] or 0) < 15:
        return 0
    wired = min(held + ROOM, int(mx.device_info()["max_recommended_working_set_size"]))
    mx.set_wired_limit(wired)
    return wired
