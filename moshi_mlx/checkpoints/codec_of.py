"""The codec of whatever a person names: a codec file, a codec's folder, a whole Moshi."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from ..frame import MoshiError
from ..models.config import MimiConfig
from ..models.mimi import Mimi
from .codec_config import mimi_config
from .config_file import read_json
from .hf_config import hf_mimi_config
from .load import make_mimi, open_checkpoint, read_codec, read_tensors
from .locate import Located, locate
from .recognise import recognise

ALONE = 8  # codebooks where no language model says how many it needs


def load_mimi(file: str | Path, num_codebooks: int = 8) -> Mimi:
    """The codec alone with its first `num_codebooks` codebooks, from a file or from any model with one."""
    mimi, _ = load_codec_of(file, num_codebooks)
    mx.eval(mimi.parameters())
    return mimi


def load_codec_of(
    source: str | Path | None, codebooks: int | None = None, *, offline: bool = False
) -> tuple[Mimi, Located]:
    """The codec of a model, of a codec's folder or repository (`mimi`), or of one file, with its first `codebooks`.

    codebooks: None takes as many as the model needs, 8 for a codec alone. Raises MoshiError if it has not so many.
    """
    located = locate(source, offline=offline)
    names = located.files()
    if names.family == "hf-mimi":
        path = located.file(names.weights[0])
        tensors, config = read_tensors(path), hf_mimi_config(located.read_json("config.json"), str(located.folder))
        config = replace(config, codebooks=min(ALONE, config.codebooks_in_file))
    elif located.weights and _is_codec(tensors := read_tensors(located.file(located.weights)), located):
        path, config = located.file(located.weights), MimiConfig(codebooks=ALONE)
        if names.mimi_config and names.mimi == located.weights:
            config = mimi_config(read_json(located.file(names.mimi_config)), names.mimi_config)
            config = replace(config, codebooks=min(ALONE, config.codebooks_in_file))
    else:
        files = open_checkpoint(source, offline=offline)
        path, config = files.mimi, files.config.mimi
        tensors = read_codec(files)
    wanted = config.codebooks if codebooks is None else codebooks
    if not 1 <= wanted <= config.codebooks_in_file:
        raise MoshiError(f"{located.label}: its codec has 1 to {config.codebooks_in_file} codebooks, not {wanted}")
    mimi = make_mimi(replace(config, codebooks=wanted), tensors, path)
    mx.eval(mimi.parameters())
    return mimi, located


def _is_codec(tensors: dict[str, mx.array], located: Located) -> bool:
    return recognise(tensors, located.label) in ("Mimi", "D1")
