"""Options that several commands share, spelt once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.sampling import Sampling


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model and --offline."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="folder, alias (moshiko-q4), Hub id or hf:// address; default: the embedded demonstration model",
    )
    parser.add_argument("--offline", action="store_true", help="never touch the network")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """--seed, temperatures, top-k and the repetition penalty."""
    group = parser.add_argument_group("sampling")
    group.add_argument("--seed", type=int, help="replays a conversation; default: a new one each time")
    group.add_argument("--text-temperature", type=float, metavar="T", help="0 is greedy (default 0.7)")
    group.add_argument("--audio-temperature", type=float, metavar="T", help="0 is greedy (default 0.8)")
    group.add_argument("--text-top-k", type=int, metavar="K", help="default 25")
    group.add_argument("--audio-top-k", type=int, metavar="K", help="default 250")
    group.add_argument("--repetition-penalty", type=float, metavar="P", help="1 is off (default 1)")


def sampling_from(args: argparse.Namespace) -> Sampling:
    """The Sampling that the options ask for; what was not given keeps its default."""
    from ..models.sampling import Sampling

    names = ("text_temperature", "audio_temperature", "text_top_k", "audio_top_k", "repetition_penalty")
    return Sampling(**{name: value for name in names if (value := getattr(args, name)) is not None})
