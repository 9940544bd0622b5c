"""What the benches of the whole device share: the host library over AXI, tables through NVMe writes, LOOKUPs."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from axi_backend import AxiBackend, run_host_program
from exact_tables import SHAPES, exact_table, random_bags, torch_pool
from nearflash.contract import DeviceConfig
from nearflash.contract.onflash import superblock
from nearflash.contract.table import PoolMode
from nearflash.quantize.tables import encode_rows
from nearflash.runtime import Device
from verbs import Bench

__all__ = ["joined", "lookup_program", "run_device"]


async def run_device(dut, top, config: DeviceConfig, inputs: str, outputs: str, program: Callable[[Device], int]) -> None:
    """Run ``program``, which returns how many pages it wrote; the device is quiet and its superblock right after it."""
    b = Bench(dut, top)
    await b.begin()
    host, dram = b.ram("m_axi_host", 1 << 21, inputs), b.ram("m_axi_dram", config.layout.end, outputs)
    pages = []
    await run_host_program(AxiBackend(config, dut, host, inputs), lambda device: pages.append(program(device)))
    await b.finish(lambda: not int(dut.irq.value), 100)
    assert dram.read(config.layout.superblock, 16) == superblock(pages[0], pages[0])


def joined(bags) -> tuple[np.ndarray, ...]:
    """(indices, offsets[, weights]) of one table's bags."""
    offsets = np.cumsum([0, *(len(i) for i, _ in bags[:-1])])
    weights = () if bags[0][1] is None else (np.concatenate([w for _, w in bags]),)
    return np.concatenate([i for i, _ in bags]), offsets, *weights


def lookup_program(config: DeviceConfig, rng: random.Random) -> Callable[[Device], int]:
    """Blocks written and read back, tables created through block writes, LOOKUPs plain and weighted, a table deleted."""
    def program(device: Device) -> int:
        size = config.lba_bytes
        first, second = rng.randbytes(2 * size), rng.randbytes(size)
        device.write(3, first)
        device.write(4, second)
        assert device.read(2, 3) == bytes(size) + first[:size] + second
        device.trim(3)
        assert device.read(3) == bytes(size)
        tables = [exact_table(config, *shape) for shape in SHAPES]
        pages = 3
        for t, (spec, weight) in enumerate(tables):
            spec = device.create_table(t, spec, encode_rows(weight.numpy(), spec.format), lba=16 + 40 * t)
            pages += spec.pages(config)
        for batch, weighted in ((4, False), (3, True)):
            # EmbeddingBag takes weights for sums alone, and a LOOKUP the first tables.
            used = [x for x in tables if not (weighted and x[0].mode == PoolMode.MEAN)]
            bags = [random_bags(rng, spec.rows, batch, weighted) for spec, _ in used]
            got = device.lookup([joined(x) for x in bags])
            for (spec, weight), bag, values in zip(used, bags, got, strict=True):
                assert values.tobytes() == torch_pool(weight, spec.mode, bag).tobytes()
        device.delete_table(1)
        counts = device.counters()
        assert counts["samples_count"] == 7
        assert sum(v for k, v in counts.items() if "programs" in k) == pages
        return pages
    return program
