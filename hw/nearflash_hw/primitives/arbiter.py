"""Round-robin merge of streams."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import index_bits

__all__ = ["StreamArbiter"]


class StreamArbiter(wiring.Component):
    """Merges ``n`` streams into one, round-robin: a waiting input is served after at most n - 1 others.

    With ``packet`` the grant is held until a transfer whose payload has ``last`` set. ``grant`` is the index of the
    input on ``o``. A grant is kept while its transfer waits, so the payload is stable. Combinational from input to output.
    """

    def __init__(self, shape, n: int, packet: bool = False):
        if n < 1:
            raise ValueError(f"n = {n}: must be at least 1")
        self.n, self.packet = n, packet
        super().__init__({
            #: Merged round-robin.
            "i": In(stream.Signature(shape)).array(n),
            #: With ``packet``, transfers up to one with ``last`` are of one input.
            "o": Out(stream.Signature(shape)),
            #: Index of the input on ``o``.
            "grant": Out(index_bits(n)),
        })

    def elaborate(self, platform):
        m = Module()
        # Grants are one-hot and the order is a registered mask, so that a grant is few levels of logic from the requests;
        # the payload's multiplexer takes the index, for which it needs fewer inputs.
        locked, held = Signal(), Signal(self.n)
        above_last = Signal(self.n)  # the inputs above the last one served, which come first
        valid, above, grant = Signal(self.n), Signal(self.n), Signal(self.n)
        first, first_above = Signal(self.n), Signal(self.n)  # found side by side, which takes fewer levels
        m.d.comb += [
            valid.eq(Cat(s.valid for s in self.i)),
            above.eq(valid & above_last),
            first.eq(Cat(valid[k] & ~valid[:k].any() for k in range(self.n))),
            first_above.eq(Cat(above[k] & ~above[:k].any() for k in range(self.n))),
            grant.eq(Mux(locked, held, Mux(above.any(), first_above, first))),
            self.o.valid.eq(Mux(locked, (valid & held).any(), valid.any())),
            *(s.ready.eq(self.o.ready & grant[k]) for k, s in enumerate(self.i)),
            *(bit.eq(Cat(grant[k] for k in range(self.n) if k >> b & 1).any()) for b, bit in enumerate(self.grant)),
            Value.cast(self.o.payload).eq(Array(Value.cast(s.payload) for s in self.i)[self.grant]),
        ]
        with m.If(self.o.valid):
            m.d.sync += [
                locked.eq(1),
                held.eq(grant),
            ]
            release = self.o.ready & (self.o.payload.last if self.packet else 1)
            with m.If(release):
                m.d.sync += [
                    locked.eq(0),
                    above_last.eq(Cat(grant[:k].any() for k in range(self.n))),
                ]
        return m
