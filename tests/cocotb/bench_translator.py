"""The translator with the FTL: what it makes the channels read, taken from cocotbext-axi's memory, is the row that
torch.nn.functional.embedding gives."""

import random

import cocotb
import torch
from cocotb.triggers import RisingEdge
from nearflash.contract import RowFormat, Status, TableSpec
from nearflash.reference.ftl import FtlModel
from nearflash.runtime.layout import table_pages
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench.cocotb import unpack
from tops import BEAT, CONFIG, translator
from verbs import PATTERNS, Bench, placed

F = CONFIG.flash
SPECS = tuple(placed(CONFIG, spec, *lbas) for spec, lbas in (
    (TableSpec(90, 12, RowFormat.FP32), (30, 7)), (TableSpec(130, 20, RowFormat.FP16), (60,)), (TableSpec(40, 4), (90,))))
LOST = 62  # a logical block of table 1 that was never written


def stored(weights) -> FtlModel:
    model = FtlModel(CONFIG)
    blocks = {}
    for spec, w in zip(SPECS, weights, strict=True):
        raw = torch.as_tensor(w).contiguous().view(torch.uint8).numpy().reshape(spec.rows, -1)
        for e in spec.extents:
            n = min(e.pages, spec.pages(CONFIG) - e.first_page)
            for k, page in enumerate(table_pages(spec, raw, CONFIG, e.first_page, n)):
                blocks[e.lba + k] = page.tobytes()
    for lba in random.Random(4).sample(sorted(blocks), len(blocks)):  # so that the pages lie anywhere
        if lba != LOST:
            model.write(lba, blocks[lba])
    return model


def lba_of(spec: TableSpec, index: int) -> int:
    page = index // spec.rows_per_page(CONFIG)
    e = next(e for e in spec.extents if e.first_page <= page < e.first_page + e.pages)
    return e.lba + page - e.first_page


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def rows_are_where_torch_finds_them(dut, inputs, outputs):
    rng = random.Random(f"{inputs}{outputs}")
    torch.manual_seed(5)
    weights = [torch.randn(s.rows, s.dim, dtype=torch.float32 if s.format == RowFormat.FP32 else torch.float16)
               for s in SPECS]
    b = Bench(dut, translator())
    await b.begin()
    ram = b.ram("dram", pattern=outputs)
    for address, content in stored(weights).image():
        ram.write(address, content)
    dut.enable.value = 1
    await b.open_tables(CONFIG, SPECS)
    await b.until(lambda: bool(int(dut.ready.value)), 500)

    entries, reads, flying = {}, [], []
    tags = b.source("tag_free", [], inputs)

    def on_command(channel):
        def take(c):
            assert c["op"] == FlashOp.READ
            assert c["tag"] not in flying, "tag used twice"
            flying.append(c["tag"])
            ppn = ((c["block"] * F.pages + c["page"]) * F.dies + c["die"]) * F.channels + channel
            at = CONFIG.layout.flash + ppn * F.page_bytes + c["column"] * BEAT
            reads.append((entries[c["tag"]], ram.read(at, c["beats"] * BEAT)))
        return take

    async def watch_tags():
        while True:
            await RisingEdge(dut.clk)
            if int(dut.tag_write_valid.value):
                w = unpack(b.shape("tag_write"), int(dut.tag_write.value))
                entries[w["tag"]] = w["entry"]
            if flying and rng.random() < 0.2:
                tags.items.append(flying.pop(rng.randrange(len(flying))))

    cocotb.start_soon(watch_tags())
    for k in range(F.channels):
        b.sink(f"flash_cmd__{k}", outputs, on_command(k))
    poison = b.sink("poison", outputs)
    lookups = []
    for k in range(120):
        t = rng.randrange(len(SPECS))
        index = rng.choice([0, SPECS[t].rows - 1, rng.randrange(SPECS[t].rows)])
        if k % 30 == 7:
            t, index = 1, 2 * SPECS[1].rows_per_page(CONFIG) + k % 3
        # The weight is the lookup's number, to tell equal lookups apart.
        lookups.append({"slot": rng.randrange(2), "table": t, "index": index, "weight": k, "weighted": k & 1})
    b.source("lookup", lookups, inputs)
    await b.finish(lambda: len(reads) + len(poison.items) >= len(lookups) and not flying and tags.drained, 20_000,
                   idle=["tags_used"])

    bad = [x for x in lookups if lba_of(SPECS[x["table"]], x["index"]) == LOST]
    assert len(bad) >= 4
    assert poison.items == [{"slot": x["slot"], "table": x["table"], "status": Status.ROW_UNMAPPED} for x in bad]
    assert len(reads) == len(lookups) - len(bad)
    for entry, raw in reads:
        x = lookups[entry["weight"]]
        assert entry == {k: x[k] for k in ("slot", "table", "weight", "weighted")}
        row = torch.nn.functional.embedding(torch.tensor(x["index"]), weights[x["table"]])
        got = torch.frombuffer(bytearray(raw), dtype=row.dtype)[: row.numel()]
        assert torch.equal(got, row), x
        assert len(raw) == SPECS[x["table"]].stride_beats(CONFIG) * BEAT
    assert sorted(e["weight"] for e, _ in reads) == [k for k, x in enumerate(lookups) if x not in bad]
