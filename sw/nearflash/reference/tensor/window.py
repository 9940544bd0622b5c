"""Accumulators of what slides a window over an image: convolution, depthwise convolution, pooling."""

from __future__ import annotations

import numpy as np

__all__ = ["convolve", "depthwise", "pool"]

# sums of so many int8 products stay below 2**24, so float32 BLAS adds them without error
EXACT_PRODUCTS = (1 << 24) // (127 * 127)
CHUNK_ELEMENTS = 1 << 22  # of the matrix of patches made at a time


def _padded(x: np.ndarray, kernel: tuple[int, int], stride: int, pad: tuple[int, int], out: tuple[int, int], value: int,
            dtype: type) -> np.ndarray:
    """``x`` with the padding that its windows see, at least that of top and left."""
    spare = [max(0, (o - 1) * stride + k - p - n) for o, k, p, n in zip(out, kernel, pad, x.shape, strict=False)]
    return np.pad(x, ((pad[0], spare[0]), (pad[1], spare[1]), (0, 0)), constant_values=value).astype(dtype)


def _windows(x: np.ndarray, kernel: tuple[int, int], stride: int, out: tuple[int, int]) -> np.ndarray:
    """A view [out_h, out_w, kernel_h, kernel_w, C] of ``x``."""
    h, w, c = x.strides
    return np.lib.stride_tricks.as_strided(x, (*out, *kernel, x.shape[2]), (h * stride, w * stride, h, w, c))


def convolve(x: np.ndarray, weights: np.ndarray, stride: int, pad: tuple[int, int], out: tuple[int, int],
             pad_value: int = 0) -> np.ndarray:
    """Accumulators int64 [out_h, out_w, O] of codes ``x`` [H, W, C] and ``weights`` [O, kernel_h, kernel_w, C], both int8.

    ``pad``: rows above and columns before the input; what lies below and after it is whatever ``out`` asks for.
    """
    outputs, *kernel, _ = weights.shape
    size = (kernel[0], kernel[1])
    matrix = weights.reshape(outputs, -1).T.astype(np.float32)
    if size == (1, 1) and stride == 1 and x.shape[:2] == out:
        return _product(x.reshape(-1, x.shape[2]).astype(np.float32), matrix).reshape(*out, outputs)
    view = _windows(_padded(x, size, stride, pad, out, pad_value, np.float32), size, stride, out)
    acc = np.empty((*out, outputs), np.int64)
    rows = max(1, CHUNK_ELEMENTS // (out[1] * len(matrix)))
    for top in range(0, out[0], rows):
        patches = view[top : top + rows].reshape(-1, len(matrix))
        acc[top : top + rows] = _product(patches, matrix).reshape(-1, out[1], outputs)
    return acc


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b`` of int8 codes in float32, exactly: summed in pieces that float32 holds."""
    total = np.zeros((len(a), b.shape[1]), np.int64)
    for k in range(0, len(b), EXACT_PRODUCTS):
        total += (a[:, k : k + EXACT_PRODUCTS] @ b[k : k + EXACT_PRODUCTS]).astype(np.int64)
    return total


def depthwise(x: np.ndarray, weights: np.ndarray, stride: int, pad: tuple[int, int], out: tuple[int, int],
              pad_value: int = 0) -> np.ndarray:
    """Accumulators int64 [out_h, out_w, C] of ``x`` [H, W, C] and ``weights`` [kernel_h, kernel_w, C], both int8."""
    size = (weights.shape[0], weights.shape[1])
    view = _windows(_padded(x, size, stride, pad, out, pad_value, np.int32), size, stride, out)
    acc = np.zeros((*out, x.shape[2]), np.int32)
    for i in range(size[0]):
        for j in range(size[1]):
            acc += view[:, :, i, j] * weights[i, j].astype(np.int32)
    return acc.astype(np.int64)


def pool(x: np.ndarray, side: int) -> np.ndarray:
    """Sums int64 [H / side, W / side, C] over squares of ``side`` pixels."""
    h, w, c = x.shape
    return x.astype(np.int64).reshape(h // side, side, w // side, side, c).sum((1, 3))
