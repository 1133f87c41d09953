"""Moshi, a speech-text model that listens while it talks, in MLX for Apple silicon.

The public names resolve lazily: `import moshi_mlx` loads neither MLX nor NumPy.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.codec_of import load_mimi
    from .checkpoints.load import load
    from .frame import FRAME, RATE, MoshiError, Reply
    from .models.sampling import Sampling
    from .session import Session

if sys.platform == "darwin":  # an M5 rounds what goes into an fp32 product to ten bits, and the codec is fp32
    os.environ.setdefault("MLX_ENABLE_TF32", "0")

__version__ = "0.1.0"
__all__ = ["FRAME", "RATE", "MoshiError", "Reply", "Sampling", "Session", "__version__", "load", "load_mimi"]

_HOMES = {
    "load": ".checkpoints.load",
    "load_mimi": ".checkpoints.codec_of",
    "FRAME": ".frame",
    "RATE": ".frame",
    "MoshiError": ".frame",
    "Reply": ".frame",
    "Sampling": ".models.sampling",
    "Session": ".session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
