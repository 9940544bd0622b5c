"""The tensor engine's side of the contract: its configuration, and the programs it runs.

A program lies in the tensor region of the device's DRAM (:attr:`.config.DramLayout.tensor`): a header and its descriptors,
128 bytes each, one after the other. Every field is part of a little-endian 32-bit word (:data:`FIELDS`); unused bits are 0;
word 31 is CRC-32 (zlib's) of words 0 to 30. Addresses are byte offsets in the region, multiples of 64. What each operator
computes is in :mod:`nearflash.reference.tensor` and docs/offload.md.

Commands, beside those of :mod:`.nvme` (a device without the engine answers INVALID_OPCODE):

- TENSOR_LOAD (admin): PRP1/PRP2 = data of cdw10 32-bit words, copied to byte offset cdw12 of the region; both are multiples
  of 64 bytes.
- TENSOR_RUN (I/O): PRP1/PRP2 = input of cdw10 32-bit words; cdw11 = offset of the program's header; cdw14/15 = host address
  of the output, beat-aligned. The header's ``input_bytes`` must be 4 times cdw10.

A span outside the region, or a length that is not the header's, fails with BAD_TENSOR_SPAN (dw0: the cdw at fault); a header
or descriptor that :func:`unpack` or :func:`check` refuses, with BAD_DESCRIPTOR (dw0: its number, 0 for the header; dw1: the
word at fault, the first one in the order in which these functions look).
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ConfigError, LimitError

__all__ = ["ALIGN", "ALWAYS", "CRC_WORD", "DESCRIPTOR_BYTES", "ENTRY_BYTES", "FIELDS", "HEAD_CHANNELS", "MOST_CHANNELS",
           "SPANS", "TABLE_BYTES", "TENSOR_LOAD", "TENSOR_RUN", "USES", "WORDS", "Descriptor", "DescriptorError",
           "DescriptorField", "Op", "TensorConfig", "block_bytes", "check", "input_words", "pack", "pack_program",
           "pixel_bytes", "spans", "unpack"]

TENSOR_LOAD, TENSOR_RUN = 0xC9, 0x8B  # bits 1:0 give the direction, as in nvme
DESCRIPTOR_BYTES = 128
WORDS = DESCRIPTOR_BYTES // 4
ALIGN = 64
ENTRY_BYTES = 16
TABLE_BYTES = 256
VERSION = 1
CRC_WORD = WORDS - 1
HEAD_CHANNELS = 128  # of an attention head at most
MOST_CHANNELS = 1024  # of a pixel, in any configuration


OPERATORS = ("conv", "depthwise", "pool", "add", "layernorm", "attention")


@dataclass(frozen=True)
class TensorConfig:
    """Tensor engine: int8 convolutions, linear layers, attention and what lies between them. No rows: no engine."""

    rows: int = 0  #: of the multiplier array: output channels a step
    columns: int = 16  #: of the array: input channels a step
    packed: bool = False  #: two rows' products on one DSP slice
    pixels: int = 64  #: output pixels that share one weight word; accumulators a row
    lanes: int = 8  #: elements the epilogue, LayerNorm, pooling and addition take per cycle
    depthwise: int = 16  #: channels of a depthwise convolution per cycle, a kernel row each
    input_bytes: int = 32768  #: buffer of input tiles, both halves
    weight_bytes: int = 32768  #: buffer of weights, both halves
    max_channels: int = 1024  #: of a pixel
    max_keys: int = 1024  #: of an attention row
    dram_bytes: int = 1 << 26  #: of the tensor region
    operators: tuple[str, ...] = OPERATORS  #: that the engine is generated with, in this order

    @property
    def depthwise_weight_bytes(self) -> int:
        """What a depthwise convolution's weights may take: 3x3 taps of ``max_channels``."""
        return 9 * self.max_channels

    def validate(self, beat_bytes: int) -> None:
        """Raises :class:`ConfigError`."""
        def need(ok: bool, name: str, limit: str) -> None:
            if not ok:
                raise ConfigError(f"tensor.{name}", getattr(self, name), f"must be {limit}")

        def pow2(v: int) -> bool:
            return v > 0 and v & (v - 1) == 0

        if not self.rows:
            return
        if beat_bytes > ENTRY_BYTES:
            raise ConfigError("beat_bytes", beat_bytes, f"must be at most {ENTRY_BYTES} (an entry) with a tensor engine")
        need(pow2(self.rows) and self.rows <= 64, "rows", "0 (no engine) or a power of two of at most 64")
        need(pow2(self.columns) and beat_bytes <= self.columns <= 64, "columns",
             f"a power of two from beat_bytes ({beat_bytes}) to 64")
        need(32 <= self.rows * self.columns <= 1024, "rows", f"32 to 1024 multipliers with columns = {self.columns}")
        need(pow2(self.pixels) and 16 <= self.pixels <= 512, "pixels", "a power of two from 16 to 512")
        need(pow2(self.lanes) and self.lanes <= min(beat_bytes, self.rows), "lanes",
             f"a power of two of at most beat_bytes ({beat_bytes}) and rows ({self.rows})")
        if "depthwise" in self.operators:
            need(pow2(self.depthwise) and beat_bytes <= self.depthwise <= self.columns, "depthwise",
                 f"a power of two from beat_bytes ({beat_bytes}) to columns ({self.columns})")
        for name in ("input_bytes", "weight_bytes"):
            need(pow2(getattr(self, name)) and 8192 <= getattr(self, name) <= beat_bytes << 16, name,
                 f"a power of two from 8192 to {beat_bytes << 16}, halves of 2**15 beats")
        for name in ("max_channels", "max_keys"):
            need(pow2(getattr(self, name)) and 64 <= getattr(self, name) <= MOST_CHANNELS, name,
                 f"a power of two from 64 to {MOST_CHANNELS}")
        if "attention" in self.operators:
            need(self.max_keys >= 4 * max(self.rows, self.columns), "max_keys",
                 f"at least 4 times rows ({self.rows}) and columns ({self.columns})")
        need(len(self.operators) > 0 and self.operators == tuple(o for o in OPERATORS if o in self.operators), "operators",
             f"one or more of {OPERATORS}, each once and in this order")
        need(self.dram_bytes % 4096 == 0 and 4096 <= self.dram_bytes <= 1 << 32, "dram_bytes",
             "a multiple of 4096, at most 2**32")


class Op(enum.IntEnum):
    """What a descriptor does; PROGRAM is the header."""

    PROGRAM = 0
    CONV = 1
    DEPTHWISE = 2
    POOL = 3
    ADD = 4
    LAYERNORM = 5
    ATTENTION = 6


_Need = Callable[[bool, str, str], None]  # a condition, its field, what it must be


class DescriptorError(LimitError):
    """A descriptor the engine refuses. ``number``: which (0: the header); ``word``: where in it."""

    def __init__(self, field: str, value: object, limit: str, number: int, word: int):
        super().__init__(f"descriptor[{number}].{field}", value, limit)
        self.number, self.word = number, word


@dataclass(frozen=True)
class DescriptorField:
    """``bits`` bits of word ``word`` from bit ``lsb`` on; values ``low`` to ``high``; what they mean."""

    name: str
    word: int
    lsb: int
    bits: int
    low: int
    high: int
    doc: str


def _f(name: str, word: int, lsb: int, bits: int, doc: str, low: int = 0, high: int | None = None) -> DescriptorField:
    return DescriptorField(name, word, lsb, bits, low, (1 << bits) - 1 if high is None else high, doc)


#: Every field. All take the value 0 in operators that don't use them.
FIELDS: tuple[DescriptorField, ...] = (
    _f("op", 0, 0, 8, "operator (Op)", 0, 6),
    _f("number", 0, 8, 16, "place in the program, from 1; of the header 0"),
    _f("version", 0, 24, 8, "of this layout", VERSION, VERSION),
    _f("x16", 1, 0, 1, "input elements have 16 bits (POOL, ADD, LAYERNORM)"),
    _f("y16", 1, 1, 1, "output elements have 16 bits (not with a table)"),
    _f("r16", 1, 2, 1, "residual elements have 16 bits"),
    _f("residual", 1, 3, 1, "a residual is added (CONV, ADD)"),
    _f("lookup", 1, 4, 1, "a table maps the outputs (CONV, DEPTHWISE, ADD)"),
    _f("x", 2, 0, 32, "address of the input; of q; PROGRAM: where the command's input goes"),
    _f("r", 3, 0, 32, "address of the residual; of k"),
    _f("v", 4, 0, 32, "address of v (ATTENTION)"),
    _f("y", 5, 0, 32, "address of the output; PROGRAM: of what the command returns"),
    _f("weights", 6, 0, 32, "address of the weights (CONV, DEPTHWISE)"),
    _f("entries", 7, 0, 32, "address of the entries per output channel (CONV, DEPTHWISE, LAYERNORM)"),
    _f("table", 8, 0, 32, "address of the table"),
    _f("in_height", 9, 0, 16, "rows of the input"),
    _f("in_width", 9, 16, 16, "pixels of an input row"),
    _f("in_channels", 10, 0, 16, "channels of the input"),
    _f("out_channels", 10, 16, 16, "channels of the output, after a shuffle"),
    _f("out_height", 11, 0, 16, "rows of the output, before a shuffle"),
    _f("out_width", 11, 16, 16, "pixels of an output row, before a shuffle"),
    _f("kernel_h", 12, 0, 4, "rows of the kernel", 0, 8),
    _f("kernel_w", 12, 4, 4, "columns of the kernel", 0, 8),
    _f("stride", 12, 8, 4, "of the kernel, both ways", 0, 8),
    _f("pad_top", 12, 12, 4, "rows of padding above the input", 0, 7),
    _f("pad_left", 12, 16, 4, "columns of padding before it", 0, 7),
    _f("shuffle", 12, 20, 4, "side of the square a pixel's channels are spread over (CONV); 0 and 1: none", 0, 8),
    _f("pad_value", 12, 24, 8, "what padding holds: the input's zero", -127, 127),
    _f("low", 13, 0, 16, "least output", -32767, 32767),
    _f("high", 13, 16, 16, "greatest output", -32767, 32767),
    _f("residual_mult", 14, 0, 16, "residual's scale, see the epilogue"),
    _f("residual_shift", 14, 16, 6, "residual's scale", 0, 62),
    _f("frac", 14, 24, 4, "bits below the output's step", 0, 14),
    _f("offset", 15, 0, 32, "added to the sum, in steps of 2**-frac", -(1 << 24), 1 << 24),
    _f("heads", 16, 0, 8, "attention heads"),
    _f("head_dim", 16, 8, 8, "channels of a head"),
    _f("keys", 16, 16, 16, "pixels of k and v"),
    _f("score_mult", 17, 0, 16, "scores to logarithms of base 2, 8 bits below the point"),
    _f("score_shift", 17, 16, 6, "the same", 0, 62),
    _f("value_mult", 18, 0, 16, "v's scale over the output's"),
    _f("value_shift", 18, 16, 6, "the same", 0, 36),
    _f("eps_low", 19, 0, 32, "LayerNorm's eps in units of V, low word"),
    _f("eps_high", 20, 0, 16, "the same, high word"),
    _f("mult", 21, 0, 16, "the scale where there are no entries (POOL, ADD)"),
    _f("shift", 21, 16, 6, "the same", 0, 62),
    _f("tile_rows", 22, 0, 16, "of an output tile (CONV, DEPTHWISE)"),
    _f("tile_columns", 22, 16, 16, "of an output tile"),
    _f("group_blocks", 23, 0, 16, "output blocks whose weights are held at once (CONV); 0: streamed for every tile"),
    _f("input_bytes", 24, 0, 32, "PROGRAM: of the input"),
    _f("output_bytes", 25, 0, 32, "PROGRAM: of the output"),
    _f("count", 26, 0, 16, "PROGRAM: descriptors that follow"),
)
_BY_NAME = {f.name: f for f in FIELDS}
ALWAYS = frozenset({"op", "number", "version"})
_SPATIAL = frozenset({"in_height", "in_width", "in_channels", "out_height", "out_width", "out_channels"})
_KERNEL = frozenset({"kernel_h", "kernel_w", "stride", "pad_top", "pad_left", "pad_value", "tile_rows", "tile_columns"})
_EPILOGUE = frozenset({"x", "y", "y16", "low", "high", "frac", "offset"})
_ADDEND = frozenset({"residual", "r", "r16", "residual_mult", "residual_shift"})
_LOOKUP = frozenset({"lookup", "table"})
#: The fields that an operator uses; the others must be 0.
USES: dict[Op, frozenset[str]] = {
    Op.PROGRAM: frozenset({"x", "y", "input_bytes", "output_bytes", "count"}),
    Op.CONV: _SPATIAL | _KERNEL | _EPILOGUE | _ADDEND | _LOOKUP | {"weights", "entries", "shuffle", "group_blocks"},
    Op.DEPTHWISE: _SPATIAL | _KERNEL | _EPILOGUE | _LOOKUP | {"weights", "entries"},
    Op.POOL: _SPATIAL | _EPILOGUE | {"x16", "kernel_h", "kernel_w", "stride", "mult", "shift"},
    Op.ADD: _SPATIAL | _EPILOGUE | _ADDEND | _LOOKUP | {"x16", "mult", "shift"},
    Op.LAYERNORM: _SPATIAL | {"x", "x16", "y", "low", "high", "entries", "eps_low", "eps_high"},
    Op.ATTENTION: _SPATIAL | {"x", "r", "v", "y", "low", "high", "heads", "head_dim", "keys", "score_mult", "score_shift",
                              "value_mult", "value_shift"},
}


#: What an operator reads and writes, the written first, in the order in which :func:`check` looks.
SPANS: dict[Op, tuple[str, ...]] = {
    Op.PROGRAM: ("x", "y"),
    Op.CONV: ("y", "x", "r", "weights", "entries", "table"),
    Op.DEPTHWISE: ("y", "x", "weights", "entries", "table"),
    Op.POOL: ("y", "x"),
    Op.ADD: ("y", "x", "r", "table"),
    Op.LAYERNORM: ("y", "x", "entries"),
    Op.ATTENTION: ("y", "x", "r", "v"),
}


class Descriptor(dict[str, int]):
    """Fields by name; those not given are 0. Unknown names raise :class:`KeyError`."""

    def __init__(self, op: Op, **values: int):
        super().__init__({f.name: 0 for f in FIELDS})
        for name in values:
            self[name] = values[name]
        self["op"], self["version"] = op, VERSION

    def __setitem__(self, name: str, value: int) -> None:
        super().__setitem__(_BY_NAME[name].name, int(value))


def pack(d: Descriptor) -> bytes:
    """The 128 bytes of a descriptor. Raises :class:`DescriptorError` for a value outside its field's limits."""
    words = [0] * WORDS
    for f in FIELDS:
        v = d[f.name]
        if not f.low <= v <= f.high and (v or f.name == "version"):
            raise DescriptorError(f.name, v, f"must be from {f.low} to {f.high}", d["number"], f.word)
        words[f.word] |= (v & (1 << f.bits) - 1) << f.lsb
    body = struct.pack(f"<{CRC_WORD}I", *words[:CRC_WORD])
    return body + struct.pack("<I", zlib.crc32(body))


def pack_program(header: Descriptor, descriptors: list[Descriptor]) -> bytes:
    """A whole program; numbers its descriptors and fills in ``count``."""
    header["count"] = len(descriptors)
    for i, d in enumerate(descriptors, 1):
        d["number"] = i
    return b"".join(pack(d) for d in (header, *descriptors))


def unpack(raw: bytes, number: int) -> Descriptor:
    """The descriptor in 128 bytes that should be the ``number``-th of its program.

    Raises:
        DescriptorError: the CRC; or, word by word, a field outside its limits, a bit set in a field not used, the number.
    """
    words = struct.unpack(f"<{WORDS}I", raw)
    if words[CRC_WORD] != zlib.crc32(raw[: 4 * CRC_WORD]):
        raise DescriptorError("crc", hex(words[CRC_WORD]), "must be the CRC-32 of the words before", number, CRC_WORD)
    d = Descriptor(Op.PROGRAM)
    for i in range(CRC_WORD):
        seen = 0
        for f in (f for f in FIELDS if f.word == i):
            mask = (1 << f.bits) - 1
            v = words[i] >> f.lsb & mask
            seen |= mask << f.lsb
            if f.low < 0 and v >> f.bits - 1:
                v -= 1 << f.bits
            if not f.low <= v <= f.high:
                raise DescriptorError(f.name, v, f"must be from {f.low} to {f.high}", number, i)
            d[f.name] = v
            if v and f.name not in USES[Op(d["op"])] and f.name not in ALWAYS:
                raise DescriptorError(f.name, v, f"must be 0 for {Op(d['op']).name}", number, i)
        if words[i] & ~seen:
            raise DescriptorError(f"word{i}", hex(words[i]), "must have its unused bits 0", number, i)
        if i == 0 and (d["number"] != number or (d["op"] == Op.PROGRAM) != (number == 0)):
            raise DescriptorError("number", d["number"], f"must be {number}, and 0 for a header alone", number, 0)
    return d


def pixel_bytes(channels: int, wide: int, beat_bytes: int) -> int:
    """Bytes from one pixel of a tensor to the next: whole beats."""
    return -(-channels * (2 if wide else 1) // beat_bytes) * beat_bytes


def spans(d: Descriptor, config: TensorConfig, beat_bytes: int) -> dict[str, tuple[int, int]]:
    """(first byte, bytes) of everything the descriptor reads (``x``, ``r``, ``v``, ``weights``, ``entries``, ``table``) and
    writes (``y``)."""
    op = Op(d["op"])
    if op == Op.PROGRAM:
        return {"x": (d["x"], d["input_bytes"]), "y": (d["y"], d["output_bytes"])}
    square = max(1, d["shuffle"]) ** 2
    out_pixels, out_channels = d["out_height"] * d["out_width"] * square, d["out_channels"]

    def tensor(pixels: int, channels: int, wide: int = 0) -> int:
        return pixels * pixel_bytes(channels, wide, beat_bytes)

    found = {"x": (d["x"], tensor(d["in_height"] * d["in_width"], d["in_channels"], d["x16"])),
             "y": (d["y"], tensor(out_pixels, out_channels, d["y16"]))}
    if d["residual"]:
        found["r"] = (d["r"], tensor(out_pixels, out_channels, d["r16"]))
    if d["lookup"]:
        found["table"] = (d["table"], TABLE_BYTES)
    if op in (Op.CONV, Op.DEPTHWISE, Op.LAYERNORM):
        found["entries"] = (d["entries"], square * out_channels * ENTRY_BYTES)
    taps = d["kernel_h"] * d["kernel_w"]
    if op == Op.CONV:
        blocks = square * -(-out_channels // config.rows)
        found["weights"] = (d["weights"], blocks * block_bytes(d, config))
    if op == Op.DEPTHWISE:
        found["weights"] = (d["weights"], taps * pixel_bytes(d["in_channels"], 0, beat_bytes))
    if op == Op.ATTENTION:
        found["r"] = (d["r"], tensor(d["keys"], d["in_channels"]))
        found["v"] = (d["v"], tensor(d["keys"], d["in_channels"]))
    return found


def input_words(d: Descriptor, config: TensorConfig) -> int:
    """Words of ``columns`` bytes that a pixel of the input takes in the X buffer (CONV, DEPTHWISE)."""
    return -(-d["in_channels"] // config.columns)


def block_bytes(d: Descriptor, config: TensorConfig) -> int:
    """Weights of an output block (CONV): a word of rows x columns for every tap and channel block."""
    return d["kernel_h"] * d["kernel_w"] * input_words(d, config) * config.rows * config.columns


def check(d: Descriptor, config: TensorConfig, beat_bytes: int, program: int = 0) -> None:
    """Whether the engine of ``config`` can run what :func:`unpack` returned. ``program``: where a header lies.

    Raises:
        DescriptorError: a field that does not agree with the others, the engine's limits or the region.
    """
    op = Op(d["op"])

    def need(ok: bool, name: str, limit: str) -> None:
        if not ok:
            raise DescriptorError(name, d[name], f"must be {limit}", d["number"], _BY_NAME[name].word)

    if op == Op.PROGRAM:
        for name in ("input_bytes", "output_bytes"):
            need(d[name] > 0 and d[name] % ALIGN == 0, name, f"above 0 and a multiple of {ALIGN}")
        need(d["count"] > 0, "count", "at least 1")
        need(program + (d["count"] + 1) * DESCRIPTOR_BYTES <= config.dram_bytes, "count",
             f"as many as a region of {config.dram_bytes} bytes holds from {program} on")
    else:
        need(op.name.lower() in config.operators, "op", f"one of the engine's: {', '.join(config.operators)}")
        _check_sizes(d, op, config, need)
        if op in (Op.CONV, Op.DEPTHWISE, Op.POOL):
            _check_kernel(d, op, need)
        _check_codes(d, need)
        if op == Op.LAYERNORM:
            need(d["eps_low"] + d["eps_high"] > 0, "eps_low", "at least 1 with eps_high: constant pixels have V = 0")
        if op == Op.ATTENTION:
            _check_heads(d, config, beat_bytes, need)
        if op in (Op.CONV, Op.DEPTHWISE):
            _check_tile(d, op, config, beat_bytes, need)
    found = spans(d, config, beat_bytes)
    for name in SPANS[op]:
        if name not in found:
            continue
        start, size = found[name]
        need(start % ALIGN == 0, name, f"a multiple of {ALIGN}")
        need(start + size <= config.dram_bytes, name, f"at most {config.dram_bytes - size}: {size} bytes of a region of "
             f"{config.dram_bytes}")
        if op != Op.PROGRAM and name != "y":
            first, written = found["y"]
            need(start + size <= first or first + written <= start, name,
                 f"apart from what is written, {written} bytes at {first}")


def _check_sizes(d: Descriptor, op: Op, config: TensorConfig, need: _Need) -> None:
    for name in ("in_height", "in_width", "in_channels", "out_channels", "out_height", "out_width"):
        need(d[name] > 0, name, "at least 1")
    need(d["in_channels"] <= config.max_channels, "in_channels", f"at most {config.max_channels}")
    if op == Op.CONV:
        side = max(1, d["shuffle"])
        need(side * side * d["out_channels"] <= config.max_channels, "out_channels",
             f"at most {config.max_channels // (side * side)}: with {side * side} pixels {config.max_channels} entries")
        for axis in ("height", "width"):
            need(side * d[f"out_{axis}"] < 1 << 16, f"out_{axis}", f"at most {65535 // side}: the shuffle makes it {side} "
                 "times as many, of at most 65535")
    else:
        need(d["out_channels"] == d["in_channels"], "out_channels", f"in_channels ({d['in_channels']})")
    if op in (Op.ADD, Op.LAYERNORM, Op.ATTENTION):
        for axis in ("height", "width"):
            need(d[f"out_{axis}"] == d[f"in_{axis}"], f"out_{axis}", f"in_{axis} ({d[f'in_{axis}']})")


def _check_kernel(d: Descriptor, op: Op, need: _Need) -> None:
    for name in ("kernel_h", "kernel_w", "stride"):
        need(d[name] > 0, name, "from 1 to 8")
    if op == Op.POOL:
        need(d["kernel_w"] == d["kernel_h"], "kernel_w", f"kernel_h ({d['kernel_h']})")
        need(d["stride"] == d["kernel_h"], "stride", f"kernel_h ({d['kernel_h']})")
    for axis, kernel, padding in (("height", "kernel_h", "pad_top"), ("width", "kernel_w", "pad_left")):
        size, out, pad = d[f"in_{axis}"], d[f"out_{axis}"], d[padding]
        if op == Op.POOL:
            need(out * d["stride"] == size, f"out_{axis}", f"in_{axis} ({size}) over stride ({d['stride']})")
            continue
        need(pad < d[kernel], padding, f"below {kernel} ({d[kernel]})")
        # the last output begins within the input, so that every tile has something of it to fetch
        need((out - 1) * d["stride"] < size + pad, f"out_{axis}",
             f"at most what in_{axis} ({size}), kernel, stride and padding give")


def _check_codes(d: Descriptor, need: _Need) -> None:
    limit = 32767 if d["y16"] else 127
    need(-limit <= d["low"] <= d["high"], "low", f"from {-limit} to high ({d['high']})")
    need(d["high"] <= limit, "high", f"at most {limit}")
    need(not (d["lookup"] and d["y16"]), "lookup", "0 with outputs of 16 bits")


def _check_heads(d: Descriptor, config: TensorConfig, beat_bytes: int, need: _Need) -> None:
    need(d["heads"] * d["head_dim"] == d["in_channels"], "heads",
         f"in_channels ({d['in_channels']}) over head_dim ({d['head_dim']})")
    need(d["head_dim"] <= HEAD_CHANNELS and d["head_dim"] % beat_bytes == 0, "head_dim",
         f"a multiple of beat_bytes ({beat_bytes}), at most {HEAD_CHANNELS}")
    need(0 < d["keys"] <= config.max_keys, "keys", f"from 1 to {config.max_keys}")
    rows, room = -(-d["keys"] // beat_bytes) * beat_bytes, config.weight_bytes // 2
    need(rows * d["head_dim"] <= room, "keys", f"less: {rows} rows of {d['head_dim']} bytes don't fit half of weight_bytes "
         f"({config.weight_bytes})")
    need(d["value_mult"] >= 1 << 15, "value_mult", f"at least {1 << 15}")


def _check_tile(d: Descriptor, op: Op, config: TensorConfig, beat_bytes: int, need: _Need) -> None:
    for name in ("tile_rows", "tile_columns"):
        need(d[name] > 0, name, "at least 1")
    need(d["tile_rows"] * d["tile_columns"] <= config.pixels, "tile_rows",
         f"at most {config.pixels} pixels over tile_columns ({d['tile_columns']})")
    reach = [(d[f"tile_{a}"] - 1) * d["stride"] + d[k] for a, k in (("rows", "kernel_h"), ("columns", "kernel_w"))]
    pixel = input_words(d, config) * config.columns
    need(reach[0] * reach[1] * pixel <= config.input_bytes // 2, "tile_rows",
         f"less: {reach[0]} x {reach[1]} input pixels of {pixel} bytes don't fit half of input_bytes ({config.input_bytes})")
    if op == Op.CONV and d["group_blocks"]:
        size = block_bytes(d, config)
        need(d["group_blocks"] * size <= config.weight_bytes // 2, "group_blocks",
             f"at most {config.weight_bytes // 2 // size}: {size} bytes each, of half of {config.weight_bytes}")
    if op == Op.DEPTHWISE:
        # on chip a tap's channels begin with a word of their own, as they do in DRAM with a beat
        size = d["kernel_h"] * d["kernel_w"] * pixel_bytes(d["in_channels"], 0, beat_bytes)
        need(size <= config.depthwise_weight_bytes, "kernel_h", f"less: {size} bytes of weights don't fit "
             f"{config.depthwise_weight_bytes}, 9 times max_channels")
