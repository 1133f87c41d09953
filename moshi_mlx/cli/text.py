"""Completes a text with Helium, the text model from which Moshi grew.

    moshi-mlx text --model helium-q4 "The capital of France is"
    cat letter.txt | moshi-mlx text --max-tokens 400 --seed 1

The completion streams to stdout; the time to the first token and the speed go to stderr.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..frame import MoshiError
from .console import clean
from .options import UsageError, add_model, check_seed

if TYPE_CHECKING:
    from ..checkpoints.helium import Helium
    from ..checkpoints.locate import Located


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", help="the text to go on from; without it, or with -, stdin is read")
    add_model(parser, "a Helium that is already on this disk")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="write at most N (default 256)")
    parser.add_argument("--temperature", type=float, default=0.7, metavar="T", help="0 is greedy (default 0.7)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the K best tokens (default all)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw from the best of mass P (default 1)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="replays a completion; default: a new one each time")


def run(args: argparse.Namespace) -> int:
    if not (0 <= args.temperature < math.inf and args.top_k >= 0 and 0 < args.top_p <= 1 and args.max_tokens >= 1):
        raise UsageError("temperature and top-k are 0 or more, top-p is above 0 and at most 1, max-tokens 1 or more")
    check_seed(args.seed)
    if args.prompt in (None, "-") and sys.stdin.isatty():
        raise UsageError('what shall it go on from? moshi-mlx text "Once upon a time"')
    prompt = _prompt(args.prompt)
    located = _located(args)
    from ..checkpoints.helium import load_helium
    from ..models.memory import limit_memory, nbytes

    began = time.perf_counter()
    helium = load_helium(located)
    limit_memory(nbytes(helium.model.parameters()))
    print(f"{located.label}: loaded in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    began, first, count = time.perf_counter(), 0.0, 0
    decode = helium.decoder()
    for token in complete(helium, prompt, args):
        count += 1
        first = first or time.perf_counter() - began
        print(clean(decode(token), keep="\n\t"), end="", flush=True)
    print()
    if not count:
        print("the model has nothing to add: it ended the text at once", file=sys.stderr)
        return 0
    rest = time.perf_counter() - began - first
    speed = f"{(count - 1) / rest:.1f} tokens/s" if count > 1 and rest > 0 else "no second token"
    print(f"first token after {first:.3f} s, then {speed} ({count} tokens)", file=sys.stderr)
    return 0


def _prompt(given: str | None) -> str:
    """The text on the command line, or that of stdin."""
    try:
        data = sys.stdin.buffer.read() if given in (None, "-") else os.fsencode(str(given))
        return data.decode()
    except UnicodeDecodeError:
        raise MoshiError("the text is not UTF-8; convert it") from None


def complete(helium: Helium, prompt: str, args: argparse.Namespace) -> Iterator[int]:
    """The tokens of a completion, up to the end of the text, --max-tokens or the model's longest text."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.sample_utils import make_sampler

    ids = helium.encode(prompt)
    room = helium.context - len(ids)
    if room < 1:
        raise MoshiError(f"the text has {len(ids)} tokens, the model reads {helium.context}; shorten it")
    if args.seed is not None:
        mx.random.seed(args.seed)
    vocabulary = helium.model.vocab_size
    sampler = make_sampler(
        args.temperature,
        top_p=args.top_p if args.top_p < 1 else 0.0,
        top_k=args.top_k if args.top_k < vocabulary else 0,
    )
    steps = generate_step(
        mx.array(ids),
        helium.model,
        max_tokens=min(args.max_tokens, room),
        sampler=sampler,
        # bf16 has 8 bits of mantissa: the best logits would tie
        logits_processors=[lambda tokens, logits: logits.astype(mx.float32)],
    )
    for token, _ in steps:
        if int(token) in helium.stop:
            return
        yield int(token)


def _located(args: argparse.Namespace) -> Located:
    """The model that was named, or a Helium that is on this disk already: none is embedded, none is fetched unasked."""
    from ..checkpoints.locate import locate, on_disk

    if args.model is not None:
        return locate(args.model, offline=args.offline)
    for alias in ("helium-q8", "helium-q6", "helium-q4", "helium-bf16"):
        if on_disk(alias):
            return locate(alias, offline=True)
    raise UsageError("no text model is on this disk; name one: `moshi-mlx text --model helium-q4 …` fetches 1.2 GB")
