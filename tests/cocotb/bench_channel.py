"""The flash channel, its array in cocotbext-axi's memory: vectors are those of torch.nn.functional.embedding, contents and
rule violations those of the NAND model."""

import random

import cocotb
import torch
from nearflash.reference.flash import NandArray
from nearflash_hw.flash.channel import Channel
from nearflash_hw.interfaces import FlashOp
from tops import BEAT, CONFIG, channel
from verbs import PATTERNS, Bench, beats_of

F = CONFIG.flash
DIM = 8  # fp32: rows of four beats
ROW_BEATS = DIM * 4 // BEAT
ROWS_PER_PAGE = F.page_bytes // (DIM * 4)
PAGES = 3  # of block 0, per die, hold the table


def filled(weight: torch.Tensor, rng: random.Random) -> NandArray:
    """Row r of ``weight`` is in table page r // ROWS_PER_PAGE, and the pages alternate between the dies."""
    nand = NandArray(CONFIG)
    for die in range(F.dies):
        nand.erase(nand.ppn(0, 0, die))
        for page in range(PAGES):
            at = (page * F.dies + die) * ROWS_PER_PAGE
            raw = weight[at : at + ROWS_PER_PAGE].numpy().tobytes() + rng.randbytes(F.oob_bytes)
            assert nand.program(nand.ppn(0, page, die), raw)
    return nand


def command(op, tag, die=0, block=0, page=0, column=0, beats=0):
    return {"op": op, "die": die, "block": block, "page": page, "column": column, "beats": beats, "tag": tag}


def packets(items):
    """tag -> (beats, error); a packet's beats come without another's between them."""
    out, beats = {}, []
    for i in items:
        beats.append(i)
        if i["last"]:
            assert len({(b["tag"], b["error"]) for b in beats}) == 1
            assert i["tag"] not in out
            out[i["tag"]] = [b["data"] for b in beats], i["error"]
            beats = []
    assert not beats
    return out


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def reads_programs_and_erases(dut, inputs, outputs):
    rng = random.Random(f"{inputs}{outputs}")
    torch.manual_seed(rng.getrandbits(32))
    weight = torch.randn(PAGES * F.dies * ROWS_PER_PAGE, DIM)
    nand = filled(weight, rng)
    b = Bench(dut, channel())
    await b.begin()
    ram = b.ram("dram", pattern=outputs)
    for address, content in nand.dram():
        ram.write(address, content)

    # Lookups of one path beside programs and erases of the other. A block's blank pages read as FFh.
    rows = [rng.randrange(len(weight)) for _ in range(CONFIG.lookup.tags)]
    lookups = []
    for tag, r in enumerate(rows):
        page, row = divmod(r, ROWS_PER_PAGE)
        lookups.append(command(FlashOp.READ, tag, page % F.dies, 0, page // F.dies, row * ROW_BEATS, ROW_BEATS))
    blocks, pages, dones, reads = [], [], {}, {}
    for die in range(F.dies):
        ppn = [nand.ppn(1, page, die) for page in range(3)]
        steps = [("erase", 0), ("program", 0), ("program", 2), ("read", 0), ("program", 1), ("read", 1), ("read", 2)]
        for what, page in steps:
            tag = len(blocks)
            if what == "read":
                column = rng.randrange(CONFIG.raw_page_beats)
                beats = rng.choice([1, CONFIG.raw_page_beats - column])
                blocks.append(command(FlashOp.READ, tag, die, 1, page, column, beats))
                reads[tag] = beats_of(nand.read(ppn[page], column, beats), BEAT), 0
            elif what == "erase":
                blocks.append(command(FlashOp.ERASE, tag, die, 1))
                dones[tag] = int(not nand.erase(ppn[0]))
            else:
                raw = rng.randbytes(F.page_bytes + F.oob_bytes)
                blocks.append(command(FlashOp.PROGRAM, tag, die, 1, page))
                pages += beats_of(raw, BEAT)
                dones[tag] = int(not nand.program(ppn[page], raw))  # page 2 before page 1 breaks NAND's rule
    assert sorted(dones.values()) == [0] * 3 * F.dies + [1] * F.dies

    lookup_data, block_data = b.sink("lookup_data", outputs), b.sink("block_data", outputs)
    done = b.sink("block_done", outputs)
    for name, items in (("lookup_cmd", lookups), ("block_cmd", blocks), ("block_in", pages)):
        b.source(name, items, inputs)
    want = len(rows) * ROW_BEATS, sum(len(d) for d, _ in reads.values()), len(dones)
    await b.finish(lambda: all(len(s.items) >= n for s, n in zip((lookup_data, block_data, done), want, strict=True)),
                   20_000, idle=["die_busy", "bus_busy"])

    got = packets(lookup_data.items)
    vectors = torch.nn.functional.embedding(torch.tensor(rows), weight)
    assert got == {tag: (beats_of(v.numpy().tobytes(), BEAT), 0) for tag, v in enumerate(vectors)}
    assert packets(block_data.items) == reads
    assert {i["tag"]: i["error"] for i in done.items} == dones
    assert len(done.items) == len(dones)
    for address, content in nand.dram():
        assert ram.read(address, len(content)) == content, hex(address)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def an_idle_read_takes_the_papers_time(dut):
    """C_EV: tR plus the bus time of the vector, and the channel's own overhead."""
    b = Bench(dut, channel())
    await b.begin()
    b.ram("dram")
    sink = b.sink("lookup_data")
    for beats in (ROW_BEATS, 16):
        n = len(sink.items)
        source = b.source("lookup_cmd", [command(FlashOp.READ, 3, beats=beats)])
        await b.until(lambda s=source: s.drained, 100)
        before = len(sink.items), await b.until(lambda n=n, k=beats: len(sink.items) == n + k, 2_000)
        limit = CONFIG.read_cycles_per_vector(beats * BEAT) + Channel.READ_OVERHEAD
        assert before[0] == n
        assert limit - 3 <= before[1] <= limit + 1, (before[1], limit)
    await b.finish(lambda: True, 1, idle=["die_busy", "bus_busy"])
