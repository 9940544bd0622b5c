"""One bit per (slot, table): do its accumulators hold anything?"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ...primitives.clear_walk import ClearWalk
from .shapes import Shapes

__all__ = ["Touched"]


class Touched(wiring.Component):
    """Set by the side that adds rows (address ``set_at``), cleared by the drain (``clear_at``), so that accumulators need
    no clearing pass: untouched ones read as 0. The setting side sees the bit at its address at once; the draining side sees
    what was set a cycle later (it comes for a slot long after its last row began). No bit is set and cleared in neighbouring
    cycles.

    The bit is the exclusive or of two single-writer memories (LUT RAM), one written by each side. After a reset they are
    cleared, until ``cleared``: nothing may be set before.
    """

    def __init__(self, config: DeviceConfig):
        self.bits = Shapes(config).slot_table_bits
        super().__init__({
            #: (slot, table) of a row.
            "set_at": In(self.bits),
            #: It begins.
            "set": In(1),
            #: Was anything there?
            "set_sees": Out(1),
            #: (slot, table) that is drained.
            "clear_at": In(self.bits),
            "clear": In(1),
            #: Was anything there?
            "clear_sees": Out(1),
            #: After a reset; nothing may be set before.
            "cleared": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.by_set = by_set = Memory(shape=1, depth=1 << self.bits, init=[])
        m.submodules.by_clear = by_clear = Memory(shape=1, depth=1 << self.bits, init=[])
        ports = []
        for at in (self.set_at, self.clear_at):
            a, b = by_set.read_port(domain="comb"), by_clear.read_port(domain="comb")
            m.d.comb += [
                a.addr.eq(at),
                b.addr.eq(at),
            ]
            ports.append((a.data, b.data))
        (set_a, set_b), (clear_a, clear_b) = ports
        w_set, w_clear = by_set.write_port(), by_clear.write_port()
        # Written a cycle late: ``set`` is the end of a long path, and the memory's write port is far from it.
        late, late_at, late_bit = Signal(), Signal(self.bits, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            late.eq(self.set),
            late_at.eq(self.set_at),
            late_bit.eq(~set_b),
        ]
        m.submodules.walk = walk = ClearWalk(self.bits)
        m.d.comb += [
            self.cleared.eq(~walk.busy),
            self.set_sees.eq((set_a ^ set_b) | (late & (late_at == self.set_at))),
            self.clear_sees.eq(clear_a ^ clear_b),
            w_set.addr.eq(Mux(walk.busy, walk.at, late_at)),
            w_set.data.eq(late_bit & ~walk.busy),
            w_set.en.eq(late | walk.busy),
            w_clear.addr.eq(Mux(walk.busy, walk.at, self.clear_at)),
            w_clear.data.eq(clear_a & ~walk.busy),
            w_clear.en.eq(self.clear | walk.busy),
        ]
        return m
