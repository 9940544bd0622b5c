"""Feeds raw pages (page, then out-of-band area) from the write buffer to the channels."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.onflash import OOB_MAGIC

from ..interfaces import bits_for
from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from .beat_reader import BeatReader
from .layouts import BlockLayouts

__all__ = ["PageFeeders"]


class PageFeeders(wiring.Component):
    """For each ``feed`` the raw page of its slot on its channel's ``flash_in``; of one channel in order, of several at once.
    The out-of-band area is made here (:func:`nearflash.contract.onflash.oob`). A job is taken while its slot has none.

    ``read_*`` is the buffer's port ({beat, slot}; the beat is on ``read_data`` a cycle after ``read_en``), which all
    channels share: one beat a cycle together. Latency 4 cycles on an idle port.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay, n = BlockLayouts.of(config), config.flash.channels
        super().__init__({
            #: A page to send; always room.
            "feed": In(stream.Signature(lay.feed, always_ready=True)),
            #: Of each channel: the raw page.
            "flash_in": Out(stream.Signature(lay.data_bits)).array(n),
            #: The write buffer's port; {beat, slot}, the beat a cycle later.
            "read_en": Out(1),
            "read_addr": Out(log2(config.page_beats) + lay.page_slot_bits),
            "read_data": In(lay.data_bits),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay, n = self.config, BlockLayouts.of(self.config), self.config.flash.channels
        page_beats, raw_beats = c.page_beats, c.raw_page_beats
        job = self.feed.payload
        # One memory of what goes into the areas, by slot: a copy with every channel's jobs would take n of them.
        m.submodules.areas = areas = Memory(
            shape=data.StructLayout({"lpn": lay.lba_bits, "sequence": 64}), depth=c.host.page_slots, init=[])
        put, area = areas.write_port(), areas.read_port(domain="comb")
        m.d.comb += [
            put.en.eq(self.feed.valid),
            put.addr.eq(job.slot),
            put.data.lpn.eq(job.lpn),
            put.data.sequence.eq(job.sequence),
        ]

        place = data.StructLayout({"beat": bits_for(raw_beats - 1), "slot": lay.page_slot_bits})
        m.submodules.arbiter = arbiter = StreamArbiter(place, n)
        grant, arrives = Signal.like(arbiter.grant), Signal()
        word = Signal(lay.data_bits)
        for k in range(n):
            m.submodules[f"jobs{k}"] = jobs = StreamFifo(lay.page_slot_bits, c.host.page_slots)
            m.submodules[f"reader{k}"] = reader = BeatReader(lay.data_bits, place.size)
            beat, final = Signal(bits_for(raw_beats - 1), name=f"beat{k}"), Signal(name=f"final{k}")
            m.d.comb += [
                jobs.i.valid.eq(self.feed.valid & (job.channel == k)),
                jobs.i.payload.eq(job.slot),
                reader.addr.valid.eq(jobs.o.valid),
                reader.addr.payload.eq(Cat(beat, jobs.o.payload)),
                final.eq(beat == raw_beats - 1),
                jobs.o.ready.eq(reader.addr.ready & final),
                arbiter.i[k].valid.eq(reader.read.valid),
                arbiter.i[k].payload.eq(reader.read.payload),
                reader.read.ready.eq(arbiter.i[k].ready),
                reader.arrives.eq(arrives & (grant == k)),
                reader.data.eq(word),
            ]
            with m.If(jobs.o.valid & reader.addr.ready):
                m.d.sync += beat.eq(Mux(final, 0, beat + 1))
            connect(m, reader.o, flipped(self.flash_in[k]))

        asked = arbiter.o.payload
        outside, made = Signal(), Signal(lay.data_bits, reset_less=True)
        content = Cat(Const(OOB_MAGIC, 32), area.data.lpn | Const(0, 32), area.data.sequence)  # the area's rest is zeros
        m.d.comb += [
            arbiter.o.ready.eq(1),
            area.addr.eq(asked.slot),
            self.read_en.eq(arbiter.o.valid),
            self.read_addr.eq(Cat(asked.beat[: log2(page_beats)], asked.slot)),
            word.eq(Mux(outside, made, self.read_data)),
        ]
        m.d.sync += [
            grant.eq(arbiter.grant),
            arrives.eq(arbiter.o.valid),
            outside.eq(asked.beat >= page_beats),
            made.eq(0),
        ]
        for k in range(-(-len(content) // lay.data_bits)):
            with m.If(asked.beat == page_beats + k):
                m.d.sync += made.eq(content[k * lay.data_bits : (k + 1) * lay.data_bits])
        return m
