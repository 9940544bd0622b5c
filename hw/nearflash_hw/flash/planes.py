"""What the planes of a die can't do at the same time."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import index_bits
from .roundrobin import round_robin

__all__ = ["PlaneGate"]


class PlaneGate(wiring.Component):
    """Lets the commands of one die's ``planes`` to the bus: READs beside one another, a PROGRAM or an ERASE alone.

    Each plane is a :class:`~.die.Die` of its own, and only its command phase waits here. A PROGRAM or ERASE begins when no
    other plane has a command under way, up to the start of its data-out, and none begins before it has ended. One that
    waits keeps further READs waiting, and READs that waited when it ended go before the next one, which are served
    round-robin. So a READ waits for one of them at most, a PROGRAM or ERASE for one of each other plane.
    """

    def __init__(self, planes: int):
        if planes < 2:
            raise ValueError(f"planes = {planes}: must be at least 2")
        super().__init__({
            #: A bit per plane: it waits for its command phase, or is in it;
            "want": In(planes),
            #: it could take a command: it has none under way but a data-out;
            "free": In(planes),
            #: its command is a PROGRAM or ERASE.
            "alone": In(planes),
            #: A bit per plane: its command phase may begin.
            "may": Out(planes),
        })

    def elaborate(self, platform):
        m = Module()
        planes = len(self.want)
        under_way, waits, occupied = Signal(planes), Signal(planes), Signal(planes)  # occupied: by a PROGRAM or ERASE
        first, reads_first = Signal(planes), Signal()  # READs that waited when the last of those ended
        closing = Signal()  # for READs: in a register, to keep the bus's choice short
        last = Signal(index_bits(planes), init=planes - 1)
        turn = round_robin(m, waits, last, "turn")
        m.d.comb += [
            under_way.eq(~(self.want | self.free)),
            waits.eq(self.want & self.alone),
            occupied.eq(under_way & self.alone),
            reads_first.eq((first & self.want).any()),
        ]
        m.d.sync += [
            closing.eq(waits.any() & ~reads_first),
            first.eq(first & self.want),
        ]
        with m.If(occupied.any()):
            m.d.sync += first.eq(self.want & ~self.alone)
        for k in range(planes):
            with m.If(occupied[k]):
                m.d.sync += last.eq(k)
        with m.If(closing & ~reads_first):
            m.d.comb += self.may.bit_select(turn, 1).eq(waits.any() & ~under_way.any())
        with m.Elif(~occupied.any()):
            m.d.comb += self.may.eq(self.want & ~self.alone)
        return m
