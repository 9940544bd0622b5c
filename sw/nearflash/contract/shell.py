"""What a board's shell puts around the device: address map, interrupt, reset. Gateware, ``.hwh`` files, drivers, scripts and
documentation derive from it.

The processors see three blocks in the window of one master port, 64 KiB each: the device's own registers
(:mod:`.registers`), an interrupt controller that the stock driver of ``axi_intc`` understands (PG099), since PYNQ lists only
interrupts behind one, and the shell's own registers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .boards import Board
from .config import DeviceConfig
from .errors import ConfigError
from .registers import Field, Register, register_map

__all__ = ["BLOCK_BYTES", "DEVICE", "INTC", "INTC_REGISTERS", "MANIFEST", "SHELL", "SHELL_MAGIC", "Block", "blocks",
           "board_config", "shell_registers"]

BLOCK_BYTES = 0x1_0000
SHELL_MAGIC = 0x4E46_5348  #: "NFSH"
SHELL_VERSION = 1
MANIFEST = "manifest.json"  #: beside a build's files: what they are, with their sha256
DEVICE, INTC, SHELL = "nearflash_0", "axi_intc_0", "nearflash_shell_0"


@dataclass(frozen=True)
class Block:
    """A block of registers: its name in the design, VLNV, offset in the window (bytes), and registers."""

    name: str
    vlnv: str
    offset: int
    registers: tuple[Register, ...]


def _inputs(name: str, offset: int, access: str, doc: str) -> Register:
    return Register(name, offset, doc, (Field("irq", 0, 1, access, "the device's interrupt"),))


#: Of an AXI INTC (PG099, "Register Space"), one input, level, no fast interrupts. SIE and CIE set and clear bits of IER.
INTC_REGISTERS = (
    _inputs("ISR", 0x00, "ro", "interrupt status: what is pending, enabled or not"),
    _inputs("IPR", 0x04, "ro", "interrupts that are pending and enabled"),
    _inputs("IER", 0x08, "rw", "interrupt enable"),
    _inputs("IAR", 0x0C, "wo", "acknowledge: writing 1 clears the bit of ISR, until the input sets it again"),
    _inputs("SIE", 0x10, "wo", "writing 1 sets the bit of IER"),
    _inputs("CIE", 0x14, "wo", "writing 1 clears the bit of IER"),
    Register("IVR", 0x18, "number of the pending, enabled interrupt; all ones: none", (
        Field("IVR", 0, 32, "ro", "number"),)),
    Register("MER", 0x1C, "master enable", (
        Field("ME", 0, 1, "rw", "the output follows IPR"),
        Field("HIE", 1, 1, "rw", "inputs are seen; once set it stays (PG099)"))),
)


def shell_registers(config: DeviceConfig) -> tuple[Register, ...]:
    """The shell's own."""
    return (
        Register("magic", 0x00, "what this is", (Field("magic", 0, 32, "ro", '"NFSH"', SHELL_MAGIC),)),
        Register("version", 0x04, "of this register block", (Field("version", 0, 32, "ro", "number", SHELL_VERSION),)),
        Register("design_id", 0x08, "the device's, also while it is in reset", (
            Field("design_id", 0, 32, "ro", "hash of the configuration", config.design_id),)),
        Register("reset", 0x0C, "reset of the device, which first lets what is under way on the memory ports end", (
            Field("request", 0, 1, "rw", "1: no new bursts, and once none is under way the device is held in reset"),
            Field("force", 1, 1, "rw", "with request: don't wait for bursts under way (the ports may then need a reset of "
                  "the processing system)"))),
        Register("status", 0x10, "state of the reset and of the memory ports", (
            Field("in_reset", 0, 1, "ro", "the device is held in reset"),
            Field("host_busy", 1, 1, "ro", "bursts are under way to host memory"),
            Field("dram_busy", 2, 1, "ro", "bursts are under way to the device's DRAM"))),
    )


def blocks(config: DeviceConfig) -> tuple[Block, ...]:
    """Every block of registers behind the master port, by offset."""
    return (
        Block(DEVICE, "nearflash:user:nearflash:1.0", 0, register_map(config)),
        Block(INTC, "xilinx.com:ip:axi_intc:4.1", BLOCK_BYTES, INTC_REGISTERS),
        Block(SHELL, "nearflash:user:nearflash_shell:1.0", 2 * BLOCK_BYTES, shell_registers(config)),
    )


def board_config(config: DeviceConfig, board: Board) -> DeviceConfig:
    """``config`` with the bus that ``board``'s processing system takes: its address bits and longest burst.

    Raises :class:`ConfigError` for a board without a processing system, or a clock, bus width or memory that it hasn't."""
    ps = board.ps
    if ps is None:
        raise ConfigError("board", board.name, "has no processing system that a shell is generated for")
    ps.divisors(config.clock_mhz)
    # What a width converter makes of a burst fits one of the port's.
    longest = ps.max_burst * ps.slave_bits(config.beat_bytes) // (config.beat_bytes * 8)
    bus = replace(config.bus, address_bits=min(config.bus.address_bits, ps.reach_bits),
                  max_burst=min(config.bus.max_burst, longest))
    if bus.id_bits > ps.slave_id_bits:
        raise ConfigError("bus.id_bits", bus.id_bits, f"must be at most {ps.slave_id_bits}")
    out = replace(config, bus=bus)
    board.check_memory(out)
    return out
