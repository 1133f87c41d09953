"""Options that several commands share, spelt once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..frame import MoshiError

if TYPE_CHECKING:
    from ..checkpoints.load import Moshi
    from ..models.sampling import Sampling
    from ..session import Session

DEMONSTRATION = "A scripted demonstration of 324 questions"  # the embedded model
QUESTIONS = '"hello Moshi", "what is full duplex" or "tell me a joke"'  # three of them


def add_model(parser: argparse.ArgumentParser, default: str = "the embedded demonstration model") -> None:
    """--model and --offline."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"folder, alias (moshiko-q4), Hub id or hf:// address; default: {default}",
    )
    parser.add_argument("--offline", action="store_true", help="never touch the network")


def add_kv_bits(parser: argparse.ArgumentParser) -> None:
    """--kv-bits."""
    parser.add_argument("--kv-bits", type=int, choices=(8,), help="keep keys and values in 8 bits: less memory traffic")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """--seed, temperatures, top-k and the repetition penalty."""
    group = parser.add_argument_group("sampling")
    group.add_argument("--seed", type=int, metavar="N", help="replays a conversation; default: a new one each time")
    group.add_argument("--text-temperature", type=float, metavar="T", help="0 is greedy (default 0.7)")
    group.add_argument("--audio-temperature", type=float, metavar="T", help="0 is greedy (default 0.8)")
    group.add_argument("--text-top-k", type=int, metavar="K", help="default 25")
    group.add_argument("--audio-top-k", type=int, metavar="K", help="default 250")
    group.add_argument("--repetition-penalty", type=float, metavar="P", help="1 is off (default 1)")


def writable(path: Path) -> bool:
    """Whether a file of this name can be written: it, or the folder it would be in. It is not made."""
    place = path if path.exists() else path.absolute().parent
    return not path.is_dir() and (path.exists() or place.is_dir()) and os.access(place, os.W_OK)


def replaceable(path: Path) -> bool:
    """Whether a file can be put there, in place of one that may be there: /dev/null is no place for it."""
    return writable(path) and (path.is_file() or not path.exists())


class UsageError(MoshiError):
    """Wrong use that only shows while running: exit status 2."""


def check_hears(moshi: Moshi) -> None:
    """Refuses a model that makes all streams itself: it would talk, and never hear the user."""
    if not moshi.config.lm.user_q:
        raise MoshiError(
            f"{moshi.located.label} has no stream for the user (as PersonaPlex and text-to-speech models): it cannot "
            "converse here; take a Moshi, `moshi-mlx models list`"
        )


def announce(moshi: Moshi, command: str) -> None:
    """Says on stderr how to get a real model where it is the embedded demonstration that runs."""
    if moshi.located.embedded:
        from .forewarn import real_model

        print(f"{DEMONSTRATION}: try {QUESTIONS}. {real_model(command)}", file=sys.stderr)


def open_session(args: argparse.Namespace, command: str) -> Session:
    """The model that the options name, with a conversation as they ask for it; says what is worth knowing on stderr."""
    from ..checkpoints.load import load
    from ..session import Session
    from .forewarn import forewarn

    forewarn(args.model, offline=args.offline, kv_bits=args.kv_bits)
    moshi = load(args.model, offline=args.offline)
    check_hears(moshi)
    announce(moshi, command)
    session = Session(moshi, args.seed, sampling_from(args, moshi.config.sampling), args.kv_bits)
    keep_resident(session)
    return session


def keep_resident(session: Session) -> None:
    """Bounds what MLX keeps of memory by what this session needs."""
    from ..models.memory import limit_memory, nbytes
    from ..models.state import leaves

    limit_memory(nbytes([session.moshi.lm.parameters(), session.moshi.mimi.parameters(), leaves(session.state)]))


def check_new(folder: Path, purpose: str = "") -> None:
    """UsageError unless what is to be written has this folder to itself."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists; name a new folder{purpose}")


def check_sampling(args: argparse.Namespace) -> None:
    """Refuses what no model takes, before one is loaded."""
    from ..models.sampling import Sampling

    check_seed(args.seed)
    try:
        Sampling(**_given(args))
    except MoshiError as error:
        raise UsageError(str(error)) from None


def check_seed(seed: int | None) -> None:
    """Refuses a number that is no seed."""
    if seed is not None and not 0 <= seed < 1 << 64:
        raise UsageError(f"--seed takes a whole number from 0 to 2⁶⁴ − 1, not {seed}")


def sampling_from(args: argparse.Namespace, wishes: Mapping[str, Any]) -> Sampling:
    """The Sampling that the options ask for; what was not given is as the model's file wishes, else the default."""
    from ..models.sampling import Sampling

    return Sampling(**{**wishes, **_given(args)})


def _given(args: argparse.Namespace) -> dict[str, Any]:
    names = ("text_temperature", "audio_temperature", "text_top_k", "audio_top_k", "repetition_penalty")
    return {name: value for name in names if (value := getattr(args, name)) is not None}
