"""Which reads of a channel's queues want the page that their die is reading, and go before others."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for, index_bits

__all__ = ["PageWindow"]


class PageWindow(wiring.Component):
    """Walks the linked lists of :class:`~.queue.DieQueues`, of ``depth`` entries of ``dies`` dies; moves entries forward.

    A die keeps the row (block and page, ``row_bits``) of the entry last popped. When it changes, the walk begins anew at the
    die's head, with ``window`` entries to look at; it goes on as entries come, and does not see those that are popped before
    it gets there. One walker serves all dies, the lowest that has something to look at first: there is time, as reading a
    page takes thousands of cycles. An entry takes it 2 cycles (READ, CHECK), and one that is moved 2 more (CUT, FRONT), in
    which the queue neither takes nor gives (``moving``). The first entry needs no move.

    A pop at any other time ends the walk, which begins again behind the last entry that it has done with. An entry that was
    the last in READ and no longer is in CUT is looked at again: what follows it isn't known.
    """

    def __init__(self, row_bits: int, dies: int, depth: int, window: int):
        self.row_bits, self.dies, self.depth, self.window = row_bits, dies, depth, window
        entry, die = index_bits(depth), index_bits(dies)
        super().__init__({
            #: The queue gives an entry of a die; in the next cycle its row is on ``row``, and it is still the head.
            "popped": In(1),
            "popped_die": In(die),
            #: The queue takes an entry of a die.
            "pushed": In(1),
            "pushed_die": In(die),
            #: The memories' outputs may change.
            "rest": In(1),
            #: The die that is walked.
            "die": Out(die),
            #: Of that die: its list's first and last entry, and whether it has any.
            "head": In(entry),
            "tail": In(entry),
            "pending": In(1),
            #: An entry of which row and link are wanted,
            "at": Out(entry),
            #: and in the next cycle here.
            "row": In(row_bits),
            "link": In(entry),
            #: Two cycles of a move: neither push nor pop.
            "moving": Out(1),
            #: The link of an entry is another.
            "cut": Out(1),
            "cut_at": Out(entry),
            "cut_to": Out(entry),
            #: An entry becomes the die's head;
            "front": Out(1),
            "entry": Out(entry),
            #: it was the last, and this is now.
            "shorten": Out(1),
            "before": Out(entry),
        })

    def elaborate(self, platform):
        m = Module()
        entry_bits = index_bits(self.depth)
        context = data.StructLayout({"row": self.row_bits, "before": entry_bits, "left": bits_for(self.window)})
        m.submodules.contexts = contexts = Memory(shape=context, depth=1 << index_bits(self.dies), init=[])
        put, get = contexts.write_port(), contexts.read_port(domain="comb")
        here = get.data
        # A bit per die: it has a row; its ``before`` is in the list; there may be something to look at.
        known, begun, unseen = Signal(self.dies), Signal(self.dies), Signal(self.dies)
        entry, following, more = Signal(entry_bits), Signal(entry_bits), Signal()
        ends, same, lost = Signal(), Signal(), Signal()
        look = Signal()
        m.d.comb += [
            get.addr.eq(self.die),
            put.addr.eq(self.die),
            put.data.eq(here),
            ends.eq(here.left == 1),
            same.eq(self.row == here.row),
            self.entry.eq(entry),
            self.before.eq(here.before),
            self.at.eq(Mux(look, here.before, entry)),
            lost.eq(~more & (entry != self.tail)),
        ]

        def seen():
            m.d.comb += [
                put.en.eq(1),
                put.data.left.eq(here.left - 1),
            ]

        with m.FSM():
            def unless_popped():
                """A pop goes first, and its row is known in the next cycle."""
                with m.If(self.popped):
                    m.d.sync += self.die.eq(self.popped_die)
                    m.next = "TAKEN"
                return m.Else()

            with m.State("REST"):
                with unless_popped():
                    with m.If(unseen.any() & self.rest):
                        for d in reversed(range(self.dies)):
                            with m.If(unseen[d]):
                                m.d.sync += self.die.eq(d)
                        m.next = "LOOK"
            with m.State("TAKEN"):
                with m.If(~known.bit_select(self.die, 1) | ~same):
                    m.d.comb += [
                        put.en.eq(1),
                        put.data.row.eq(self.row),
                        put.data.left.eq(self.window),
                    ]
                    m.d.sync += [
                        known.bit_select(self.die, 1).eq(1),
                        begun.bit_select(self.die, 1).eq(0),
                        unseen.bit_select(self.die, 1).eq(1),
                    ]
                with m.Elif(here.before == self.head):
                    m.d.sync += begun.bit_select(self.die, 1).eq(0)
                m.next = "REST"
            with m.State("LOOK"):
                m.d.comb += look.eq(1)
                with unless_popped():
                    m.d.sync += entry.eq(self.head)
                    with m.If((here.left == 0) | ~known.bit_select(self.die, 1)
                              | Mux(begun.bit_select(self.die, 1), here.before == self.tail, ~self.pending)):
                        m.d.sync += unseen.bit_select(self.die, 1).eq(0)
                        m.next = "REST"
                    with m.Elif(begun.bit_select(self.die, 1)):
                        m.next = "FIND"
                    with m.Else():
                        m.next = "READ"
            with m.State("FIND"):
                m.d.sync += entry.eq(self.link)
                with unless_popped():
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += more.eq(entry != self.tail)
                with unless_popped():
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += following.eq(self.link)
                with unless_popped():
                    with m.If(same & begun.bit_select(self.die, 1)):
                        m.next = "CUT"
                    with m.Else():
                        seen()
                        m.d.comb += put.data.before.eq(entry)
                        m.d.sync += [
                            begun.bit_select(self.die, 1).eq(1),
                            entry.eq(self.link),
                        ]
                        m.next = "REST"
                        with m.If(more & ~ends):
                            m.next = "READ"
            with m.State("CUT"):
                m.d.comb += [
                    self.moving.eq(1),
                    self.cut.eq(more),
                    self.cut_at.eq(here.before),
                    self.cut_to.eq(following),
                ]
                m.next = "FRONT"
            with m.State("FRONT"):
                m.d.comb += [
                    self.moving.eq(1),
                    self.cut.eq(~lost),
                    self.cut_at.eq(entry),
                    self.cut_to.eq(self.head),
                    self.front.eq(~lost),
                    self.shorten.eq(~lost & ~more),
                ]
                with m.If(~lost):
                    seen()
                m.d.sync += entry.eq(following)
                m.next = "REST"
                with m.If(more & ~ends):
                    m.next = "READ"
        with m.If(self.pushed):
            m.d.sync += unseen.bit_select(self.pushed_die, 1).eq(1)
        return m
