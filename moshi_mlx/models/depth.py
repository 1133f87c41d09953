"""The depth transformer: the codebooks of one frame, each from the ones before (spec, moshi.md section 3).

It starts empty in every step. One path serves both uses: live, a row is a session and `choose` samples; teacher-
forced, a row is one step of a known sequence and `choose` gives what is known.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
from mlx import nn

from .config import DepthConfig, LmConfig
from .transformer import Transformer

NORM_EPS = 1e-5
Choose = Callable[
    [int, mx.array], mx.array
]  # (codebook, logits (N, card)) → the token that the next codebook sees, int32 (N,)


class LowRankEmbedding(nn.Module):
    """A narrow table and a projection to full width."""

    def __init__(self, rows: int, rank: int, width: int) -> None:
        super().__init__()
        self.weight = mx.zeros((rows, rank))
        self.low_rank = nn.Linear(rank, width, bias=False)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.low_rank(self.weight[ids])


def embed(table: nn.Module, ids: mx.array) -> mx.array:
    """Rows of a table; token −1 is the exact zero vector, whatever the table's kind."""
    return mx.where((ids >= 0)[..., None], table(mx.maximum(ids, 0)), 0)


class Slice(nn.Module):
    """All that belongs to one codebook: embedding of the token before it, input projection, blocks, norm, head."""

    def __init__(self, config: LmConfig, index: int) -> None:
        super().__init__()
        depth: DepthConfig = config.depth
        width, rank = depth.transformer.width, depth.low_rank
        rows = 1 + (config.text_card if index == 0 else config.card)
        self.emb = LowRankEmbedding(rows, rank, width) if rank else nn.Embedding(rows, width)
        self.linear_in = nn.Linear(config.transformer.width, width, bias=False)
        self.transformer = Transformer(depth.transformer)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS) if depth.normed else nn.Identity()
        self.linear_out = nn.Linear(width, config.card, bias=False)


class Positions:
    """Keys and values of one layer over the codebooks so far, in buffers for `total`: nothing is copied twice."""

    def __init__(self, total: int) -> None:
        self._total, self._seen = total, 0
        self._keys: mx.array
        self._values: mx.array

    def attend(self, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        """One more position, (N, heads, 1, D), which sees all before it."""
        now, self._seen = self._seen, self._seen + 1
        if now == 0:
            self._keys, self._values = (mx.pad(new, [(0, 0), (0, 0), (0, self._total - 1), (0, 0)]) for new in (k, v))
            return mx.repeat(v, q.shape[1] // v.shape[1], axis=1)  # alone, it sees itself
        self._keys[:, :, now : now + 1], self._values[:, :, now : now + 1] = k, v
        keys, values = self._keys[:, :, : now + 1], self._values[:, :, : now + 1]
        return mx.fast.scaled_dot_product_attention(q, keys, values, scale=q.shape[-1] ** -0.5)


class Depth(nn.Module):
    """`slices[k]` predicts codebook k."""

    def __init__(self, config: LmConfig) -> None:
        super().__init__()
        self.slices = [Slice(config, k) for k in range(config.dep_q)]

    def __call__(self, z: mx.array, text: mx.array, choose: Choose) -> mx.array:
        """z (N, d) of the temporal transformer and the text token (N,) of the same step → what was chosen, int32
        (N, dep_q).
        """
        layers = [Positions(len(self.slices)) for _ in self.slices[0].transformer.layers]
        token, chosen = text, []
        for index, part in enumerate(self.slices):
            h = part.linear_in(z) + embed(part.emb, token)
            for block, past in zip(part.transformer.layers, layers, strict=True):
                h = block(h, 1, past.attend, None)
            token = choose(index, part.linear_out(part.norm(h)))
            chosen.append(token)
        return mx.stack(chosen, axis=1)
