"""Round-robin merge of streams."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
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
            "i": In(stream.Signature(shape)).array(n),
            "o": Out(stream.Signature(shape)),
            "grant": Out(index_bits(n)),
        })

    def elaborate(self, platform):
        m = Module()
        locked = Signal()
        held = Signal(index_bits(self.n))
        last_served = Signal(index_bits(self.n), init=self.n - 1)
        pick = Signal(index_bits(self.n))
        # Lowest requester above the last one served, else the lowest of all: later assignments win.
        above = Signal(self.n)
        valid = Cat(s.valid for s in self.i)
        m.d.comb += above.eq(valid & Cat(last_served < k for k in range(self.n)))
        for k in reversed(range(self.n)):
            with m.If(Mux(above.any(), above[k], valid[k])):
                m.d.comb += pick.eq(k)
        m.d.comb += self.grant.eq(Mux(locked, held, pick))
        valids = Array(s.valid for s in self.i)
        payloads = Array(s.payload.as_value() if hasattr(s.payload, "as_value") else s.payload for s in self.i)
        out = self.o.payload.as_value() if hasattr(self.o.payload, "as_value") else self.o.payload
        m.d.comb += [self.o.valid.eq(valids[self.grant]), out.eq(payloads[self.grant])]
        for k, s in enumerate(self.i):
            m.d.comb += s.ready.eq(self.o.ready & (self.grant == k))
        with m.If(self.o.valid):
            m.d.sync += [locked.eq(1), held.eq(self.grant)]
            release = self.o.ready & (self.o.payload.last if self.packet else 1)
            with m.If(release):
                m.d.sync += [locked.eq(0), last_served.eq(self.grant)]
        return m
