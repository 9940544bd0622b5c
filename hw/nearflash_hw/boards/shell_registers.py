"""The shell's own registers, and the reset of the device."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.shell import shell_registers

from ..primitives.axi_lite import AxiLiteSignature, AxiLiteSlave
from .register_block import BLOCK_ADDRESS_BITS, serve

__all__ = ["ShellRegisters"]


class ShellRegisters(wiring.Component):
    """Registers of :func:`~nearflash.contract.shell.shell_registers`, and what ``reset.request`` begins: ``closed`` parts
    the device from its ports (:class:`~.reset_guard.ResetGuard`); once neither ``host_busy`` nor ``dram_busy``, or at once
    if forced, ``reset`` is high for at least a cycle, until the request is withdrawn. A request withdrawn earlier still
    resets: the device has lost part of its bursts. ``away``: the device's registers don't answer, from the request on.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        super().__init__({
            #: The registers.
            "axil": In(AxiLiteSignature(BLOCK_ADDRESS_BITS)),
            #: Bursts are under way on the memory port to host memory,
            "host_busy": In(1),
            #: and on that to DRAM.
            "dram_busy": In(1),
            #: The device's registers don't answer.
            "away": Out(1),
            #: The device is parted from its memory ports.
            "closed": Out(1),
            #: The device's reset.
            "reset": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(BLOCK_ADDRESS_BITS)
        connect(m, flipped(self.axil), slave.bus)
        registers = shell_registers(self.config)
        (fields,) = (r.fields for r in registers if r.name == "reset")
        stored = {f.name: Signal(f.width, name=f.name) for f in fields}
        written = serve(m, slave, registers, {
            **{("reset", name): value for name, value in stored.items()},
            ("status", "in_reset"): self.reset, ("status", "host_busy"): self.host_busy,
            ("status", "dram_busy"): self.dram_busy})
        with m.If(written["reset"]):
            m.d.sync += [stored[f.name].eq(slave.wr_data[f.lsb:f.lsb + f.width]) for f in fields]
        request, force = stored["request"], stored["force"]
        with m.If(self.reset):
            m.d.sync += [
                self.reset.eq(request),
                self.closed.eq(request),
            ]
        with m.Elif(self.closed):
            m.d.sync += self.reset.eq(~self.host_busy & ~self.dram_busy | request & force)
        with m.Else():
            m.d.sync += self.closed.eq(request)
        m.d.comb += self.away.eq(request | self.closed)
        return m
