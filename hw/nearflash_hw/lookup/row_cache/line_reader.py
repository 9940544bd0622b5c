"""Rows that were found in the row cache, from DRAM to the merge."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ...interfaces import bits_for
from ...primitives.fifo import StreamFifo
from ...primitives.memport import MemReadSignature
from ..layouts import LookupLayouts

__all__ = ["LineReader"]

READS = 8  # rows asked for or waiting for the merge


class LineReader(wiring.Component):
    """Asks for each row and gives it to the merge like a channel. It asks for what it has room for alone, so it never holds
    up the DRAM's other readers. ``ended``: a row's last beat is here; ``failed``: a beat came with an error (it goes on to
    the merge as one)."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = LookupLayouts.of(config)
        super().__init__({
            #: Rows to read,
            "i": In(stream.Signature(lay.cached_read)),
            #: in the same order.
            "o": Out(stream.Signature(lay.flash_data)),
            #: Pulses.
            "ended": Out(1),
            "failed": Out(1),
            #: The DRAM.
            "mem": Out(MemReadSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, LookupLayouts.of(self.config)
        m.submodules.asked = asked = StreamFifo(lay.tag_bits, READS)
        m.submodules.rows = rows = StreamFifo(lay.flash_data, READS * lay.line_beats)
        room = Signal(bits_for(READS), init=READS)
        able = Signal(init=1)  # room != 0
        req, rsp = self.mem.req, self.mem.rsp
        sent, gone = Signal(), Signal()
        m.d.comb += [
            # A request and its tag leave together; the tags' FIFO has room for as many as there may be rows.
            req.valid.eq(self.i.valid & able),
            req.payload.addr.eq(c.layout.row_cache + Cat(Const(0, log2(c.row_cache.line_bytes)), self.i.payload.line)),
            req.payload.beats.eq(self.i.payload.beats),
            self.i.ready.eq(req.ready & able),
            sent.eq(req.valid & req.ready),
            asked.i.valid.eq(sent),
            asked.i.payload.eq(self.i.payload.tag),
            rows.i.valid.eq(rsp.valid),
            rsp.ready.eq(1),
            rows.i.payload.data.eq(rsp.payload.data),
            rows.i.payload.last.eq(rsp.payload.last),
            rows.i.payload.error.eq(rsp.payload.error),
            rows.i.payload.tag.eq(asked.o.payload),
            self.ended.eq(rsp.valid & rsp.payload.last),
            asked.o.ready.eq(self.ended),
            self.failed.eq(rsp.valid & rsp.payload.error),
            gone.eq(self.o.valid & self.o.ready & self.o.payload.last),
        ]
        connect(m, rows.o, flipped(self.o))
        with m.If(sent & ~gone):
            m.d.sync += [
                room.eq(room - 1),
                able.eq(room != 1),
            ]
        with m.Elif(gone & ~sent):
            m.d.sync += [
                room.eq(room + 1),
                able.eq(1),
            ]
        return m
