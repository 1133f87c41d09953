"""`moshi-mlx quantize` from a clone that is not installed: python tools/quantize.py SOURCE DEST [options]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from moshi_mlx.cli.main import entry

if __name__ == "__main__":
    sys.argv.insert(1, "quantize")
    entry()
