"""Which reads of a channel's queues want the page that their die is reading: they go before others, or with its vector."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for, index_bits

__all__ = ["PageWindow"]


class PageWindow(wiring.Component):
    """Walks the linked lists of :class:`~.queue.DieQueues`, of ``depth`` entries of ``dies`` dies; moves entries forward, or
    to the die's :class:`~.repeats.Repeats`.

    A die keeps the row (block and page, ``row_bits``) and the place in it (first beat and length, ``place_bits``) of the
    entry last popped. At each pop the walk begins anew at the die's head, and when the row changes, with ``window`` entries
    to look at; it goes on as entries come, and does not see those that are popped before it gets there. An entry of the same
    row and place joins the repeats while they are ``open``, any other of the same row is moved to the front. One walker
    serves all dies, the lowest that has something to look at first: there is time, as reading a page takes thousands of
    cycles. An entry takes it 2 cycles (READ, CHECK), and one that is moved 2 more (CUT, MOVE), in which the queue neither
    takes nor gives (``moving``). The first entry needs no move to the front, and 1 cycle (BEHEAD) to the repeats.

    A pop at any other time ends the walk; where the memories are wanted for a repeat (``lent``) it goes on behind the last
    entry that it has done with. An entry that was the last in READ and no longer is when it would be moved is looked at
    again: what follows it isn't known.
    """

    def __init__(self, row_bits: int, place_bits: int, dies: int, depth: int, window: int):
        self.row_bits, self.place_bits, self.dies, self.depth, self.window = row_bits, place_bits, dies, depth, window
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
            #: Their outputs are another's in the next cycle.
            "lent": In(1),
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
            "place": In(place_bits),
            "link": In(entry),
            #: The die's repeats take an entry in this cycle,
            "open": In(1),
            #: and this would be its link.
            "follows": In(entry),
            #: Cycles of a move: neither push nor pop.
            "moving": Out(1),
            #: The link of an entry is another.
            "cut": Out(1),
            "cut_at": Out(entry),
            "cut_to": Out(entry),
            #: An entry becomes the die's head,
            "front": Out(1),
            "entry": Out(entry),
            #: or joins the repeats;
            "aside": Out(1),
            #: it was the last, and this is now,
            "shorten": Out(1),
            "before": Out(entry),
            #: or the first, and this is now,
            "behead": Out(1),
            "following": Out(entry),
            #: or both.
            "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        entry_bits = index_bits(self.depth)
        context = data.StructLayout({"row": self.row_bits, "place": self.place_bits, "before": entry_bits,
                                     "left": bits_for(self.window)})
        m.submodules.contexts = contexts = Memory(shape=context, depth=1 << index_bits(self.dies), init=[])
        put, get = contexts.write_port(), contexts.read_port(domain="comb")
        here = get.data
        # A bit per die: it has a row; its ``before`` is in the list; there may be something to look at.
        known, begun, unseen = Signal(self.dies), Signal(self.dies), Signal(self.dies)
        entry, more = Signal(entry_bits), Signal()
        ends, same, repeats, lost = Signal(), Signal(), Signal(), Signal()
        look = Signal()
        m.d.comb += [
            get.addr.eq(self.die),
            put.addr.eq(self.die),
            put.data.eq(here),
            ends.eq(here.left == 1),
            same.eq(self.row == here.row),
            repeats.eq(same & (self.place == here.place) & self.open),
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
            def undisturbed():
                """A pop goes first, and its row is known in the next cycle."""
                with m.If(self.popped):
                    m.d.sync += self.die.eq(self.popped_die)
                    m.next = "TAKEN"
                with m.Elif(self.lent):
                    m.next = "REST"
                return m.Else()

            with m.State("REST"):
                with undisturbed():
                    with m.If(unseen.any() & self.rest):
                        for d in reversed(range(self.dies)):
                            with m.If(unseen[d]):
                                m.d.sync += self.die.eq(d)
                        m.next = "LOOK"
            with m.State("TAKEN"):
                m.d.comb += [
                    put.en.eq(1),
                    put.data.row.eq(self.row),
                    put.data.place.eq(self.place),
                ]
                with m.If(~known.bit_select(self.die, 1) | ~same):
                    m.d.comb += put.data.left.eq(self.window)
                m.d.sync += [
                    known.bit_select(self.die, 1).eq(1),
                    begun.bit_select(self.die, 1).eq(0),
                    unseen.bit_select(self.die, 1).eq(1),
                ]
                m.next = "REST"
            with m.State("LOOK"):
                m.d.comb += look.eq(1)
                with undisturbed():
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
                with undisturbed():
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += more.eq(entry != self.tail)
                with undisturbed():
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += self.following.eq(self.link)
                with undisturbed():
                    with m.If(same & begun.bit_select(self.die, 1)):
                        m.next = "CUT"
                    with m.Elif(repeats):
                        m.next = "BEHEAD"
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
                    self.cut_to.eq(self.following),
                ]
                m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += [
                    self.moving.eq(1),
                    self.cut.eq(~lost),
                    self.cut_at.eq(entry),
                    self.cut_to.eq(Mux(repeats, self.follows, self.head)),
                    self.front.eq(~lost & ~repeats),
                    self.aside.eq(~lost & repeats),
                    self.shorten.eq(~lost & ~more),
                ]
                with m.If(~lost):
                    seen()
                m.d.sync += entry.eq(self.following)
                m.next = "REST"
                with m.If(more & ~ends):
                    m.next = "READ"
            with m.State("BEHEAD"):  # not when the list is closed: then a free die may have been promised its head
                m.d.comb += self.moving.eq(1)
                with m.If(repeats & ~lost):
                    seen()
                    m.d.comb += [
                        self.cut.eq(1),
                        self.cut_at.eq(entry),
                        self.cut_to.eq(self.follows),
                        self.aside.eq(1),
                        self.behead.eq(1),
                        self.empty.eq(~more),
                    ]
                m.next = "REST"
        with m.If(self.pushed):
            m.d.sync += unseen.bit_select(self.pushed_die, 1).eq(1)
        return m
