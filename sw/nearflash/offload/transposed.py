"""A transposed convolution as a convolution: a kernel for each phase of the output, spread by a pixel shuffle."""

from __future__ import annotations

import numpy as np

__all__ = ["as_convolution"]


def as_convolution(weight: np.ndarray, stride: int, padding: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """(weights [O stride stride, kernel_h, kernel_w, C], padding above and before the input) of the convolution of stride 1
    whose output, pixel-shuffled by ``stride``, is that of the transposed convolution with ``weight`` [C, O, h, w] and
    ``padding`` of PyTorch's (dilation 1), where ``stride`` divides its size.

    Exact: every product is there once. A phase has its own h w / stride**2 of them; the phases share a kernel, whose other
    taps are 0: 3x3 of 2x2 for 4x4, stride 2, padding 1; a single tap where kernel and stride are equal.
    """
    channels, outputs, h, w = weight.shape
    (taps_y, above, rows), (taps_x, before, columns) = (
        _phases(k, stride, p) for k, p in zip((h, w), padding, strict=True))
    spread = np.zeros((outputs, stride, stride, taps_y, taps_x, channels), weight.dtype)
    for i, y, ky in rows:
        for j, x, kx in columns:
            spread[:, i, j, y, x] = weight[:, :, ky, kx].T
    return spread.reshape(-1, taps_y, taps_x, channels), (above, before)


def _phases(kernel: int, stride: int, padding: int) -> tuple[int, int, list[tuple[int, int, int]]]:
    """(taps, padding before, (phase, tap, the kernel's tap)) of a line.

    Output ``stride`` m + phase gets input i by the kernel's tap k where ``stride`` i + k = ``stride`` m + phase + padding.
    """
    found = [(phase, (phase + padding - k) // stride, k) for phase in range(stride) for k in range(kernel)
             if (phase + padding - k) % stride == 0]
    offsets = [0, *(i for _, i, _ in found)]  # of inputs, from m on; m itself may be none
    first = min(offsets)
    return max(offsets) - first + 1, -first, [(phase, i - first, k) for phase, i, k in found]
