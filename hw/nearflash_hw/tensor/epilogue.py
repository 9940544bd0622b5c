"""From accumulators to codes: bias, requantisation, residual, rounding, clamp, table."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.reference.requantize import ACC_BITS, MULT_BITS
from nearflash.reference.tensor.epilogue import SUM_BITS

from ..engine.requantize import SHIFT_BITS, Requantizer, Scale
from ..interfaces import bits_for
from ..primitives.credit_fifo import CreditFifo

__all__ = ["ACCUMULATOR_BITS", "CODE_BITS", "Epilogue", "epilogue_layout"]

ACCUMULATOR_BITS = 32
CODE_BITS = 16
FRAC_BITS = 4
OFFSET_BITS = 26  # -2**24 to 2**24
# two terms of SUM_BITS, symmetric, the offset and half a step: below 2**24 + 2**24 + 2**13
TOTAL_BITS = SUM_BITS + 3
TABLE_BITS = 8


def epilogue_layout() -> data.StructLayout:
    """What a descriptor says to the epilogue, fields as in contract.tensor."""
    return data.StructLayout({"low": signed(CODE_BITS), "high": signed(CODE_BITS), "residual": 1,
                              "residual_mult": MULT_BITS, "residual_shift": SHIFT_BITS, "frac": FRAC_BITS,
                              "offset": signed(OFFSET_BITS), "lookup": 1})


class Epilogue(wiring.Component):
    """:func:`nearflash.reference.tensor.epilogue.epilogue` on ``lanes`` channels a cycle.

    ``i``: accumulators. A beat with ``first`` begins with other channels: it waits for ``lanes`` of ``entry``, in their
    order, which hold for all beats up to the next ``first``; the next ones are taken meanwhile. ``r``: with
    ``control.residual`` a beat of residuals for every beat of ``i``, else none. ``o``: codes, sign-extended, in that order.
    ``control`` is steady from three cycles before a descriptor's first beat until its last is out; ``table`` is written in
    between. ``idle``: holds nothing but entries. One beat a cycle; latency :attr:`LATENCY`, the queue at the end included.
    """

    LATENCY = Requantizer.LATENCY + 10

    def __init__(self, lanes: int):
        self.lanes = lanes
        sums = data.StructLayout({"data": data.ArrayLayout(signed(ACCUMULATOR_BITS), lanes), "first": 1})
        super().__init__({
            "control": In(epilogue_layout()),
            "i": In(stream.Signature(sums)),
            "entry": In(stream.Signature(Scale())),
            "r": In(stream.Signature(data.ArrayLayout(signed(CODE_BITS), lanes))),
            "o": Out(stream.Signature(data.ArrayLayout(signed(CODE_BITS), lanes))),
            #: Writes ``code`` for outputs ``index`` - 128.
            "table": In(data.StructLayout({"en": 1, "index": TABLE_BITS, "code": TABLE_BITS})),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, control = self.lanes, self.control
        entry_bits = Scale().size
        m.submodules.out = out = CreditFifo(self.o.payload.shape(), 32)
        m.d.comb += [
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
            self.idle.eq(out.idle),
        ]

        # -- entries: the next channels' come in one by one while the last ones' hold
        waiting = Signal(entry_bits * lanes, reset_less=True)
        held = Signal(data.ArrayLayout(Scale(), lanes), reset_less=True)
        arrived = Signal(bits_for(lanes))
        complete, swap, take = Signal(), Signal(), Signal()
        residual = Signal()
        m.d.comb += [
            complete.eq(arrived == lanes),
            self.entry.ready.eq(~complete),
            residual.eq(control.residual),
            take.eq(self.i.valid & out.credit & (complete | ~self.i.payload.first) & (self.r.valid | ~residual)),
            swap.eq(take & self.i.payload.first),
            self.i.ready.eq(take),
            self.r.ready.eq(take & residual),
            out.spend.eq(take),
        ]
        with m.If(swap):
            m.d.sync += [
                held.as_value().eq(waiting),
                arrived.eq(0),
            ]
        with m.Elif(self.entry.valid & self.entry.ready):
            m.d.sync += [
                waiting.eq((self.entry.payload.as_value() << entry_bits * (lanes - 1)) | (waiting >> entry_bits)),
                arrived.eq(arrived + 1),
            ]

        # -- both terms
        valid = [take, *(Signal(name=f"valid{s}") for s in range(1, self.LATENCY))]
        m.d.sync += [b.eq(a) for a, b in zip(valid, valid[1:], strict=False)]
        m.submodules.scale = scale = Requantizer(lanes, SUM_BITS, False, 0)
        m.submodules.residual_scale = residual_scale = Requantizer(lanes, SUM_BITS, False, 0, acc_bits=CODE_BITS)
        m.d.comb += [
            scale.valid.eq(valid[2]),
            residual_scale.valid.eq(valid[2]),
        ]
        for k in range(lanes):
            total = Signal(signed(ACCUMULATOR_BITS), name=f"total{k}", reset_less=True)
            acc = Signal(signed(ACC_BITS), name=f"acc{k}", reset_less=True)
            mult, shift = Signal(MULT_BITS, name=f"mult{k}", reset_less=True), Signal(SHIFT_BITS, name=f"shift{k}",
                                                                                    reset_less=True)
            r1, r2 = (Signal(signed(CODE_BITS), name=f"r{s}_{k}", reset_less=True) for s in (1, 2))
            m.d.sync += [
                total.eq(self.i.payload.data[k]),
                r1.eq(Mux(residual, self.r.payload[k], 0)),
                acc.eq(total + held[k].bias),
                mult.eq(held[k].mult),
                shift.eq(held[k].shift),
                r2.eq(r1),
            ]
            m.d.comb += [
                scale.acc[k].eq(acc),
                scale.mult[k].eq(mult),
                scale.shift[k].eq(shift),
                residual_scale.acc[k].eq(r2),
                residual_scale.mult[k].eq(control.residual_mult),
                residual_scale.shift[k].eq(control.residual_shift),
            ]

        # -- their sum, rounded once
        half = Signal(1 << FRAC_BITS, reset_less=True)
        offset = Signal(signed(OFFSET_BITS), reset_less=True)
        m.d.sync += [
            half.eq((Const(1, 1) << control.frac) >> 1),
            offset.eq(control.offset + half),
        ]
        codes = [self._lane(m, k, scale.q[k], residual_scale.q[k], offset) for k in range(lanes)]
        m.d.comb += [
            out.push.eq(valid[-1]),
            out.payload.as_value().eq(Cat(*codes)),
        ]
        return m

    def _lane(self, m: Module, k: int, q: Signal, t: Signal, offset: Signal) -> Signal:
        """Six registers from the requantisers to the code."""
        def reg(bits: int, name: str) -> Signal:
            return Signal(signed(bits), name=f"{name}{k}", reset_less=True)

        control = self.control
        terms, total, coarse, fine = reg(SUM_BITS + 1, "terms"), *(reg(TOTAL_BITS, n) for n in ("total_", "coarse", "fine"))
        under, over = Signal(name=f"under{k}", reset_less=True), Signal(name=f"over{k}", reset_less=True)
        kept, clamped, code = (reg(CODE_BITS, n) for n in ("kept", "clamped", "code"))
        m.submodules[f"table{k}"] = table = Memory(shape=signed(TABLE_BITS), depth=1 << TABLE_BITS, init=[])
        write, read = table.write_port(), table.read_port()
        m.d.sync += [
            terms.eq(q + t),
            total.eq(terms + offset),
            coarse.eq(total >> (control.frac[2:] << 2)),
            fine.eq(coarse >> control.frac[:2]),
            under.eq(fine < control.low),
            over.eq(fine > control.high),
            kept.eq(fine),
        ]
        limited = Signal(signed(CODE_BITS), name=f"limited{k}")
        m.d.comb += [
            limited.eq(Mux(under, control.low, Mux(over, control.high, kept))),
            read.addr.eq(limited[:TABLE_BITS] ^ (1 << TABLE_BITS - 1)),
            read.en.eq(1),
            write.addr.eq(self.table.index),
            write.data.eq(self.table.code),
            write.en.eq(self.table.en),
        ]
        m.d.sync += [
            clamped.eq(limited),
            code.eq(Mux(control.lookup, read.data, clamped)),
        ]
        return code

