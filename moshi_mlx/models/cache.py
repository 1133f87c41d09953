"""Key/value rings, which own position and mask: what a transformer remembers from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..frame import MoshiError
from .config import TransformerConfig

READ_LEAST = 256  # before a ring has filled, attention reads its used part, rounded up to this many slots times 2ⁿ


@dataclass
class Step:
    """What all layers of one transformer call share: where its T positions are written and what they may see."""

    position: mx.array  # int32 (), absolute position of the first
    slot: mx.array  # int32 (1,), its place in the ring
    whole: bool  # the T slots lie side by side, no wrap inside the call
    used: int  # slots that are read
    mask: mx.array | None  # bool (T, used); None: everything is visible


@dataclass
class Ring:
    """Keys (after RoPE) and values of the last positions of one layer, (B, kv_heads, slots, head_size) each."""

    keys: mx.array
    values: mx.array

    @classmethod
    def make(cls, batch: int, heads: int, slots: int, size: int, dtype: mx.Dtype) -> Ring:
        shape = (batch, heads, slots, size)
        return cls(mx.zeros(shape, dtype), mx.zeros(shape, dtype))

    def attend(self, q: mx.array, k: mx.array, v: mx.array, step: Step) -> mx.array:
        """Writes k and v, (B, kv_heads, T, D), then attends with q, (B, heads, T, D)."""
        self.keys = write(self.keys, k, step)
        self.values = write(self.values, v, step)
        keys, values = self.keys[:, :, : step.used], self.values[:, :, : step.used]
        return mx.fast.scaled_dot_product_attention(q, keys, values, scale=q.shape[-1] ** -0.5, mask=step.mask)

    def move(self, take: mx.array) -> None:
        """Rebuilds the ring: new slot i holds what old slot take[i] held."""
        self.keys, self.values = self.keys[:, :, take], self.values[:, :, take]


def kv_group(size: int) -> int | None:
    """How many values of a head of this size are quantized together; None where no group divides it."""
    return next((group for group in (64, 32) if size % group == 0), None)


@dataclass
class QuantizedRing:
    """The same in 8 bits: packed values, scales and biases of keys and of values, (B, kv_heads, slots, …) each."""

    keys: list[mx.array]
    values: list[mx.array]
    group: int
    bits: int

    @classmethod
    def make(cls, batch: int, heads: int, slots: int, size: int, dtype: mx.Dtype, bits: int) -> QuantizedRing:
        """Raises MoshiError where a head cannot be cut into quantization groups."""
        group = kv_group(size)
        if bits != 8 or group is None:
            raise MoshiError(
                f"kv_bits is 8 or None and needs heads of a multiple of 32 values; got {bits} bits, heads of {size}"
            )
        parts = ((size * bits // 32, mx.uint32), (size // group, dtype), (size // group, dtype))
        keys, values = ([mx.zeros((batch, heads, slots, n), kind) for n, kind in parts] for _ in range(2))
        return cls(keys, values, group, bits)

    def attend(self, q: mx.array, k: mx.array, v: mx.array, step: Step) -> mx.array:
        """As `Ring.attend`."""
        how: Any = {"group_size": self.group, "bits": self.bits}
        self.keys = [write(old, new, step) for old, new in zip(self.keys, mx.quantize(k, **how), strict=True)]
        self.values = [write(old, new, step) for old, new in zip(self.values, mx.quantize(v, **how), strict=True)]
        keys, values = ([_cut(part, step.used) for part in ring] for ring in (self.keys, self.values))
        batch, heads, steps, size = q.shape
        rows = (q * size**-0.5).reshape(batch, k.shape[1], -1, size)  # query heads that share keys become rows
        scores = mx.quantized_matmul(rows, keys[0], keys[1], keys[2], transpose=True, **how).reshape(
            batch, heads, steps, step.used
        )
        if step.mask is not None:
            scores = mx.where(step.mask, scores, -mx.inf)
        weights = mx.softmax(scores, axis=-1, precise=True)
        weights = weights.reshape(*rows.shape[:3], step.used)
        return mx.quantized_matmul(weights, values[0], values[1], values[2], transpose=False, **how).reshape(
            batch, heads, steps, size
        )

    def move(self, take: mx.array) -> None:
        """As `Ring.move`."""
        self.keys, self.values = ([part[:, :, take] for part in ring] for ring in (self.keys, self.values))


def _cut(ring: mx.array, used: int) -> mx.array:
    """The first slots of a quantized ring. With CUDA a copy of them: its product takes no slice of a packed matrix."""
    part = ring[:, :, :used]
    return mx.contiguous(part) if used < ring.shape[2] and mx.cuda.is_available() else part


def write(ring: mx.array, new: mx.array, step: Step) -> mx.array:
    """`ring` with `new` at the slots of the step. In place unless somebody else holds the ring:
    then MLX copies it, gigabytes a second."""
    if step.whole:
        return mx.slice_update(ring, new, step.slot, axes=(2,))
    ring[:, :, (step.slot + mx.arange(new.shape[2])) % ring.shape[2]] = new
    return ring


@dataclass
class TransformerState:
    """The rings of a stack of layers and their common position, which counts for ever."""

    rings: Sequence[Ring | QuantizedRing]
    position: mx.array  # int32 (), positions seen so far
    offset: int  # the same number, known to the host: it only decides shapes
    context: int
    slots: int

    @classmethod
    def make(
        cls, config: TransformerConfig, batch: int, steps: int, dtype: mx.Dtype, kv_bits: int | None = None
    ) -> TransformerState:
        """An empty state for calls of up to `steps` positions."""
        assert config.context is not None
        slots = _capacity(config.context, steps)
        shape = (batch, config.kv_heads, slots, config.head_size)
        layers = range(config.layers)
        rings: Any = (
            [Ring.make(*shape, dtype) for _ in layers]
            if kv_bits is None
            else [QuantizedRing.make(*shape, dtype, kv_bits) for _ in layers]
        )
        return cls(rings, mx.array(0, mx.int32), 0, config.context, slots)

    def way(self, steps: int) -> tuple[int, bool, bool]:
        """What the next call of `steps` positions depends on besides arrays: slots that are read, whether those written
        lie side by side, whether some that are read must not be seen."""
        end = self.offset + steps
        used = READ_LEAST
        while used < min(end, self.slots):
            used *= 2
        full = steps == 1 and end >= self.slots == self.context
        return min(used, self.slots), self.offset % self.slots + steps <= self.slots, not full

    def turns(self) -> list[int]:
        """Offsets, of calls of one position, at which `way` changes."""
        offsets, used = [0], READ_LEAST
        while used < self.slots - 1:
            offsets.append(used)
            used *= 2
        return [*offsets, self.slots - 1]

    def begin(self, steps: int) -> Step:
        """Opens a call of `steps` positions."""
        self.fit(steps)
        used, whole, masked = self.way(steps)
        slot = (self.position % self.slots).reshape(1)
        mask = None
        if masked:
            last = self.position + (steps - 1)
            held = last - (last - mx.arange(used)) % self.slots  # the absolute position in each slot after this call
            age = (self.position + mx.arange(steps))[:, None] - held
            mask = (age >= 0) & (age < self.context) & (held >= 0)
        return Step(self.position, slot, whole, used, mask)

    def end(self, steps: int) -> None:
        """Closes the call."""
        self.position = self.position + steps
        self.offset += steps

    def fit(self, steps: int) -> None:
        """Makes room for a call of `steps` positions; a larger ring keeps the same positions. Places with no position
        hold anything, the mask hides them."""
        if self.context + steps - 1 <= self.slots:
            return
        slots = _capacity(self.context, steps)
        take = np.zeros(slots, np.int32)
        seen = np.arange(max(0, self.offset - min(self.slots, slots)), self.offset)
        take[seen % slots] = seen % self.slots
        for ring in self.rings:
            ring.move(mx.array(take))
        self.slots = slots


def _capacity(context: int, steps: int) -> int:
    """context + steps − 1, rounded up so that calls of `steps` positions never wrap inside."""
    return -(-(context + steps - 1) // steps) * steps
