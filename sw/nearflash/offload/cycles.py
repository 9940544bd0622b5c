"""How many cycles a descriptor takes, without simulating it: by this `nearflash fit` chooses an engine, and a device gets
its time limit and its progress bar.

A descriptor is a pipeline over tiles: its input comes, the array or the operator's own arithmetic works on it, the
outputs leave. A tile takes as long as the slowest of these, and of the read channel that all share; before the first
tile and behind the last the stages wait for each other. Sizes and loops are docs/offload.md's ("Loop order and bounds"),
rates the gateware's: a reader is granted a request every other cycle, a writer every cycle, with so many under way in a
round trip. ``python -m bench tensor_tile`` prints prediction beside simulation, operator by operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from ..contract.config import DeviceConfig
from ..contract.tensor import ENTRY_BYTES, TABLE_BYTES, Descriptor, Op, TensorConfig, input_words, pixel_bytes
from .tile import BETWEEN, DEPTHWISE_TAPS, cut, plan_tile

__all__ = ["DRAM_LATENCY", "Timing", "descriptor_cycles", "program_cycles", "retiled"]

DRAM_LATENCY = 30  #: cycles from a request to memory to its first beat, as the simulated device has it
BUS = 7  # of a round trip, beside memory's latency: arbiter, splitter, address and data registers
READS, WRITES = 7, 32  # bursts of a client under way at a time; of 8 reads one place is always seen free too late
RESIDUAL_READS = 15  # of the 16 of a convolution's residuals, whose reads are places
GRANT = 2  # cycles from a reader's request to its next
#: Reading, checking and starting a descriptor; the check is a program, whose length depends on little but the operator.
BEGIN = {Op.CONV: 720, Op.DEPTHWISE: 660, Op.POOL: 450, Op.ADD: 425, Op.LAYERNORM: 457, Op.ATTENTION: 529}
PLAN = 105  # cycles of the planner, for convolutions
EPILOGUE = 20  # from a sum to its code
TABLE = 20  # beside its beats and a round trip
PASS = 5  # cycles of a pass of DEPTHWISE, at least
MOMENTS, ROOT, ROOTED = 30, 40, 96  # of LAYERNORM: from a pixel's last channel to its root; channels that roots keep up with
RECIPROCAL = 29  # of a token's sum of exponentials
LARGEST_PIXELS = 4  # of max_channels that half of LAYERNORM's buffer holds


@dataclass(frozen=True)
class Timing:
    """The engine, and the memory behind it: ``latency`` in cycles."""

    config: TensorConfig
    beat_bytes: int
    latency: int = DRAM_LATENCY

    @property
    def trip(self) -> int:
        return self.latency + BUS

    def read(self, beats: float, under_way: int = READS) -> float:
        """Cycles from a read of ``beats`` to the same client's next."""
        return max(GRANT, beats, self.trip / under_way)

    def write(self, beats: float) -> float:
        """Cycles from a write of ``beats`` to the same client's next."""
        return max(beats, self.trip / WRITES)

    def place(self, wide: int) -> int:
        """Beats of ``lanes`` elements, ``wide`` ones of 16 bits."""
        return max(1, (2 if wide else 1) * self.config.lanes // self.beat_bytes)

    def beats(self, channels: int, wide: int = 0) -> int:
        """Of a pixel."""
        return pixel_bytes(channels, wide, self.beat_bytes) // self.beat_bytes


def retiled(d: Descriptor, config: TensorConfig, beat_bytes: int) -> Descriptor:
    """``d`` with the tile that the compiler would choose for the engine of ``config``. Raises
    :class:`~nearflash.contract.ModelError` where none fits."""
    if d["op"] not in (Op.CONV, Op.DEPTHWISE):
        return d
    out = Descriptor(Op(d["op"]))
    out.update(d)
    plan = plan_tile(d, config, beat_bytes)
    out["tile_rows"], out["tile_columns"] = plan.rows, plan.columns
    out["group_blocks"] = plan.group_blocks if d["op"] == Op.CONV else 0
    return out


def descriptor_cycles(d: Descriptor, t: Timing) -> float:
    """Cycles from reading a checked descriptor, whose tile is ``t``'s engine's, to its ``done``."""
    own = {Op.CONV: _conv, Op.DEPTHWISE: _depthwise, Op.POOL: _pool, Op.ADD: _add, Op.LAYERNORM: _layernorm,
           Op.ATTENTION: _attention}[Op(d["op"])](d, t)
    table = TABLE_BYTES / t.beat_bytes + t.trip + TABLE if d["lookup"] else 0
    return BEGIN[Op(d["op"])] + table + own


def program_cycles(descriptors: Iterable[Descriptor], config: DeviceConfig) -> int:
    """Cycles of checked ``descriptors``, one after the other, on ``config``'s engine."""
    timing = Timing(config.tensor, config.beat_bytes)
    return round(sum(descriptor_cycles(d, timing) for d in descriptors))


def _tiles(d: Descriptor) -> list[tuple[int, int, int, int, int]]:
    """(how many, rows, columns, input rows, input columns) of each kind of tile."""
    lines = (cut(d[f"out_{a}"], d[f"tile_{t}"], d["stride"], d[k], d[p], d[f"in_{a}"]) for a, t, k, p in (
        ("height", "rows", "kernel_h", "pad_top"), ("width", "columns", "kernel_w", "pad_left")))
    down, across = (Counter(zip(line.outputs, (max(n, 1) for n in line.inputs), strict=True)) for line in lines)
    return [(n * m, r, c, ir, ic) for (r, ir), n in down.items() for (c, ic), m in across.items()]


def _fetch(t: Timing, rows: int, columns: int, pixel: int) -> float:
    """A tile's input: a request a row, a cycle more than its beats."""
    return 5 + rows * max(t.read(columns * pixel), columns * pixel + 1)


def _conv(d: Descriptor, t: Timing) -> float:
    c, beat = t.config, t.beat_bytes
    square = max(1, d["shuffle"]) ** 2
    blocks = square * ceil(d["out_channels"] / c.rows)
    steps = d["kernel_h"] * d["kernel_w"] * input_words(d, c)
    word = c.rows * c.columns // beat
    held = d["group_blocks"] or blocks
    pixel = t.beats(d["in_channels"])
    tiles = _tiles(d)
    # of the ``rows / lanes`` places of a block, those that exist
    places = square * ceil(d["out_channels"] / c.lanes) / blocks
    leaves = t.write(t.place(d["y16"]))
    comes = t.read(t.place(d["r16"]), RESIDUAL_READS) if d["residual"] else 0.0
    total = arrays = outs = 0.0
    for first in range(0, blocks, held):
        mine = min(held, blocks - first)
        weights = mine * steps * word  # beats
        spent = 0.0
        for count, rows, columns, in_rows, in_columns in tiles:
            pixels = rows * columns
            array = mine * steps * max(pixels, word + 1) + BETWEEN
            out = mine * (places * (max(pixels * max(leaves, comes), c.lanes) + 2) + 1)
            reads = in_rows * in_columns * pixel
            reads += weights if not d["group_blocks"] else 0
            reads += mine * places * pixels * t.place(d["r16"]) if d["residual"] else 0
            spent += count * max(array, _fetch(t, in_rows, in_columns, pixel), out, reads)
            arrays, outs = arrays + count * array, outs + count * out
        total += max(spent, weights)
    _, rows, columns, in_rows, in_columns = tiles[0]
    # weights and entries are used as they arrive: the first word and the first block's
    start = PLAN + t.trip + _fetch(t, in_rows, in_columns, pixel) + word + _entries(t, c.rows)
    pixels = tiles[-1][1] * tiles[-1][2]
    out = c.rows // c.lanes * pixels * max(leaves, comes)
    return start + total + _end(t, arrays, outs, steps * max(pixels, word + 1), out)


def _entries(t: Timing, channels: int) -> float:
    """Beats of their entries, read before the first leaves."""
    return channels * ENTRY_BYTES / t.beat_bytes


def _end(t: Timing, arrays: float, outs: float, array: float, out: float) -> float:
    """Behind the last tile: a block's outputs leave while the next is worked on, so whichever takes longer in all has one
    block of the other before or behind it."""
    return (out if arrays > outs else array) + EPILOGUE + t.trip


def _depthwise(d: Descriptor, t: Timing) -> float:
    c = t.config
    blocks, parts = ceil(d["in_channels"] / c.depthwise), c.depthwise // c.lanes
    places = ceil(d["in_channels"] / c.lanes) / (blocks * parts)
    pixel = t.beats(d["in_channels"])
    passes = [min(DEPTHWISE_TAPS, d["kernel_w"] - k) for k in range(0, d["kernel_w"], DEPTHWISE_TAPS)]
    leaves = t.write(t.place(d["y16"]))
    total = arrays = outs = array = 0.0
    tiles = _tiles(d)
    for count, rows, columns, in_rows, in_columns in tiles:
        array = d["kernel_h"] * sum(max(PASS, rows * ((columns - 1) * d["stride"] + taps) + 1) for taps in passes)
        out = parts * (places * max(rows * columns * leaves, c.lanes) + (1 - places) * rows * columns + 2) + 1
        total += count * max(1 + blocks * array, blocks * out, _fetch(t, in_rows, in_columns, pixel))
        arrays, outs = arrays + count * blocks * array, outs + count * blocks * out
    _, rows, columns, in_rows, in_columns = tiles[0]
    weights = d["kernel_h"] * d["kernel_w"] * pixel
    start = PLAN + t.trip + _fetch(t, in_rows, in_columns, pixel) + weights + _entries(t, d["in_channels"])
    pixels = tiles[-1][1] * tiles[-1][2]
    return start + total + _end(t, arrays, outs, array, parts * pixels * leaves)


def _layernorm(d: Descriptor, t: Timing) -> float:
    c = t.config
    pixels, groups = d["in_height"] * d["in_width"], ceil(d["in_channels"] / c.lanes)
    roots = ceil(ROOT / (ROOTED / min(c.lanes, t.beat_bytes / 2)))
    comes = max(t.beats(d["in_channels"], d["x16"]), groups, ROOT / roots)
    most = max(1, min(c.pixels, LARGEST_PIXELS * c.max_channels // c.lanes // groups))
    begin = t.trip + _entries(t, d["in_channels"])
    taken, given, before, left = begin, begin, 0.0, begin  # cycles at which a tile has come in, gone on, and left
    for first in range(0, pixels, most):
        n = min(most, pixels - first)
        taken = max(taken, before) + n * comes
        before = given
        given = max(taken + MOMENTS + ROOT, given) + groups * max(n, c.lanes)
        left = max(given + EPILOGUE, left) + n * groups
    return left + t.trip


def _pool(d: Descriptor, t: Timing) -> float:
    groups, side = ceil(d["in_channels"] / t.config.lanes), d["stride"]
    run = max(GRANT, side * max(t.beats(d["in_channels"], d["x16"]), groups))
    return d["out_height"] * d["out_width"] * side * run + 2 * t.trip + EPILOGUE + 40


def _add(d: Descriptor, t: Timing) -> float:
    groups = ceil(d["in_channels"] / t.config.lanes)
    reads = t.beats(d["in_channels"], d["x16"]) + (t.beats(d["in_channels"], d["r16"]) if d["residual"] else 0)
    pixel = max(groups, reads, t.beats(d["out_channels"], d["y16"]))
    return d["in_height"] * d["in_width"] * pixel + 2 * t.trip + EPILOGUE + 40


def _attention(d: Descriptor, t: Timing) -> float:
    c, keys, dim = t.config, d["keys"], d["head_dim"]
    tokens = d["in_height"] * d["in_width"]
    most = c.pixels // 2 >> (keys > c.max_keys // 4) + (keys > c.max_keys // 2)
    word = c.rows * c.columns // t.beat_bytes
    key_words = ceil(keys / c.rows) * ceil(dim / c.columns)
    value_words = ceil(dim / c.rows) * ceil(keys / c.columns)
    load = keys * t.read(dim // t.beat_bytes) + t.trip
    softmax = max(ceil(keys / c.columns) * c.columns / c.lanes, RECIPROCAL)  # a token's exponentials and their sum
    head = 0.0
    for first in range(0, tokens, most):
        n = min(most, tokens - first)
        by_keys, by_values = key_words * max(n, word + 1) + 2, value_words * max(2 * n, word + 1) + 2
        head += max(by_keys + by_values, n * softmax)
    last = tokens - (ceil(tokens / most) - 1) * most
    # a head's keys and values come while the last head's last tile is multiplied with its values, and the next's first
    hidden = value_words * max(2 * last, word + 1)
    wait = max(0.0, load - hidden)
    start = 10 + t.trip + load
    drain = last * softmax + value_words * max(2 * last, word + 1) if tokens <= most else last * softmax
    return start + d["heads"] * head + (d["heads"] - 1) * wait + drain + EPILOGUE + t.trip
