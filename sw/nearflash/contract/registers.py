"""The register map: the one description that gateware, drivers, ``.hwh`` files and documentation derive from.

AXI4-Lite, 32-bit registers. 64-bit values take two registers, low word first. Offsets below 40h follow NVMe.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import DeviceConfig

__all__ = ["ADDRESS_BITS", "BUS_STATUS", "DOORBELL_BASE", "NVME_VERSION", "QUEUE_BASE", "QUEUE_STRIDE", "REGISTERS",
           "Register", "capabilities", "counters", "doorbell", "queue_register"]

ADDRESS_BITS = 13
NVME_VERSION = 0x0002_0000  #: 2.0, as in VS and in the identify page
QUEUE_BASE = 0x400
QUEUE_STRIDE = 0x20
DOORBELL_BASE = 0x1000
#: What each bit of register bus_status says has stopped answering.
BUS_STATUS = ("host memory reads", "host memory writes", "DRAM reads", "DRAM writes")


@dataclass(frozen=True)
class Register:
    """One register: byte ``offset``, ``access`` "ro" or "rw", ``reset`` value, what it means."""

    name: str
    offset: int
    access: str
    doc: str
    reset: int = 0


REGISTERS = (
    Register("cap_lo", 0x00, "ro", "NVMe CAP: bits 15:0 MQES (largest queue - 1), bit 16 CQR (contiguous queues), "
             "bits 31:24 TO (longest wait for RDY, 500 ms)"),
    Register("cap_hi", 0x04, "ro", "NVMe CAP, high word: bit 5 the NVM command set; DSTRD, MPSMIN and MPSMAX 0"),
    Register("vs", 0x08, "ro", "NVMe version, 2.0", NVME_VERSION),
    Register("intms", 0x0C, "rw", "interrupt mask, one bit per queue pair; 1 masks"),
    Register("cc", 0x14, "rw", "bit 0 EN: commands are fetched while 1; writing 0 resets every queue's pointers"),
    Register("csts", 0x1C, "ro", "bit 0 RDY, bit 1 CFS (a queue entry could not be read or written, or bus_status isn't 0)"),
    Register("design_id", 0x100, "ro", "hash of the configuration this device was generated from"),
    Register("clock_khz", 0x104, "ro", "device clock the configuration assumes, kHz"),
    Register("bus_status", 0x108, "ro", "buses that have stopped answering, until the device's reset: "
             + ", ".join(f"bit {bit} {what}" for bit, what in enumerate(BUS_STATUS))),
    Register("perf_index", 0x200, "rw", "selects a counter (see counters()); writing it latches perf_lo and perf_hi"),
    Register("perf_lo", 0x204, "ro", "selected counter, low word"),
    Register("perf_hi", 0x208, "ro", "selected counter, high word"),
)

#: Registers of each queue pair, at QUEUE_BASE + q * QUEUE_STRIDE + offset; all "rw".
QUEUE_REGISTERS = (
    Register("sq_base_lo", 0x00, "rw", "submission queue base address, low word, 4 KiB-aligned"),
    Register("sq_base_hi", 0x04, "rw", "submission queue base address, high word"),
    Register("cq_base_lo", 0x08, "rw", "completion queue base address, low word, 4 KiB-aligned"),
    Register("cq_base_hi", 0x0C, "rw", "completion queue base address, high word"),
    Register("size", 0x10, "rw", "entries - 1 of both queues"),
)


def capabilities(config: DeviceConfig) -> int:
    """CAP, 64 bits (NVM Express Base Specification 1.4, section 3.1.1).

    TO is the longest there is: CSTS.RDY falls when the commands in flight are done, and an inference may take as long as its
    query says."""
    contiguous, timeout, nvm_command_set = 1, 0xFF, 1
    return config.host.queue_entries - 1 | contiguous << 16 | timeout << 24 | nvm_command_set << 37


def queue_register(q: int, name: str) -> int:
    """Byte offset of queue pair ``q``'s register ``name``."""
    return QUEUE_BASE + q * QUEUE_STRIDE + next(r.offset for r in QUEUE_REGISTERS if r.name == name)


def doorbell(q: int, completion: bool) -> int:
    """Byte offset of queue pair ``q``'s SQ tail (or CQ head) doorbell; NVMe layout with DSTRD = 0."""
    return DOORBELL_BASE + (2 * q + int(completion)) * 4


def counters(config: DeviceConfig) -> tuple[str, ...]:
    """Names of the performance counters, by ``perf_index``. All count cycles unless named otherwise."""
    f = config.flash
    return (
        "cycles", "lookups_count", "samples_count", "map_misses_count", "mlp_busy", "mlp_mac_steps_count",
        *(f"channel{c}_{what}_count" for c in range(f.channels) for what in ("reads", "programs")),
        *(f"channel{c}_bus_busy" for c in range(f.channels)),
        *(f"channel{c}_die{d}_busy" for c in range(f.channels) for d in range(f.dies)),
    )
