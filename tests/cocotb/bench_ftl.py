"""The FTL with its map in cocotbext-axi's memory: translations are gathers from a torch tensor, what it leaves in memory is
the reference model's."""

import random

import cocotb
import torch
from cocotb.triggers import RisingEdge
from nearflash.contract.onflash import superblock
from nearflash.reference.ftl import FtlModel
from nearflash_sim.bench.cocotb import unpack
from tops import CONFIG, ftl
from verbs import PATTERNS, Bench, Pace

LBAS, TOTAL = CONFIG.lbas, CONFIG.flash.total_pages
UNMAPPED = -1


def expected(table: torch.Tensor, lpns: list[int]) -> list[dict]:
    inside = torch.tensor(lpns) < LBAS
    found = torch.where(inside, table[torch.tensor(lpns).clamp(max=LBAS - 1)], UNMAPPED).tolist()
    return [{"ppn": p, "mapped": 1, "error": 0} if p != UNMAPPED else None for p in found]


def plain(items: list[dict]) -> list[dict | None]:
    """An unmapped page has no PPN to compare."""
    return [i if i["mapped"] or i["error"] else None for i in items]


class Pages:
    """Takes pages of the log on demand. Not a StreamSink: a mount may withdraw the offer."""

    def __init__(self, b: Bench, pattern: str):
        self.b, self.pace = b, Pace(pattern, "allocate")

    async def take(self, count: int) -> list[dict]:
        dut, out = self.b.dut, []
        for _ in range(4_000):
            ready = self.pace.random() >= 0.5
            dut.allocate__ready.value = int(ready)
            await RisingEdge(dut.clk)
            if ready and int(dut.allocate__valid.value):
                out.append(unpack(self.b.shape("allocate"), int(dut.allocate__payload.value)))
            if len(out) == count:
                dut.allocate__ready.value = 0
                return out
        raise AssertionError(f"{len(out)} of {count} pages after 4,000 cycles")


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def translate_allocate_update_remount(dut, inputs, outputs):
    rng = random.Random(f"{inputs}{outputs}")
    model = FtlModel(CONFIG)
    table = torch.full((LBAS,), UNMAPPED)
    for _ in range(70):
        lpn = rng.randrange(LBAS)
        table[lpn] = model.write(lpn, bytes(CONFIG.lba_bytes))
    b = Bench(dut, ftl())
    await b.begin()
    ram = b.ram("dram", pattern=outputs)
    for address, content in model.image():
        ram.write(address, content)
    pages = Pages(b, outputs)
    sinks = {k: b.sink(f"{k}_rsp", outputs) for k in ("lookup", "block")}
    sources = {k: b.source(f"{k}_req", [], inputs) for k in ("lookup", "block")}
    update, updated = b.source("update", [], inputs), b.sink("update_done", outputs)
    sync, synced = b.source("sync"), b.sink("sync_done")
    dut.enable.value = 1

    async def translate(count):
        """Both clients at once: pages anywhere, the last ones, beyond the end."""
        asked = {k: [rng.choice([rng.randrange(LBAS), rng.randrange(24), LBAS - 1, LBAS, 2**32 - 1])
                     for _ in range(count)] for k in sinks}
        for k, lpns in asked.items():
            sinks[k].items.clear()
            sources[k].items += [{"lpn": x} for x in lpns]
        await b.until(lambda: all(len(s.items) >= count for s in sinks.values()), 4_000)
        for k, lpns in asked.items():
            assert plain(sinks[k].items) == expected(table, lpns)

    async def allocate(count):
        """The next pages of the log, each mapped at once, and translations that see it."""
        for p in await pages.take(count):
            lpn = rng.randrange(24)
            assert p == {"ppn": model.cursor, "sequence": model.sequence, "erase": int(
                model.cursor // (CONFIG.flash.channels * CONFIG.flash.dies) % CONFIG.flash.pages == 0)}
            model.write(lpn, bytes(CONFIG.lba_bytes))
            table[lpn] = p["ppn"]
            update.items.append({"lpn": lpn, "ppn": p["ppn"], "mapped": 1})
        trimmed = rng.randrange(24)
        model.trim(trimmed)
        table[trimmed] = UNMAPPED
        update.items.append({"lpn": trimmed, "ppn": 0, "mapped": 0})
        await b.until(lambda: update.drained and len(updated.items) == len(update.items), 8_000)
        assert not any(u["error"] for u in updated.items)

    async def check_memory():
        sync.items.append(0)
        await b.until(lambda: len(synced.items) == len(sync.items), 1_000)
        assert synced.items[-1] == {"error": 0}
        assert ram.read(CONFIG.layout.superblock, 16) == superblock(model.cursor, model.sequence)
        words = torch.frombuffer(bytearray(ram.read(CONFIG.layout.map, 4 * LBAS)), dtype=torch.int32)
        assert torch.equal(words.long() - 1, table)  # an entry is 0 or PPN + 1

    await translate(40)
    await allocate(10)
    await translate(20)
    await check_memory()
    dut.enable.value = 0
    await b.until(lambda: not int(dut.ready.value), 10)
    dut.enable.value = 1
    await b.until(lambda: bool(int(dut.ready.value)), 1_000)
    await translate(20)
    await allocate(5)
    await check_memory()
    rest = await pages.take(TOTAL - model.cursor)
    assert [p["ppn"] for p in rest] == list(range(model.cursor, TOTAL))
    assert [p["sequence"] for p in rest] == [model.sequence + k for k in range(len(rest))]
    await b.finish(lambda: bool(int(dut.full.value)), 10, idle=["allocate__valid"])
