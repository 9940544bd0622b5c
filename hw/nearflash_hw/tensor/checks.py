"""What makes a descriptor possible, as a program of :class:`.checker.DescriptorChecker`: the gateware's side of
:func:`nearflash.contract.tensor.check`, rule for rule and in its order."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nearflash.contract.config import log2
from nearflash.contract.tensor import (
    ALIGN,
    DESCRIPTOR_BYTES,
    ENTRY_BYTES,
    FIELDS,
    HEAD_CHANNELS,
    TABLE_BYTES,
    WORDS,
    Op,
    TensorConfig,
)

__all__ = ["CONSTANT", "EQ", "GT", "LT", "PROGRAM", "SLOTS", "VALUE_BITS", "Code", "Instruction", "checks"]

VALUE_BITS = 34  # the sum of an address and a saturated product
FACTOR_BITS = 17  # of a product's second factor
SLOTS = 64  # of memory: the descriptor's words and what was stored
CONSTANT, PROGRAM = SLOTS - 2, SLOTS - 1  # not in memory: the instruction's constant; where the program lies
LT, EQ, GT = 1, 2, 4  # how the accumulator may stand to the operand
_FIELD = {f.name: f for f in FIELDS}


class Code(enum.IntEnum):
    """What an instruction does with the accumulator a and its operand b."""

    LOAD = 0  #: a = b
    ADD = 1  #: a = a + b
    SUB = 2  #: a = a - b, which is not negative
    MUL = 3  #: a = min(a * b, 2**33 - 1): beyond every limit
    STORE = 4  #: slot = a
    NEED = 5  #: a fault in ``word``, unless a stands to b as ``when`` says
    SKIP = 6  #: skips ``word`` instructions if a stands to b so
    ONLY = 7  #: skips ``word`` instructions unless bit op of the constant is set
    END = 8


@dataclass(frozen=True)
class Instruction:
    """The operand is ``bits`` bits from bit ``lsb`` of ``slot`` on, or ``constant``."""

    code: Code
    slot: int = CONSTANT
    lsb: int = 0
    bits: int = VALUE_BITS
    constant: int = 0
    when: int = 0
    word: int = 0


class _Checks:
    """Instructions, with names for slots. An operand is a field's name, a stored name, or a number."""

    def __init__(self) -> None:
        self.code: list[Instruction] = []
        self.stored: dict[str, int] = {}

    def _add(self, code: Code, operand: str | int = 0, *, low: int = 0, bits: int | None = None, **more: int) -> None:
        if isinstance(operand, int):
            self.code.append(Instruction(code, constant=operand, **more))
        elif operand in _FIELD:
            f = _FIELD[operand]
            self.code.append(Instruction(code, f.word, f.lsb, bits or f.bits, **more))
        else:
            slot = PROGRAM if operand == "program" else self.stored[operand]
            self.code.append(Instruction(code, slot, low, bits or VALUE_BITS - low, **more))

    def load(self, operand: str | int, **part: int) -> None:
        self._add(Code.LOAD, operand, **part)

    def add(self, operand: str | int) -> None:
        self._add(Code.ADD, operand)

    def sub(self, operand: str | int) -> None:
        self._add(Code.SUB, operand)

    def product(self, *factors: str | int) -> None:
        """a = their product, the second and later ones below 2**17."""
        self.load(factors[0])
        for f in factors[1:]:
            self._add(Code.MUL, f)

    def times(self, factor: str | int) -> None:
        self._add(Code.MUL, factor)

    def store(self, name: str) -> None:
        slot = self.stored.setdefault(name, WORDS + len(self.stored))
        if slot >= CONSTANT:
            raise ValueError(f"slot = {slot}: must be below {CONSTANT}")
        self.code.append(Instruction(Code.STORE, slot))

    def need(self, when: int, operand: str | int, field: str) -> None:
        self._add(Code.NEED, operand, when=when, word=_FIELD[field].word)

    def units(self, size: int) -> None:
        """a = what a takes in units of ``size``, a power of two, rounded up."""
        self.add(size - 1)
        self.store("units")
        self.load("units", low=log2(size))

    @contextmanager
    def _over(self, code: Code, operand: str | int, when: int = 0):
        """A skip over what is added meanwhile."""
        at = len(self.code)
        self._add(code, operand, when=when)
        yield
        self.code[at] = replace(self.code[at], word=len(self.code) - at - 1)

    def unless(self, when: int, operand: str | int):
        """What is added meanwhile is left out if a stands to ``operand`` so."""
        return self._over(Code.SKIP, operand, when)

    def only(self, *ops: Op):
        """What is added meanwhile is for ``ops``."""
        return self._over(Code.ONLY, sum(1 << o for o in ops))


def checks(config: TensorConfig, beat_bytes: int) -> list[Instruction]:
    """The program for an engine of ``config``."""
    c = _Checks()
    available = [o for o in Op if o.name.lower() in config.operators]
    with c.only(Op.PROGRAM):
        _header(c, config)
    with c.only(*(o for o in Op if o not in available)):
        c.need(0, 0, "op")
    _sizes(c, config)
    _kernel(c)
    _codes(c)
    with c.only(Op.LAYERNORM):
        c.load("eps_low")
        c.add("eps_high")
        c.need(GT, 0, "eps_low")
    with c.only(Op.ATTENTION):
        _heads(c, config, beat_bytes)
    with c.only(Op.CONV, Op.DEPTHWISE):
        _tile(c, config, beat_bytes)
    _spans(c, config, beat_bytes)
    c.code.append(Instruction(Code.END))
    return c.code


def _header(c: _Checks, config: TensorConfig) -> None:
    for name in ("input_bytes", "output_bytes"):
        c.load(name)
        c.need(GT, 0, name)
        c.load(name, bits=log2(ALIGN))
        c.need(EQ, 0, name)
    c.load("count")
    c.need(GT, 0, "count")
    c.add(1)
    c.times(DESCRIPTOR_BYTES)
    c.add("program")
    c.need(LT | EQ, config.dram_bytes, "count")
    for name, size in (("x", "input_bytes"), ("y", "output_bytes")):
        _within(c, config, name, size)
    c.code.append(Instruction(Code.END))


def _within(c: _Checks, config: TensorConfig, name: str, size: str) -> None:
    """``name`` is aligned and ends in the region; a = its end."""
    c.load(name, bits=log2(ALIGN))
    c.need(EQ, 0, name)
    c.load(name)
    c.add(size)
    c.need(LT | EQ, config.dram_bytes, name)


def _sizes(c: _Checks, config: TensorConfig) -> None:
    for name in ("in_height", "in_width", "in_channels", "out_channels", "out_height", "out_width"):
        c.load(name)
        c.need(GT, 0, name)
    c.load("in_channels")
    c.need(LT | EQ, config.max_channels, "in_channels")
    c.load("shuffle")
    with c.unless(GT, 0):
        c.load(1)
    c.store("side")
    c.times("side")
    c.store("square")
    with c.only(Op.CONV):
        c.times("out_channels")
        c.need(LT | EQ, config.max_channels, "out_channels")
        for name in ("out_height", "out_width"):
            c.product(name, "side")
            c.need(LT, 1 << 16, name)
    with c.only(*(set(Op) - {Op.CONV})):
        c.load("out_channels")
        c.need(EQ, "in_channels", "out_channels")
    with c.only(Op.ADD, Op.LAYERNORM, Op.ATTENTION):
        for axis in ("height", "width"):
            c.load(f"out_{axis}")
            c.need(EQ, f"in_{axis}", f"out_{axis}")


def _kernel(c: _Checks) -> None:
    with c.only(Op.CONV, Op.DEPTHWISE, Op.POOL):
        for name in ("kernel_h", "kernel_w", "stride"):
            c.load(name)
            c.need(GT, 0, name)
    with c.only(Op.POOL):
        for name in ("kernel_w", "stride"):
            c.load(name)
            c.need(EQ, "kernel_h", name)
        for axis in ("height", "width"):
            c.product(f"out_{axis}", "stride")
            c.need(EQ, f"in_{axis}", f"out_{axis}")
    with c.only(Op.CONV, Op.DEPTHWISE):
        for axis, kernel, pad in (("height", "kernel_h", "pad_top"), ("width", "kernel_w", "pad_left")):
            c.load(pad)
            c.need(LT, kernel, pad)
            c.load(f"out_{axis}")
            c.sub(1)
            c.times("stride")
            c.store("last")
            c.load(f"in_{axis}")
            c.add(pad)
            c.need(GT, "last", f"out_{axis}")


def _codes(c: _Checks) -> None:
    zero = 1 << 15  # signed fields, shifted so that they can be compared
    for name in ("low", "high"):
        c.load(name)
        c.add(zero)
        c.store(name + " code")
        c.load(name + " code", bits=16)
        c.store(name + " code")
    c.load("y16")
    with c.unless(GT, 0):  # those of 16 bits are what their fields can hold
        c.load("low code")
        c.need(EQ | GT, zero - 127, "low")
        c.load("high code")
        c.need(LT | EQ, zero + 127, "high")
    c.load("low code")
    c.need(LT | EQ, "high code", "low")
    c.product("lookup", "y16")
    c.need(EQ, 0, "lookup")


def _heads(c: _Checks, config: TensorConfig, beat_bytes: int) -> None:
    c.product("heads", "head_dim")
    c.need(EQ, "in_channels", "heads")
    c.load("head_dim")
    c.need(LT | EQ, HEAD_CHANNELS, "head_dim")
    c.load("head_dim", bits=log2(beat_bytes))
    c.need(EQ, 0, "head_dim")
    c.load("keys")
    c.need(GT, 0, "keys")
    c.need(LT | EQ, config.max_keys, "keys")
    c.units(beat_bytes)
    c.times(beat_bytes)
    c.times("head_dim")
    c.need(LT | EQ, config.weight_bytes // 2, "keys")
    c.load("value_mult")
    c.need(EQ | GT, 1 << 15, "value_mult")


def _tile(c: _Checks, config: TensorConfig, beat_bytes: int) -> None:
    for name in ("tile_rows", "tile_columns"):
        c.load(name)
        c.need(GT, 0, name)
    c.product("tile_rows", "tile_columns")
    c.need(LT | EQ, config.pixels, "tile_rows")
    c.load("in_channels")
    c.units(config.columns)
    c.store("words")
    c.times(config.columns)
    c.store("held pixel")
    for name, kernel in (("tile_rows", "kernel_h"), ("tile_columns", "kernel_w")):
        c.load(name)
        c.sub(1)
        c.times("stride")
        c.add(kernel)
        if name == "tile_rows":
            c.store("reach")
    c.times("reach")
    c.times("held pixel")
    c.need(LT | EQ, config.input_bytes // 2, "tile_rows")
    with c.only(Op.CONV):
        c.product("kernel_h", "kernel_w", "words", config.rows * config.columns)
        c.store("block bytes")
        c.times("group_blocks")
        c.need(LT | EQ, config.weight_bytes // 2, "group_blocks")
    with c.only(Op.DEPTHWISE):
        c.load("in_channels")
        c.units(beat_bytes)
        c.times(beat_bytes)
        c.times("kernel_h")
        c.times("kernel_w")
        c.need(LT | EQ, config.depthwise_weight_bytes, "kernel_h")


def _spans(c: _Checks, config: TensorConfig, beat_bytes: int) -> None:
    def pixel(channels: str, wide: str) -> None:
        c.load(wide)
        c.add(1)
        c.times(channels)
        c.units(beat_bytes)
        c.times(beat_bytes)

    def outputs(wide: str) -> None:
        pixel("out_channels", wide)
        c.store("pixel")
        c.product("out_height", "out_width", "square", "pixel")

    def apart(name: str) -> None:
        """a bytes from ``name`` on lie in the region, and not where the output is written."""
        c.store("size")
        _within(c, config, name, "size")
        with c.unless(LT | EQ, "y"):
            c.load("end")
            c.need(LT | EQ, name, name)

    outputs("y16")
    c.store("size")
    _within(c, config, "y", "size")
    c.store("end")
    pixel("in_channels", "x16")
    c.store("in pixel")
    c.product("in_height", "in_width", "in pixel")
    apart("x")
    with c.only(Op.CONV, Op.ADD):
        c.load("residual")
        with c.unless(EQ, 0):
            outputs("r16")
            apart("r")
    with c.only(Op.ATTENTION):
        for name in ("r", "v"):
            c.product("keys", "in pixel")
            apart(name)
    with c.only(Op.CONV):
        c.load("out_channels")
        c.units(config.rows)
        c.times("square")
        c.store("blocks")
        c.product("block bytes", "blocks")
        apart("weights")
    with c.only(Op.DEPTHWISE):
        c.product("kernel_h", "kernel_w", "in pixel")
        apart("weights")
    with c.only(Op.CONV, Op.DEPTHWISE, Op.LAYERNORM):
        c.product("out_channels", "square", ENTRY_BYTES)
        apart("entries")
    c.load("lookup")
    with c.unless(EQ, 0):
        c.load(TABLE_BYTES)
        apart("table")
