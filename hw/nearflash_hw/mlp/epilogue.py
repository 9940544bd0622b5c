"""From accumulators to activations: partial sums joined, bias, requantisation, ReLU."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.reference.requantize import ACC_BITS, MULT_BITS

from ..engine.requantize import SHIFT_BITS, Requantizer, Scale
from ..engine.streams import Beat
from ..interfaces import bits_for
from ..primitives.credit_fifo import CreditFifo

__all__ = ["Epilogue"]


class Epilogue(wiring.Component):
    """The end of one fc node of ``rows`` outputs.

    ``i0``, ``i1``...: accumulator beats of the node's cores (``acc_bits[k]`` wide), all in the same order, added
    element by element (intra-layer decomposition, paper). ``o``: activation beats in that order. ``lanes`` elements per
    cycle. ``entry`` is written for output ``entry_row`` while ``entry_valid``. ``idle``: holds nothing. Latency
    Requantizer.LATENCY + 3.
    """

    def __init__(self, rows: int, lanes: int, acc_bits: tuple[int, ...], out_bits: int, relu: bool, nb_bits: int):
        if max(acc_bits) > ACC_BITS:
            raise ValueError(f"acc_bits = {acc_bits}: must be at most {ACC_BITS}")
        self.rows, self.lanes, self.acc_bits, self.out_bits, self.relu = rows, lanes, acc_bits, out_bits, relu
        self._out = Beat(lanes, out_bits, rows, nb_bits)
        super().__init__({
            **{f"i{k}": In(stream.Signature(Beat(lanes, b, rows, nb_bits))) for k, b in enumerate(acc_bits)},
            #: Activations, in the order of the inputs.
            "o": Out(stream.Signature(self._out)),
            #: Pulses with the ``entry`` of output ``entry_row``.
            "entry_valid": In(1),
            "entry_row": In(bits_for(rows)),
            "entry": In(Scale()),
            #: Holds nothing.
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes
        ins = [getattr(self, f"i{k}") for k in range(len(self.acc_bits))]
        lane_bits = lanes.bit_length() - 1
        width = Scale().size
        blocks = -(-self.rows // lanes)
        m.submodules.entries = entries = Memory(shape=width * lanes, depth=max(2, blocks), init=[])
        write = entries.write_port(granularity=width)
        read = entries.read_port()
        m.d.comb += [
            write.addr.eq(self.entry_row >> lane_bits),
            write.data.eq(Cat(*[self.entry.as_value()] * lanes)),
        ]
        row_lane = self.entry_row[:lane_bits]
        for k in range(lanes):
            m.d.comb += write.en[k].eq(self.entry_valid & (self.entry_row < self.rows) & (row_lane == k))

        m.submodules.out = out = CreditFifo(self._out)
        first = ins[0].payload
        tag = Cat(first.pos, first.n, first.nb)
        take = Signal()
        m.d.comb += [
            take.eq(Cat(s.valid for s in ins).all() & out.credit),
            out.spend.eq(take),
            read.addr.eq(first.pos >> lane_bits),
            read.en.eq(take),
        ]
        m.d.comb += [s.ready.eq(take) for s in ins]

        valid0, tag0 = Signal(), Signal(len(tag), reset_less=True)
        valid1 = Signal()
        m.submodules.requantizer = rq = Requantizer(lanes, self.out_bits, self.relu, len(tag))
        m.d.sync += [
            valid0.eq(take),
            valid1.eq(valid0),
        ]
        tag1 = Signal(len(tag), reset_less=True)
        with m.If(take):
            m.d.sync += tag0.eq(tag)
        with m.If(valid0):
            m.d.sync += tag1.eq(tag0)
        for k in range(lanes):
            total = Signal(signed(ACC_BITS), name=f"total{k}", reset_less=True)
            acc = Signal(signed(ACC_BITS), name=f"acc{k}", reset_less=True)
            entry = data.View(Scale(), read.data.word_select(k, width))
            mult = Signal(MULT_BITS, name=f"mult{k}", reset_less=True)
            shift = Signal(SHIFT_BITS, name=f"shift{k}", reset_less=True)
            terms = [s.payload.data[k] for s in ins]
            while len(terms) > 1:
                terms = [terms[i] + terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
            with m.If(take):
                m.d.sync += total.eq(terms[0])
            with m.If(valid0):
                m.d.sync += [
                    acc.eq(total + entry.bias),
                    mult.eq(entry.mult),
                    shift.eq(entry.shift),
                ]
            m.d.comb += [
                rq.acc[k].eq(acc),
                rq.mult[k].eq(mult),
                rq.shift[k].eq(shift),
            ]
        m.d.comb += [
            rq.valid.eq(valid1),
            rq.tag.eq(tag1),
            out.push.eq(rq.o_valid),
            out.payload.eq(Cat(rq.q.as_value(), rq.o_tag)),
            self.idle.eq(out.idle),
        ]
        m.d.comb += [
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
        ]
        return m


