"""The interrupt controller that PYNQ looks for."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.shell import INTC_REGISTERS

from ..primitives.axi_lite import AxiLiteSignature, AxiLiteSlave
from .register_block import BLOCK_ADDRESS_BITS, serve

__all__ = ["InterruptController"]


class InterruptController(wiring.Component):
    """An AXI INTC (PG099, "Register Space") of one level-sensitive ``input``, with a level ``irq``.

    ISR keeps an interrupt until it is acknowledged by IAR; one whose input is still high then comes again at once. Before
    MER.HIE is set the input is not seen, and writing 1 to ISR makes an interrupt, for tests; HIE stays set until reset.
    ``irq`` is high while ME is set and ISR and IER have a bit in common. Latency: input to ``irq`` 1 cycle.
    """

    def __init__(self):
        super().__init__({
            #: Its registers.
            "axil": In(AxiLiteSignature(BLOCK_ADDRESS_BITS)),
            #: Level.
            "input": In(1),
            #: Level.
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(BLOCK_ADDRESS_BITS)
        connect(m, flipped(self.axil), slave.bus)
        isr, ier, me, hie = Signal(), Signal(), Signal(), Signal()
        ipr = isr & ier
        written = serve(m, slave, INTC_REGISTERS, {
            ("ISR", "irq"): isr, ("IPR", "irq"): ipr, ("IER", "irq"): ier, ("IVR", "IVR"): Mux(ipr, 0, 0xFFFF_FFFF),
            ("MER", "ME"): me, ("MER", "HIE"): hie})
        bit = slave.wr_data[0]
        # The contract says "ro" of ISR: what it's for is lost to who writes it before HIE.
        isr_written = slave.wr_en & slave.wr_strb.all() & (slave.wr_word == 0)
        m.d.sync += isr.eq(isr & ~(written["IAR"] & bit) | Mux(hie, self.input, isr_written & bit))
        with m.If(written["IER"]):
            m.d.sync += ier.eq(bit)
        with m.If(written["SIE"] & bit):
            m.d.sync += ier.eq(1)
        with m.If(written["CIE"] & bit):
            m.d.sync += ier.eq(0)
        with m.If(written["MER"]):
            m.d.sync += [
                me.eq(bit),
                hie.eq(hie | slave.wr_data[1]),
            ]
        m.d.comb += self.irq.eq(ipr & me)
        return m
