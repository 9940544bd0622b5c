"""From the processing system's master port to every block of registers. Only wiring."""

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.processing import ProcessingSystem
from nearflash.contract.registers import ADDRESS_BITS
from nearflash.contract.shell import blocks

from ..primitives.axi import Axi3Signature, AxiSignature
from ..primitives.axi_lite import AxiLiteSignature
from .interrupt_controller import InterruptController
from .lite_mux import LiteMux
from .register_block import BLOCK_ADDRESS_BITS
from .shell_registers import ShellRegisters
from .to_axi_lite import ToAxiLite

__all__ = ["RegisterPath"]


class RegisterPath(wiring.Component):
    """Accesses ``i`` of ``ps``'s master port at the addresses of :func:`~nearflash.contract.shell.blocks`: the interrupt
    controller and the shell's registers are here, the device's behind ``device``. ``interrupt`` is the device's, ``irq``
    goes to the processors; ``host_busy``, ``dram_busy``, ``closed`` and ``reset`` are
    :class:`~.shell_registers.ShellRegisters`'. One access at a time."""

    model_clock = "own"

    def __init__(self, config: DeviceConfig, ps: ProcessingSystem):
        self.config, self.ps = config, ps
        self.bus = (Axi3Signature if ps.axi == 3 else AxiSignature)(ps.reach_bits, 32, ps.master_id_bits)
        super().__init__({
            #: The processing system's master port.
            "i": In(self.bus),
            #: The device's registers.
            "device": Out(AxiLiteSignature(ADDRESS_BITS)),
            #: The device's interrupt,
            "interrupt": In(1),
            #: and what the processors get.
            "irq": Out(1),
            #: Bursts are under way on the memory port to host memory,
            "host_busy": In(1),
            #: and on that to DRAM.
            "dram_busy": In(1),
            #: No burst begins.
            "closed": Out(1),
            #: The device's reset.
            "reset": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.to_lite = to_lite = ToAxiLite(self.bus)
        bits = (ADDRESS_BITS, BLOCK_ADDRESS_BITS, BLOCK_ADDRESS_BITS)
        m.submodules.mux = mux = LiteMux(self.ps.reach_bits, [
            (self.ps.window + block.offset, n) for block, n in zip(blocks(self.config), bits, strict=True)])
        m.submodules.interrupts = interrupts = InterruptController()
        m.submodules.registers = registers = ShellRegisters(self.config)
        connect(m, flipped(self.i), to_lite.i)
        connect(m, to_lite.o, mux.i)
        connect(m, mux.o0, flipped(self.device))
        connect(m, mux.o1, interrupts.axil)
        connect(m, mux.o2, registers.axil)
        m.d.comb += [
            mux.away.eq(Cat(registers.away)),
            interrupts.input.eq(self.interrupt),
            self.irq.eq(interrupts.irq),
            registers.host_busy.eq(self.host_busy),
            registers.dram_busy.eq(self.dram_busy),
            self.closed.eq(registers.closed),
            self.reset.eq(registers.reset),
        ]
        return m
