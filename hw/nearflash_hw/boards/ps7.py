"""The top for a Zynq-7000: its processing system is an instance, so that no block design is needed."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, ClockDomain, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board

from .fabric import Fabric

__all__ = ["INSTANCE", "RESET_STAGES", "Ps7Top"]

INSTANCE = "ps7"  #: of the processing system
RESET_STAGES = "reset_stages"  #: the synchroniser's register
#: The primitive's AXI ports (UG585, chapter 5), by the fabric's.
PORTS = {"s_axi": "MAXIGP0", "m_axi_host": "SAXIHP0", "m_axi_dram": "SAXIHP1"}


class Ps7Top(wiring.Component):
    """The fabric of ``config`` at ``board``'s PS7, without a port: what has a pin there (memory, MIO, the PS's clock) has it
    whatever the fabric holds, and is set up at boot.

    FCLKCLK[0] clocks everything, through a BUFG; FCLKRESETN[0], which is asynchronous to it (UG585, chapter 25), resets
    everything after two flip-flops; the interrupt is IRQF2P[0] (ID 61, UG585, chapter 7). Raises as
    :class:`~.fabric.Fabric` does.
    """

    def __init__(self, config: DeviceConfig, board: Board):
        self.fabric = Fabric(config, board)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fabric = self.fabric
        m.domains.sync = sync = ClockDomain()
        # The synchroniser's own flip-flops see no reset.
        m.domains.raw = raw = ClockDomain(reset_less=True, local=True)
        raw.clk = sync.clk
        clocks, resets = Signal(4), Signal(4)
        stages = Signal(2, init=0b11, name=RESET_STAGES)
        m.submodules.clock = Instance("BUFG", i_I=clocks[0], o_O=sync.clk)
        m.d.raw += stages.eq(Cat(~resets[0], stages))
        m.d.comb += ResetSignal().eq(stages[-1])

        connections: dict[str, Any] = {"o_FCLKCLK": clocks, "o_FCLKRESETN": resets,
                                       "i_IRQF2P": Cat(self.fabric.irq, Signal(19))}
        for name, pins in PORTS.items():
            connections[f"i_{pins}ACLK"] = sync.clk
            for field, member in self.fabric.signature.members[name].signature.members.items():
                value = getattr(getattr(self.fabric, name), field)
                if field in ("arsize", "awsize"):  # the primitive has two bits, for at most 8 bytes
                    value = value[:2]
                # The fabric's outputs are inputs of the primitive.
                connections[f"{'i' if member.flow == Out else 'o'}_{pins}{field.upper()}"] = value
            if name != "s_axi":  # the number of bursts that the port issues at once is the PS's to set (UG585, chapter 5)
                connections |= {f"i_{pins}RDISSUECAP1EN": 0, f"i_{pins}WRISSUECAP1EN": 0}
        m.submodules[INSTANCE] = Instance("PS7", a_keep=1, **connections)  # all else is there for it
        return m
