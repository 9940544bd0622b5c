"""What the whole-device tests share: a simulated device that watches its host memory, random tables and queries, and what
their lookups must give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nearflash.contract import CommandError, DeviceConfig, Opcode, RowFormat
from nearflash.contract.config import FORMATS, MODES
from nearflash.contract.table import Extent, PoolMode
from nearflash.runtime import Device
from nearflash.runtime.device import Ticket
from nearflash.runtime.nvme import Completion
from nearflash_sim.backend import SimBackend
from nearflash_sim.small.device import SMALL, Table, make_table

PAGE = 4096
FILL = 0xA5
RECORDED_BYTES = 1 << 20
TIMEOUT = 5_000_000  # cycles: any wait that takes longer is a hang


class GuardedSim(SimBackend):
    """A simulated device whose host buffers lie between guard pages, and are filled with FILL until written.

    A write of the device outside the buffers it was given fails the test when the buffer is freed or the device closed.
    """

    def __init__(self, config: DeviceConfig, **kw):
        self._sizes: dict[int, int] = {}
        super().__init__(config, **kw)

    def host_alloc(self, nbytes: int) -> int:
        size = -(-max(nbytes, 1) // PAGE) * PAGE
        base = super().host_alloc(size + 2 * PAGE)
        self.device.host.fill(base, FILL, size + 2 * PAGE)
        self._sizes[base + PAGE] = nbytes
        return base + PAGE

    def host_free(self, address: int) -> None:
        self.check_guards(address)
        del self._sizes[address]
        super().host_free(address - PAGE)

    def check_guards(self, address: int) -> None:
        nbytes = self._sizes[address]
        size = -(-max(nbytes, 1) // PAGE) * PAGE
        before = self.host_read(address - PAGE, PAGE)
        after = self.host_read(address + nbytes, size - nbytes + PAGE)
        assert before.count(FILL) == len(before), f"bytes before the {nbytes}-byte buffer at {address:#x} were written"
        assert after.count(FILL) == len(after), f"bytes behind the {nbytes}-byte buffer at {address:#x} were written"

    def close(self) -> None:
        for address in list(self._sizes):
            self.check_guards(address)
        super().close()


class Recorded(GuardedSim):
    """Writes down whatever the host can see, and when: registers, interrupts, traffic and memory."""

    def __init__(self, config, **kw):
        self.log: list[tuple[Any, ...]] = []
        super().__init__(config, **kw)

    def note(self, *what: Any) -> None:
        self.log.append((self.cycles, *what))

    def mmio_read32(self, offset: int) -> int:
        value = super().mmio_read32(offset)
        self.note("read", offset, value)
        return value

    def mmio_write32(self, offset: int, value: int) -> None:
        super().mmio_write32(offset, value)
        self.note("write", offset, value)

    def wait_irq(self, timeout: int) -> bool:
        came = super().wait_irq(timeout)
        self.note("irq", came)
        return came

    def idle(self, cycles: int) -> None:
        super().idle(cycles)
        self.note("idle", self.device.irq)

    def random_timing(self, rng: np.random.Generator, stall: float, seed: int) -> None:
        """Both memories answer after random times from here on, and a beat stalls with probability ``stall``."""
        for k, memory in enumerate((self.device.host, self.device.dram)):
            memory.set_timing(int(rng.integers(1, 300)), int(rng.integers(1, 40)), stall, seed=seed + k)

    def end_step(self, device: Device, rng: np.random.Generator, longest: int) -> None:
        """Notes the counters and, after up to ``longest`` cycles in which the host does nothing, the memories."""
        self.note("counters", tuple(device.counters().items()))
        self.idle(int(rng.integers(1, longest)))
        self.snapshot()

    def snapshot(self) -> None:
        self.note("traffic", self.device.host.traffic, self.device.dram.traffic)
        self.note_memories()

    def note_memories(self) -> None:
        for memory in (self.device.host, self.device.dram):
            self.note("memory", hashlib.sha256(memory.read(0, RECORDED_BYTES)).hexdigest())


def open_device(config: DeviceConfig = SMALL, **kw) -> Device:
    """A device, ready, whose waits are short enough that a hang fails its test soon."""
    return Device(GuardedSim(config, **kw), timeout=TIMEOUT)


def call(device: Device, queue: int, opcode: int, **fields: int) -> Completion:
    """Send one command and wait for its completion, good or bad."""
    command = device.driver.submit(queue, opcode, f"opcode {int(opcode):#x}", **fields)
    return outcome(device, command)


def outcome(device: Device, command) -> Completion:
    try:
        return device.driver.wait(command)
    except CommandError as e:
        return Completion(e.status, e.dw0, e.dw1)


def random_block_io(rng: np.random.Generator, device: Device, pages: int) -> None:
    """Writes and reads ``pages`` somewhere near the device's end."""
    lba = device.config.lbas - 100 + int(rng.integers(0, 50))
    device.write(lba, rng.bytes(pages * device.config.lba_bytes))
    device.read(lba, pages)


def assert_one_device(traffic: Callable[..., list[tuple[Any, ...]]], *args: Any) -> list[tuple[Any, ...]]:
    """What the host program ``traffic`` sees of a device's gated model is what it sees of the ungated one; it."""
    gated, ungated = (traffic(*args, gated=g) for g in (True, False))
    for a, b in zip(gated, ungated, strict=False):
        assert a == b
    assert len(gated) == len(ungated)
    return gated


# -- tables -----------------------------------------------------------------------------------------------------------
def random_tables(rng: np.random.Generator, config: DeviceConfig, count: int, max_rows: int = 60) -> list[Table]:
    """Tables of mixed formats and modes, of those the device has, whose pooled vectors fit its accumulators together."""
    formats = [FORMATS.index(f) for f in config.lookup.formats]
    modes = [MODES.index(mode) for mode in config.lookup.modes]
    dims = [4 * int(rng.integers(1, config.lookup.accumulators // count // 4 + 1)) for _ in range(count)]
    return [make_table(rng, config, int(rng.integers(1, max_rows + 1)), min(d, config.lookup.max_dim),
                       RowFormat(formats[int(rng.integers(3)) % len(formats)]),
                       PoolMode(modes[int(rng.integers(2)) % len(modes)])) for d in dims]


def scatter(rng: np.random.Generator, config: DeviceConfig, tables: Sequence[Table]) -> None:
    """Give every table 1 to max_extents extents at random places, none touching another."""
    cuts = [sorted(rng.choice(np.arange(1, n), min(n, int(rng.integers(1, config.lookup.max_extents + 1))) - 1, False))
            if (n := t.spec.pages(config)) > 1 else [] for t in tables]
    pieces = [(t, int(a), int(b - a)) for t, (table, cut) in enumerate(zip(tables, cuts, strict=True))
              for a, b in zip([0, *cut], [*cut, table.spec.pages(config)], strict=True)]
    lba, placed = 0, {}
    for i in rng.permutation(len(pieces)):
        t, first, pages = pieces[i]
        lba += int(rng.integers(0, 9))
        placed[t, first] = Extent(first, lba, pages)
        lba += pages
    for t, table in enumerate(tables):
        extents = tuple(e for (owner, _), e in sorted(placed.items()) if owner == t)
        table.spec = replace(table.spec, extents=extents)


# -- queries ----------------------------------------------------------------------------------------------------------
def random_bags(rng: np.random.Generator, tables: Sequence[Table], batch: int, max_bag: int = 8, weighted: bool = False
                ) -> list[tuple[np.ndarray, ...]]:
    """One (indices, offsets[, weights]) per table; bags of 0 to ``max_bag``."""
    bags = []
    for table in tables:
        lengths = rng.integers(0, max_bag + 1, batch)
        indices = rng.integers(0, table.spec.rows, lengths.sum())
        offsets = np.cumsum(lengths) - lengths
        weights = (rng.uniform(-4, 4, len(indices)).astype(np.float32),) if weighted else ()
        bags.append((indices, offsets, *weights))
    return bags


def submit_lookup(device: Device, bags: Sequence) -> Ticket:
    """Send a LOOKUP batch and return at once; ``device.result`` gives [batch, all dims]."""
    return device._query(Opcode.LOOKUP, None, bags, None)


def expected(device: Device, tables: Sequence[Table], bags: Sequence) -> np.ndarray:
    """fp32 [batch, all dims]."""
    return np.concatenate([t.pooled(device.config.lookup.acc_bits, b) for t, b in zip(tables, bags, strict=True)], axis=1)


def assert_same_bits(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    a, b = (np.ascontiguousarray(x, np.float32).view(np.uint32) for x in (got, want))
    where = np.argwhere(a != b)
    assert not len(where), f"{len(where)} of {a.size} values differ, first at {where[0].tolist()}: " \
                           f"{got[tuple(where[0])]!r} instead of {want[tuple(where[0])]!r}"
