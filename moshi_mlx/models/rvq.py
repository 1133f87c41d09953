"""The split residual vector quantizer (spec, mimi.md section 4): one semantic level, and acoustic levels that read
the same latent.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


class ResidualQuantizer(nn.Module):
    """Levels that each quantize what the ones before left.

    codebooks: (levels, size, inner), fp32; half_norms: (levels, size), half the squared length of each entry.
    """

    def __init__(self, width: int, levels: int, size: int, inner: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(width, inner, bias=False)
        self.output_proj = nn.Linear(inner, width, bias=False)
        self.codebooks = mx.zeros((levels, size, inner))
        self.half_norms = mx.zeros((levels, size))

    def encode(self, x: mx.array) -> mx.array:
        """(B, T, width) → int32 (B, levels, T)."""
        residual = self.input_proj(x)
        codes = []
        for table, half_norm in zip(self.codebooks, self.half_norms, strict=True):
            code = mx.argmax(residual @ table.T - half_norm, axis=-1)  # argmin ‖r − e‖² = argmax r·e − ‖e‖²/2
            residual = residual - table[code]
            codes.append(code)
        return mx.stack(codes, axis=1).astype(mx.int32)

    def decode(self, codes: mx.array) -> mx.array:
        """(B, k, T), the first k levels → (B, T, width)."""
        _, size, inner = self.codebooks.shape
        rows = codes + size * mx.arange(codes.shape[1])[:, None]  # one gather for all levels
        return self.output_proj(self.codebooks.reshape(-1, inner)[rows].sum(axis=1))


class SplitQuantizer(nn.Module):
    """The first codebook is semantic, the others acoustic."""

    def __init__(self, width: int, codebooks: int, size: int, inner: int) -> None:
        super().__init__()
        self.rvq_first = ResidualQuantizer(width, 1, size, inner)
        self.rvq_rest = ResidualQuantizer(width, codebooks - 1, size, inner) if codebooks > 1 else None

    def encode(self, x: mx.array) -> mx.array:
        """(B, T, width) → int32 (B, codebooks, T)."""
        first = self.rvq_first.encode(x)
        return first if self.rvq_rest is None else mx.concatenate([first, self.rvq_rest.encode(x)], axis=1)

    def decode(self, codes: mx.array) -> mx.array:
        """(B, k, T), the first k codebooks → (B, T, width)."""
        y = self.rvq_first.decode(codes[:, :1])
        return y if self.rvq_rest is None or codes.shape[1] == 1 else y + self.rvq_rest.decode(codes[:, 1:])
