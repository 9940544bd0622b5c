"""Everything between a processing system's ports: the device and what is put around it. Only wiring."""

from amaranth.hdl import Cat, Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.registers import ADDRESS_BITS
from nearflash.contract.shell import blocks, board_config

from ..device import Device
from ..primitives.axi import Axi3Signature, AxiSignature
from .interrupt_controller import InterruptController
from .lite_mux import LiteMux
from .memory_path import MemoryPath
from .register_block import BLOCK_ADDRESS_BITS
from .shell_registers import ShellRegisters
from .to_axi_lite import ToAxiLite

__all__ = ["Fabric"]


class Fabric(wiring.Component):
    """A device behind the ports of ``board``'s processing system.

    Ports: ``s_axi``, the registers (:func:`~nearflash.contract.shell.blocks`) at the window of the system's master port, at
    whose addresses they answer; ``m_axi_host`` and ``m_axi_dram`` to its memory ports; ``irq``, the interrupt controller's.
    All are AXI3 or AXI4, as the system's are.

    Raises :class:`~nearflash.contract.ConfigError` for a ``config`` that
    :func:`~nearflash.contract.shell.board_config` would change, and as it does.
    """

    def __init__(self, config: DeviceConfig, board: Board):
        expected = board_config(config, board)
        if config != expected:
            raise ConfigError("bus", config.bus, f"must be as {board.name} takes it, {expected.bus} (see board_config)")
        self.config, self.ps = config, board.ps
        ps = board.ps
        axi = Axi3Signature if ps.axi == 3 else AxiSignature
        memory = axi(ps.reach_bits, ps.slave_bits(config.beat_bytes), ps.slave_id_bits)
        self.master = axi(ps.reach_bits, 32, ps.master_id_bits)
        super().__init__({
            "s_axi": In(self.master),
            "m_axi_host": Out(memory), "m_axi_dram": Out(memory), "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        c, ps = self.config, self.ps
        m.submodules.registers = registers = ShellRegisters(c)
        device = Device(c)
        m.submodules.device = ResetInserter(registers.reset)(device)

        # -- registers
        bits = (ADDRESS_BITS, BLOCK_ADDRESS_BITS, BLOCK_ADDRESS_BITS)
        m.submodules.interrupts = interrupts = InterruptController()
        m.submodules.to_lite = to_lite = ToAxiLite(self.master)
        m.submodules.mux = mux = LiteMux(ps.reach_bits, [
            (ps.window + block.offset, n) for block, n in zip(blocks(c), bits, strict=True)])
        connect(m, flipped(self.s_axi), to_lite.i)
        connect(m, to_lite.o, mux.i)
        for o, target in zip(mux.ports, (device.s_axi, interrupts.axil, registers.axil), strict=True):
            connect(m, o, target)
        m.d.comb += [mux.away.eq(Cat(registers.away)), interrupts.input.eq(device.irq), self.irq.eq(interrupts.irq)]

        # -- memory
        for name, busy in (("host", registers.host_busy), ("dram", registers.dram_busy)):
            m.submodules[f"{name}_path"] = path = MemoryPath(c, ps)
            connect(m, getattr(device, f"m_axi_{name}"), path.i)
            connect(m, path.o, flipped(getattr(self, f"m_axi_{name}")))
            m.d.comb += [path.closed.eq(registers.closed), busy.eq(path.busy)]
        return m
