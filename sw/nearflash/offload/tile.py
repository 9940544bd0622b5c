"""How a convolution's output is cut into tiles, and how many blocks of weights stay on chip: what moves the fewest bytes."""

from __future__ import annotations

from dataclasses import dataclass

from ..contract.errors import ModelError
from ..contract.tensor import Descriptor, Op, TensorConfig, block_bytes, input_words, pixel_bytes

__all__ = ["Tile", "plan_tile"]


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``columns`` output pixels; ``group_blocks`` output blocks whose weights stay (0: streamed for every tile);
    ``read_bytes``: inputs and weights read in all."""

    rows: int
    columns: int
    group_blocks: int
    read_bytes: int


def plan_tile(d: Descriptor, config: TensorConfig, beat_bytes: int) -> Tile:
    """The tile for a CONV or DEPTHWISE descriptor, whose sizes are filled in.

    Raises:
        ModelError: a single pixel's window that doesn't fit half the input buffer.
    """
    pixel = pixel_bytes(d["in_channels"], 0, beat_bytes)
    height, width = d["out_height"], d["out_width"]
    blocks = max(1, d["shuffle"]) ** 2 * -(-d["out_channels"] // config.rows)
    block = block_bytes(d, config)
    held_pixel = input_words(d, config) * config.columns  # bytes on chip
    best: Tile | None = None
    sides = [1 << k for k in range(config.pixels.bit_length())]
    for columns, rows in ((c, r) for c in reversed(sides) for r in reversed(sides) if c * r <= config.pixels):
        rows, wide = min(rows, height), min(columns, width)
        halo = ((rows - 1) * d["stride"] + d["kernel_h"]) * ((wide - 1) * d["stride"] + d["kernel_w"])
        if halo * held_pixel > config.input_bytes // 2:
            continue
        fetched = (_fetched(height, rows, d["stride"], d["kernel_h"], d["pad_top"], d["in_height"])
                   * _fetched(width, wide, d["stride"], d["kernel_w"], d["pad_left"], d["in_width"]) * pixel)
        if d["op"] == Op.DEPTHWISE:
            options = [(0, fetched)]
        else:
            tiles = -(-height // rows) * -(-width // wide)
            options = [(0, fetched + tiles * blocks * block)]
            held = min(blocks, config.weight_bytes // 2 // block)
            if held:  # the whole input comes once for every group
                options.append((held, fetched * -(-blocks // held) + blocks * block))
        for group, total in options:
            if best is None or total < best.read_bytes:
                best = Tile(rows, wide, group, total)
    if best is None:
        raise ModelError("in_channels", d["in_channels"], f"at most {config.input_bytes // 2} bytes of input in a kernel's "
                         f"window ({d['kernel_h']}x{d['kernel_w']})")
    return best


def _fetched(size: int, tile: int, stride: int, kernel: int, pad: int, limit: int) -> int:
    """Rows (or columns) of the input that tiles of ``tile`` rows read, one after the other: padding is not in memory."""
    total = 0
    for first in range(0, size, tile):
        last = min(first + tile, size) - 1
        total += min(last * stride - pad + kernel, limit) - max(first * stride - pad, 0)
    return total
