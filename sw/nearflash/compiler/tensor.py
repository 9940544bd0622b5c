"""The tensor engine for a board: the array, lanes and buffers with which a tile of an image network takes the fewest cycles,
of those whose device fits.

All engines of :func:`candidates` are ordered by the cycles that :mod:`nearflash.offload.cycles` predicts; the first whose
device, estimated, uses at most ``limit`` of every resource is taken. Estimating an engine means generating it, so what
can't fit is left out before: an engine with too many DSP slices or too large buffers by themselves, one that is nowhere
smaller than one that was too large, and one with as many lanes and multipliers as one that was a tenth too large: no other
shape of the same size saves that much. Where the first is too large, the smallest engine of all comes next, and then the
smallest with as many lanes, which take most of the logic: what they are too large by, all others are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import Any, Protocol

from ..contract import ConfigError, DeviceConfig, ModelError, TensorConfig
from ..contract.boards import Board
from ..contract.resources import Resources
from ..contract.tensor import Descriptor, Op
from ..offload.bounds import macs
from ..offload.cycles import Timing, descriptor_cycles, retiled
from .fit import SHELL, NothingFits

__all__ = ["LIMITS", "TensorCosts", "TensorFit", "TilePredictor", "candidates", "fit_tensor", "to_records"]

LIMITS = ("lut", "ff", "bram18", "uram", "dsp")
LOGIC = ("lut", "ff", "dsp")  # which buffers take none of
MULTIPLIERS, WIDEST = 1024, 4  # of an engine at most; columns a row, of which there are at least as many as rows
BUFFERS = (16384, 32768, 65536)  # bytes
PIXELS = (64, 128)
RAMB18_BITS = 18432
#: DSP slices of a lane (epilogue 3, LAYERNORM 5, ATTENTION 3) and of what all engines have (addresses, moments).
SLICES_A_LANE, SLICES = 11, 24
FAR = 1.1  # of what may be used: LUTs that are short by more than another shape could save
#: Fields of a descriptor that change no cycle, or that follow from the engine.
ELSEWHERE = frozenset({"number", "x", "y", "r", "v", "weights", "entries", "table", "tile_rows", "tile_columns",
                       "group_blocks", "mult", "shift", "offset", "low", "high", "eps_low", "eps_high", "score_mult",
                       "score_shift", "value_mult", "value_shift", "residual_mult", "residual_shift", "pad_value", "frac"})


class TensorCosts(Protocol):
    """Estimated resources; ``nearflash_hw.synthesis.estimate.Estimator`` is one."""

    def device(self, config: DeviceConfig) -> dict[str, Resources]: ...

    def shell(self, config: DeviceConfig, board: Board) -> Resources: ...

    def tensor(self, config: DeviceConfig) -> Resources:
        """The tensor engine alone."""
        ...


@dataclass(frozen=True)
class TensorFit:
    """An engine. ``cycles``: predicted for a tile, ``operators`` of them by operator; ``resources``: of the whole device and
    its shell; ``estimated``: engines that were generated to find it, of ``candidates``."""

    config: DeviceConfig
    board: Board
    cycles: float
    operators: dict[str, float]
    macs: int
    resources: dict[str, Resources]
    limit: float
    estimated: int
    candidates: int

    @property
    def total(self) -> Resources:
        return sum(self.resources.values(), Resources())

    @property
    def engine(self) -> Resources:
        return sum((r for path, r in self.resources.items() if path.split(".")[0] in ("tensor", "tensor_commands")),
                   Resources())

    @property
    def milliseconds(self) -> float:
        """Of a tile on the fabric."""
        return self.cycles / self.config.clock_mhz / 1e3


class TilePredictor:
    """Predicted cycles of ``descriptors``, a tile's, on engine after engine: what is the same in two of them is worked out
    once."""

    def __init__(self, descriptors: list[Descriptor], beat_bytes: int):
        self.beat_bytes = beat_bytes
        self.counts: dict[tuple[tuple[str, int], ...], int] = {}  # of descriptors that differ in nothing that takes time
        for d in descriptors:
            key = tuple((name, v) for name, v in d.items() if name not in ELSEWHERE)
            self.counts[key] = self.counts.get(key, 0) + 1
        self.tiles: dict[tuple[Any, ...], Descriptor] = {}

    def __call__(self, config: TensorConfig) -> dict[str, float]:
        """Cycles by operator, with the tiles that the compiler chooses for the engine of ``config``. Raises
        :class:`ModelError` for a descriptor that its buffers are too small for."""
        timing, out = Timing(config, self.beat_bytes), {}
        conv = (config.rows, config.columns, config.pixels, config.lanes, config.input_bytes, config.weight_bytes)
        sizes = {Op.CONV: conv, Op.DEPTHWISE: (*conv[:-1], config.depthwise)}  # what a tile follows from
        for key, count in self.counts.items():
            op = Op(dict(key)["op"])
            tile = key, sizes.get(op)
            if tile not in self.tiles:
                d = Descriptor(op)
                d.update(key)
                self.tiles[tile] = retiled(d, config, self.beat_bytes)
            d = self.tiles[tile]
            name = op.name.lower()
            out[name] = out.get(name, 0.0) + count * descriptor_cycles(d, timing)
        return out


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def candidates(descriptors: list[Descriptor], beat_bytes: int, dram_bytes: int) -> Iterator[TensorConfig]:
    """Every engine that the search looks at: powers of two, 32 to :data:`MULTIPLIERS` multipliers, from a square to
    :data:`WIDEST` times as wide; limits on channels and keys are the network's."""
    channels = max(max(d["in_channels"], max(1, d["shuffle"]) ** 2 * d["out_channels"]) for d in descriptors)
    keys = max((d["keys"] for d in descriptors), default=0)
    sides = [1 << k for k in range(7)]
    for rows, columns in product(sides, sides):
        if not 32 <= rows * columns <= MULTIPLIERS or not max(rows, beat_bytes) <= columns <= WIDEST * rows:
            continue
        most_keys = max(4 * rows, 4 * columns, 4 * _power(keys))  # tiles of attention are then as long as they can be
        for lanes, depthwise, pixels, inputs, weights, packed in product(sides[1:], sides, PIXELS, BUFFERS, BUFFERS,
                                                                         (False, True)):
            if lanes > min(rows, beat_bytes) or depthwise % lanes or not beat_bytes <= depthwise <= columns:
                continue
            c = TensorConfig(rows, columns, packed, pixels, lanes, depthwise, inputs, weights, max(64, _power(channels)),
                             min(1024, max(64, most_keys)), dram_bytes)
            try:
                c.validate(beat_bytes)
            except ConfigError:
                continue
            yield c


def _smallest(some: Iterable[TensorConfig]) -> TensorConfig:
    return min(some, key=lambda c: (c.lanes, c.rows * c.columns, c.depthwise, c.pixels, c.input_bytes + c.weight_bytes,
                                    c.packed))


def _least(c: TensorConfig) -> Resources:
    """What the engine of ``c`` uses at least: its products and its buffers."""
    products = ceil(c.rows / 2) * c.columns if c.packed else c.rows * c.columns
    bits = 8 * (2 * c.input_bytes + 2 * c.weight_bytes)  # CONV and DEPTHWISE; weights; keys and values
    return Resources(dsp=products + 3 * c.depthwise + SLICES_A_LANE * c.lanes + SLICES, bram18=bits // RAMB18_BITS)


def fit_tensor(descriptors: list[Descriptor], base: DeviceConfig, board: Board, cost: TensorCosts, limit: float = 0.8,
               progress: Callable[[str], None] = lambda text: None) -> TensorFit:
    """The fastest engine for ``descriptors`` (a tile's programs) on ``base``, a device without one.

    Raises :class:`NothingFits`, which says what the smallest engine is short of and by how much.
    """
    if not 0 < limit <= 1:
        raise ModelError("limit", limit, "must be above 0 and at most 1")
    progress("estimating the device without the engine")
    rest = sum(cost.device(base).values(), cost.shell(base, board))
    have = _limits(board, limit)
    timed: list[tuple[float, bool, int, TensorConfig, dict[str, float]]] = []
    every = list(candidates(descriptors, base.beat_bytes, base.tensor.dram_bytes))
    predict = TilePredictor(descriptors, base.beat_bytes)
    progress(f"predicting a tile on {len(every):,} engines")
    known: dict[TensorConfig, dict[str, float] | None] = {}
    for c in every:
        if _over(rest + _least(c), have):
            continue
        same = replace(c, packed=False)
        if same not in known:
            try:
                known[same] = predict(c)
            except ModelError:  # its buffers are too small for the network
                known[same] = None
        cycles = known[same]
        if cycles is not None:
            timed.append((sum(cycles.values()), c.packed, c.input_bytes + c.weight_bytes, c, cycles))
    timed.sort(key=lambda t: t[:3])
    failed: list[tuple[TensorConfig, set[str], Resources]] = []
    asked: dict[TensorConfig, tuple[set[str], Resources]] = {}

    def too_large(c: TensorConfig) -> set[str]:
        """Of what the engine of ``c`` takes too much; kept."""
        if c not in asked:
            progress(f"estimating an engine of {c.rows} x {c.columns} multipliers, {c.lanes} lanes")
            used = rest + cost.tensor(replace(base, tensor=c))
            asked[c] = _over(used, have), used
            if asked[c][0]:
                failed.append((c, *asked[c]))
        return asked[c][0]

    for total, _, _, c, cycles in timed:
        if any(_at_least(c, other, over, used.lut > FAR * have["lut"]) for other, over, used in failed):
            continue
        if too_large(c):
            if not too_large(_smallest(t[3] for t in timed)):
                too_large(_smallest(t[3] for t in timed if t[3].lanes == c.lanes))
            continue
        progress("estimating the device")
        config = replace(base, tensor=c)
        resources = cost.device(config)
        if (shell := cost.shell(base, board)) != Resources():
            resources = {**resources, SHELL: shell}
        used = sum(resources.values(), Resources())
        over = _over(used, have)
        if not over:
            return TensorFit(config, board, total, cycles, sum(map(macs, descriptors)), resources, limit, len(asked),
                             len(every))
        failed.append((c, over, used))
    raise NothingFits("board", board.name, f"no tensor engine fits in {limit:.0%} of {board.part.name}"
                      f"{_short(failed, have, rest)}. What would: a larger part, a higher --limit, a smaller device "
                      "beside it")


def _limits(board: Board, limit: float) -> dict[str, float]:
    part = board.part
    whole = {"lut": part.lut, "ff": part.ff, "bram18": 2 * part.bram36, "uram": part.uram, "dsp": part.dsp}
    return {k: limit * n for k, n in whole.items() if n}


def _over(used: Resources, have: dict[str, float]) -> set[str]:
    return {k for k, n in have.items() if getattr(used, k) > n}


def _at_least(c: TensorConfig, other: TensorConfig, over: set[str], far: bool) -> bool:
    """Whether ``c`` needs as much of one of ``over`` as ``other``, which needs too much: LUTs by a tenth if ``far``."""
    def as_large(*names: str) -> bool:
        return all(getattr(c, n) >= getattr(other, n) for n in names)

    logic = as_large("rows", "columns", "lanes", "depthwise")
    as_many = c.rows * c.columns >= other.rows * other.columns and c.lanes >= other.lanes
    return (far and as_many and c.packed >= other.packed) or (
        bool(over & {"lut", "ff"}) and logic and c.packed >= other.packed) or (
        "dsp" in over and logic and c.packed <= other.packed) or (
        bool(over & {"bram18", "uram"}) and logic and as_large("pixels", "input_bytes", "weight_bytes"))


def _short(failed: list[tuple[TensorConfig, set[str], Resources]], have: dict[str, float], rest: Resources) -> str:
    if not failed:
        return f": without one {', '.join(f'{k} {getattr(rest, k):,.0f} of {n:,.0f}' for k, n in have.items())} are used"
    c, over, used = min(failed, key=lambda f: max(getattr(f[2], k) / n for k, n in have.items()))
    what = ", ".join(f"{k} {getattr(used, k):,.0f} where {have[k]:,.0f} may be used, {getattr(used, k) - have[k]:,.0f} short"
                     for k in sorted(over))
    return f": with {c.rows} x {c.columns} multipliers and {c.lanes} lanes {what}"


def to_records(found: TensorFit) -> dict[str, Any]:
    """Plain values for JSON, units in the keys."""
    t, part = found.config.tensor, found.board.part
    return {
        "device": found.config.name, "board": found.board.name, "part": part.name, "clock_mhz": found.config.clock_mhz,
        "design_id": f"{found.config.design_id:#010x}", "rows": t.rows, "columns": t.columns, "packed": t.packed,
        "pixels": t.pixels, "lanes": t.lanes, "depthwise": t.depthwise, "input_bytes": t.input_bytes,
        "weight_bytes": t.weight_bytes, "tile_cycles": found.cycles, "tile_ms": found.milliseconds,
        "tile_macs_count": found.macs, "array_share": found.macs / (t.rows * t.columns) / found.cycles,
        **{f"{name}_cycles": v for name, v in found.operators.items()},
        **{f"engine_{k}_count": getattr(found.engine, k) for k in LIMITS},
        **{f"total_{k}_count": getattr(found.total, k) for k in LIMITS},
        **{f"total_{k}_share": v for k, v in found.total.shares(part).items()},
        **{f"slack_{k}_share": found.limit - v for k, v in found.total.shares(part).items()},
    }
