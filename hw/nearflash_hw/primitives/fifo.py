"""A stream FIFO."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for, index_bits

__all__ = ["StreamFifo"]

BUFFERED_DEPTH = 64  # from here on


class StreamFifo(wiring.Component):
    """FIFO of ``depth`` payloads of ``shape``. ``buffered`` (if not said: from 64 payloads up): the oldest waits in the
    output register of a memory that may be block RAM, latency 2, and there may be one more than ``depth``; else latency 1,
    in distributed RAM.

    Amaranth's FIFOs would do, but a device has scores of them, and those count their level beside their pointers and enable
    each of the three: half of the device's control sets.
    """

    def __init__(self, shape, depth: int, buffered: bool | None = None):
        if depth < 1:
            raise ValueError(f"depth = {depth}: must be at least 1")
        self.depth = depth
        self.buffered = depth >= BUFFERED_DEPTH if buffered is None else buffered
        if self.buffered and depth < 2:
            raise ValueError(f"depth = {depth}: must be at least 2 where buffered")
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            #: How many it holds.
            "level": Out(bits_for(depth + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        given, out = Value.cast(self.i.payload), Value.cast(self.o.payload)
        bits = index_bits(self.depth)
        m.submodules.memory = memory = Memory(shape=len(given), depth=1 << bits, init=[])
        write, read = memory.write_port(), memory.read_port(domain="sync" if self.buffered else "comb")
        # They count one bit further than the memory has places, so that they differ when it is full.
        produce, consume = Signal(bits + 1), Signal(bits + 1)
        put, take = Signal(), Signal()
        stored = Signal(bits + 1)  # in the memory
        m.d.comb += [
            stored.eq(produce - consume),
            put.eq(self.i.valid & self.i.ready),
            write.en.eq(put),
            write.addr.eq(produce[:bits]),
            write.data.eq(given),
            read.addr.eq(consume[:bits]),
            out.eq(read.data),
        ]
        # Added to and not enabled: an enable each would be a control set of a few flip-flops.
        m.d.sync += [
            produce.eq(produce + put),
            consume.eq(consume + take),
        ]
        if self.buffered:
            free = ~self.o.valid | self.o.ready
            m.d.comb += [
                take.eq((produce != consume) & free),
                read.en.eq(take),
                self.level.eq(stored + self.o.valid),
            ]
            # Ready in a register, for the paths that come through here are long: the memory has a place more than it needs,
            # for what is put in the cycle in which it is found full.
            ready = Signal(init=1)
            m.d.comb += self.i.ready.eq(ready)
            m.d.sync += [
                self.o.valid.eq(Mux(free, produce != consume, 1)),
                ready.eq((stored < self.depth - 1) | take),
            ]
        else:
            m.d.comb += [
                self.o.valid.eq(produce != consume),
                take.eq(self.o.valid & self.o.ready),
                self.level.eq(stored),
                self.i.ready.eq(produce ^ consume != 1 << bits if self.depth == 1 << bits else stored != self.depth),
            ]
        return m
