"""What waits for a channel's dies: one queue per die in one shared memory, or one FIFO alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from ..interfaces import bits_for, index_bits
from ..primitives.fifo import StreamFifo
from .repeats import Repeats
from .window import PageWindow

__all__ = ["DieQueue", "DieQueues"]


class DieQueues(wiring.Component):
    """``dies`` queues (linked lists) of payloads of ``layout``, which has a field ``die``; they share ``depth`` entries.

    ``i`` takes a payload per cycle while an entry is free; it pauses for 3 cycles at each pop, because a push writes the
    link that a pop may be reading. ``pending`` has a bit per die that holds at least one payload. A transfer on ``pop``
    (a die number whose ``pending`` bit is set) takes that die's first payload, which is on ``o`` one cycle later.
    ``flagged``: ``flag(payload)`` of each die's first payload; valid when ``pending`` is set and ``pop.ready`` is high.
    ``counted``: ``waiting`` says how many payloads each die has.

    With a ``window`` (no ``flag`` then; payloads are flash commands) reads of a page go together. For each page that is
    read, the next ``window`` payloads of the die's queue are looked at in their order, those that come meanwhile too, and
    each of the same page is moved to the front (:class:`~.window.PageWindow`). So a payload is passed over by at most
    ``window`` younger ones for each page that is read until it is taken, and those are at most the one under way and one
    for each payload that was before it when it came. One with the same column and beats too, found before the die's vector
    is sent, isn't popped: its tag comes on ``repeat`` (:class:`~.repeats.Repeats`), and until the last has come, while
    ``repeats``, no other vector may be sent.
    """

    def __init__(self, layout: data.Layout, dies: int, depth: int, flag: Callable[[Any], ValueLike] | None = None,
                 window: int = 0, counted: bool = False):
        if dies < 1 or depth < 1:
            raise ValueError(f"dies = {dies}, depth = {depth}: must be at least 1")
        if window < 0 or (window and flag):
            raise ValueError(f"window = {window}: must be at least 0, and 0 with a flag")
        self.layout, self.dies, self.depth, self.flag, self.window = layout, dies, depth, flag, window
        repeats = {
            #: Pulses, a bit per die: the vector of its last command goes out on the bus.
            "sent": In(dies),
            #: The tags of commands that want the same.
            "repeat": Out(stream.Signature(layout["tag"].shape)),
            #: There are more of them.
            "repeats": Out(1),
        } if window else {}
        self.counted = counted
        #: Payloads that wait for each die, where they are counted.
        counts = {"waiting": Out(data.ArrayLayout(bits_for(depth), dies))} if counted else {}
        super().__init__({
            **counts,
            #: Commands of any dies.
            "i": In(stream.Signature(layout)),
            #: The die whose first command is wanted.
            "pop": In(stream.Signature(index_bits(dies))),
            #: That command.
            "o": Out(stream.Signature(layout)),
            #: A bit per die: a command waits.
            "pending": Out(dies),
            #: A bit per die: its first command has the flag.
            "flagged": Out(dies),
            **repeats,
        })

    def elaborate(self, platform):
        m = Module()
        entry_bits = index_bits(self.depth)
        m.submodules.storage = storage = Memory(shape=self.layout, depth=self.depth, init=[])
        m.submodules.links = links = Memory(shape=entry_bits, depth=self.depth, init=[])
        m.submodules.free = free = StreamFifo(entry_bits, self.depth)
        push_entry, push_link = storage.write_port(), links.write_port()
        pop_entry, pop_link = storage.read_port(), links.read_port()
        heads = Array(Signal(entry_bits, name=f"head_{d}") for d in range(self.dies))
        tails = Array(Signal(entry_bits, name=f"tail_{d}") for d in range(self.dies))

        # Entries never used yet are handed out by counting, so the free list starts empty.
        fresh = Signal(bits_for(self.depth))
        fresh_left = Signal()
        entry = Signal(entry_bits)
        m.d.comb += fresh_left.eq(fresh != self.depth)
        with m.If(fresh_left):
            m.d.comb += entry.eq(fresh)
        with m.Else():
            m.d.comb += entry.eq(free.o.payload)

        idle, push, popped = Signal(), Signal(), Signal()
        appends = Signal()  # to a list that is not empty: else its old tail may be another die's entry by now
        out_valid = Signal()
        die = Signal(index_bits(self.dies))
        m.d.comb += [
            self.i.ready.eq(idle & ~self.pop.valid & (fresh_left | free.o.valid)),
            push.eq(self.i.valid & self.i.ready),
            popped.eq(self.pop.valid & self.pop.ready),
            push_entry.en.eq(push),
            push_entry.addr.eq(entry),
            push_entry.data.eq(self.i.payload),
            appends.eq(self.pending.bit_select(self.i.payload.die, 1)),
            push_link.en.eq(push & appends),
            push_link.addr.eq(tails[self.i.payload.die]),
            push_link.data.eq(entry),
            free.o.ready.eq(push & ~fresh_left),
            pop_entry.en.eq(popped),
            pop_entry.addr.eq(heads[self.pop.payload]),
            pop_link.en.eq(popped),
            pop_link.addr.eq(heads[self.pop.payload]),
            self.o.valid.eq(out_valid),
            self.o.payload.eq(pop_entry.data),
        ]
        with m.If(push):
            m.d.sync += [
                tails[self.i.payload.die].eq(entry),
                self.pending.bit_select(self.i.payload.die, 1).eq(1),
            ]
            with m.If(fresh_left):
                m.d.sync += fresh.eq(fresh + 1)
            with m.If(~appends):
                m.d.sync += heads[self.i.payload.die].eq(entry)
        with m.If(self.o.ready):
            m.d.sync += out_valid.eq(0)

        if self.counted:
            with m.If(push):
                m.d.sync += self.waiting[self.i.payload.die].eq(self.waiting[self.i.payload.die] + 1)
            with m.If(popped):
                m.d.sync += self.waiting[self.pop.payload].eq(self.waiting[self.pop.payload] - 1)

        if self.flag:
            m.submodules.flags = flags = Memory(shape=1, depth=self.depth, init=[])
            push_flag, pop_flag = flags.write_port(), flags.read_port()
            pushed_flag = Signal()
            m.d.comb += [
                pushed_flag.eq(self.flag(self.i.payload)),
                push_flag.en.eq(push),
                push_flag.addr.eq(entry),
                push_flag.data.eq(pushed_flag),
                pop_flag.addr.eq(pop_link.data),
            ]
            with m.If(push & ~appends):
                m.d.sync += self.flagged.bit_select(self.i.payload.die, 1).eq(pushed_flag)

        still, repeats = 1, None  # nothing is moved forward
        if self.window:
            still, repeats = self._page_window(m, heads, tails, die, popped, push, out_valid, pop_entry, pop_link, push_link)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    idle.eq(still),
                    self.pop.ready.eq(~out_valid & still if self.window else ~out_valid),
                ]
                with m.If(popped):
                    m.d.sync += out_valid.eq(1)
                    if not self.window:
                        m.d.sync += die.eq(self.pop.payload)
                    m.next = "UNLINK"
                if repeats:
                    with m.Elif(repeats.wanted & still & ~out_valid):
                        m.d.comb += repeats.taken.eq(1)
                        m.next = "REPEAT"
            with m.State("UNLINK"):
                m.d.comb += [
                    free.i.valid.eq(1),
                    free.i.payload.eq(heads[die]),
                ]
                with m.If(heads[die] == tails[die]):
                    m.d.sync += self.pending.bit_select(die, 1).eq(0)
                m.d.sync += heads[die].eq(pop_link.data)
                m.next = "FLAG"
            with m.State("FLAG"):  # the flag of the new head arrives
                if self.flag:
                    m.d.sync += self.flagged.bit_select(die, 1).eq(pop_flag.data)
                m.next = "IDLE"
            if repeats:
                with m.State("REPEAT"):
                    m.d.comb += [
                        free.i.valid.eq(1),
                        free.i.payload.eq(repeats.at),
                    ]
                    m.next = "IDLE"
        return m

    def _page_window(self, m: Module, heads: Array, tails: Array, die: Signal, popped: Signal, push: Signal,
                     out_valid: Signal, entry: Any, link: Any, new_link: Any) -> tuple[Value, Repeats]:
        """A :class:`~.window.PageWindow` at the memories' ports, which it has when no pop, push or repeat needs them:
        whether nothing is moved, and the repeats. ``die``: the one that it is at, after a pop for a cycle the one popped."""
        row, place = Cat(entry.data.block, entry.data.page), Cat(entry.data.column, entry.data.beats)
        m.submodules.window = window = PageWindow(len(row), len(place), self.dies, self.depth, self.window)
        m.submodules.repeats = repeats = Repeats(self.dies, self.depth, len(self.repeat.payload))
        connect(m, repeats.tag, flipped(self.repeat))
        m.d.comb += [
            die.eq(window.die),
            window.popped.eq(popped),
            window.popped_die.eq(self.pop.payload),
            window.pushed.eq(push),
            window.pushed_die.eq(self.i.payload.die),
            window.rest.eq(~out_valid),
            window.lent.eq(repeats.taken),
            window.head.eq(heads[die]),
            window.tail.eq(tails[die]),
            window.pending.eq(self.pending.bit_select(die, 1)),
            window.row.eq(row),
            window.place.eq(place),
            window.link.eq(link.data),
            window.open.eq(repeats.open),
            window.follows.eq(repeats.follows),
            repeats.popped.eq(popped),
            repeats.popped_die.eq(self.pop.payload),
            repeats.sent.eq(self.sent),
            repeats.die.eq(die),
            repeats.add.eq(window.aside),
            repeats.entry.eq(window.entry),
            repeats.link.eq(link.data),
            repeats.read_tag.eq(entry.data.tag),
            self.repeats.eq(repeats.more),
        ]
        with m.If(~popped):
            m.d.comb += [
                entry.en.eq(~out_valid),
                link.en.eq(~out_valid),
                entry.addr.eq(Mux(repeats.taken, repeats.at, window.at)),
                link.addr.eq(Mux(repeats.taken, repeats.at, window.at)),
            ]
        with m.If(window.cut):
            m.d.comb += [
                new_link.en.eq(1),
                new_link.addr.eq(window.cut_at),
                new_link.data.eq(window.cut_to),
            ]
        with m.If(window.front):
            m.d.sync += heads[die].eq(window.entry)
        with m.If(window.shorten):
            m.d.sync += tails[die].eq(window.before)
        if self.counted:
            with m.If(window.aside):
                m.d.sync += self.waiting[die].eq(self.waiting[die] - 1)
        with m.If(window.behead):
            m.d.sync += heads[die].eq(window.following)
        with m.If(window.empty):
            m.d.sync += self.pending.bit_select(die, 1).eq(0)
        return ~window.moving, repeats


class DieQueue(wiring.Component):
    """The queue of a channel's only die: a FIFO of ``depth`` payloads of ``layout``. ``o`` shows the oldest, 2 cycles after
    it came at the earliest; ``pending`` and ``flagged`` (``flag(payload)``) are of it, as in :class:`DieQueues`."""

    def __init__(self, layout: data.Layout, depth: int, flag: Callable[[Any], ValueLike] | None = None):
        if depth < 1:
            raise ValueError(f"depth = {depth}: must be at least 1")
        self.layout, self.depth, self.flag = layout, depth, flag
        super().__init__({
            "i": In(stream.Signature(layout)),
            #: In order.
            "o": Out(stream.Signature(layout)),
            #: A command waits.
            "pending": Out(1),
            #: The oldest has the flag.
            "flagged": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = StreamFifo(self.layout, self.depth, buffered=True)
        connect(m, flipped(self.i), fifo.i)
        connect(m, fifo.o, flipped(self.o))
        m.d.comb += [
            self.pending.eq(fifo.o.valid),
            self.flagged.eq(self.flag(self.o.payload) if self.flag else 0),
        ]
        return m
