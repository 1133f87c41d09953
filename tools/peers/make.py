"""Random weights that all peers read, in the published names: python make.py FOLDER NAME. Needs `moshi` 0.2.13.

NAME: "codec" (Mimi at full size) or a language model of `shapes.py`. Only times are compared, so any numbers do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from moshi.models.loaders import get_mimi, get_moshi_lm
from safetensors.torch import save_file
from shapes import CODEC, LANGUAGE_MODELS

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.lively import fuse


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if name == CODEC:
        model = get_mimi(None, num_codebooks=32)
        for key, value in model.state_dict().items():
            if "embedding_sum" in key:
                value.normal_()
    else:
        config = LANGUAGE_MODELS[name]
        model = get_moshi_lm(None, dict(config), dtype=torch.float32)
        (folder / f"{name}.json").write_text(json.dumps(config))
    save_file(fuse(model.state_dict()), folder / f"{name}.safetensors")


main()
