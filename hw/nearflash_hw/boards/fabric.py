"""Everything between a processing system's ports: the device and what is put around it. Only wiring."""

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import ConfigError, DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.shell import board_config

from ..device import Device
from .memory_path import MemoryPath
from .register_path import RegisterPath

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
        self.registers = RegisterPath(config, board.ps)
        self.paths = {name: MemoryPath(config, board.ps) for name in ("host", "dram")}
        super().__init__({
            #: Of the processing system's master port.
            "s_axi": In(self.registers.bus),
            #: To its memory ports.
            **{f"m_axi_{name}": Out(path.bus) for name, path in self.paths.items()},
            #: To its processors.
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        registers, device = self.registers, Device(self.config)
        m.submodules.registers = registers
        m.submodules.device = ResetInserter(registers.reset)(device)
        connect(m, flipped(self.s_axi), registers.i)
        connect(m, registers.device, device.s_axi)
        m.d.comb += [
            registers.interrupt.eq(device.irq),
            self.irq.eq(registers.irq),
        ]
        for name, path in self.paths.items():
            m.submodules[f"{name}_path"] = path
            connect(m, getattr(device, f"m_axi_{name}"), path.i)
            connect(m, path.o, flipped(getattr(self, f"m_axi_{name}")))
            m.d.comb += [
                path.closed.eq(registers.closed),
                getattr(registers, f"{name}_busy").eq(path.busy),
            ]
        return m
