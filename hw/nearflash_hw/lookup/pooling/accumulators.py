"""The accumulators and the pipeline that adds to them."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.table import RowFormat

from ...primitives.fifo import StreamFifo
from ...primitives.float32 import shift_left
from .lane import Lane
from .shapes import ROWS_IN_FLIGHT, Shapes

__all__ = ["Accumulators"]


class Accumulators(wiring.Component):
    """Adds ``word`` (one a cycle while ``word_valid``) to the accumulators at its address; never stalls.

    A word is read in cycle 5 after it is offered, added in 7 and written in 8, so the same address may come again
    :attr:`HAZARD` cycles later (the sender's duty). A row's last word leaves one ``retire`` after its write. A ``read``
    word comes out on ``values`` with ``values_valid`` in cycle 7. At most ROWS_IN_FLIGHT rows may be between word and
    retire.
    """

    READ, ADD, WRITE = 5, 7, 8
    HAZARD = WRITE + 1 - READ

    def __init__(self, config: DeviceConfig):
        self.config = config
        self.s = s = Shapes(config)
        super().__init__({
            #: A word to add; never stalled.
            "word_valid": In(1),
            "word": In(s.word),
            #: A row's last word is written.
            "retire": Out(stream.Signature(s.layouts.retire)),
            #: In cycle 7 of a ``read`` word.
            "values_valid": Out(1),
            "values": Out(s.values),
        })

    def elaborate(self, platform):
        m = Module()
        s, lay, w = self.s, self.s.layouts, self.word

        # What each stage still needs of the word besides its elements. Unused delays vanish in synthesis.
        layout = data.StructLayout({
            "bias": 1, "read": 1, "int8": 1, "fresh": 1, "last": 1, "addr": s.addr_bits, "limit": s.limit_bits,
            "slot": lay.slot_bits, "table": lay.table_bits, "not_finite": 1, "media": 1})
        now = Signal(layout)
        for name in ("read", "fresh", "last", "addr", "limit", "slot", "table", "not_finite", "media"):
            m.d.comb += now[name].eq(w[name])
        if RowFormat.INT8 in s.formats:
            m.d.comb += now.bias.eq(w.bias)
        m.d.comb += now.int8.eq(s.is_format(w.format, RowFormat.INT8))
        meta, valid = [now], [self.word_valid]
        for k in range(1, self.WRITE + 1):
            r, v = Signal(layout, name=f"meta{k}", reset_less=True), Signal(name=f"valid{k}")
            m.d.sync += [
                r.eq(meta[-1]),
                v.eq(valid[-1]),
            ]
            meta.append(r)
            valid.append(v)

        width = max(s.acc_bits, 48)
        high_mask = Signal(width, reset_less=True)
        m.d.sync += high_mask.eq(shift_left(Const(-1, width), meta[Lane.LATE - 1].limit, width))
        late, add, end = meta[Lane.LATE], meta[self.ADD], meta[self.WRITE]
        flags = []
        for k in range(s.lanes):
            lane = Lane(self.config)
            m.submodules[f"lane{k}"] = lane
            ram = Memory(shape=signed(s.acc_bits), depth=s.acc_depth, init=[])
            m.submodules[f"ram{k}"] = ram
            m.d.comb += [
                lane.raw.eq(w.raw[k]),
                lane.format.eq(w.format),
                lane.bias.eq(w.bias),
                lane.factor.eq(w.factor),
                lane.high_mask.eq(high_mask),
                lane.keep_bias.eq(valid[Lane.LATE] & late.bias),
                lane.add_bias.eq(late.int8 & ~late.bias),
            ]
            rd, wr = ram.read_port(), ram.write_port()
            held, total = Signal(signed(s.acc_bits), reset_less=True), Signal(signed(s.acc_bits), reset_less=True)
            m.d.comb += [
                rd.addr.eq(meta[self.READ].addr),
                rd.en.eq(valid[self.READ]),
            ]
            m.d.sync += [
                held.eq(Mux(meta[self.READ + 1].fresh, 0, rd.data)),
                total.eq(held + lane.value),
            ]
            m.d.comb += [
                self.values[k].eq(held),
                wr.addr.eq(end.addr),
                wr.data.eq(total),
                wr.en.eq(valid[self.WRITE] & ~end.bias & ~end.read),
            ]
            flags.append(Cat(lane.not_finite, lane.overflow))
        m.d.comb += self.values_valid.eq(valid[self.ADD] & add.read)

        # A row's flags gather over its words. Drain reads pass between them and count for nothing.
        word_flags = Cat(Cat(f[i] for f in flags).any() for i in range(2))
        row_flags = Signal(2, reset_less=True)
        ended = Signal(2, reset_less=True)
        started = Signal()
        with m.If(valid[self.ADD] & ~add.read):
            gathered = word_flags | Mux(started, row_flags, Const(0, 2)) | Cat(add.not_finite, Const(0, 1))
            m.d.sync += [
                row_flags.eq(gathered),
                ended.eq(gathered),
                started.eq(~add.last),
            ]
        m.submodules.queue = queue = StreamFifo(lay.retire, ROWS_IN_FLIGHT)
        wiring.connect(m, queue.o, wiring.flipped(self.retire))
        m.d.comb += [
            queue.i.valid.eq(valid[self.WRITE] & end.last & ~end.read),
            queue.i.p.slot.eq(end.slot),
            queue.i.p.table.eq(end.table),
            queue.i.p.media.eq(end.media),
            queue.i.p.not_finite.eq(ended[0]),
            queue.i.p.overflow.eq(ended[1]),
        ]
        return m
