"""A LoRA and the model it was trained on → one folder in format A, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from ..frame import MoshiError
from .companions import LORA
from .config_file import read_json
from .fields import Fields
from .load import Files, make_lm, open_checkpoint, read_tensors, read_weights
from .locate import Located, address_of, in_reach, locate, one_file
from .lora import SCALING, is_lora
from .meter import Meter
from .names import split_audio_tables
from .new_folder import (
    check_space,
    check_vacant,
    companions,
    companions_size,
    config_json,
    destination,
    write_companions,
    write_json,
)
from .writer import TensorWriter

WEIGHTS = "model.safetensors"


def merge_to(adapter: str, base: str | None, dest: Path, *, offline: bool = False) -> None:
    """Writes `dest`, which must not exist. adapter: a folder, file or repository; base: None takes what its config
    names. Raises MoshiError if the two do not belong together.
    """
    for source in (base, adapter):
        check_vacant(dest, source)
    files = _files(adapter, base, offline)
    with destination(dest) as folder:
        lm = make_lm(files.config, read_weights(files), files.weights)
        tensors = split_audio_tables(dict(tree_flatten(lm.parameters())), files.config.lm)
        del lm
        names = companions(files, WEIGHTS)
        specs = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
        check_space(folder, sum(value.nbytes for value in tensors.values()) + companions_size(files, names))
        meter = Meter()
        with TensorWriter(folder / WEIGHTS, specs) as out:
            for name in list(tensors):
                out.write(name, tensors.pop(name))
                mx.clear_cache()
                meter(WEIGHTS, out.written, out.nbytes)
        write_companions(files, names, folder)
        config = config_json(files, WEIGHTS, names, {})
        del config["quantization"]
        write_json(folder / "config.json", config)


def _files(adapter: str, base: str | None, offline: bool) -> Files:
    """The base's files with the adapter and its scaling."""
    located = _adapter(adapter, offline)
    raw = located.read_json("config.json") if located.has("config.json") else {}
    path = located.file(str(located.weights or raw.get("lora_name") or LORA))
    if not is_lora(read_tensors(path)):
        raise MoshiError(f"{path} is not a LoRA; name the lora.safetensors that moshi-finetune wrote, or its folder")
    files = open_checkpoint(adapter if base is None else base, offline=offline)
    scaling = Fields(raw, str(located.folder / "config.json")).number("lora_scaling", SCALING, 0, 1e3)
    return replace(files, raw=(files.raw or {}) | {"lora_scaling": scaling}, lora=path)


def _adapter(adapter: str, offline: bool) -> Located:
    """Its folder. A repository that holds an adapter is no checkpoint: two files of it are fetched, not the base."""
    address = address_of(adapter)
    if address is None:
        return locate(adapter)
    config = replace(address, file="config.json")  # holds the scaling
    raw = read_json(one_file(config, offline, None) / "config.json") if in_reach(config, offline) else {}
    file = address.file or str(raw.get("lora_name") or LORA)
    return Located(one_file(replace(address, file=file), offline, None), adapter, file)
