"""One bit per (slot, table): do its accumulators hold anything?"""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from .shapes import Shapes

__all__ = ["Touched"]


class Touched(wiring.Component):
    """Set by the side that adds rows (address ``set_at``), cleared by the drain (``clear_at``), so that accumulators need
    no clearing pass: untouched ones read as 0. Both sides see the bit at their address at once.

    The bit is the exclusive or of two single-writer memories (LUT RAM), one written by each side.
    """

    def __init__(self, config: DeviceConfig):
        self.bits = Shapes(config).slot_table_bits
        super().__init__({
            "set_at": In(self.bits), "set": In(1), "set_sees": Out(1),
            "clear_at": In(self.bits), "clear": In(1), "clear_sees": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.by_set = by_set = Memory(shape=1, depth=1 << self.bits, init=[])
        m.submodules.by_clear = by_clear = Memory(shape=1, depth=1 << self.bits, init=[])
        ports = []
        for at in (self.set_at, self.clear_at):
            a, b = by_set.read_port(domain="comb"), by_clear.read_port(domain="comb")
            m.d.comb += [a.addr.eq(at), b.addr.eq(at)]
            ports.append((a.data, b.data))
        (set_a, set_b), (clear_a, clear_b) = ports
        w_set, w_clear = by_set.write_port(), by_clear.write_port()
        m.d.comb += [
            self.set_sees.eq(set_a ^ set_b), self.clear_sees.eq(clear_a ^ clear_b),
            w_set.addr.eq(self.set_at), w_set.data.eq(~set_b), w_set.en.eq(self.set),
            w_clear.addr.eq(self.clear_at), w_clear.data.eq(clear_a), w_clear.en.eq(self.clear),
        ]
        return m
