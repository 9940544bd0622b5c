"""How a convolution's output is cut into tiles, and how many blocks of weights stay on chip: in the fewest cycles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from ..contract.errors import ModelError
from ..contract.tensor import Descriptor, Op, TensorConfig, block_bytes, input_words, pixel_bytes

__all__ = ["BETWEEN", "DEPTHWISE_TAPS", "Line", "Tile", "cut", "plan_tile"]

DEPTHWISE_TAPS = 3  # of a kernel row in a pass
BETWEEN = 2  # cycles between tiles
BUSY, BUSY_RESIDUAL = 32, 4  # beats read that cost a cycle: measured on the layers of `base`, to choose by


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``columns`` output pixels; ``group_blocks`` output blocks whose weights stay (0: streamed for every tile);
    ``read_bytes``: inputs and weights read in all; ``cycles``: an estimate of what it takes, to choose by."""

    rows: int
    columns: int
    group_blocks: int
    read_bytes: int
    cycles: int


@dataclass(frozen=True)
class Line:
    """Rows (or columns) of a tensor cut into tiles: output rows of each, and input rows that it reads: padding is not in
    memory."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]


def plan_tile(d: Descriptor, config: TensorConfig, beat_bytes: int) -> Tile:
    """The tile for a CONV or DEPTHWISE descriptor, whose sizes are filled in.

    The first tile's input, then the longer of computing and reading, then the last tile's sums on their way out. A weight
    word takes ``rows`` x ``columns`` / ``beat_bytes`` cycles to arrive, which a tile of fewer pixels waits for. A busy
    memory costs a little, more where a residual's single beats wait among the others. Among equals the fewest bytes.

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
        down = cut(height, rows, d["stride"], d["kernel_h"], d["pad_top"], d["in_height"])
        right = cut(width, wide, d["stride"], d["kernel_w"], d["pad_left"], d["in_width"])
        fetched = sum(down.inputs) * sum(right.inputs) * pixel
        requests = sum(down.inputs) * len(right.inputs)  # a cycle each
        if d["op"] == Op.DEPTHWISE:
            options = [(0, 1, fetched)]
        else:
            options = [(0, 1, fetched + len(down.inputs) * len(right.inputs) * blocks * block)]
            held = min(blocks, config.weight_bytes // 2 // block)
            if held:  # the whole input comes once for every group
                passes = -(-blocks // held)
                options.append((held, passes, fetched * passes + blocks * block))
        for group, passes, total in options:
            reading = total // beat_bytes + requests * passes
            cycles = (down.inputs[0] * right.inputs[0] * pixel // beat_bytes
                      + max(_computing(d, config, beat_bytes, down, right, passes), reading)
                      + reading // (BUSY_RESIDUAL if d["residual"] else BUSY) + rows * wide * config.rows // config.lanes)
            if best is None or (cycles, total) < (best.cycles, best.read_bytes):
                best = Tile(rows, wide, group, total, cycles)
    if best is None:
        raise ModelError("in_channels", d["in_channels"], f"at most {config.input_bytes // 2} bytes of input in a kernel's "
                         f"window ({d['kernel_h']}x{d['kernel_w']})")
    return best


def _computing(d: Descriptor, config: TensorConfig, beat_bytes: int, down: Line, right: Line, passes: int) -> int:
    """Cycles of the array (the multipliers of DEPTHWISE) in all tiles; ``passes`` over them, of the weight groups."""
    tiles = len(down.outputs) * len(right.outputs)
    if d["op"] == Op.DEPTHWISE:
        blocks = -(-d["in_channels"] // config.depthwise)
        taps = [min(DEPTHWISE_TAPS, d["kernel_w"] - k) for k in range(0, d["kernel_w"], DEPTHWISE_TAPS)]
        line = sum((n - 1) * d["stride"] + t for n in right.outputs for t in taps)  # pixels of every output row
        return blocks * d["kernel_h"] * (sum(down.outputs) * line + tiles * len(taps))
    steps = max(1, d["shuffle"]) ** 2 * -(-d["out_channels"] // config.rows) * (
        d["kernel_h"] * d["kernel_w"] * input_words(d, config))
    word = config.rows * config.columns // beat_bytes + 1
    return steps * _held(down.outputs, right.outputs, word) + passes * tiles * BETWEEN


@lru_cache(maxsize=1 << 16)  # `nearflash fit` asks the same of hundreds of engines
def _held(down: tuple[int, ...], right: tuple[int, ...], word: int) -> int:
    """Cycles that a weight word is held in all tiles: a tile's pixels, and at least the ``word`` cycles to the next."""
    sizes = Counter(down), Counter(right)  # most tiles are alike
    return sum(m * n * max(a * b, word) for a, m in sizes[0].items() for b, n in sizes[1].items())


@lru_cache(maxsize=1 << 16)
def cut(size: int, tile: int, stride: int, kernel: int, pad: int, limit: int) -> Line:
    """Tiles of ``tile`` output rows, one after the other, of ``size``; ``limit``: rows of the input."""
    firsts = range(0, size, tile)
    lasts = [min(first + tile, size) - 1 for first in firsts]
    return Line(tuple(last - first + 1 for first, last in zip(firsts, lasts, strict=True)),
                 tuple(min(last * stride - pad + kernel, limit) - max(first * stride - pad, 0)
                       for first, last in zip(firsts, lasts, strict=True)))
