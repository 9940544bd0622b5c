"""Which reads of a channel's queues want the very vector that their die is reading, and are answered with it."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import index_bits

__all__ = ["Repeats"]


class Repeats(wiring.Component):
    """A linked list for each of ``dies`` in the memories of :class:`~.queue.DieQueues`, of ``depth`` entries; the last
    entry's link leads to itself. Payloads have a tag of ``tag_bits``.

    A die's list takes entries from the pop of a read until that read's vector goes out on the bus, or is about to
    (``sent``): from then on the bus has the list, whose tags come on ``tag``, and the die may be given its next read. The
    bus has to be through with a list before another vector is sent.
    """

    def __init__(self, dies: int, depth: int, tag_bits: int):
        self.dies, self.depth, self.tag_bits = dies, depth, tag_bits
        entry, die = index_bits(depth), index_bits(dies)
        super().__init__({
            #: The queue gives an entry of a die.
            "popped": In(1),
            "popped_die": In(die),
            #: Pulses, a bit per die: its vector goes out.
            "sent": In(dies),
            #: A die, and whether its list takes an entry in this cycle.
            "die": In(die),
            "open": Out(1),
            #: It does,
            "add": In(1),
            "entry": In(entry),
            #: and this is to be the entry's link.
            "follows": Out(entry),
            #: An entry is to be read,
            "wanted": Out(1),
            "at": Out(entry),
            #: and is, in this cycle;
            "taken": In(1),
            #: in the next one it is free, and here is what it holds.
            "link": In(entry),
            "read_tag": In(tag_bits),
            #: Of each read of the list that the bus has.
            "tag": Out(stream.Signature(tag_bits)),
            #: There are more.
            "more": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        takes, holds = Signal(self.dies), Signal(self.dies)
        heads = Array(Signal(index_bits(self.depth), name=f"head_{d}") for d in range(self.dies))
        some, reading = Signal(), Signal()
        m.d.comb += [
            self.open.eq((takes & ~self.sent).bit_select(self.die, 1)),
            self.follows.eq(Mux(holds.bit_select(self.die, 1), heads[self.die], self.entry)),
            self.wanted.eq(some & ~reading & ~self.tag.valid),
            self.more.eq(some | self.tag.valid),
        ]
        m.d.sync += reading.eq(self.taken)
        with m.If(self.popped):
            m.d.sync += takes.bit_select(self.popped_die, 1).eq(1)
        with m.If(self.add):
            m.d.sync += [
                heads[self.die].eq(self.entry),
                holds.bit_select(self.die, 1).eq(1),
            ]
        with m.If(self.tag.ready):
            m.d.sync += self.tag.valid.eq(0)
        with m.If(reading):
            m.d.sync += [
                self.tag.valid.eq(1),
                self.tag.payload.eq(self.read_tag),
                self.at.eq(self.link),
                some.eq(self.link != self.at),
            ]
        for d in range(self.dies):
            with m.If(self.sent[d]):
                m.d.sync += [
                    takes[d].eq(0),
                    holds[d].eq(0),
                    self.at.eq(heads[d]),
                    some.eq(holds[d]),
                ]
        return m
