"""Does MLX calculate rightly here? The kernels that a frame lives on, at one row, against NumPy: milliseconds, at
every start.

New chips and new systems have broken kernels silently before (mlx#3797, mlx#4389): the model then speaks noise.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS, WINDOWS = 256, 512, 16
QUANTIZED = {"q8": (8, 64), "q4": (4, 32)}  # bits, group: those of the published files
TOLERANCE = 0.1  # of the largest value: the CPU's kernels add up in bfloat16 (0.05); one group left out gives 0.25


def kernel_errors() -> dict[str, float]:
    """For each kernel the largest error, as a share of the largest value. To be called on the thread that steps."""
    random = np.random.default_rng(0)
    row = mx.array(random.normal(size=(1, COLUMNS)).astype(np.float32)).astype(mx.bfloat16)
    weight = mx.array(random.normal(size=(ROWS, COLUMNS)).astype(np.float32)).astype(mx.bfloat16)
    x = np.array(row.astype(mx.float32))
    errors = {"bf16": _error(row @ weight.T, x @ np.array(weight.astype(mx.float32)).T)}
    for name, (bits, group) in QUANTIZED.items():
        packed, scales, biases = mx.quantize(weight, group_size=group, bits=bits)
        product = mx.quantized_matmul(row, packed, scales, biases, transpose=True, group_size=group, bits=bits)
        scale, bias = (np.array(part.astype(mx.float32)) for part in (scales, biases))
        errors[name] = _error(product, x @ unpack(np.array(packed), scale, bias, bits).T)
    return {**errors, **_streaming_errors(random)}


def _streaming_errors(random: np.random.Generator) -> dict[str, float]:
    """The two ways of the codec and the rings that are off the beaten track: a product over overlapping windows, and
    a write at a place known to the device only."""
    sound = random.normal(size=(1, 2 * WINDOWS + 2, COLUMNS // 4)).astype(np.float32)
    weight = random.normal(size=(COLUMNS, ROWS)).astype(np.float32)  # four inputs a window, two apart
    width = sound.shape[2]
    shape, strides = (1, WINDOWS, COLUMNS), (sound[0].size, 2 * width, 1)
    windows = mx.as_strided(mx.array(sound), shape, strides) @ mx.array(weight)
    wanted = np.stack([sound[0, 2 * n : 2 * n + 4].reshape(-1) for n in range(WINDOWS)]) @ weight
    ring = random.normal(size=(1, 2, WINDOWS, 64)).astype(np.float32)
    new = random.normal(size=(1, 2, 1, 64)).astype(np.float32)
    written = mx.slice_update(mx.array(ring), mx.array(new), mx.array([5]), axes=(2,))
    ring[:, :, 5:6] = new
    return {"windows": _error(windows[0], wanted), "ring": _error(written, ring)}


def complain(errors: Mapping[str, float]) -> str:
    """What is wrong and what to do, "" if nothing is."""
    wrong = ", ".join(f"{name} is off by {error:.0%}" for name, error in errors.items() if not error <= TOLERANCE)
    return (
        f"MLX gives wrong results on this machine ({wrong}): try another version of mlx, and report it" if wrong else ""
    )


def unpack(
    packed: NDArray[np.uint32], scales: NDArray[np.float32], biases: NDArray[np.float32], bits: int
) -> NDArray[np.float32]:
    """MLX's affine quantization undone in NumPy: words (rows, n), the lowest bits first → values (rows, columns)."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    values = (packed[..., None] >> shifts & np.uint32((1 << bits) - 1)).reshape(len(packed), scales.shape[1], -1)
    whole = values * scales[..., None] + biases[..., None]
    return whole.reshape(len(packed), -1).astype(np.float32)


def _error(got: mx.array, wanted: NDArray[np.float32]) -> float:
    return float(np.abs(np.array(got.astype(mx.float32)) - wanted).max() / np.abs(wanted).max())
