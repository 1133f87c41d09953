"""Causal convolutions that stream. x is (B, T, channels); a state holds what the next call needs of the past.

Offline is the stream from an empty state: the state of a causal convolution starts as its left padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
from mlx import nn


@dataclass
class Tail:
    """What a convolution remembers, (B, n, channels): its last inputs, or (transposed) its unfinished outputs."""

    values: mx.array


@dataclass
class FirstTail:
    """A tail whose start value is the stream's first input, repeated."""

    values: mx.array
    fresh: mx.array  # bool (), True until the first call


class Conv1d(nn.Module):
    """y[n] = b + Σ_j W[j] x[n·stride − (kernel − stride) + j]: one product over overlapping windows, a view of x.

    The past before the stream is zero, or its first input (`replicate`). weight: (kernel · inputs, outputs).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True, replicate: bool = False
    ) -> None:
        super().__init__()
        self._inputs, self._kernel, self._stride, self._replicate = inputs, kernel, stride, replicate
        self.weight = mx.zeros((kernel * inputs, outputs))
        if bias:
            self.bias = mx.zeros(outputs)

    def make_state(self, batch: int) -> Tail | FirstTail | None:
        if self._kernel == self._stride:
            return None
        values = mx.zeros((batch, self._kernel - self._stride, self._inputs))
        return FirstTail(values, mx.array(True)) if self._replicate else Tail(values)

    def __call__(self, x: mx.array, state: Tail | FirstTail | None) -> mx.array:
        """(B, T, inputs) → (B, T / stride, outputs); T is a multiple of the stride."""
        batch, steps, inputs = x.shape
        if state is not None:
            past = state.values
            if isinstance(state, FirstTail):
                past = mx.where(state.fresh, x[:, :1], past)
                state.fresh = mx.zeros_like(state.fresh)
            x = mx.concatenate([past, x], axis=1)
            state.values = x[:, steps:]
            shape = (batch, steps // self._stride, self._kernel * inputs)
            x = mx.as_strided(x, shape, (x.shape[1] * inputs, self._stride * inputs, 1))
        y = x @ self.weight
        return y + self.bias if "bias" in self else y


def overlap_add(parts: mx.array, state: Tail) -> mx.array:
    """Joins windows that overlap by half: parts (B, T, 2s, C) → (B, s·T, C). The last half waits in the state."""
    batch, steps, double, channels = parts.shape
    half = double // 2
    late = parts[:, :, half:]  # what window n adds to the place of window n + 1
    earlier = mx.concatenate([state.values[:, None], late[:, :-1]], axis=1)
    state.values = late[:, -1]
    return (parts[:, :, :half] + earlier).reshape(batch, steps * half, channels)


class ConvTranspose1d(nn.Module):
    """Transposed convolution of kernel 2·stride, future cut off: one matrix product and an overlap-add."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self._stride, self._outputs = stride, outputs
        self.weight = mx.zeros((inputs, 2 * stride * outputs))
        self.bias = mx.zeros(outputs)

    def make_state(self, batch: int) -> Tail:
        return Tail(mx.zeros((batch, self._stride, self._outputs)))

    def __call__(self, x: mx.array, state: Tail) -> mx.array:
        """(B, T, inputs) → (B, stride·T, outputs)."""
        parts = (x @ self.weight).reshape(*x.shape[:2], 2 * self._stride, self._outputs)
        return overlap_add(parts, state) + self.bias


class Upsample(nn.Module):
    """Depthwise transposed convolution of kernel 2·stride, without bias: no product at all."""

    def __init__(self, channels: int, stride: int = 2) -> None:
        super().__init__()
        self._stride, self._channels = stride, channels
        self.weight = mx.zeros((2 * stride, channels))

    def make_state(self, batch: int) -> Tail:
        return Tail(mx.zeros((batch, self._stride, self._channels)))

    def __call__(self, x: mx.array, state: Tail) -> mx.array:
        """(B, T, channels) → (B, stride·T, channels)."""
        return overlap_add(x[:, :, None] * self.weight, state)
