"""`moshi-mlx record` from a clone that is not installed: python tools/record_demo.py FOLDER USER.wav … [options]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from moshi_mlx.cli.main import entry

if __name__ == "__main__":
    sys.argv.insert(1, "record")
    entry()
