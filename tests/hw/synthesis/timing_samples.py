"""Designs small enough to add their paths up by hand."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Gates(wiring.Component):
    """``inputs`` registers, their parity in a register, which may be one of a vector of ``sinks``."""

    def __init__(self, inputs: int, sinks: int = 1):
        self.inputs, self.sinks = inputs, sinks
        super().__init__({"i": In(inputs), "o": Out(sinks), "held": Out(8)})

    def elaborate(self, platform):
        m = Module()
        i = Signal(self.inputs)
        m.d.sync += i.eq(self.i)
        if self.sinks == 1:
            m.d.sync += self.o.eq(i.xor())
        else:  # the parity as an enable: a net of its own to every register
            with m.If(i.xor()):
                m.d.sync += self.o.eq(self.o + 1)
        return m


class Adder(wiring.Component):
    def __init__(self, bits: int):
        super().__init__({"a": In(bits), "b": In(bits), "s": Out(bits)})
        self.bits = bits

    def elaborate(self, platform):
        m = Module()
        a, b = Signal(self.bits), Signal(self.bits)
        m.d.sync += [a.eq(self.a), b.eq(self.b), self.s.eq(a + b)]
        return m


class Multiply(wiring.Component):
    def __init__(self):
        super().__init__({"a": In(signed(16)), "b": In(signed(16)), "p": Out(signed(32))})

    def elaborate(self, platform):
        m = Module()
        a, b, x = Signal(signed(16)), Signal(signed(16)), Signal(signed(32))
        m.d.sync += [a.eq(self.a), b.eq(self.b), x.eq(a * b), self.p.eq(x)]
        return m
