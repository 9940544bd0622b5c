"""Bytes in the tensor region: weights in the order the array takes them, entries per channel, tensors in whole beats a
pixel."""

from __future__ import annotations

import numpy as np

from .tensor import TensorConfig, pixel_bytes

__all__ = ["ENTRY", "pack_depthwise", "pack_entries", "pack_tensor", "pack_weights", "unpack_depthwise", "unpack_tensor",
           "unpack_weights"]

#: What an output channel needs beside its weights. ``scale``: the requantiser's multiplier, or LayerNorm's signed gain.
ENTRY = np.dtype([("bias", "<i8"), ("scale", "<i4"), ("shift", "<u4")])


def pack_weights(weights: np.ndarray, config: TensorConfig, groups: int = 1) -> bytes:
    """int8 [O, kernel_h, kernel_w, C] as words of rows x columns, [row][column]: group, output block, tap, channel block.

    ``groups``: shuffle x shuffle, whose O / groups channels each take whole output blocks, since a block goes to one pixel.
    Zeros beyond a group's channels and beyond C.
    """
    o, kh, kw, c = weights.shape
    each = o // groups
    blocks, steps = -(-each // config.rows), -(-c // config.columns)
    full = np.zeros((groups, blocks * config.rows, kh * kw, steps * config.columns), np.int8)
    full[:, :each, :, :c] = weights.reshape(groups, each, kh * kw, c)
    words = full.reshape(groups * blocks, config.rows, kh * kw, steps, config.columns)
    return words.transpose(0, 2, 3, 1, 4).tobytes()


def unpack_weights(raw: np.ndarray, shape: tuple[int, int, int, int], config: TensorConfig, groups: int = 1) -> np.ndarray:
    """The weights of ``shape`` in bytes that :func:`pack_weights` made (int8 array)."""
    o, kh, kw, c = shape
    each = o // groups
    blocks, steps = -(-each // config.rows), -(-c // config.columns)
    words = raw.reshape(groups * blocks, kh * kw, steps, config.rows, config.columns).transpose(0, 3, 1, 2, 4)
    full = words.reshape(groups, blocks * config.rows, kh, kw, steps * config.columns)
    return full[:, :each, :, :, :c].reshape(shape)


def pack_depthwise(weights: np.ndarray, beat_bytes: int) -> bytes:
    """int8 [kernel_h, kernel_w, C]: taps in row-major order, each in whole beats."""
    return pack_tensor(weights, beat_bytes)


def unpack_depthwise(raw: np.ndarray, shape: tuple[int, int, int], beat_bytes: int) -> np.ndarray:
    """The weights of ``shape`` in bytes that :func:`pack_depthwise` made (int8 array)."""
    return unpack_tensor(raw.view(np.uint8), shape, False, beat_bytes)


def pack_entries(bias: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> bytes:
    """One entry of 16 bytes per channel; arrays [C]."""
    entries = np.zeros(len(bias), ENTRY)
    entries["bias"], entries["scale"], entries["shift"] = bias, scale, shift
    return entries.tobytes()


def pack_tensor(x: np.ndarray, beat_bytes: int) -> bytes:
    """int8 or int16 [H, W, C], every pixel padded with zeros to whole beats."""
    h, w, c = x.shape
    stride = pixel_bytes(c, x.dtype == np.int16, beat_bytes) // x.dtype.itemsize
    full = np.zeros((h, w, stride), x.dtype.newbyteorder("<"))
    full[..., :c] = x
    return full.tobytes()


def unpack_tensor(raw: np.ndarray, shape: tuple[int, int, int], wide: bool, beat_bytes: int) -> np.ndarray:
    """A view [H, W, C] of a tensor's bytes (uint8 array), int8 or, ``wide``, int16."""
    h, w, c = shape
    return raw.view("<i2" if wide else np.int8).reshape(h, w, -1)[..., :c]
