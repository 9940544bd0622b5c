"""A descriptor's table from DRAM into the epilogue."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import TABLE_BYTES

from ..interfaces import bits_for
from ..primitives.memport import MemReadSignature
from .epilogue import TABLE_BITS
from .plan import ADDRESS_BITS

__all__ = ["TableReader", "table_layout"]


def table_layout() -> data.StructLayout:
    """With ``en``: ``code`` for outputs ``index`` - 128."""
    return data.StructLayout({"en": 1, "index": TABLE_BITS, "code": TABLE_BITS})


class TableReader(wiring.Component):
    """``start``: reads the table at ``address``, which holds until ``done`` pulses, with ``error`` if a read failed. A code
    a cycle."""

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(1),
            "address": In(ADDRESS_BITS),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "o": Out(table_layout()),
            "done": Out(1),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        req, rsp, beat = self.mem_read.req, self.mem_read.rsp, self.beat_bytes
        buffer, left = Signal(8 * beat, reset_less=True), Signal(bits_for(beat))
        last = Signal()
        m.d.comb += [
            req.payload.addr.eq(self.address),
            req.payload.beats.eq(TABLE_BYTES // beat),
            rsp.ready.eq(left == 0),
            self.o.en.eq(left != 0),
            self.o.code.eq(buffer),
        ]
        with m.If(req.valid & req.ready):
            m.d.sync += req.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [
                req.valid.eq(1),
                self.error.eq(0),
                last.eq(0),
            ]
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                buffer.eq(buffer >> 8),
                self.o.index.eq(self.o.index + 1),
            ]
        with m.Elif(rsp.valid):
            m.d.sync += [
                buffer.eq(rsp.payload.data),
                left.eq(beat),
                last.eq(rsp.payload.last),
                self.error.eq(self.error | rsp.payload.error),
            ]
        m.d.comb += self.done.eq(last & (left == 1))
        return m
