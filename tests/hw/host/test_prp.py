"""The PRP walker against NVMe's rules (NVM Express Base Specification 2.0, section 4.1.1), run by run."""

import struct

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.host.prp import PrpWalker
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")
PAGE = 4096
ENTRIES = PAGE // 8


def walk(memory, prp1, prp2, length, max_cycles=60_000):
    """The runs of one transfer."""
    dut = reused(PrpWalker, TINY)
    src, sink = StreamSource(dut.req, [{"prp1": prp1, "prp2": prp2, "length": length}]), StreamSink(dut.run)
    simulate(dut, [src, sink, memory.read_port(dut.mem_read)], until=lambda: sink.items and sink.items[-1]["last"],
             max_cycles=max_cycles)
    assert memory.pending == 0
    return sink.items


@pytest.mark.parametrize("tail", [4, PAGE - 4, PAGE])
@pytest.mark.parametrize("pages", [ENTRIES - 1, ENTRIES, ENTRIES + 1])
def test_the_last_entry_of_a_list_page_chains_only_when_more_than_a_page_remains(pages, tail):
    """``pages`` host pages behind the first, the last of them holding ``tail`` bytes: with one page or less to go, the last
    entry of a full list page is that page's address, not the next list's."""
    memory = MemoryModel(TINY.beat_bytes)
    data = [0x400000 + 2 * PAGE * k for k in range(pages)]
    first, second = 0x100000, 0x200000
    if pages > ENTRIES:
        memory.write(first, struct.pack(f"<{ENTRIES}Q", *data[: ENTRIES - 1], second))
        memory.write(second, struct.pack(f"<{pages - ENTRIES + 1}Q", *data[ENTRIES - 1 :]))
    else:
        memory.write(first, struct.pack(f"<{pages}Q", *data))
    runs = walk(memory, 0x300000, first, pages * PAGE + tail)
    assert [(r["addr"], r["bytes"]) for r in runs] == [(0x300000, PAGE), *((a, PAGE) for a in data[:-1]), (data[-1], tail)]
    assert [r["last"] for r in runs] == [0] * pages + [1]
    assert not any(r["status"] for r in runs)


@pytest.mark.parametrize(("chain", "status"), [(0x200008, Status.INVALID_PRP_OFFSET), (1 << 40, Status.DATA_TRANSFER_ERROR),
                                               ((1 << 63) + PAGE, Status.DATA_TRANSFER_ERROR)])
def test_a_chain_must_lead_to_a_page_the_bus_reaches(chain, status):
    memory = MemoryModel(TINY.beat_bytes)
    memory.write(0x1FF8, struct.pack("<Q", chain))
    runs = walk(memory, 0x3000, 0x1FF8, 3 * PAGE)
    assert [(r["bytes"], r["last"], r["status"]) for r in runs] == [(PAGE, 0, 0), (0, 1, status)]
