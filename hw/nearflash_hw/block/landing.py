"""Pages that arrive from the flash find a slot of the read buffer."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from ..primitives.pool import Pool
from .layouts import BlockLayouts

__all__ = ["Landing"]


class Landing(wiring.Component):
    """Writes the pages on ``flash_data`` into the read buffer (``write_*``; {beat, slot}), each into a slot of its own, and
    offers each on ``page`` once it is there whole. ``free`` gives a slot back.

    A channel sends a page only while its bit of ``room`` is set, and at its first beat the bit falls; it is set, with a slot
    set aside, for a channel that ``waits`` and is not sending. So ``flash_data`` is always taken: n channels together at one
    beat a cycle. Channels that wait for one of few slots get it in turn. Latency 2 cycles from the last beat to ``page``.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay, n = BlockLayouts.of(config), config.flash.channels
        super().__init__({
            #: Of each channel; always taken.
            "flash_data": In(stream.Signature(lay.flash_data)).array(n),
            #: A bit per channel: a page wants to come.
            "waits": In(n),
            #: A bit per channel: it may.
            "room": Out(n),
            #: A slot comes back.
            "free": In(stream.Signature(lay.read_slot_bits, always_ready=True)),
            #: It is in its slot, whole.
            "page": Out(stream.Signature(lay.page)),
            #: The read buffer's port; {beat, slot}.
            "write_en": Out(1),
            "write_addr": Out(log2(config.page_beats) + lay.read_slot_bits),
            "write_data": Out(lay.data_bits),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay, n = self.config, BlockLayouts.of(self.config), self.config.flash.channels
        m.submodules.slots = slots = Pool(c.host.read_slots)
        connect(m, flipped(self.free), slots.i)
        m.submodules.pages = pages = StreamFifo(lay.page, c.host.read_slots)
        connect(m, pages.o, flipped(self.page))
        m.submodules.arbiter = arbiter = StreamArbiter(lay.flash_data, n)
        for k in range(n):
            connect(m, flipped(self.flash_data[k]), arbiter.i[k])

        # -- where each channel is in its page
        place_layout = data.StructLayout({"beat": log2(c.page_beats), "slot": lay.read_slot_bits})
        m.submodules.places = places = Memory(shape=place_layout, depth=n, init=[])
        put, place = places.write_port(), places.read_port(domain="comb")
        sending = Signal(n)
        arrived, first = Signal(), Signal()
        now = Signal(place_layout)
        beat = arbiter.o.payload
        m.d.comb += [
            arbiter.o.ready.eq(1),
            arrived.eq(arbiter.o.valid),
            first.eq(~sending.bit_select(arbiter.grant, 1)),
            place.addr.eq(arbiter.grant),
            put.addr.eq(arbiter.grant),
            put.en.eq(arrived),
            now.beat.eq(Mux(first, 0, place.data.beat)),
            now.slot.eq(Mux(first, slots.o.payload, place.data.slot)),
            put.data.beat.eq(now.beat + 1),
            put.data.slot.eq(now.slot),
            slots.o.ready.eq(arrived & first),
        ]
        ends = Signal()
        tag, bad = Signal(lay.read_bits), Signal()
        m.d.sync += [
            self.write_en.eq(arrived),
            self.write_addr.eq(now),
            self.write_data.eq(beat.data),
            ends.eq(arrived & beat.last),
            tag.eq(beat.tag),
            bad.eq(beat.error),
        ]
        with m.If(arrived):
            m.d.sync += sending.bit_select(arbiter.grant, 1).eq(~beat.last)
        m.d.comb += [
            pages.i.valid.eq(ends),
            pages.i.payload.tag.eq(tag),
            pages.i.payload.bad.eq(bad),
            pages.i.payload.slot.eq(self.write_addr[log2(c.page_beats) :]),
        ]

        # -- slots set aside, a channel at a time
        turn = Signal(range(n))
        wanting = Signal(n)
        wants, spare, gives = Signal(), Signal(), Signal()
        m.d.comb += [
            wanting.eq(self.waits & ~self.room & ~sending),
            spare.eq(slots.level > sum((bit for bit in self.room), Value.cast(0))),
            wants.eq(wanting.bit_select(turn, 1)),
            gives.eq(wants & spare),
        ]
        with m.If(wanting.any() & (~wants | spare)):  # at rest where nobody waits: a simulation passes over that
            m.d.sync += turn.eq(turn + 1)
        for k in range(n):
            with m.If(gives & (turn == k)):
                m.d.sync += self.room[k].eq(1)
            with m.Elif(arrived & (arbiter.grant == k)):
                m.d.sync += self.room[k].eq(0)
        return m
