"""How a convolution's output is cut into tiles, and how many blocks of weights stay on chip: what moves the fewest bytes."""

from __future__ import annotations

from dataclasses import dataclass

from ..contract.errors import ModelError
from ..contract.tensor import Descriptor, Op, TensorConfig, pixel_bytes

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
    blocks = -(-d["out_channels"] // config.rows)
    steps = d["kernel_h"] * d["kernel_w"] * -(-d["in_channels"] // config.columns)
    block = steps * config.rows * config.columns
    whole_input = d["in_height"] * d["in_width"] * pixel
    best: Tile | None = None
    sides = [1 << k for k in range(config.pixels.bit_length())]
    for columns, rows in ((c, r) for c in reversed(sides) for r in reversed(sides) if c * r <= config.pixels):
        rows, wide = min(rows, height), min(columns, width)
        halo = ((rows - 1) * d["stride"] + d["kernel_h"]) * ((wide - 1) * d["stride"] + d["kernel_w"]) * pixel
        if halo > config.input_bytes // 2:
            continue
        tiles = -(-height // rows) * -(-width // wide)
        inputs = whole_input if whole_input <= config.input_bytes // 2 else halo * tiles
        if d["op"] == Op.DEPTHWISE:
            options = [(0, inputs)]
        elif blocks * block <= config.weight_bytes:
            options = [(blocks, inputs + blocks * block)]
        else:
            held = config.weight_bytes // 2 // block
            passes = -(-blocks // held) if held else 0
            again = inputs if whole_input <= config.input_bytes // 2 else inputs * passes
            options = [(0, inputs + tiles * blocks * block)] + ([(held, again + blocks * block)] if held else [])
        for group, total in options:
            if best is None or total < best.read_bytes:
                best = Tile(rows, wide, group, total)
    if best is None:
        raise ModelError("in_channels", d["in_channels"], f"at most {config.input_bytes // 2} bytes of input in a kernel's "
                         f"window ({d['kernel_h']}x{d['kernel_w']})")
    return best
