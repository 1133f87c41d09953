"""Mimi, the streaming codec: 24 kHz mono ↔ 12.5 frames a second of codes.

pcm is (B, samples, 1) float32, codes int32 (B, codebooks, frames). One path serves offline and stream: offline is the
stream from an empty state, and a long call is cut into pieces, so memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from ..frame import FRAME, MoshiError
from .cache import TransformerState
from .compiled import Compiled
from .config import MimiConfig
from .conv import Conv1d, Tail, Upsample
from .rvq import SplitQuantizer
from .seanet import Decoder, Encoder
from .transformer import Transformer

LATENTS = 2  # latent steps a frame
PIECE = 32  # frames a call works on at once

Array = mx.array | NDArray[Any]


@dataclass
class EncoderState:
    """seanet: a tail a layer; downsample: its first-input tail."""

    seanet: list[Any]
    transformer: TransformerState
    downsample: Any


@dataclass
class DecoderState:
    """upsample and seanet: tails; the transformer's rings between them."""

    upsample: Tail
    transformer: TransformerState
    seanet: list[Any]


@dataclass
class MimiState:
    """One stream: one encoder and one decoder, which do not touch each other's part."""

    encoder: EncoderState
    decoder: DecoderState


class TransformerHolder(nn.Module):
    """The file calls each transformer `X_transformer.transformer`."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.transformer = Transformer(config.transformer)


class Mimi(nn.Module):
    """The codec. All state is in the MimiState that a caller passes; without one, a call is a stream of its own."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.encoder_transformer = TransformerHolder(config)
        self.downsample = Conv1d(config.width, config.width, 2 * LATENTS, LATENTS, bias=False, replicate=True)
        self.quantizer = SplitQuantizer(config.width, config.codebooks, config.codebook_size, config.codebook_width)
        self.upsample = Upsample(config.width, LATENTS)
        self.decoder_transformer = TransformerHolder(config)
        self.decoder = Decoder(config)
        self.live_encode, self.live_decode = Compiled(self._encode, LATENTS), Compiled(self._decode, LATENTS)

    def make_state(self, batch: int = 1) -> MimiState:
        """An empty state for one stream of `batch` parallel signals."""
        rings = [
            holder.transformer.make_state(batch, LATENTS, mx.float32)
            for holder in (self.encoder_transformer, self.decoder_transformer)
        ]
        return MimiState(
            EncoderState(self.encoder.make_state(batch), rings[0], self.downsample.make_state(batch)),
            DecoderState(self.upsample.make_state(batch), rings[1], self.decoder.make_state(batch)),
        )

    def encode(self, pcm: Array, state: MimiState | None = None) -> mx.array:
        """pcm (B, samples, 1) → codes int32 (B, codebooks, frames).

        With a state, samples are a multiple of 1,920; without one, the end is padded with zeros to whole frames.
        """
        x = mx.array(pcm, mx.float32) if not isinstance(pcm, mx.array) else pcm.astype(mx.float32)
        if x.ndim != 3 or x.shape[2] != 1 or x.shape[1] == 0:
            raise MoshiError(f"encode takes pcm of shape (batch, samples, 1) with samples > 0, not {tuple(x.shape)}")
        if rest := -x.shape[1] % FRAME:
            if state is not None:
                raise MoshiError(f"a stream takes whole frames of {FRAME} samples; {x.shape[1]} is not a multiple")
            x = mx.pad(x, [(0, 0), (0, rest), (0, 0)])
        encoder = (state or self.make_state(x.shape[0])).encoder
        pieces = [x[:, i : i + PIECE * FRAME] for i in range(0, x.shape[1], PIECE * FRAME)]
        return _join((self.encode_frames(piece, encoder) for piece in pieces), len(pieces), axis=2)

    def decode(self, codes: Array, state: MimiState | None = None) -> mx.array:
        """codes (B, codebooks, frames), any integer dtype → pcm float32 (B, 1,920 · frames, 1).

        Raises MoshiError where a NumPy array holds a code outside the codebooks; an MLX array is not read back.
        """
        if (
            not isinstance(codes, mx.array)
            and codes.size
            and not 0 <= codes.min() <= codes.max() < self.config.codebook_size
        ):
            raise MoshiError(f"codes run from 0 to {self.config.codebook_size - 1}; got {codes.min()} to {codes.max()}")
        x = mx.array(np.asarray(codes, np.int32)) if not isinstance(codes, mx.array) else codes.astype(mx.int32)
        if x.ndim != 3 or x.shape[1] != self.config.codebooks or x.shape[2] == 0:
            raise MoshiError(
                f"decode takes codes of shape (batch, {self.config.codebooks}, frames > 0), not {tuple(x.shape)}"
            )
        decoder = (state or self.make_state(x.shape[0])).decoder
        pieces = [x[:, :, i : i + PIECE] for i in range(0, x.shape[2], PIECE)]
        return _join((self.decode_frames(piece, decoder) for piece in pieces), len(pieces), axis=1)

    def latents(self, pcm: mx.array, state: EncoderState) -> mx.array:
        """pcm (B, 1,920·T, 1) → what the quantizer reads, (B, T, width)."""
        x = self.encoder(pcm, state.seanet)
        x = self.encoder_transformer.transformer(x, state.transformer)
        return self.downsample(x, state.downsample)

    def encode_frames(self, pcm: mx.array, state: EncoderState) -> mx.array:
        """pcm (B, 1,920·T, 1) → codes (B, codebooks, T), lazily. A single frame is compiled."""
        encode = self.live_encode if pcm.shape[1] == FRAME else self._encode
        return encode(state, pcm)

    def decode_frames(self, codes: mx.array, state: DecoderState) -> mx.array:
        """codes (B, codebooks, T) → pcm (B, 1,920·T, 1), lazily. A single frame is compiled."""
        decode = self.live_decode if codes.shape[2] == 1 else self._decode
        return decode(state, codes)

    def _encode(self, state: EncoderState, pcm: mx.array) -> mx.array:
        return self.quantizer.encode(self.latents(pcm, state))

    def _decode(self, state: DecoderState, codes: mx.array) -> mx.array:
        x = self.upsample(self.quantizer.decode(codes), state.upsample)
        x = self.decoder_transformer.transformer(x, state.transformer)
        return self.decoder(x, state.seanet)


def _join(pieces: Iterator[mx.array], count: int, axis: int) -> mx.array:
    """The pieces along time. Several are evaluated one by one as they come, so that their graphs do not pile up."""
    if count == 1:
        return next(pieces)
    done = []
    for piece in pieces:
        mx.eval(piece)
        done.append(piece)
    return mx.concatenate(done, axis=axis)
