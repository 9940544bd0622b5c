"""The lookup engine with pooling, FTL and host readers: LOOKUP commands from cocotbext-axi's host memory, the map in its
DRAM, the flash channels modelled here. Results are those of torch.nn.EmbeddingBag, bit for bit: every sum is exact."""

import random

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from exact_tables import SHAPES, exact_table, random_bags, torch_pool
from nearflash.contract import Opcode, Status
from nearflash.quantize.tables import encode_rows
from nearflash.reference.ftl import FtlModel
from nearflash.reference.query import pack_queries
from nearflash.runtime.layout import table_pages
from tops import BEAT, CONFIG, lookup
from verbs import PATTERNS, Bench, beats_of, placed

F = CONFIG.flash
OUT, QUERY, SPACING = 0x40000, 0x10000, 0x2000
BATCH = 3


class Flash:
    """Channels that answer READs after random times, each vector in one piece, in any order."""

    def __init__(self, b: Bench, ram, inputs, outputs, rng):
        self.b, self.ram, self.rng, self.waiting, self.reads = b, ram, rng, [[] for _ in range(F.channels)], 0
        self.out = [b.source(f"flash_data__{k}", [], inputs) for k in range(F.channels)]
        for k in range(F.channels):
            b.sink(f"flash_cmd__{k}", outputs, self.waiting[k].append)
        cocotb.start_soon(self.answer())

    async def answer(self):
        while True:
            await RisingEdge(self.b.dut.clk)
            for k, queue in enumerate(self.waiting):
                if queue and self.out[k].drained and self.rng.random() < 0.1:
                    c = queue.pop(self.rng.randrange(len(queue)))
                    ppn = ((c["block"] * F.pages + c["page"]) * F.dies + c["die"]) * F.channels + k
                    at = CONFIG.layout.flash + ppn * F.page_bytes + c["column"] * BEAT
                    words = beats_of(self.ram.read(at, c["beats"] * BEAT), BEAT)
                    self.out[k].items += [{"data": w, "tag": c["tag"], "last": int(i == len(words) - 1), "error": 0}
                                          for i, w in enumerate(words)]
                    self.reads += 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def lookups_are_embedding_bags(dut, inputs, outputs):
    rng = random.Random(f"{inputs}{outputs}")
    b = Bench(dut, lookup())
    await b.begin()
    host, dram = b.ram("host", pattern=inputs), b.ram("dram", pattern=outputs)
    specs, weights = zip(*(exact_table(CONFIG, *shape) for shape in SHAPES), strict=True)
    specs = [placed(CONFIG, spec, 40 * k) for k, spec in enumerate(specs)]
    model = FtlModel(CONFIG)
    for spec, w in zip(specs, weights, strict=True):
        for k, page in enumerate(table_pages(spec, encode_rows(w.numpy(), spec.format), CONFIG)):
            model.write(spec.extents[0].lba + k, page.tobytes())
    for address, content in model.image():
        dram.write(address, content)
    dut.enable.value = 1
    await b.open_tables(CONFIG, specs)
    await b.until(lambda: bool(int(dut.ready.value)), 500)

    commands, expected, lookups = [], {}, 0
    for cid in range(4):
        weighted = cid & 1
        used = len(specs) - weighted  # EmbeddingBag takes weights for sums alone
        bags = [random_bags(rng, s.rows, BATCH, bool(weighted)) for s in specs[:used]]

        def pack(bags, weighted=weighted):
            return pack_queries(None, [[i for i, _ in t] for t in bags], [[w for _, w in t] for t in bags]
                                if weighted else None)

        bad = cid == 2
        if bad:
            bags[0][0] = np.array([specs[0].rows]), None
        words = pack(bags)
        host.write(QUERY + cid * SPACING, words.tobytes())
        host.write(OUT + cid * SPACING, b"\xa5" * SPACING)
        commands.append({"opcode": Opcode.LOOKUP, "qid": 1, "cid": cid, "prp1": QUERY + cid * SPACING,
                         "prp2": QUERY + cid * SPACING + 4096, "words": len(words), "batch": BATCH, "weighted": weighted,
                         "tables": used, "dense": 0, "out_addr": OUT + cid * SPACING})
        if bad:
            expected[cid] = {"qid": 1, "cid": cid, "status": Status.INDEX_OUT_OF_RANGE, "dw0": 1, "dw1": 0}, b""
            continue
        pooled = [torch_pool(w, s.mode, t) for s, w, t in zip(specs[:used], weights[:used], bags, strict=True)]
        lookups += sum(len(i) for table in bags for i, _ in table)
        expected[cid] = ({"qid": 1, "cid": cid, "status": 0, "dw0": 0, "dw1": 0},
                         np.concatenate(pooled, axis=1).tobytes())

    flash = Flash(b, dram, inputs, outputs, rng)
    done = b.sink("completion", outputs)
    b.source("infer_cmd", commands, inputs)
    await b.finish(lambda: len(done.items) >= len(commands), 30_000, idle=["tags_used"])
    assert int(dut.idle.value)
    assert flash.reads == lookups
    assert sorted(d["cid"] for d in done.items) == list(expected)
    for item in done.items:
        completion, content = expected[item["cid"]]
        assert item == completion
        at = OUT + item["cid"] * SPACING
        assert host.read(at, len(content)) == content, f"command {item['cid']}"
        tail = -(-len(content) // BEAT) * BEAT
        assert host.read(at + tail, 64) == b"\xa5" * 64, "written beyond the result"
