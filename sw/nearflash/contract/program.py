"""The parameter image: what PROGRAM_LOAD sends, a sequence of records, each a 16-byte header and whole 16-byte units.

Header: u32 target, u32 length in 16-byte units, u64 address (DRAM target: byte address; otherwise 0).
Targets::

  0..255        weights of the FC core of that number (on chip): weight words in step order
  0x100 + node  epilogue of fc node (its position in the graph): one 16-byte entry per output channel:
                s64 bias (in accumulator units), u32 mult (below 2**16), u32 shift (0 to 62)
  0x200         dense quantiser: one entry: u32 mult (below 2**16), s32 shift, 8 bytes 0
  0x201         logit format: one entry: s32 exponent e: logits are int32 * 2**e; 12 bytes 0
  0x300 + node  dot / mul requantiser of graph node: one entry as an epilogue's (bias 0)
  0xFFFF        DRAM: data goes to the header's address (weights of cores with weights = "dram")

Weight words: step order is the core's scan order (row scan: step = row_block * column_blocks + column_block; column
scan: step = column_block * row_blocks + row_block); a word holds kr x kc weights, [row][column], column fastest,
little-endian, zero where the layer is narrower than the blocks; a word is padded to a whole number of beats
(``beat_bytes``), and the record as a whole to 16 bytes.
A record must carry exactly what its target needs: anything else fails with BAD_PROGRAM, and the program is unloaded.
"""

from __future__ import annotations

import struct

from .config import DeviceConfig
from .mlp import Core, cores

UNIT = 16
EPILOGUE = 0x100
DENSE_QUANT = 0x200
LOGIT_FORMAT = 0x201
INTERACTION = 0x300
DRAM = 0xFFFF
MULT_BITS = 16
SHIFT_MAX = 62


def record(target: int, data: bytes, address: int = 0) -> bytes:
    """One record; ``data`` is padded with zeros to whole units."""
    units = -(-len(data) // UNIT)
    return struct.pack("<IIQ", target, units, address) + data.ljust(units * UNIT, b"\0")


def scale_entry(bias: int, mult: int, shift: int) -> bytes:
    """One epilogue or interaction entry."""
    if not 0 <= mult < 1 << MULT_BITS or not 0 <= shift <= SHIFT_MAX:
        raise ValueError(f"mult = {mult}, shift = {shift}: must be below {1 << MULT_BITS} and at most {SHIFT_MAX}")
    return struct.pack("<qII", bias, mult, shift)


def weight_word_beats(core: Core, beat_bytes: int) -> int:
    """Beats of one weight word as stored and streamed."""
    return -(-core.word_bytes // beat_bytes)


def weight_units(core: Core, beat_bytes: int) -> int:
    """16-byte units of a core's whole weight image."""
    return -(-core.steps * weight_word_beats(core, beat_bytes) * beat_bytes // UNIT)


def dram_weight_address(config: DeviceConfig, core: Core) -> int:
    """Byte address of a DRAM core's weight image: the DRAM cores follow each other, each 4 KiB-aligned."""
    a = config.layout.weights
    for c in cores(config.mlp.graph):
        if c.index == core.index:
            return a
        if c.weights == "dram":
            a += -(-weight_units(c, config.beat_bytes) * UNIT // 4096) * 4096
    raise ValueError(f"core = {core.index}: not in this device's graph")


def expected_records(config: DeviceConfig) -> dict[int, int]:
    """On-chip targets and the units each record must carry. A program is complete when each came exactly once and
    every DRAM core's image was written (one DRAM record per DRAM core, at its address)."""
    out: dict[int, int] = {}
    for c in cores(config.mlp.graph):
        if c.weights != "dram":
            out[c.index] = weight_units(c, config.beat_bytes)
    for i, n in enumerate(config.mlp.graph):
        if n.kind == "fc":
            out[EPILOGUE + i] = n.width
        elif n.kind in ("dot", "mul"):
            out[INTERACTION + i] = 1
        elif n.kind == "dense":
            out[DENSE_QUANT] = 1
    if config.mlp.graph:
        out[LOGIT_FORMAT] = 1
    return out
