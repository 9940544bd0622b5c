"""Vectors from the channels, one at a time, with what their tags stand for."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, bits_for
from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from ..primitives.register_slice import RegisterSlice
from .layouts import CARRIED, LookupLayouts

__all__ = ["Merge"]


class Merge(wiring.Component):
    """Round-robin over ``flash_data[channel]``, whole vectors; the tag's entry is read as its beats pass. One beat per
    cycle. ``tag_free`` gives the tag back in the cycle after the vector's last beat on ``vector``.

    A vector is passed on once it is here whole: its first beat leaves 3 cycles (4 from 64 beats of buffer up) after its
    last one came in. A channel's bus is several times slower than ``vector``, so a vector passed on as it comes in would
    keep the buses of all other channels waiting for as long as it takes. Each channel has room for two of the largest
    vectors: one comes in while the other waits for its turn. With a row cache, ``flash_data`` has one more, after the
    channels', of rows that were found there; and ``entry`` is what the vector's tag stands for.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        lo = Layouts.of(config)
        self.sources = config.flash.channels + (config.row_cache.lines > 0)
        super().__init__({
            #: Of each channel, whole vectors.
            "flash_data": In(stream.Signature(lo.flash_data)).array(self.sources),
            #: Pulses with what a ``tag`` stands for from now on.
            "tag_write_valid": In(1),
            "tag_write": In(data.StructLayout({"tag": lo.tag_bits, "entry": LookupLayouts.of(config).tag_entry})),
            #: In the cycle after the vector's last beat.
            "tag_free": Out(stream.Signature(lo.tag_bits, always_ready=True)),
            #: With what its tag stands for.
            "vector": Out(stream.Signature(lo.vector_beat)),
            #: All that its tag stands for.
            **({"entry": Out(LookupLayouts.of(config).tag_entry)} if config.row_cache.lines else {}),
        })

    def elaborate(self, platform):
        m = Module()
        c, lo = self.config, Layouts.of(self.config)
        m.submodules.arbiter = arbiter = StreamArbiter(lo.flash_data, self.sources, packet=True)
        room = 2 * -(-4 * c.lookup.max_dim // c.beat_bytes)
        for k in range(self.sources):
            m.submodules[f"buffer{k}"] = buffer = StreamFifo(lo.flash_data, room)
            connect(m, flipped(self.flash_data[k]), buffer.i)
            whole = Signal(bits_for(room), name=f"whole{k}")  # vectors in the buffer
            waiting = Signal(name=f"waiting{k}")  # any: kept beside the count, which is too wide to look at on the way
            came, left = Signal(name=f"came{k}"), Signal(name=f"left{k}")
            m.d.comb += [
                came.eq(buffer.i.valid & buffer.i.ready & buffer.i.payload.last),
                left.eq(buffer.o.valid & buffer.o.ready & buffer.o.payload.last),
                arbiter.i[k].valid.eq(buffer.o.valid & waiting),
                arbiter.i[k].payload.eq(buffer.o.payload),
                buffer.o.ready.eq(arbiter.i[k].ready & waiting),
            ]
            with m.If(came & ~left):
                m.d.sync += [
                    whole.eq(whole + 1),
                    waiting.eq(1),
                ]
            with m.Elif(left & ~came):
                m.d.sync += [
                    whole.eq(whole - 1),
                    waiting.eq(whole != 1),
                ]
        m.submodules.entries = ram = Memory(shape=LookupLayouts.of(c).tag_entry, depth=c.lookup.tags, init=[])
        write, read = ram.write_port(), ram.read_port()

        # A beat waits in a slice of its own before its tag's entry is read: from one memory through the arbiter into the
        # next one's address would be too much for a cycle, and so would be the way back from whoever takes vectors.
        m.submodules.chosen = chosen = RegisterSlice(lo.flash_data)
        connect(m, arbiter.o, chosen.i)
        beat = Signal(lo.flash_data, reset_less=True)
        valid, first, failed = Signal(), Signal(init=1), Signal()
        room_ahead, sent = Signal(), Signal()
        p = self.vector.payload
        m.d.comb += [
            write.en.eq(self.tag_write_valid),
            write.addr.eq(self.tag_write.tag),
            write.data.eq(self.tag_write.entry),
            sent.eq(valid & self.vector.ready),
            room_ahead.eq(~valid | self.vector.ready),
            chosen.o.ready.eq(room_ahead),
            read.addr.eq(chosen.o.payload.tag),
            read.en.eq(chosen.o.valid & room_ahead),
            self.vector.valid.eq(valid),
            p.data.eq(beat.data),
            p.first.eq(first),
            p.last.eq(beat.last),
            p.error.eq(beat.error | failed),
            *(getattr(p, k).eq(getattr(read.data, k)) for k in CARRIED),
        ]
        if c.row_cache.lines:
            m.d.comb += self.entry.eq(read.data)
        m.d.sync += [
            self.tag_free.valid.eq(sent & beat.last),
            self.tag_free.payload.eq(beat.tag),
        ]
        with m.If(room_ahead):
            m.d.sync += valid.eq(chosen.o.valid)
        with m.If(read.en):
            m.d.sync += beat.eq(chosen.o.payload)
        with m.If(sent):
            m.d.sync += [
                first.eq(beat.last),
                failed.eq(p.error & ~beat.last),
            ]
        return m
