"""Which primitives a memory becomes, and how many: the cheapest of what the family has.

The candidates and their costs are those of Yosys' ``memory_libmap`` for Xilinx (its ``brams_xc4v.txt``, ``lutrams_*.txt``
and ``urams.txt``): a RAMB18 costs 129, a RAMB36 257, an UltraRAM 1024, a distributed RAM 8 or 16 for what part of its width
is used; a memory deeper than a primitive pays for the multiplexers behind and the decoders before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from nearflash.contract.resources import Resources

__all__ = ["MemoryShape", "map_memory"]

BLOCK_HALF, BLOCK_FULL, BLOCK_CASCADE, ULTRA = 129, 257, 513, 1024
ULTRA_WORDS = 4096  # of 72 bits
MUX = 0.5  # cost of a bit of multiplexer or decoder
BYTE = 9


@dataclass(frozen=True)
class MemoryShape:
    """``width`` bits x ``depth`` words; ``lane`` bits have a write enable of their own (``width``: one for all); ``reads``
    read ports, clocked if ``clocked``; ``writes`` write ports, none for a table; ``block``: block RAM is asked for."""

    width: int
    depth: int
    lane: int
    reads: int = 1
    writes: int = 1
    clocked: bool = True
    block: bool = False


@dataclass(frozen=True)
class _Choice:
    cost: float
    resources: Resources


def map_memory(shape: MemoryShape, family: str) -> Resources:
    """Resources of one memory of ``shape``: the cheapest mapping of ``family`` ("xc7", "xcup")."""
    if shape.writes == 0:  # a table of constants becomes logic, whose size depends on its contents
        return Resources()
    choices = [] if shape.block else _distributed(shape, family)
    if shape.clocked:
        choices += _block(shape, family)
    return min(choices, key=lambda c: c.cost).resources


def _deep(shape: MemoryShape, rows: int) -> float:
    """Cost of joining ``rows`` primitives into one deep memory."""
    return MUX * (shape.width * (rows - 1) * shape.reads + (rows if rows > 1 else 0) * _lanes(shape)[1] * shape.writes)


def _lanes(shape: MemoryShape) -> tuple[int, int]:
    """Bits of a word that are written together, and how many such."""
    lane = min(shape.lane, shape.width)
    return lane, ceil(shape.width / lane)


def _primitives(shape: MemoryShape, rows: int, width: int, byte: int) -> int:
    """Primitives of ``width`` bits for ``rows`` rows of them: a lane takes whole bytes, and rows follow each other without a
    gap, so that one primitive may hold the end of one and the start of the next."""
    byte = min(byte, width)
    lane, lanes = _lanes(shape)
    return ceil(rows * lanes * ceil(lane / byte) * byte / width)


def _distributed(shape: MemoryShape, family: str) -> list[_Choice]:
    # words and bits of a primitive with a write and some read ports, its cost, what of it scales with the width, LUTs, reads
    kinds = {"xc7": [(32, 6, 8, 7, 4, 1), (64, 3, 8, 7, 4, 1), (32, 4, 8, 8, 8, 1), (64, 2, 8, 8, 4, 1),
                     (128, 1, 8, 8, 4, 1), (32, 2, 7, 7, 4, 3), (64, 1, 7, 7, 4, 3)],
             "xcup": [(32, 14, 16, 16, 8, 1), (64, 7, 16, 16, 8, 1), (32, 8, 16, 16, 8, 1), (64, 4, 16, 16, 8, 1),
                      (128, 2, 16, 16, 8, 1), (256, 1, 16, 16, 8, 1), (32, 4, 16, 16, 8, 3), (64, 2, 16, 16, 8, 3)]}[family]
    out = []
    for words, bits, cost, scaled, luts, ports in kinds:
        rows, copies = ceil(shape.depth / words), ceil(shape.reads / ports)
        lane, lanes = _lanes(shape)
        full, rest = divmod(lane, bits)
        per_lane = full * cost + ((cost - scaled + scaled * rest / bits) if rest else 0)
        units = full + (rest > 0)
        used = Resources(lut=luts * units * lanes * rows * copies, lutram=luts * units * lanes * rows * copies,
                         ff=shape.width * shape.reads if shape.clocked else 0)
        out.append(_Choice(per_lane * lanes * rows * copies + _deep(shape, rows), used))
    return out


def _block(shape: MemoryShape, family: str) -> list[_Choice]:
    out = []
    for width in (1, 2, 4, 9, 18, 36, 72):
        for kind, cost, capacity, widest, halves in (("half", BLOCK_HALF, 14, 36, 1), ("full", BLOCK_FULL, 15, 72, 2),
                                                     ("cascade", BLOCK_CASCADE, 16, 9, 4)):
            if width > widest or (kind == "cascade" and family != "xc7"):
                continue
            words = 1 << (capacity - (width.bit_length() - 1))
            rows = ceil(shape.depth / words)
            n = _primitives(shape, rows, width, BYTE) * shape.reads
            out.append(_Choice(n * cost + _deep(shape, rows), Resources(bram18=halves * n)))
    if family == "xcup" and not shape.block:
        byte = 8 if shape.lane % 9 else 9
        for folds in (1, 2, 4, 8):  # words that share one of an UltraRAM's, in bytes with enables of their own
            if folds > 1 and ceil(shape.width / byte) * folds > 72 // byte:
                break
            rows = ceil(shape.depth / (ULTRA_WORDS * folds))
            n = _primitives(shape, rows * folds, 72, byte) * shape.reads
            out.append(_Choice(n * ULTRA + _deep(shape, rows) + MUX * shape.width * (folds - 1) * shape.reads,
                               Resources(uram=n)))
    return out
