"""Gives samples their pooling slots and knows when a slot's last vector is in."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, Status

from ..interfaces import ItemKind, Layouts, bits_for
from ..primitives.arbiter import StreamArbiter
from .layouts import LookupLayouts

__all__ = ["Scoreboard"]


class Scoreboard(wiring.Component):
    """Slots are a ring: taken in sample order, drained oldest first, free again when pooling says ``drained``.

    ``item`` In: lookups leave on ``lookup`` and bags on ``bag``, combinationally; nothing of a sample passes before its slot
    is free. A lookup is over when pooling ``retire``s its vector or the translator sends ``poison`` instead of reading it.
    Three cycles after the last one (and the sample's SAMPLE item) the slot is drained: one ``drain`` and one
    ``sample_status``, which carries the first error that was reported. ``issued`` and ``sample_done`` pulse per lookup
    taken and per sample drained.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            #: The parsed query.
            "item": In(stream.Signature(layouts.lookup_item)),
            #: Each with its slot.
            "lookup": Out(stream.Signature(LookupLayouts.of(config).slot_lookup)),
            #: Of a sample, before its drain.
            "bag": Out(stream.Signature(layouts.bag)),
            #: A vector is in its accumulators.
            "retire": In(stream.Signature(layouts.retire)),
            #: A lookup that is not read.
            "poison": In(stream.Signature(LookupLayouts.of(config).poison)),
            #: A slot that has all its vectors, oldest first.
            "drain": Out(stream.Signature(layouts.drain)),
            #: It is free again.
            "drained": In(stream.Signature(data.StructLayout({"slot": layouts.slot_bits}))),
            #: One per drain.
            "sample_status": Out(stream.Signature(layouts.sample_status)),
            #: Pulses per lookup taken.
            "issued": Out(1),
            #: Pulses per sample drained.
            "sample_done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        lk, layouts = self.config.lookup, Layouts.of(self.config)
        slots = lk.sample_slots
        item, kind = self.item, self.item.payload.kind
        head, tail = Signal(range(slots)), Signal(range(slots))
        closed_count = Signal(range(slots + 1))  # samples sent completely and not yet drained

        # -- the way in
        room, close, drained = Signal(), Signal(), Signal()
        m.d.comb += [
            room.eq(closed_count != slots),
            self.lookup.valid.eq(item.valid & room & (kind == ItemKind.LOOKUP)),
            self.bag.valid.eq(item.valid & room & (kind == ItemKind.BAG)),
            item.ready.eq(room & Mux(kind == ItemKind.LOOKUP, self.lookup.ready,
                                     Mux(kind == ItemKind.BAG, self.bag.ready, 1))),
            close.eq(item.valid & room & (kind == ItemKind.SAMPLE)),
            self.issued.eq(self.lookup.valid & self.lookup.ready),
            *(getattr(self.lookup.payload, k).eq(getattr(item.payload, k))
              for k in ("table", "index", "weight", "weighted")),
            self.lookup.payload.slot.eq(head),
            self.bag.payload.slot.eq(head),
            self.bag.payload.table.eq(item.payload.table),
            self.bag.payload.count.eq(item.payload.count),
            self.drained.ready.eq(1),
            drained.eq(self.drained.valid),
            self.sample_done.eq(drained),
        ]
        with m.If(close):
            m.d.sync += head.eq(head + 1)
        with m.If(close & ~drained):
            m.d.sync += closed_count.eq(closed_count + 1)
        with m.Elif(drained & ~close):
            m.d.sync += closed_count.eq(closed_count - 1)

        # -- lookups that are over
        m.submodules.over = over = StreamArbiter(LookupLayouts.of(self.config).poison, 2)
        r = self.retire.payload
        m.d.comb += [
            over.i[0].valid.eq(self.retire.valid),
            self.retire.ready.eq(over.i[0].ready),
            over.i[0].payload.slot.eq(r.slot),
            over.i[0].payload.table.eq(r.table),
            over.i[0].payload.status.eq(Mux(r.media, Status.UNRECOVERED_READ, Mux(
                r.not_finite, Status.ROW_NOT_FINITE, Mux(r.overflow, Status.POOL_OVERFLOW, Status.SUCCESS)))),
            over.i[1].valid.eq(self.poison.valid),
            self.poison.ready.eq(over.i[1].ready),
            over.i[1].payload.eq(self.poison.payload),
            over.o.ready.eq(1),
        ]
        ended = Signal(LookupLayouts.of(self.config).poison, reset_less=True)  # in a register: it goes to every slot
        ends = Signal()
        m.d.sync += [
            ended.eq(over.o.payload),
            ends.eq(over.o.valid),
        ]

        # -- per slot
        advance = Signal()
        done, statuses, tables, samples = [], [], [], []
        for s in range(slots):
            outstanding = Signal(bits_for(lk.max_tables * lk.max_bag), name=f"outstanding{s}")
            closed = Signal(name=f"closed{s}")
            finished = Signal(name=f"finished{s}")
            status = Signal(11, name=f"status{s}")
            table = Signal(layouts.table_bits, name=f"table{s}")
            sample = Signal(layouts.sample, name=f"sample{s}", reset_less=True)
            up = self.issued & (head == s)
            down = ends & (ended.slot == s)
            with m.If(up & ~down):
                m.d.sync += outstanding.eq(outstanding + 1)
            with m.Elif(down & ~up):
                m.d.sync += outstanding.eq(outstanding - 1)
            with m.If(down & (status == 0) & (ended.status != 0)):
                m.d.sync += [
                    status.eq(ended.status),
                    table.eq(ended.table),
                ]
            m.d.sync += finished.eq(closed & (outstanding == 0))
            with m.If(close & (head == s)):
                m.d.sync += [
                    closed.eq(1),
                    sample.eq(item.payload.sample),
                ]
            with m.If(advance & (tail == s)):
                m.d.sync += [
                    closed.eq(0),
                    finished.eq(0),
                    status.eq(0),
                    table.eq(0),
                ]
            done.append(finished)
            statuses.append(status)
            tables.append(table)
            samples.append(sample.as_value())

        # -- the way out: both streams take the oldest slot, in either order
        drain, verdict = self.drain, self.sample_status
        drain_sent, verdict_sent = Signal(), Signal()
        ready = Signal()
        m.d.comb += [
            ready.eq(Array(done)[tail]),
            drain.valid.eq(ready & ~drain_sent),
            drain.payload.slot.eq(tail),
            drain.payload.bad.eq(Array(statuses)[tail] != 0),
            drain.payload.sample.as_value().eq(Array(samples)[tail]),
            verdict.valid.eq(ready & ~verdict_sent),
            verdict.payload.status.eq(Array(statuses)[tail]),
            verdict.payload.table.eq(Array(tables)[tail]),
            verdict.payload.sample.as_value().eq(Array(samples)[tail]),
            advance.eq(ready & (drain_sent | drain.ready) & (verdict_sent | verdict.ready)),
        ]
        with m.If(advance):
            m.d.sync += [
                drain_sent.eq(0),
                verdict_sent.eq(0),
                tail.eq(tail + 1),
            ]
        with m.Else():
            with m.If(drain.valid & drain.ready):
                m.d.sync += drain_sent.eq(1)
            with m.If(verdict.valid & verdict.ready):
                m.d.sync += verdict_sent.eq(1)
        return m
