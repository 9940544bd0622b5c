"""The longest queue goes first: which of the dies that want the channel bus has it next."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for, index_bits

__all__ = ["PERIOD", "LongestFirst"]

PERIOD = 32  # turns, a power of two: more than there are dies


class LongestFirst(wiring.Component):
    """Of the ``dies`` that ``want`` a turn the one for which most reads are ``waiting`` (at most ``most``), the lower number
    among equals. Those that want one and don't get it at every PERIOD-th turn are due, and go before all others.

    So none that goes on wanting a turn is passed over more than PERIOD + dies - 2 times: until it is due, and by the others
    that are due then. Counts are compared a cycle before the choice, in registers, pair by pair.
    """

    def __init__(self, dies: int, most: int):
        if dies < 2 or most < 1:
            raise ValueError(f"dies = {dies}, most = {most}: must be at least 2 and 1")
        self.dies = dies
        super().__init__({
            #: Reads that wait for each die.
            "waiting": In(data.ArrayLayout(bits_for(most), dies)),
            #: A bit per die: it wants a turn.
            "want": In(dies),
            #: Which one has it; 0 where none wants one.
            "choice": Out(index_bits(dies)),
            #: It is taken, in this cycle.
            "take": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        n = self.dies
        longer = {}  # (i, j), i < j: die i goes before die j
        for i in range(n):
            for j in range(i + 1, n):
                longer[i, j] = Signal(name=f"longer_{i}_{j}", init=1)
                m.d.sync += longer[i, j].eq(self.waiting[i] >= self.waiting[j])
        due, able, first = Signal(n), Signal(n), Signal(n)
        turns = Signal(range(PERIOD))
        m.d.comb += [
            able.eq(Mux((self.want & due).any(), self.want & due, self.want)),
            first.eq(Cat(able[i] & Cat(~able[j] | (longer[i, j] if i < j else ~longer[j, i])
                                       for j in range(n) if j != i).all() for i in range(n))),
        ]
        for i in range(n):
            with m.If(first[i]):
                m.d.comb += self.choice.eq(i)
        with m.If(self.take):
            m.d.sync += [
                turns.eq(turns + 1),
                due.eq((due | Mux(turns == PERIOD - 1, self.want, 0)) & ~first),
            ]
        return m
