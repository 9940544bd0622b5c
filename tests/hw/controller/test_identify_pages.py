# amaranth: UnusedElaboratable=no
import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.identify import CNS, identify
from nearflash_hw.controller.identify import Identify
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")
BEAT = TINY.beat_bytes


def run(requests, stall=0.0, fail=lambda addr: False):
    dut = reused(Identify, TINY)
    memory = MemoryModel(BEAT, latency=5, stall=stall, seed=2, fail=fail)
    for addr in range(0x10000, 0x16000):
        memory.bytes[addr] = 0xA5
    results = StreamSink(dut.result, stall, seed=3)
    simulate(dut, [memory.write_port(dut.mem_write), results,
                   StreamSource(dut.req, [dict(zip(("cns", "prp1", "prp2"), r, strict=True)) for r in requests], stall)],
             until=lambda: len(results.items) == len(requests), max_cycles=20_000)
    assert memory.pending == 0
    return memory, [r["status"] for r in results.items]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("cns", CNS)
def test_the_page_of_the_contract_whole_or_in_two_parts(cns, stall):
    page = identify(TINY, cns)
    memory, status = run([(cns, 0x11000, 0)], stall)
    assert status == [Status.SUCCESS]
    assert memory.read(0x11000, 4096) == page
    assert memory.read(0x10FC0, 64) + memory.read(0x12000, 64) == b"\xA5" * 128
    for offset in (BEAT, 2048, 4096 - BEAT):
        memory, status = run([(cns, 0x11000 + offset, 0x14000)], stall)
        assert status == [Status.SUCCESS]
        assert memory.read(0x11000 + offset, 4096 - offset) + memory.read(0x14000, offset) == page
        assert memory.read(0x14000 + offset, 64) == b"\xA5" * 64


def test_what_is_refused_writes_nothing_of_that_part():
    good = CNS[0]
    requests = [(0x77, 0x11000, 0), (good, 0x11004, 0), (good, 1 << TINY.bus.address_bits, 0), (good, 0x11800, 0x14008),
                (good, 0x11800, 1 << TINY.bus.address_bits)]
    for request, expected in zip(requests, (Status.INVALID_FIELD, Status.INVALID_PRP_OFFSET, Status.DATA_TRANSFER_ERROR,
                                            Status.INVALID_PRP_OFFSET, Status.DATA_TRANSFER_ERROR), strict=True):
        memory, status = run([request])
        assert status == [expected]
        assert memory.read(0x14000, 4096) == b"\xA5" * 4096
        if request[1] != 0x11800:
            assert memory.read(0x11000, 4096) == b"\xA5" * 4096


def test_a_failed_write_is_reported_and_the_next_request_works():
    _, status = run([(CNS[0], 0x11000, 0), (CNS[0], 0x12800, 0x15000), (CNS[0], 0x13000, 0)],
                    fail=lambda addr: addr in (0x11000, 0x15000))
    assert status == [Status.DATA_TRANSFER_ERROR, Status.DATA_TRANSFER_ERROR, Status.SUCCESS]
