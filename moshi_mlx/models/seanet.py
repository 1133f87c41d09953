"""SEANet: the convolutional halves of Mimi (spec, mimi.md section 2). 1,920 samples ↔ 2 latents a frame.

`model` is indexed as in the checkpoint, where activations take an index of their own.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx import nn

from .config import MimiConfig
from .conv import Conv1d, ConvTranspose1d


class Elu(nn.Module):
    """x where positive, else eˣ − 1."""

    def make_state(self, batch: int) -> None:
        return None

    def __call__(self, x: mx.array, state: None) -> mx.array:
        return nn.elu(x)


class Sequence(nn.Module):
    """Streaming layers one after the other; its state is the list of theirs."""

    def make_state(self, batch: int) -> list[Any]:
        return [layer.make_state(batch) for layer in self.layers()]

    def layers(self) -> list[Any]:
        return list(self.model)

    def __call__(self, x: mx.array, state: list[Any]) -> mx.array:
        for layer, past in zip(self.layers(), state, strict=True):
            x = layer(x, past)
        return x


class Residual(Sequence):
    """x + conv1(ELU(conv3(ELU(x)))), half as wide inside."""

    def __init__(self, channels: int, config: MimiConfig) -> None:
        super().__init__()
        inner = channels // config.compress
        self.block = [Elu(), Conv1d(channels, inner, config.residual_kernel), Elu(), Conv1d(inner, channels, 1)]

    def layers(self) -> list[Any]:
        return list(self.block)

    def __call__(self, x: mx.array, state: list[Any]) -> mx.array:
        return x + super().__call__(x, state)


class Encoder(Sequence):
    """pcm (B, T, 1) → latents (B, T / hop, width)."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        channels = config.filters
        model: list[Any] = [Conv1d(1, channels, config.kernel)]
        for ratio in reversed(config.ratios):
            model += [Residual(channels, config), Elu(), Conv1d(channels, 2 * channels, 2 * ratio, ratio)]
            channels *= 2
        self.model = [*model, Elu(), Conv1d(channels, config.width, config.last_kernel)]


class Decoder(Sequence):
    """latents (B, T, width) → pcm (B, T · hop, 1)."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        channels = config.filters << len(config.ratios)
        model: list[Any] = [Conv1d(config.width, channels, config.kernel)]
        for ratio in config.ratios:
            model += [Elu(), ConvTranspose1d(channels, channels // 2, ratio), Residual(channels // 2, config)]
            channels //= 2
        self.model = [*model, Elu(), Conv1d(channels, 1, config.last_kernel)]
