"""The row cache's tags: which row each line holds, and how often it was found."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import Enum
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.row_cache import line_key

from ..layouts import LookupLayouts

__all__ = ["COUNT_BITS", "TagStore"]

COUNT_BITS = 3
MOST = (1 << COUNT_BITS) - 1


class Op(Enum, shape=2):
    """What is done with a set."""

    LOOK = 0
    ADMIT = 1
    PUBLISH = 2


class TagStore(wiring.Component):
    """Sets of row_cache.ways lines; which set a row is in, and its tag, says ``line_key`` of the contract.
    One of these at a time, 3 cycles each; lookups and the writer take turns:

    * ``look``: is the row here? The answer leaves on ``found``; a line that is found counts one more. The next lookup begins
      when it has left: one in 4 cycles.
    * ``admit``: may a row that flash gave have a line? ``verdict`` says so; the line is empty from then on. A row that is
      here already gets none. If no line of its set is empty or counts 0, they all count one down.
    * ``publish``: a line holds that row from now on, and counts 1.

    ``closed``: nothing is found and nothing may be kept. ``clear`` (level, until ``cleared`` pulses): all lines are empty,
    a set a cycle.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = LookupLayouts.of(config)
        super().__init__({
            #: Lookups,
            "look": In(stream.Signature(lay.placed)),
            #: in the same order.
            "found": Out(stream.Signature(lay.found)),
            #: A row that flash gave,
            "admit": In(stream.Signature(lay.row_place)),
            #: and the line it may be written to.
            "verdict": Out(stream.Signature(data.StructLayout({"take": 1, "line": lay.line_bits}))),
            #: A row that is in its line.
            "publish": In(stream.Signature(lay.kept_row)),
            #: Level: nothing is found, nothing is to be kept.
            "closed": In(1),
            #: Level: empty all lines.
            "clear": In(1),
            #: Pulses: they are.
            "cleared": Out(1),
            #: Pulse as an answer is found: the row is here; it is not and may be kept.
            "hit": Out(1),
            "keep": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, LookupLayouts.of(self.config)
        ways, sets = c.row_cache.ways, c.row_cache.sets
        set_bits = log2(sets)
        page_beat_bits = log2(c.page_beats)
        key_bits = max(c.flash.ppn_bits + page_beat_bits, set_bits + 1)
        line = data.StructLayout({
            "held": 1, "count": COUNT_BITS, "tag": key_bits - set_bits, "beats": lay.line_beat_bits})
        m.submodules.lines = lines = Memory(shape=data.ArrayLayout(line, ways), depth=sets, init=[])
        read, write = lines.read_port(), lines.write_port(granularity=1)

        # -- which next: the writer after a lookup, else a lookup
        op, row, placed = Signal(Op), Signal(lay.row_place), Signal(lay.placed, reset_less=True)
        held_row = Signal(lay.row_place, reset_less=True)
        key, held_key = Signal(key_bits), Signal(key_bits)
        given = Signal(lay.line_bits, reset_less=True)
        looked = Signal()
        able, writer, lookup, begins = Signal(), Signal(), Signal(), Signal()
        at = Signal(set_bits, reset_less=True)
        m.d.comb += [
            able.eq(self.look.valid & ~self.found.valid),
            writer.eq(self.admit.valid | self.publish.valid),
            lookup.eq(able & ~(writer & looked)),
            row.eq(Mux(lookup, self.look.payload.row,
                       Mux(self.admit.valid, self.admit.payload, self.publish.payload.row))),
            *(to.eq(line_key(c, of.ppn, of.column[:page_beat_bits])) for to, of in ((key, row), (held_key, held_row))),
            read.addr.eq(key),
            read.en.eq(begins),  # what was read stays until the set is written
        ]
        found, verdict = self.found.payload, self.verdict.payload
        with m.If(self.found.ready):
            m.d.sync += self.found.valid.eq(0)
        with m.If(self.verdict.ready):
            m.d.sync += self.verdict.valid.eq(0)

        match, empty, zero = Signal(ways), Signal(ways), Signal(ways)
        fit, fits = Signal(), Signal()
        acts, clearing = Signal(), Signal()
        walk = Signal(set_bits)
        tag, beats = held_key[set_bits:], held_row.beats[: lay.line_beat_bits]
        m.d.comb += fit.eq((held_row.beats <= lay.line_beats) & (held_row.column < c.page_beats))
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.clear):
                    m.next = "CLEAR"
                with m.Elif(able | writer):
                    m.d.comb += begins.eq(1)
                    m.d.sync += [
                        held_row.eq(row),
                        at.eq(read.addr),
                    ]
                    m.next = "COMPARE"
                    with m.If(lookup):
                        m.d.comb += self.look.ready.eq(1)
                        m.d.sync += [
                            op.eq(Op.LOOK),
                            placed.eq(self.look.payload),
                            looked.eq(1),
                        ]
                    with m.Else():
                        m.d.comb += [
                            self.admit.ready.eq(1),
                            self.publish.ready.eq(~self.admit.valid),
                        ]
                        m.d.sync += [
                            op.eq(Mux(self.admit.valid, Op.ADMIT, Op.PUBLISH)),
                            given.eq(self.publish.payload.line),
                            looked.eq(0),
                        ]
            with m.State("COMPARE"):
                m.d.sync += [
                    fits.eq(fit),
                    *(match[w].eq(read.data[w].held & (read.data[w].tag == tag) & (read.data[w].beats == beats) & fit)
                      for w in range(ways)),
                    *(empty[w].eq(~read.data[w].held) for w in range(ways)),
                    *(zero[w].eq(read.data[w].count == 0) for w in range(ways)),
                ]
                m.next = "ACT"
            with m.State("ACT"):
                m.d.comb += acts.eq(1)
                m.next = "IDLE"
            with m.State("CLEAR"):
                m.d.comb += [
                    clearing.eq(1),
                    self.cleared.eq(walk == sets - 1),
                ]
                m.d.sync += walk.eq(walk + 1)
                with m.If(self.cleared):
                    m.next = "IDLE"

        # -- the set is there
        def first(bits):
            return Cat(bits[w] & ~bits[:w].any() for w in range(ways))

        def index(one_hot):
            return Cat(Cat(one_hot[w] for w in range(ways) if w >> b & 1).any() for b in range(log2(ways)))

        present, room = Signal(), Signal()
        chosen, admitted = Signal(ways), Signal(ways)
        m.d.comb += [
            present.eq(match.any()),
            room.eq(empty.any() | zero.any()),
            admitted.eq(first(Mux(empty.any(), empty, zero))),
            self.hit.eq(acts & (op == Op.LOOK) & present & ~self.closed),
            self.keep.eq(acts & (op == Op.LOOK) & ~present & fits & ~self.closed),
            write.addr.eq(Mux(clearing, walk, at)),
        ]
        with m.If(acts & (op == Op.LOOK)):
            m.d.sync += [
                self.found.valid.eq(1),
                found.placed.eq(placed),
                found.hit.eq(self.hit),
                found.keep.eq(self.keep),
                found.line.eq(Cat(index(match), at)),
            ]
        with m.If(acts & (op == Op.ADMIT)):
            m.d.sync += [
                self.verdict.valid.eq(1),
                verdict.take.eq(~present & room),
                verdict.line.eq(Cat(index(admitted), at)),
            ]
        with m.Switch(op):
            with m.Case(Op.LOOK):
                m.d.comb += chosen.eq(match)
            with m.Case(Op.ADMIT):
                m.d.comb += chosen.eq(Mux(room, admitted, (1 << ways) - 1) & ~present.replicate(ways))
            with m.Case(Op.PUBLISH):
                m.d.comb += chosen.eq(1 << given[: log2(ways)])
        m.d.comb += write.en.eq(Mux(clearing, (1 << ways) - 1, chosen & acts.replicate(ways)))
        for w in range(ways):
            old, new = read.data[w], write.data[w]
            m.d.comb += [
                new.tag.eq(Mux(op == Op.PUBLISH, tag, old.tag)),
                new.beats.eq(Mux(op == Op.PUBLISH, beats, old.beats)),
                new.held.eq(~clearing & ((op != Op.ADMIT) | ~room)),
                new.count.eq(Mux(op == Op.PUBLISH, 1, Mux(op == Op.ADMIT, old.count - 1,
                                                          Mux(old.count == MOST, MOST, old.count + 1)))),
            ]
        return m
