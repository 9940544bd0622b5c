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
    """``start``: reads the table at ``address``, which holds until ``done`` pulses, with ``error`` if a read failed.

    A beat at a time, asked for when the one before has been given, code by code: nobody else's data waits behind it.
    """

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
        at = Signal(TABLE_BITS)
        m.d.comb += [
            req.payload.addr.eq(self.address + at),
            req.payload.beats.eq(1),
            self.o.index.eq(at),
            self.o.code.eq(buffer[:8]),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += at.eq(0)
                with m.If(self.start):
                    m.d.sync += self.error.eq(0)
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += req.valid.eq(1)
                with m.If(req.ready):
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += rsp.ready.eq(1)
                m.d.sync += [
                    buffer.eq(rsp.payload.data),
                    left.eq(beat - 1),
                ]
                with m.If(rsp.valid):
                    m.d.sync += self.error.eq(self.error | rsp.payload.error)
                    m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += self.o.en.eq(1)
                m.d.sync += [
                    buffer.eq(buffer >> 8),
                    at.eq(at + 1),
                    left.eq(left - 1),
                ]
                with m.If(left == 0):
                    m.next = "ASK"
                    with m.If(at == TABLE_BYTES - 1):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
        return m
