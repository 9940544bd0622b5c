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
from math import ceil, log2

from ..contract.config import DeviceConfig
from ..contract.mlp import kernel_latency
from ..contract.tensor import ENTRY_BYTES, TABLE_BYTES, Descriptor, Op, TensorConfig, input_words, pixel_bytes
from .tile import BETWEEN, DEPTHWISE_TAPS, cut, plan_tile

__all__ = ["DRAM_LATENCY", "Timing", "descriptor_cycles", "program_cycles", "retiled"]

DRAM_LATENCY = 30  #: cycles from a request to memory to its first beat, as the simulated device has it
BUS = 7  # of a round trip, beside memory's latency: arbiter, splitter, address and data registers
READS, WRITES = 7, 32  # bursts of a client under way at a time; of 8 reads one place is always seen free too late
RESIDUAL_READS, RESIDUAL_BUS = 16, 5  # of a convolution's residuals, whose reads are places; of their round trip, as BUS
GRANT = 2  # cycles from a reader's request to its next
WEIGHT_READS, WEIGHT_PIECE, ENTRY_PIECE = 3, 32, 64  # of a convolution's weights under way, and beats of each; of entries
#: Reading, checking and starting a descriptor; the check is a program, whose length depends on little but the operator.
BEGIN = {Op.CONV: 720, Op.DEPTHWISE: 660, Op.POOL: 450, Op.ADD: 425, Op.LAYERNORM: 457, Op.ATTENTION: 529}
PLAN = 105  # cycles of the planner, for convolutions
EPILOGUE = 20  # from a sum to its code
TABLE = 20  # beside its beats and a round trip
PASS = 5  # cycles of a pass of DEPTHWISE, at least
MOMENTS, ROOT, ROOTED = 30, 40, 96  # of LAYERNORM: from a pixel's last channel to its root; channels that roots keep up with
JOB = 2  # cycles between the products of ATTENTION
SCORED, SUMMED = 3, 12  # registers from a tile's last score to its first exponential, from a token's last to their sum
TOTALS = 4  # tokens that wait for their reciprocal
RECIPROCAL = 30  # of a sum as long as one key's exponential, a cycle less for every bit more
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

    def read(self, beats: float) -> float:
        """Cycles from a read of ``beats`` to the same client's next."""
        return max(GRANT, beats, self.trip / READS)

    def residual(self, wide: int) -> float:
        """Cycles from a place of a convolution's residuals to the next, if nothing else is read."""
        beats = self.place(wide)
        return max(GRANT, beats, (self.latency + RESIDUAL_BUS + beats - 1) / RESIDUAL_READS)

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
    # of the ``rows / lanes`` places of a block, those that exist; the sums of all leave the array
    parts, places = c.rows // c.lanes, square * ceil(d["out_channels"] / c.lanes) / blocks
    leaves = t.write(t.place(d["y16"]))
    comes = t.residual(d["r16"]) if d["residual"] else 0.0
    total = arrays = outs = 0.0
    for first in range(0, blocks, held):
        mine = min(held, blocks - first)
        weights = mine * steps * word  # beats
        spent = saved = 0.0
        for count, rows, columns, in_rows, in_columns in tiles:
            pixels = rows * columns
            array = mine * steps * max(pixels, word + 1) + BETWEEN
            out = mine * (places * max(pixels * max(leaves, comes), c.lanes) + (parts - places) * pixels + 2 * parts + 1)
            streamed = weights if not d["group_blocks"] else 0
            residuals = mine * places * pixels if d["residual"] else 0.0
            reads = _reads(t, residuals, d["r16"], streamed, in_rows, in_columns * pixel)
            fetching = max(array, out, reads, _fetch(t, in_rows, in_columns, pixel))
            spent += count * fetching
            saved = fetching - max(array, out, _reads(t, residuals, d["r16"], streamed, 0, 0))
            arrays, outs = arrays + count * array, outs + count * out
        if first + held >= blocks:  # beside the last tile no other is fetched
            spent -= saved
        total += max(spent, weights)
    start = PLAN + t.trip + _first_tile(t, tiles, pixel, word, min(held, blocks) * steps * word,
                                        _entries(t, square * d["out_channels"]), held < blocks)
    pixels = tiles[-1][1] * tiles[-1][2]
    out = parts * pixels * max(leaves, comes)
    return start + total + _end(t, arrays, outs, steps * max(pixels, word + 1), out)


def _reads(t: Timing, residuals: float, wide: int, weights: int, rows: int, row: int) -> float:
    """Cycles of the memory for a tile's ``residuals``, the next one's ``rows`` of ``row`` beats, and ``weights``. It answers
    in the order in which it was asked: among those of the others only so many residuals as are under way, the rest at the
    pace of their round trips."""
    rounds = weights / (WEIGHT_READS * WEIGHT_PIECE) + (max(1.0, rows / READS) if rows else 0.0)
    among = min(residuals, RESIDUAL_READS * rounds)
    return weights + rows * row + among * t.place(wide) + (residuals - among) * t.residual(wide)


def _first_tile(t: Timing, tiles: list[tuple[int, int, int, int, int]], pixel: int, word: int, weights: int,
                entries: float, groups: bool) -> float:
    """Cycles until the first tile is there, and in which the array then waits for ``weights``. The first requests for
    entries and weights go before the tile's. What follows of them comes behind the second tile, which is asked for with the
    first; until then the array has the first weights alone."""
    count, rows, columns, in_rows, in_columns = tiles[0]
    fetch = _fetch(t, in_rows, in_columns, pixel)
    first_weights, first_entries = min(weights, WEIGHT_READS * WEIGHT_PIECE), min(entries, READS * ENTRY_PIECE)
    waits = 0.0
    if weights > first_weights and (count > 1 or len(tiles) > 1 or groups):
        fed = first_weights / word * max(rows * columns, word + 1)
        waits = max(0.0, fetch + entries - first_entries + word - fed)
    return first_entries + first_weights + fetch + waits


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


class _Products:
    """The array and the ring of its sums, ATTENTION's products one after the other. ``free``: the cycle at which the array
    is; ``out``: at which the last sums have left, ``lanes`` of a pixel a cycle."""

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.word = config.rows * config.columns // beat_bytes + 1
        self.parts, self.ring = config.rows // config.lanes, 2 * config.pixels
        self.latency = 4 + kernel_latency(config.columns) + 4  # a step's registers, the kernel's, accumulator and ring
        self.free = self.out = 0.0

    def add(self, start: float, pixels: int, blocks: int, steps: int, leaves: float = 1.0) -> None:
        """A product of ``blocks`` of ``steps`` each, not before ``start``. A pixel's sums take ``leaves`` cycles a part."""
        held, out = max(pixels, self.word), self.parts * pixels * leaves
        start = max(self.free, start) + JOB
        # a block leaves from its last step on: all behind what was there or behind the first, or the last behind its own
        first = start + (steps - 1) * held + self.latency
        self.out = max(self.out + blocks * out, first + blocks * out, first + (blocks - 1) * steps * held + out)
        self.free = max(start + blocks * steps * held, self.out - self.ring // pixels * out + held)


def _attention(d: Descriptor, t: Timing) -> float:
    """The products take turns: a tile's with the keys, that of the tile before with the values. There is room for the scores
    of a tile, so the next one's wait until all its exponentials are made."""
    c, keys, dim, beats = t.config, d["keys"], d["head_dim"], d["head_dim"] // t.beat_bytes
    tokens = d["in_height"] * d["in_width"]
    most = c.pixels // 2 >> (keys > c.max_keys // 4) + (keys > c.max_keys // 2)
    by_keys, by_values = (ceil(keys / c.rows), ceil(dim / c.columns)), (ceil(dim / c.rows), ceil(keys / c.columns))
    exponentials = ceil(keys / c.columns) * c.columns // c.lanes  # cycles of a token's
    scored, summed = SCORED + log2(c.lanes), SUMMED + ceil(log2(c.lanes) / 2)
    reciprocal = RECIPROCAL - log2(keys) / 2  # midway between one key that counts and all alike
    leaves = max(1.0, t.write(t.place(0)) / 2)  # two digits an output
    products = _Products(c, t.beat_bytes)
    load = t.trip + keys * t.read(beats) + products.word
    # the first head's keys and values come beside each other and the queries of two tiles
    first = t.trip + max(keys * t.read(beats), beats * (2 * keys + min(keys, tokens, 2 * most))) + products.word
    keys_there = values_there = first
    made = divided = 0.0  # when the last tile's exponentials are, and its reciprocals
    before = 0  # tokens of the tile whose product with the values comes next
    for left in [*range(tokens, 0, -most)] * d["heads"]:
        n, ends = min(most, left), left <= most
        products.add(max(made, keys_there), n, *by_keys)
        if ends:  # the next head's keys come once the last word of these is taken
            keys_there = products.free - max(n, products.word) + load
        begin = products.out + scored
        if before:
            products.add(max(divided, values_there), 2 * before, *by_values, leaves)
            if left == tokens:
                values_there = products.free - max(2 * before, products.word) + load
        taken = max(begin + exponentials + summed, divided)
        made = max(begin + n * exponentials, taken + (n - 1 - TOTALS) * reciprocal + exponentials)
        divided = max(taken + n * reciprocal, begin + n * exponentials + summed + reciprocal)
        before = n
    products.add(max(divided, values_there), 2 * before, *by_values, leaves)
    return products.out + EPILOGUE + t.trip
