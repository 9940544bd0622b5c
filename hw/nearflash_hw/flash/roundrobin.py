"""Round-robin choice among request bits."""

from amaranth.hdl import Cat, Module, Mux, Signal

from ..interfaces import index_bits

__all__ = ["round_robin"]


def round_robin(m: Module, requests: Signal, last: Signal, name: str) -> Signal:
    """Index of the first request above ``last``, else of the lowest request. Combinational; 0 with no request."""
    n = len(requests)
    pick = Signal(index_bits(n), name=name)
    above = Signal(n, name=f"{name}_above")
    m.d.comb += above.eq(requests & Cat(last < k for k in range(n)))
    for k in reversed(range(n)):  # later assignments win: ends with the lowest
        with m.If(Mux(above.any(), above[k], requests[k])):
            m.d.comb += pick.eq(k)
    return pick
