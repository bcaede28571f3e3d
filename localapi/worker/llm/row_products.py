"""Single rows times large float32 weights, by the BLAS's matrix-vector product.

MLX (0.32.4) requests a matrix product from the BLAS even if one of the matrices is a single row, and OpenBLAS then
copies the whole weight to arrange it for its kernel, which is most of the time of a decoded token. `cblas_sgemv` reads
the weight in place. This file becomes unnecessary when MLX's CPU matmul calls a matrix-vector product by itself.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.utils import tree_unflatten

ROW_MAJOR: Final = 101
NOT_TRANSPOSED: Final = 111
LARGE: Final = 1_000_000
"""Minimum numbers in a weight. OpenBLAS multiplies smaller ones in place (SMALL_MATRIX_OPT, x86-64 with AVX-512)."""


@functools.cache
def gemv() -> Any:
    """Return the `cblas_sgemv` of the BLAS that was loaded for MLX to find, or None if there is none."""
    try:
        found = ctypes.CDLL(None).cblas_sgemv
    except (OSError, AttributeError):
        return None
    address, whole, number = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    found.argtypes = [
        whole, whole, whole, whole, number, address, whole, address, whole, number, address, whole,
    ]  # fmt: skip
    found.restype = None
    return found


def takes(x: mx.array, weight: mx.array) -> bool:
    """Return True if `product` can compute x @ weight.T: one float32 row, a large weight, and a BLAS to call."""
    return gemv() is not None and bool(
        x.size == x.shape[-1] and x.dtype == weight.dtype == mx.float32 and weight.size >= LARGE
    )


def product(x: mx.array, weight: mx.array) -> mx.array:
    """Return x @ weight.T for a single row x of shape (…, 1, columns) and a weight of shape (rows, columns)."""
    rows, columns = weight.shape
    matrix = np.array(weight, copy=False)
    vector = np.ascontiguousarray(np.array(x, copy=False)).reshape(-1)
    result = np.empty(rows, np.float32)
    gemv()(
        ROW_MAJOR, NOT_TRANSPOSED, rows, columns, 1.0, matrix.ctypes.data, columns, vector.ctypes.data, 1, 0.0,
        result.ctypes.data, 1,
    )  # fmt: skip
    return mx.array(result).reshape(*x.shape[:-1], rows)


class RowLinear(Linear):
    """A linear layer that multiplies single rows by `product`."""

    def __call__(self, x: mx.array) -> mx.array:
        if not takes(x, self.weight):
            return super().__call__(x)
        result = product(x, self.weight)
        return result + self.bias if "bias" in self else result


class RowEmbedding(Embedding):
    """An embedding that is also the last layer of its model."""

    def as_linear(self, x: mx.array) -> mx.array:
        return product(x, self.weight) if takes(x, self.weight) else x @ self.weight.T


def use_in(model: Any) -> int:
    """Make the model's large float32 layers multiply single rows by `product`. Return the number of these layers."""
    if gemv() is None:
        return 0
    replaced = []
    for name, module in model.named_modules():
        if type(module) not in (Linear, Embedding) or module.weight.dtype != mx.float32 or module.weight.size < LARGE:
            continue
        if type(module) is Linear:
            new: Any = RowLinear(1, 1, bias="bias" in module)
            if "bias" in module:
                new.bias = module.bias
        else:
            new = RowEmbedding(1, 1)
        # As it lies in memory is how the product reads it.
        new.weight = mx.contiguous(module.weight)
        replaced.append((name, new))
    model.update_modules(tree_unflatten(replaced))
    model.eval()
    return len(replaced)
