"""Encodes and decodes sound with Mimi alone: 24 kHz mono ↔ 12.5 frames a second of codes, 1.1 kbit/s with 8 codebooks
(`--model mimi`; the embedded model's own codec: 0.8 kbit/s).

  moshi-mlx codec encode speech.wav speech.codes
  moshi-mlx codec decode speech.codes again.wav
  moshi-mlx codec roundtrip speech.wav again.wav --codebooks 4 --model mimi

Everything streams: an hour costs no more memory than a minute. `roundtrip` prints the bitrate, the signal-to-noise
ratio, the log-mel distance and the real-time factors (seconds of work a second of sound).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..frame import FRAME_RATE, MoshiError, Pcm
from .console import with_bar
from .options import UsageError, add_model, replaceable

if TYPE_CHECKING:
    from ..models.mimi import Mimi, MimiState
    from .sound import Frames

PIECE = 16  # frames worked on at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("action", choices=("encode", "decode", "roundtrip"))
    parser.add_argument("input", type=Path, metavar="IN", help="a sound file; for decode, a file of codes")
    parser.add_argument("output", type=Path, metavar="OUT", help="a .wav; for encode, a file of codes")
    parser.add_argument("--codebooks", type=int, metavar="K", help="use the first K (default: 8, or what IN holds)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Checks files first, then loads the codec."""
    if args.codebooks is not None and args.codebooks < 1:
        raise UsageError("--codebooks takes 1 or more")
    if args.output.exists() and args.input.exists() and args.output.samefile(args.input):
        raise UsageError("IN and OUT are the same file; give OUT another name")
    figures = {"encode": _encode, "decode": _decode, "roundtrip": _roundtrip}[args.action](args)
    if args.json:
        print(json.dumps(figures))
    else:
        units = {"seconds": "s", "bits_per_second": "bit/s", "snr_db": "dB", "log_mel_db": "dB"}
        for name, value in figures.items():
            shown = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
            print(f"{name:<16} {shown} {units.get(name, '')}".rstrip())
    return 0


def _encode(args: argparse.Namespace) -> dict[str, Any]:
    from ..recording.codes import pack
    from .codes_file import header
    from .sound import frames

    source = frames(args.input)
    with _written(args.output) as part, part.open("wb") as file:
        mimi = _load(args, args.codebooks)
        clock, state, bits = _Clock(mimi), mimi.make_state(), _bits(mimi)
        file.write(header(bits, mimi.config.codebooks, _identity(mimi)))
        for pcm in _pieces(source):
            file.write(pack(clock.encode(pcm, state).T, bits))
    return clock.figures(encode=True)


def _decode(args: argparse.Namespace) -> dict[str, Any]:
    from .codes_file import CodesFile
    from .sound import Writer

    source = CodesFile(args.input)
    if args.codebooks is not None and args.codebooks > source.codebooks:
        raise MoshiError(f"{args.input} holds {source.codebooks} codebooks, not {args.codebooks}; ask for fewer")
    with Writer(args.output) as out:
        mimi = _load(args, args.codebooks or source.codebooks)
        if source.codec != _identity(mimi) or source.bits != _bits(mimi):
            raise MoshiError(f"{args.input} was made with another codec; name the model that made it with --model")
        clock, state = _Clock(mimi), mimi.make_state()
        for codes in source:
            out.write(clock.decode(codes[: mimi.config.codebooks], state))
    return clock.figures(decode=True)


def _roundtrip(args: argparse.Namespace) -> dict[str, Any]:
    from .fidelity import Fidelity
    from .sound import Writer, frames

    source = frames(args.input)
    with Writer(args.output) as out:
        mimi = _load(args, args.codebooks)
        clock, state, fidelity = _Clock(mimi), mimi.make_state(), Fidelity()
        for pcm in _pieces(source):
            again = np.clip(clock.decode(clock.encode(pcm, state), state), -1, 1)  # what the WAV will hold
            fidelity.add(pcm, again)
            out.write(again)
    return clock.figures(True, True) | {"snr_db": fidelity.snr, "log_mel_db": fidelity.log_mel}


class _Clock:
    """Runs the codec and counts frames and seconds."""

    def __init__(self, mimi: Mimi) -> None:
        self._mimi = mimi
        self._frames, self._encoding, self._decoding = 0, 0.0, 0.0

    def encode(self, pcm: Pcm, state: MimiState) -> NDArray[np.int32]:
        """pcm (frames · 1920,) → codes (codebooks, frames)."""
        start = time.perf_counter()
        codes: NDArray[np.int32] = np.array(self._mimi.encode(pcm[None, :, None], state))[0]
        self._encoding += time.perf_counter() - start
        self._frames += codes.shape[1]
        return codes

    def decode(self, codes: NDArray[np.int32], state: MimiState) -> Pcm:
        """The way back."""
        start = time.perf_counter()
        pcm: Pcm = np.array(self._mimi.decode(codes[None], state))[0, :, 0]
        self._decoding += time.perf_counter() - start
        self._frames += 0 if self._encoding else codes.shape[1]
        return pcm

    def figures(self, encode: bool = False, decode: bool = False) -> dict[str, Any]:
        """What is printed; real-time factors of what was done."""
        seconds = self._frames / FRAME_RATE
        result = {
            "seconds": seconds,
            "frames": self._frames,
            "codebooks": self._mimi.config.codebooks,
            "bits_per_second": _bits(self._mimi) * self._mimi.config.codebooks * FRAME_RATE,
        }
        if encode:
            result["encode_rtf"] = self._encoding / seconds
        if decode:
            result["decode_rtf"] = self._decoding / seconds
        return result


def _load(args: argparse.Namespace, codebooks: int | None) -> Mimi:
    from ..checkpoints.codec_of import load_codec_of
    from ..models.memory import limit_memory, nbytes

    mimi, located = load_codec_of(args.model, codebooks, offline=args.offline)
    limit_memory(nbytes(mimi.parameters()))
    if located.embedded:
        print("This is the embedded model's small codec; the real one: --model mimi (0.4 GB, once).", file=sys.stderr)
    return mimi


def _bits(mimi: Mimi) -> int:
    return (mimi.config.codebook_size - 1).bit_length()


def _identity(mimi: Mimi) -> bytes:
    """8 bytes that tell this codec from others: of its semantic table, which every number of codebooks has."""
    return hashlib.sha256(np.array(mimi.quantizer.rvq_first.codebooks).tobytes()).digest()[:8]


def _pieces(source: Frames) -> Iterator[Pcm]:
    """Several frames at once, with a bar on stderr."""
    waiting: list[Pcm] = []
    for frame in with_bar(source, source.total):
        waiting.append(frame)
        if len(waiting) == PIECE:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, renamed to it when the block ends well."""
    if not replaceable(path):
        raise MoshiError(f"{path} cannot be written; name a file in a folder that exists and is yours")
    path = path.resolve()  # what a link names
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise MoshiError(f"{path} cannot be written: {error.strerror}; choose another place") from None
    finally:
        part.unlink(missing_ok=True)
