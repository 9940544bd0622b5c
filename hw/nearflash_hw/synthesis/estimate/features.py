"""What a unit's RTLIL holds, counted: registers, memories, multipliers, and bits of every kind of logic."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from .memory import MemoryShape
from .shallow import DEPTH

__all__ = ["LOGIC", "Features", "features_of"]

#: Kinds of logic that LUTs are estimated from, in bits; see :func:`features_of`.
LOGIC = ("add", "constant_add", "compare", "constant_compare", "equal", "constant_equal", "gate", "reduce", "mux", "select",
         "shift", "ff", "soft_multiply")

DSP_LEAST_PRODUCT, DSP_LEAST_OPERAND = 9, 2  # bits: narrower products, and such of a single bit, are built of LUTs
PIPELINES = ".products"  # modules whose registers are those of DSP slices
LUT_PRODUCTS = ".in_luts"  # modules that are adders alone: what they choose between, the adders' LUTs choose
_CELL = re.compile(r"^  cell (\$\w+) \S+\n(.*?)^  end\n", re.MULTILINE | re.DOTALL)
_PARAMETER = re.compile(r"^    parameter \\(\w+) (\S+)$", re.MULTILINE)
_CONNECT = re.compile(r"^    connect \\(\w+) (.*)$", re.MULTILINE)
_MEMORY = re.compile(r"^((?:  attribute [^\n]*\n)*)  memory width (\d+) size (\d+) (\S+)$", re.MULTILINE)
_DEPTH = re.compile(rf"^  attribute \\{DEPTH} (\d+)$", re.MULTILINE)
_BLOCK = re.compile(r'^  attribute \\ram_style "block"\n(?:  attribute [^\n]*\n)*  memory width \d+ size \d+ (\S+)$',
                    re.MULTILINE)
_SLICE = re.compile(r"^  cell \\DSP48E[12] ", re.MULTILINE)
_PROCESS = re.compile(r"^  process \S+\n(.*?)^  end\n", re.MULTILINE | re.DOTALL)
_ASSIGN = re.compile(r"^( +)assign (.*?) (?:\[(\d+)(?::(\d+))?\] )?(?=\S)", re.MULTILINE)
_MODULE = re.compile(r"^module (\S+)\n(.*?)^end\n", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r"(\\\S+|\$\d+)(?: \[(\d+)(?::(\d+))?\])?")
_CONSTANT = re.compile(r"^\d+'[01x]+$")

_KIND = {"$add": "add", "$sub": "add", "$neg": "add", "$lt": "compare", "$le": "compare", "$gt": "compare", "$ge": "compare",
         "$eq": "equal", "$ne": "equal", "$and": "gate", "$or": "gate", "$xor": "gate", "$xnor": "gate",
         "$logic_and": "gate", "$logic_or": "gate", "$reduce_or": "reduce", "$reduce_and": "reduce", "$reduce_xor": "reduce",
         "$reduce_bool": "reduce", "$logic_not": "reduce", "$mux": "mux", "$bmux": "mux", "$shift": "shift", "$shl": "shift",
         "$shr": "shift", "$sshr": "shift", "$sshl": "shift", "$shiftx": "shift"}


@dataclass
class Features:
    """``bits``: of each kind of :data:`LOGIC`; ``memories``; ``multipliers``: (bits of one operand, the other's, signed), of
    which no more than the product's bits that are read; ``slices``: instances of DSP slices; ``operand_bits``: of the
    multipliers outside :data:`PIPELINES`; ``chain_bits``: of the adders in :data:`LUT_PRODUCTS`."""

    bits: Counter[str] = field(default_factory=Counter)
    memories: list[MemoryShape] = field(default_factory=list)
    multipliers: list[tuple[int, int, bool]] = field(default_factory=list)
    slices: int = 0
    operand_bits: int = 0
    chain_bits: int = 0


def features_of(rtlil: str) -> Features:
    """Counts over all modules of ``rtlil`` (:class:`.Shallow` or not): each is one instance."""
    out = Features()
    for name, body in _MODULE.findall(rtlil):
        if name.endswith(LUT_PRODUCTS):
            _count_adders(body, out)
        else:
            _count_module(body, out, name.endswith(PIPELINES))
    return out


def _count_adders(body: str, out: Features) -> None:
    for kind, text in _CELL.findall(body):
        p = dict(_PARAMETER.findall(text))
        if kind == "$dff":
            out.bits["ff"] += int(p["WIDTH"])
        elif _KIND.get(kind) == "add":
            out.chain_bits += int(p["Y_WIDTH"])


def _count_module(body: str, out: Features, pipeline: bool) -> None:
    shapes: dict[str, tuple[int, int]] = {}
    for attributes, width, words, memory in _MEMORY.findall(body):
        cut = _DEPTH.search(attributes)
        shapes[memory] = int(width), int(cut[1] if cut else words)
    block = set(_BLOCK.findall(body))
    reads: Counter[str] = Counter()
    writes: Counter[str] = Counter()
    lanes: dict[str, int] = {}
    combinational: set[str] = set()
    bits = out.bits
    out.slices += len(_SLICE.findall(body))
    for kind, text in _CELL.findall(body):
        p = dict(_PARAMETER.findall(text))
        wires = dict(_CONNECT.findall(text))
        width = int(p.get("Y_WIDTH", p.get("WIDTH", "1")))
        if kind.startswith("$mem"):
            memory = p["MEMID"].strip('"').replace("\\\\", "\\")
            if kind.startswith("$memrd"):
                reads[memory] += 1
                if p["CLK_ENABLE"] == "0":
                    combinational.add(memory)
            elif kind.startswith("$memwr"):
                writes[memory] += 1
                lanes[memory] = shapes[memory][0] // _runs(wires["EN"])
        elif kind == "$dff":
            bits["slice_ff" if pipeline else "ff"] += width
        elif kind == "$mul":
            a, b = int(p["A_WIDTH"]), int(p["B_WIDTH"])
            used = width if pipeline else _used(body, wires["Y"], width)
            a, b = min(a, used), min(b, used)
            if _constant(wires["A"]) or _constant(wires["B"]):
                bits["soft_multiply"] += a if _constant(wires["B"]) else b
            elif min(a + b, used) < DSP_LEAST_PRODUCT or min(a, b) < DSP_LEAST_OPERAND:
                bits["soft_multiply"] += a * b
            else:
                out.multipliers.append((a, b, p.get("A_SIGNED") == "1"))
                out.operand_bits += 0 if pipeline else a + b
        elif kind in _KIND:
            name = _KIND[kind]
            fixed = _constant(wires.get("A", "")) or _constant(wires.get("B", ""))
            if name in ("add", "compare", "equal"):
                inputs = max(int(p["A_WIDTH"]), int(p.get("B_WIDTH", "0")))
                n = min(width, inputs + 1) if name == "add" else inputs
                bits[f"constant_{name}" if fixed else name] += n
            elif name == "reduce":
                bits[name] += int(p["A_WIDTH"])
            elif name == "shift":
                if not _constant(wires["B"]):
                    bits[name] += width * int(p["B_WIDTH"])
            elif not fixed or name == "mux":
                bits[name] += width
    for text in _PROCESS.findall(body):
        bits["select"] += _selected(text)
    for memory, (width, depth) in shapes.items():
        out.memories.append(MemoryShape(width, depth, lanes.get(memory, width), max(1, reads[memory]), writes[memory],
                                        memory not in combinational, memory in block))


def _constant(wire: str) -> bool:
    return bool(_CONSTANT.match(wire.strip()))


def _used(body: str, wire: str, width: int) -> int:
    """How many of a multiplier's output bits, from the lowest, are read."""
    token = re.compile(rf"(?<=[ {{]){re.escape(wire)}(?: \[(\d+)(?::\d+)?\])?(?=\s|$)")
    reads = [m for line in body.splitlines() if wire in line and line.split(maxsplit=1)[0] in ("connect", "assign", "switch")
             and line.strip() != f"connect \\Y {wire}" for m in token.finditer(line)]
    return max((int(m[1] or width - 1) + 1 for m in reads), default=width)


def _runs(enable: str) -> int:
    """Different enables of a write port's bits, equal ones standing next to each other."""
    bits = [(t[1], i) for t in _TOKEN.finditer(enable)
            for i in range(int(t[2] or 0), int(t[3] or t[2] or 0) - 1, -1)]
    return max(1, len([a for a, b in zip(bits, bits[1:], strict=False) if a != b]) + 1)


def _selected(process: str) -> int:
    """Bits assigned under a condition: each is an input of a multiplexer, or of a register's enable."""
    total = 0
    for indent, _, high, low in _ASSIGN.findall(process):
        if len(indent) > 4 and high:
            total += int(high) - int(low or high) + 1
    return total
