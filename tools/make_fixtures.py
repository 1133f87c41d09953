"""Writes tests/fixtures from the PyTorch reference: python tools/make_fixtures.py, where `moshi` 0.2.13 is installed.

Seeded: the same versions write the same numbers. tests/fixtures/README.md tells what lies where.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import codec, lm
from fixtures.text import save_tokenizer

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures"


def main() -> None:
    torch.set_num_threads(1)  # sums in one order
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_tokenizer(FOLDER / "tokenizer.model", lm.TEXT_CARD, byte_fallback=False)
    save_tokenizer(FOLDER / "bytes.model", 320, byte_fallback=True)
    codec.make(FOLDER / "mimi")
    for name in lm.CONFIGS:
        lm.make(FOLDER / name, name)
    for path in sorted(FOLDER.rglob("*.*")):
        print(f"{path.stat().st_size:9,}  {path.relative_to(FOLDER)}")


if __name__ == "__main__":
    main()
