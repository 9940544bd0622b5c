"""Widths and payloads inside the pooling block, all derived from the device configuration."""

from __future__ import annotations

from amaranth.hdl import Const, Value, signed
from amaranth.lib import data
from nearflash.contract import DeviceConfig, RowFormat

from ...interfaces import Layouts, bits_for, index_bits

__all__ = ["ROWS_IN_FLIGHT", "Shapes"]

ROWS_IN_FLIGHT = 16  # rows between the row buffer's input and the issue stage, and between issue and retire
BEATS_BEFORE_ROW = 32  # beats the row buffer holds at least: an FP32 row's factor takes 11 cycles to come out


class Shapes:
    """Geometry of one pooling block. A *word* is ``lanes`` accumulators, read and written together."""

    def __init__(self, config: DeviceConfig):
        lk = config.lookup
        self.config = config
        self.layouts = Layouts.of(config)
        self.lanes = lk.lanes
        self.acc_bits = lk.acc_bits
        self.words_per_sample = lk.accumulators // lk.lanes
        self.word_bits = index_bits(self.words_per_sample)  # of a word's address within its sample
        self.acc_depth = lk.sample_slots << self.word_bits
        self.addr_bits = self.word_bits + self.layouts.slot_bits
        self.quad_bits = bits_for(lk.max_dim // 4)  # dimensions are counted in fours
        self.limit_bits = bits_for(lk.acc_bits)
        self.exp_bits = 11  # exponents of products less lsb_exp: -448 to 482
        self.slot_table_bits = self.layouts.slot_bits + self.layouts.table_bits
        int8_beats = -(-(lk.max_dim + 8) // config.beat_bytes)
        # Two of the largest INT8 rows: one is converted while the next arrives.
        self.beat_queue = max(2 * int8_beats, BEATS_BEFORE_ROW)
        self.formats = [RowFormat[f.upper()] for f in lk.formats]
        self.mean = "mean" in lk.modes
        self.dividend_bits = self.layouts.bag_bits + 27 + (self.layouts.bag_bits + 27) % 2

    def words(self, quads):
        """Accumulator words of a table of ``quads`` x 4 elements (the last one half used if 8 lanes and odd)."""
        return {2: quads << 1, 4: quads, 8: (quads + 1) >> 1}[self.lanes]

    def is_format(self, value: Value, format: RowFormat) -> Value:
        """Whether ``value`` is ``format``: a constant where the device has no other, or not that one."""
        if format not in self.formats:
            return Const(0)
        return value == format if len(self.formats) > 1 else Const(1)

    @property
    def params(self) -> data.StructLayout:
        """A table: ``limit``: contributions must be below 2**limit; ``base``: its first word within a sample."""
        return data.StructLayout({"format": 2, "mean": 1, "quads": self.quad_bits, "lsb_exp": signed(9),
                                  "limit": self.limit_bits})

    @property
    def operand(self) -> data.StructLayout:
        """A row's multiplier: +-mant * 2**exp in window units (lsb_exp already subtracted)."""
        return data.StructLayout({"neg": 1, "mant": 24, "exp": signed(self.exp_bits)})

    @property
    def row(self) -> data.StructLayout:
        """A row ready to be added: ``factor`` multiplies each element, ``bias`` is added to each (INT8)."""
        lay = self.layouts
        bias = self.operand if RowFormat.INT8 in self.formats else 0
        return data.StructLayout({
            "slot": lay.slot_bits, "table": lay.table_bits, "base": self.word_bits, "quads": self.quad_bits,
            "format": 2, "limit": self.limit_bits, "factor": self.operand, "bias": bias, "not_finite": 1,
            "media": 1})

    @property
    def beat(self) -> data.StructLayout:
        return data.StructLayout({"data": self.layouts.data_bits, "last": 1, "error": 1})

    @property
    def word(self) -> data.StructLayout:
        """One word's worth of raw elements on its way to the lanes. ``bias``: no elements, the row's bias alone;
        ``read``: no elements, a drain reads ``addr``; ``fresh``: the accumulators hold nothing yet."""
        lay = self.layouts
        return data.StructLayout({
            "raw": data.ArrayLayout(32, self.lanes), "format": 2, "bias": 1, "read": 1, "fresh": 1,
            "last": 1, "addr": self.addr_bits, "factor": self.operand, "limit": self.limit_bits,
            "slot": lay.slot_bits, "table": lay.table_bits, "not_finite": 1, "media": 1})

    @property
    def values(self) -> data.ArrayLayout:
        """A word read from the accumulators."""
        return data.ArrayLayout(signed(self.acc_bits), self.lanes)

    @property
    def element_tag(self) -> data.StructLayout:
        """What travels with a pooled element. ``none``: no element, the sample has no tables."""
        lay = self.layouts
        return data.StructLayout({"table": lay.table_bits, "last_of_table": 1, "last_of_sample": 1, "bad": 1, "none": 1,
                                  "slot": lay.slot_bits, "sample": lay.sample})

    @property
    def job(self) -> data.StructLayout:
        """One accumulator word to emit: ``zero``: nothing was read, its elements are 0; ``half``: only 4 of its 8
        elements exist."""
        return data.StructLayout({"zero": 1, "mean": 1, "half": 1, "count": self.layouts.bag_bits,
                                  "lsb_exp": signed(9), "tag": self.element_tag})
