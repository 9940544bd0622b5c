"""Feeds raw pages (page, then out-of-band area) from the page buffer to one channel."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.onflash import OOB_MAGIC

from ..interfaces import Layouts, index_bits
from ..primitives.fifo import StreamFifo

__all__ = ["BeatReader", "PageFeeder", "feed_job_layout", "read_layout"]

_AHEAD = 4  # beats read ahead: covers the buffer's and the FIFO's latency at one beat per cycle


def feed_job_layout(config: DeviceConfig) -> data.StructLayout:
    return data.StructLayout({"slot": index_bits(config.host.page_slots), "lpn": 32, "sequence": 64})


def read_layout(config: DeviceConfig) -> data.StructLayout:
    """Address of a beat in the page buffer: {slot, beat}."""
    return data.StructLayout({"beat": log2(config.page_beats), "slot": index_bits(config.host.page_slots)})


class BeatReader(wiring.Component):
    """Client of the page buffer's shared read port: ``addr`` in, the beat on ``o`` in order.

    ``read`` goes to the port's arbiter; one cycle after its transfer the beat is on ``data`` with ``arrives``.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        bits = config.beat_bytes * 8
        super().__init__({
            "addr": In(stream.Signature(read_layout(config))),
            "read": Out(stream.Signature(read_layout(config))),
            "arrives": In(1),
            "data": In(bits),
            "o": Out(stream.Signature(bits)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = StreamFifo(self.config.beat_bytes * 8, _AHEAD)
        credit = Signal(range(_AHEAD + 1), init=_AHEAD)
        m.d.comb += [
            self.read.valid.eq(self.addr.valid & (credit != 0)), self.read.payload.eq(self.addr.payload),
            self.addr.ready.eq(self.read.ready & (credit != 0)),
            fifo.i.valid.eq(self.arrives), fifo.i.payload.eq(self.data),
            self.o.valid.eq(fifo.o.valid), self.o.payload.eq(fifo.o.payload), fifo.o.ready.eq(self.o.ready)]
        m.d.sync += credit.eq(credit - (self.read.valid & self.read.ready) + (self.o.valid & self.o.ready))
        return m


class PageFeeder(wiring.Component):
    """For each ``job`` {slot, lpn, sequence} the raw page of that slot on ``o``, in order; the OOB area is made here
    (:func:`nearflash.contract.onflash.oob`). Up to ``page_slots`` jobs wait. ``read``, ``arrives``, ``data``: see
    :class:`BeatReader`. Latency 4 cycles, one beat per cycle when the port is free."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        bits = config.beat_bytes * 8
        super().__init__({
            "job": In(stream.Signature(feed_job_layout(config))),
            "read": Out(stream.Signature(read_layout(config))),
            "arrives": In(1),
            "data": In(bits),
            "o": Out(stream.Signature(bits)),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        lay = Layouts(c)
        m.submodules.jobs = jobs = StreamFifo(feed_job_layout(c), c.host.page_slots)
        m.submodules.reader = reader = BeatReader(c)
        m.d.comb += [
            jobs.i.valid.eq(self.job.valid), jobs.i.payload.eq(self.job.payload), self.job.ready.eq(jobs.i.ready),
            self.read.valid.eq(reader.read.valid), self.read.payload.eq(reader.read.payload),
            reader.read.ready.eq(self.read.ready), reader.arrives.eq(self.arrives), reader.data.eq(self.data)]
        asked = Signal(log2(c.page_beats) + 1)
        sent = Signal(range(c.raw_page_beats))
        job = jobs.o.payload
        in_page = Signal()
        area = Cat(Const(OOB_MAGIC, 32), job.lpn, job.sequence)  # 16 bytes; the rest of the area is zeros
        m.d.comb += [
            reader.addr.valid.eq(jobs.o.valid & (asked != c.page_beats)),
            reader.addr.payload.beat.eq(asked), reader.addr.payload.slot.eq(job.slot),
            in_page.eq(sent < c.page_beats), reader.o.ready.eq(self.o.ready & in_page)]
        with m.If(in_page):
            m.d.comb += [self.o.valid.eq(reader.o.valid), self.o.payload.eq(reader.o.payload)]
        with m.Else():
            m.d.comb += self.o.valid.eq(1)
            for k in range(-(-16 // c.beat_bytes)):
                with m.If(sent == c.page_beats + k):
                    m.d.comb += self.o.payload.eq(area[k * lay.data_bits : (k + 1) * lay.data_bits])
        with m.If(reader.addr.valid & reader.addr.ready):
            m.d.sync += asked.eq(asked + 1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += sent.eq(sent + 1)
            with m.If(sent == c.raw_page_beats - 1):
                m.d.comb += jobs.o.ready.eq(1)
                m.d.sync += [sent.eq(0), asked.eq(0)]
        return m
