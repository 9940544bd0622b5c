"""Several channels on one array server: every job's bytes go to and come from its own channel."""

import random

import pytest
from flash_bench import Flash, beats_of, check_dram, expect_read, filled, packets, program, random_page, read
from nearflash.contract import DeviceConfig
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import MemoryModel


@pytest.mark.parametrize("dies", [1, 2])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_channels_that_work_at_once(dies, stall):
    config = DeviceConfig.preset("tiny", channels=4, dies=dies, blocks=4, pages=4, t_read_ns=500, t_program_ns=900)
    rng = random.Random(dies)
    channels = (1, 2, 3)
    nand = filled(config, rng, 0, {0: 4})
    for channel in channels:
        for die in range(dies):
            for block, pages in ((0, 4), (1, 0)):
                nand.erase(nand.ppn(block, 0, die, channel))
                for page in range(pages):
                    assert nand.program(nand.ppn(block, page, die, channel), random_page(config, rng))
    memory = MemoryModel(config.beat_bytes, latency=12, stall=stall, seed=1)
    for address, content in nand.dram():
        memory.write(address, content)
    dut = Flash(config, *channels)
    actors, lookups, wanted, dones = [], [], [], []
    for k, channel in enumerate(channels):
        reads = [read(t, rng.randrange(dies), 0, rng.randrange(4), rng.randrange(config.page_beats), rng.randint(1, 6))
                 for t in range(12)]
        pages = [random_page(config, rng) for _ in range(2 * dies)]
        programs = [program(t, t % dies, 1, t // dies) for t in range(2 * dies)]
        for c, page in zip(programs, pages, strict=True):
            assert nand.program(nand.ppn(1, c["page"], c["die"], channel), page)
        lookups.append(StreamSink(getattr(dut, f"lookup_data{k}"), stall, seed=10 + k))
        dones.append(StreamSink(getattr(dut, f"block_done{k}"), stall, seed=20 + k))
        wanted.append([expect_read(nand, channel, c) for c in reads])
        actors += [lookups[-1], dones[-1], StreamSource(getattr(dut, f"lookup_cmd{k}"), reads, stall, seed=30 + k),
                   StreamSource(getattr(dut, f"block_cmd{k}"), programs, stall, seed=40 + k),
                   StreamSource(getattr(dut, f"block_in{k}"), [b for p in pages for b in beats_of(config, p)], stall,
                                seed=50 + k)]
    simulate(dut, [*actors, memory.read_port(dut.mem_read), memory.write_port(dut.mem_write)], max_cycles=30_000, settle=200,
             until=lambda: all(len(d.items) == 2 * dies for d in dones)
             and all(len(s.items) == sum(len(b) for _, b, _ in w) for s, w in zip(lookups, wanted, strict=True)))
    for sink, expected in zip(lookups, wanted, strict=True):
        assert sorted(packets(sink)[0]) == sorted(expected)
    assert not any(d["error"] for sink in dones for d in sink.items)
    for channel in channels:
        check_dram(nand, channel, memory)
