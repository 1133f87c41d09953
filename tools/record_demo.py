"""Makes a demonstration recording from a clone that is not installed: `moshi-mlx record`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moshi_mlx.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["record", *sys.argv[1:]]))
