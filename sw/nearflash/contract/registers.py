"""The register map: the one description that gateware, drivers, ``.hwh`` files and documentation derive from.

AXI4-Lite, 32-bit registers. 64-bit values take two registers, low word first. Offsets below 40h follow NVMe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .config import DeviceConfig

__all__ = ["ADDRESS_BITS", "BUSES", "DOORBELL_BASE", "IRQ_FATAL", "NVME_VERSION", "OFFSETS", "QUEUE_BASE", "QUEUE_STRIDE",
           "Field", "Register", "capabilities", "counters", "doorbell", "plane_counters", "queue_register", "register_map"]

ADDRESS_BITS = 13
NVME_VERSION = 0x0002_0000  #: 2.0, as in VS and in the identify page
QUEUE_BASE = 0x400
QUEUE_STRIDE = 0x20
DOORBELL_BASE = 0x1000
#: Bits of register bus_status: field and what has stopped answering.
BUSES = {"host_read": "host memory reads", "host_write": "host memory writes", "dram_read": "DRAM reads",
         "dram_write": "DRAM writes"}
IRQ_FATAL = 8  #: bit of irq_enable and irq_pending, above those of the queue pairs


@dataclass(frozen=True)
class Field:
    """``width`` bits of a register from bit ``lsb`` on. ``access``: "ro"; "rw"; "wo", reads as 0; "w1c", the device sets
    bits and writing 1 clears them. ``reset``: after the device's reset; of a constant, the constant."""

    name: str
    lsb: int
    width: int
    access: str
    doc: str
    reset: int = 0

    @property
    def mask(self) -> int:
        """Its bits of the register."""
        return (1 << self.width) - 1 << self.lsb


@dataclass(frozen=True)
class Register:
    """The 32-bit register ``name`` at byte ``offset``: what it is, and its fields. Bits in no field read as 0 and ignore
    writes."""

    name: str
    offset: int
    doc: str
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        taken = 0
        for f in self.fields:
            if f.mask & taken or f.mask >> 32 or f.reset << f.lsb & ~f.mask:
                raise ValueError(f"register {self.name}: field {f.name} does not fit")
            taken |= f.mask

    @property
    def access(self) -> str:
        """"ro", "wo", or else "rw"."""
        kinds = {f.access for f in self.fields}
        return kinds.pop() if kinds in ({"ro"}, {"wo"}) else "rw"

    @property
    def reset(self) -> int:
        return sum(f.reset << f.lsb for f in self.fields)

    def bits(self, *access: str) -> int:
        """Mask of the fields of any of these accesses."""
        return sum(f.mask for f in self.fields if f.access in access)


def _word(name: str, offset: int, access: str, doc: str, reset: int = 0, lsb: int = 0, width: int = 32) -> Register:
    """A register with one field, of its own name."""
    return Register(name, offset, doc, (Field(name, lsb, min(width, 32 - lsb), access, doc, reset),))


def register_map(config: DeviceConfig) -> tuple[Register, ...]:
    """Every register of the device of ``config``, by offset (NVM Express Base Specification 2.0, section 3.1, below 40h)."""
    cap = capabilities(config)
    pairs = config.host.queue_pairs
    interrupts = (Field("completion", 0, pairs, "", "a completion was posted: a bit per queue pair"),
                  Field("fatal", IRQ_FATAL, 1, "", "CSTS.CFS rose"))

    def part(name: str, lsb: int, width: int, doc: str, word: int) -> Field:
        return Field(name, lsb, width, "ro", doc, word >> lsb & (1 << width) - 1)

    low, high = cap & 0xFFFF_FFFF, cap >> 32
    registers = [
        Register("cap_lo", 0x00, "controller capabilities (CAP), low word", (
            part("mqes", 0, 16, "largest queue - 1", low), part("cqr", 16, 1, "queues are contiguous", low),
            part("ams", 17, 2, "arbitration: round robin alone", low),
            part("to", 24, 8, "longest wait for RDY, 500 ms", low))),
        Register("cap_hi", 0x04, "controller capabilities (CAP), high word", (
            part("dstrd", 0, 4, "doorbell stride", high), part("nssrs", 4, 1, "no subsystem reset register", high),
            part("css", 5, 8, "command sets: bit 0 NVM", high), part("mpsmin", 16, 4, "smallest page: 4 KiB", high),
            part("mpsmax", 20, 4, "largest page: 4 KiB", high))),
        Register("vs", 0x08, "NVMe version (VS)", (
            part("ter", 0, 8, "tertiary", NVME_VERSION), part("mnr", 8, 8, "minor", NVME_VERSION),
            part("mjr", 16, 16, "major", NVME_VERSION))),
        _word("intms", 0x0C, "rw", "interrupt mask, one bit per queue pair; 1 masks", width=pairs),
        Register("cc", 0x14, "controller configuration (CC)", (
            Field("en", 0, 1, "rw", "commands are fetched while 1; writing 0 resets every queue's pointers"),
            Field("css", 4, 3, "rw", "command set: 0, stored only"), Field("mps", 7, 4, "rw", "page size: 0, stored only"),
            Field("ams", 11, 3, "rw", "arbitration: 0, stored only"), Field("shn", 14, 2, "rw", "shutdown: stored only"),
            Field("iosqes", 16, 4, "rw", "6: stored only"), Field("iocqes", 20, 4, "rw", "4: stored only"))),
        Register("csts", 0x1C, "controller status (CSTS)", (
            Field("rdy", 0, 1, "ro", "commands are taken"),
            Field("cfs", 1, 1, "ro", "fatal: a queue entry could not be read or written, bus_status is not 0, "
                  "or dram_base lies too high"))),
        _word("design_id", 0x100, "ro", "hash of the configuration this device was generated from", config.design_id),
        _word("clock_khz", 0x104, "ro", "device clock the configuration assumes, kHz", round(config.clock_mhz * 1000)),
        Register("bus_status", 0x108, "buses that have stopped answering, until the device's reset", tuple(
            Field(name, bit, 1, "ro", doc) for bit, (name, doc) in enumerate(BUSES.items()))),
        _word("dram_base_lo", 0x118, "rw", "what addresses of the device's DRAM begin at, low word, 4 KiB-aligned; to "
              "be changed while CSTS.RDY is 0", lsb=12),
        *([_word("dram_base_hi", 0x11C, "rw", "the same, high word", width=config.bus.address_bits - 32)]
          if config.bus.address_bits > 32 else []),
        Register("irq_enable", 0x110, "what of irq_pending raises the interrupt, beside what intms lets through", tuple(
            replace(f, access="rw") for f in interrupts)),
        Register("irq_pending", 0x114, "what happened since it was last cleared", tuple(
            replace(f, access="w1c") for f in interrupts)),
        _word("perf_index", 0x200, "rw", "selects a counter; writing it latches perf_lo and perf_hi"),
        _word("perf_lo", 0x204, "ro", "selected counter, low word"),
        _word("perf_hi", 0x208, "ro", "selected counter, high word"),
    ]
    for q in range(pairs):
        at = QUEUE_BASE + q * QUEUE_STRIDE
        for k, kind in enumerate(("submission", "completion")):
            base, doc = f"queue{q}_{'sc'[k]}q_base", f"{kind} queue {q}: base address"
            registers += [_word(f"{base}_lo", at + 8 * k, "rw", f"{doc}, low word, 4 KiB-aligned", lsb=12),
                          _word(f"{base}_hi", at + 8 * k + 4, "rw", f"{doc}, high word")]
        registers.append(_word(f"queue{q}_size", at + 0x10, "rw", f"entries - 1 of both queues {q}; more than there can be "
                               "is stored as the largest", width=(config.host.queue_entries - 1).bit_length()))
    for q in range(pairs):
        for completion, what in ((False, "sq{}_tail"), (True, "cq{}_head")):
            registers.append(_word(what.format(q), doorbell(q, completion), "wo", "doorbell", width=16))
    return tuple(registers)


def capabilities(config: DeviceConfig) -> int:
    """CAP, 64 bits (NVM Express Base Specification 1.4, section 3.1.1).

    TO is the longest there is: CSTS.RDY falls when the commands in flight are done, and an inference may take as long as its
    query says."""
    contiguous, timeout, nvm_command_set = 1, 0xFF, 1
    return config.host.queue_entries - 1 | contiguous << 16 | timeout << 24 | nvm_command_set << 37


def queue_register(q: int, name: str) -> int:
    """Byte offset of queue pair ``q``'s register ``name``: ``sq_base_lo``, ``sq_base_hi``, ``cq_base_lo``, ``cq_base_hi``,
    ``size``."""
    return QUEUE_BASE + q * QUEUE_STRIDE + 4 * ("sq_base_lo", "sq_base_hi", "cq_base_lo", "cq_base_hi", "size").index(name)


def doorbell(q: int, completion: bool) -> int:
    """Byte offset of queue pair ``q``'s SQ tail (or CQ head) doorbell; NVMe layout with DSTRD = 0."""
    return DOORBELL_BASE + (2 * q + int(completion)) * 4


def plane_counters(config: DeviceConfig) -> tuple[str, ...]:
    """Counters of the cycles in which each plane has a command, channel by channel."""
    f = config.flash
    return tuple(f"channel{c}_{plane}_busy" for c in range(f.channels) for plane in f.plane_names)


def counters(config: DeviceConfig) -> tuple[str, ...]:
    """Names of the performance counters, by ``perf_index``. All count cycles unless named otherwise."""
    f, lookups = config.flash, config.lookup.max_tables > 0
    return (
        "cycles", *(("lookups_count", "samples_count") if lookups else ()), "map_misses_count",
        *(("mlp_busy", "mlp_mac_steps_count") if lookups else ()),
        *(f"channel{c}_{what}_count" for c in range(f.channels) for what in ("reads", "programs")),
        *(f"channel{c}_bus_busy" for c in range(f.channels)),
        *plane_counters(config),
        *((f"cache_{what}_count" for what in ("hits", "kept", "dropped")) if config.row_cache.lines else ()),
    )


#: Byte offsets that all devices have in common: of the registers that are not of a queue pair.
OFFSETS = {r.name: r.offset for r in register_map(DeviceConfig.preset("tiny")) if r.offset < QUEUE_BASE}
