"""Pre-norm transformer blocks for all three transformers; state is an argument.

Inside, x is (B·T, width): a row a position, `steps` = T rows a stream.

Parameter names are those of format A (spec, checkpoints.md section 3); Mimi's are those of its file with
`in_proj_weight` as `in_proj.weight`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import mlx.core as mx
from mlx import nn

from .cache import TransformerState
from .config import TransformerConfig

RMS_EPS = 1e-8
Rotate = Callable[[mx.array], mx.array]


class Attend(Protocol):
    """Stores keys and values of a call and attends to what is visible: a ring, or the depth transformer's list."""

    def __call__(self, q: mx.array, k: mx.array, v: mx.array) -> mx.array: ...


class Attention(nn.Module):
    """Self-attention with fused projections; rows q, k, v, head-major inside each."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self._heads, self._kv_heads, self._size = config.heads, config.kv_heads, config.head_size
        rows = (config.heads + 2 * config.kv_heads) * config.head_size
        self.in_proj = nn.Linear(config.width, rows, bias=False)
        self.out_proj = nn.Linear(config.width, config.width, bias=False)

    def __call__(self, x: mx.array, steps: int, attend: Attend, rotate: Rotate | None) -> mx.array:
        heads, last = self._heads, self._heads + self._kv_heads
        shape = (-1, steps, last + self._kv_heads, self._size)
        qkv = self.in_proj(x).reshape(shape).transpose(0, 2, 1, 3)  # (B, heads + 2 kv, T, D)
        qk = qkv[:, :last] if rotate is None else rotate(qkv[:, :last])
        out = attend(qk[:, :heads], qk[:, heads:], qkv[:, last:])
        return self.out_proj(out.transpose(0, 2, 1, 3).reshape(x.shape))


class Gating(nn.Module):
    """down(silu(gate(x)) · up(x)), gate and up in one matrix, gate rows first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(width, 2 * hidden, bias=False)
        self.linear_out = nn.Linear(hidden, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        gate, up = mx.split(self.linear_in(x), 2, axis=-1)
        return self.linear_out(nn.silu(gate) * up)


class MoshiBlock(nn.Module):
    """RMSNorm and gated feed-forward: temporal and depth transformer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.width, eps=RMS_EPS)
        self.norm2 = nn.RMSNorm(config.width, eps=RMS_EPS)
        self.self_attn = Attention(config)
        self.gating = Gating(config.width, config.hidden)

    def __call__(self, x: mx.array, steps: int, attend: Attend, rotate: Rotate | None) -> mx.array:
        x = x + self.self_attn(self.norm1(x), steps, attend, rotate)
        return x + self.gating(self.norm2(x))


class LayerScale(nn.Module):
    """A learnt factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = mx.zeros(width)

    def __call__(self, x: mx.array) -> mx.array:
        return self.scale * x


class MimiBlock(nn.Module):
    """LayerNorm, exact GELU, layer scale: the codec."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-5)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-5)
        self.self_attn = Attention(config)
        self.linear1 = nn.Linear(config.width, config.hidden, bias=False)
        self.linear2 = nn.Linear(config.hidden, config.width, bias=False)
        self.layer_scale_1 = LayerScale(config.width)
        self.layer_scale_2 = LayerScale(config.width)

    def __call__(self, x: mx.array, steps: int, attend: Attend, rotate: Rotate | None) -> mx.array:
        x = x + self.layer_scale_1(self.self_attn(self.norm1(x), steps, attend, rotate))
        return x + self.layer_scale_2(self.linear2(nn.gelu(self.linear1(self.norm2(x)))))


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self._config = config
        block: Any = MoshiBlock if config.gated else MimiBlock
        self.layers = [block(config) for _ in range(config.layers)]

    def make_state(
        self, batch: int, steps: int, dtype: mx.Dtype, kv_bits: int | None = None, total: int | None = None
    ) -> TransformerState:
        """An empty state; calls of up to `steps` positions never make it grow. total: positions that will ever come, if
        that is known: there is room for no more."""
        config = self._config
        if total is not None and config.context is not None:
            config = replace(config, context=min(config.context, total))
        return TransformerState.make(config, batch, steps, dtype, kv_bits)

    def __call__(self, x: mx.array, state: TransformerState) -> mx.array:
        """(B, T, width) → (B, T, width); the state moves on by T positions."""
        batch, steps, width = x.shape
        step = state.begin(steps)
        x = x.reshape(batch * steps, width)
        rotate = None
        if self._config.rope is not None:
            rotate = partial(
                mx.fast.rope,
                dims=self._config.head_size,
                traditional=self._config.rope == "interleaved",
                base=self._config.max_period,
                scale=1.0,
                offset=step.position,
            )
        for layer, ring in zip(self.layers, state.rings, strict=True):
            x = layer(x, steps, partial(ring.attend, step=step), rotate)
        state.end(steps)
        return x.reshape(batch, steps, width)
