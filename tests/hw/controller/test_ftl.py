"""The FTL against the reference model: translation, coherence of updates, allocation, superblock and remounts."""

import dataclasses
import random
import struct

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.onflash import SUPERBLOCK_MAGIC, superblock
from nearflash.reference.ftl import FtlModel
from nearflash_hw.controller.ftl import Ftl
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")
ROW = TINY.flash.channels * TINY.flash.dies * TINY.flash.pages


def wide(beat_bytes: int) -> DeviceConfig:
    """Another beat width, one channel, a map of several cache lines."""
    flash = dataclasses.replace(TINY.flash, channels=1, dies=4, blocks=8, pages=8)
    lookup = dataclasses.replace(TINY.lookup, lanes=beat_bytes // 4, map_cache_lines=2)
    return dataclasses.replace(TINY, beat_bytes=beat_bytes, flash=flash, lookup=lookup)


FOUR = dataclasses.replace(TINY, lookup=dataclasses.replace(TINY.lookup, map_misses=4))  # lines of the map at once
CONFIGS = {"tiny": TINY, "beat16": wide(16), "beat32": wide(32), "lines at once": FOUR}


def filled(config: DeviceConfig, seed: int) -> FtlModel:
    rng = random.Random(seed)
    model = FtlModel(config)
    for _ in range(min(90, config.flash.total_pages - 40)):
        model.write(rng.randrange(config.lbas), bytes(config.lba_bytes))
    return model


class Bench:
    """An FTL with its memory, sources and sinks; ``phases`` are (condition, action) steps of a script."""

    def __init__(self, config: DeviceConfig, model: FtlModel | None = None, stall: float = 0.0, latency: int = 5,
                 fail=lambda addr: False):
        self.config = config
        self.dut = dut = reused(Ftl, config)
        self.memory = MemoryModel(config.beat_bytes, latency=latency, stall=stall, seed=1, fail=fail)
        for addr, content in model.image() if model else ():
            self.memory.write(addr, content)
        self.lookup = StreamSource(dut.lookup_req, [], stall, 2)
        self.block = StreamSource(dut.block_req, [], stall, 3)
        self.update = StreamSource(dut.update, [], stall, 4)
        self.sync = StreamSource(dut.sync, [], 0, 5)
        self.lookup_rsp, self.block_rsp = StreamSink(dut.lookup_rsp, stall, 6), StreamSink(dut.block_rsp, stall, 7)
        self.update_done, self.sync_done = StreamSink(dut.update_done, stall, 8), StreamSink(dut.sync_done, stall, 9)
        self.allocated: list[dict] = []
        self.take = 0  # pages still to allocate
        self.enable = 1
        self.misses = 0
        self.ready = self.full = self.stalled = False
        self.cycle = 0

    async def control(self, ctx):
        dut = self.dut
        while True:
            ctx.set(dut.enable, self.enable)
            taking = self.take > 0
            ctx.set(dut.allocate.ready, taking)
            _, _, valid, p, miss, ready, full, stalled = await ctx.tick().sample(
                dut.allocate.valid, dut.allocate.payload, dut.map_miss, dut.ready, dut.full, dut.stalled)
            self.cycle += 1
            self.misses += miss
            self.ready, self.full, self.stalled = bool(ready), bool(full), bool(stalled)
            assert not (valid and full)
            if valid and taking:
                self.take -= 1
                self.allocated.append({"ppn": p.ppn, "sequence": p.sequence, "erase": p.erase})

    def run(self, script=None, max_cycles: int = 20_000) -> int:
        """``script``: a generator that yields conditions to wait for; between them it queues work."""
        waiting = {"for": lambda: True, "over": False}
        steps = iter(script())

        def until() -> bool:
            while not waiting["over"] and waiting["for"]():
                try:
                    waiting["for"] = next(steps)
                except StopIteration:
                    waiting["over"] = True
            return waiting["over"]

        actors = [self.lookup, self.block, self.update, self.sync, self.lookup_rsp, self.block_rsp, self.update_done,
                  self.sync_done, self.control, self.memory.read_port(self.dut.mem_read),
                  self.memory.write_port(self.dut.mem_write)]
        cycles = simulate(self.dut, actors, until=until, max_cycles=max_cycles)
        assert self.memory.pending == 0
        for src, sink in ((self.lookup, self.lookup_rsp), (self.block, self.block_rsp),
                          (self.update, self.update_done), (self.sync, self.sync_done)):
            assert src.sent == len(src.items) == len(sink.items)
        return cycles

    def stored_superblock(self) -> tuple[int, int, int]:
        return struct.unpack("<IIQ", self.memory.read(self.config.layout.superblock, 16))


def expect(model: FtlModel, lpn: int) -> tuple[int, int]:
    ppn = model.translate(lpn)
    return (0, 0) if ppn is None else (1, ppn)


def got(item: dict) -> tuple[int, int]:
    assert not item["error"]
    return (item["mapped"], item["ppn"] if item["mapped"] else 0)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_translations_match_the_model(name, stall):
    config = CONFIGS[name]
    model = filled(config, 5)
    b = Bench(config, model, stall)
    rng = random.Random(6)
    lpns = [[rng.choice([rng.randrange(config.lbas), config.lbas, 2**32 - 1, config.lbas - 1]) for _ in range(80)]
            for _ in range(2)]

    def script():
        b.lookup.items += [{"lpn": x} for x in lpns[0]]
        b.block.items += [{"lpn": x} for x in lpns[1]]
        yield lambda: len(b.lookup_rsp.items) == 80 and len(b.block_rsp.items) == 80

    b.run(script)
    assert [got(i) for i in b.lookup_rsp.items] == [expect(model, x) for x in lpns[0]]
    assert [got(i) for i in b.block_rsp.items] == [expect(model, x) for x in lpns[1]]
    assert b.misses > 0


def test_a_hit_every_two_cycles_and_a_miss_costs_eight_more_than_memory():
    b = Bench(TINY, filled(TINY, 5), latency=20)
    line_lpns = TINY.beat_bytes  # 4 beats of u32: beat_bytes entries

    def script():
        b.lookup.items += [{"lpn": i % line_lpns} for i in range(20)]
        yield lambda: len(b.lookup_rsp.items) == 20

    b.run(script)
    c = b.lookup_rsp.cycles
    assert b.misses == 1
    assert all(x - y <= 2 for x, y in zip(c[6:], c[5:], strict=False))
    first_miss = Bench(TINY, filled(TINY, 5), latency=20)
    start = {}

    def one():
        yield lambda: first_miss.ready
        start["cycle"] = first_miss.cycle
        first_miss.lookup.items.append({"lpn": 3})
        yield lambda: first_miss.lookup_rsp.items

    first_miss.run(one)
    assert first_miss.lookup_rsp.cycles[0] - start["cycle"] <= 20 + 8 + 4  # and the bench's own four cycles


@pytest.mark.parametrize("config", [TINY, FOUR], ids=["one line", "lines at once"])
def test_clients_share_fairly_and_do_not_block_each_other(config):
    b = Bench(config, filled(config, 5))

    def script():
        b.lookup.items += [{"lpn": i % 8} for i in range(60)]
        b.block.items += [{"lpn": i % 8} for i in range(20)]
        yield lambda: len(b.block_rsp.items) == 20
        assert len(b.lookup_rsp.items) < 26
        b.lookup_rsp.stall = 1.0  # a client that takes nothing must not hold up the other
        b.block.items += [{"lpn": i} for i in range(20)]
        yield lambda: len(b.block_rsp.items) == 40
        b.lookup_rsp.stall = 0.0
        yield lambda: len(b.lookup_rsp.items) == 60

    b.run(script)


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_updates_reach_dram_and_cache(name, stall):
    config = CONFIGS[name]
    model = filled(config, 9)
    b = Bench(config, model, stall)
    rng = random.Random(10)
    plan = []  # (lpn, mapped, ppn)
    for _ in range(60):
        plan.append((rng.randrange(min(config.lbas, 40)), rng.randint(0, 1), rng.randrange(config.flash.total_pages)))
    table = {lpn: expect(model, lpn) for lpn in range(config.lbas)}
    noise: list[int] = []

    def script():
        for i, (lpn, mapped, ppn) in enumerate(plan):
            # at the same time, elsewhere in the map and in the line being updated
            noise.extend([rng.randrange(config.lbas), lpn ^ 1, rng.randrange(config.lbas), lpn][rng.randint(0, 3) :])
            b.lookup.items += [{"lpn": x} for x in noise[len(b.lookup.items) :]]
            b.update.items.append({"lpn": lpn, "ppn": ppn, "mapped": mapped})
            yield lambda i=i: len(b.update_done.items) == i + 1
            table[lpn] = (mapped, ppn if mapped else 0)
            b.block.items.append({"lpn": lpn})
            yield lambda i=i: len(b.block_rsp.items) == i + 1
            assert got(b.block_rsp.items[-1]) == table[lpn]
        yield lambda: len(b.lookup_rsp.items) == len(noise)
        b.lookup.items += [{"lpn": x} for x in range(config.lbas)]
        yield lambda: len(b.lookup_rsp.items) == len(noise) + config.lbas

    b.run(script)
    assert [got(i) for i in b.lookup_rsp.items[len(noise) :]] == [table[x] for x in range(config.lbas)]
    entries = struct.unpack(f"<{config.lbas}I", b.memory.read(config.layout.map, 4 * config.lbas))
    assert [(int(e > 0), max(0, e - 1)) for e in entries] == [table[x] for x in range(config.lbas)]


def test_an_update_beyond_the_device_changes_nothing():
    b = Bench(TINY)

    def script():
        b.update.items.append({"lpn": TINY.lbas, "ppn": 1, "mapped": 1})
        yield lambda: b.update_done.items

    b.run(script)
    assert not any(b.memory.bytes.values())


def test_allocation_order_erase_flags_and_full():
    b = Bench(TINY)
    f = TINY.flash
    row = f.channels * f.dies * f.pages
    total = f.total_pages

    def script():
        b.take = total + 5
        yield lambda: b.full
        b.take = 0

    b.run(script)
    assert b.allocated == [{"ppn": i, "sequence": i, "erase": int(i % row < f.channels * f.dies)} for i in range(total)]


@pytest.mark.parametrize("name", CONFIGS)
def test_sync_and_remount_continue_the_log(name):
    config = CONFIGS[name]
    b = Bench(config, latency=9)

    def script():
        b.take = 5
        yield lambda: b.take == 0
        b.sync.items.append(0)
        yield lambda: len(b.sync_done.items) == 1
        assert b.stored_superblock() == (SUPERBLOCK_MAGIC, 5, 5)
        b.update.items.append({"lpn": 1, "ppn": 4, "mapped": 1})
        b.block.items.append({"lpn": 1})
        yield lambda: len(b.block_rsp.items) == 1 and b.update_done.items
        b.enable = 0
        yield lambda: not b.ready
        # another image while the device is disabled: the cache must not survive it
        model = FtlModel(config)
        for i in range(9):
            model.write(i, bytes(config.lba_bytes))
        for addr, content in model.image():
            b.memory.write(addr, content)
        b.enable = 1
        yield lambda: b.ready
        b.block.items.append({"lpn": 1})
        b.take = 2
        yield lambda: b.take == 0 and len(b.block_rsp.items) == 2
        b.sync.items.append(0)
        yield lambda: len(b.sync_done.items) == 2

    b.run(script)
    assert got(b.block_rsp.items[1]) == (1, 1)
    assert [a["ppn"] for a in b.allocated[5:]] == [9, 10]
    assert b.stored_superblock() == (SUPERBLOCK_MAGIC, 11, 11)
    assert b.sync_done.items == [{"error": 0}] * 2


@pytest.mark.parametrize("pages", [1, 3, 31, 32, 33])
def test_a_power_cut_never_reuses_a_page(pages):
    """Two FTLs over the same DRAM, the first without a sync: the second starts in blocks the first never touched."""
    f = TINY.flash
    row = f.channels * f.dies * f.pages
    first = Bench(TINY, latency=12)

    def cut():
        first.take = pages
        yield lambda: first.take == 0
        yield lambda: first.memory.pending == 0 and first.cycle > 400

    first.run(cut)
    end = -(-pages // row) * row
    assert first.stored_superblock() == (SUPERBLOCK_MAGIC, end, end)
    second = Bench(TINY)
    second.memory.bytes = first.memory.bytes

    def after():
        second.take = 1
        yield lambda: second.take == 0

    second.run(after)
    assert second.allocated == [{"ppn": end, "sequence": end, "erase": 1}]


@pytest.mark.parametrize("delay", range(0, 40, 3))
def test_a_page_taken_while_a_sync_is_written_is_reserved(delay):
    """The superblock of that sync does not cover it: one that does follows, before the page is mapped and before a cut."""
    b = Bench(TINY, latency=24)
    order = []

    def script():
        yield lambda: b.ready
        b.take = 3
        yield lambda: b.take == 0
        settled = b.cycle
        yield lambda: b.cycle > settled + 100
        b.sync.items.append(0)
        asked = b.cycle
        yield lambda: b.cycle >= asked + delay
        b.take = 1
        yield lambda: b.take == 0
        b.update.items.append({"lpn": 3, "ppn": 3, "mapped": 1})
        while not b.update_done.items:
            order.append((b.stored_superblock()[1], b.memory.read(TINY.layout.map + 12, 1), b.cycle))
            yield lambda: b.cycle > order[-1][2]
        yield lambda: b.sync_done.items
        settled = b.cycle
        yield lambda: b.cycle > settled + 100

    b.run(script)
    assert b.stored_superblock()[1] in (4, ROW)  # 4: taken just before the sync looked
    assert all(cursor > 3 for cursor, entry, _ in order if entry == bytes([4])), "mapped ahead of its reservation"


def test_an_update_of_an_uncached_page_leaves_the_line_in_its_place_alone():
    model = FtlModel(TINY)
    for i in range(TINY.lbas):
        model.write(i, bytes(TINY.lba_bytes))
    b = Bench(TINY, model)
    other = TINY.lookup.map_cache_lines * 4 * TINY.beat_bytes // 4  # the cache has one line for it and page 0

    def script():
        b.block.items.append({"lpn": 0})
        yield lambda: len(b.block_rsp.items) == 1
        b.update.items.append({"lpn": other, "ppn": 250, "mapped": 1})
        yield lambda: b.update_done.items
        b.block.items += [{"lpn": 0}, {"lpn": other}]
        yield lambda: len(b.block_rsp.items) == 3

    b.run(script)
    assert got(b.block_rsp.items[1]) == expect(model, 0)
    assert got(b.block_rsp.items[2]) == (1, 250)
    assert b.misses == 2, "page 0 left the cache"


def test_disabling_keeps_the_exact_cursor():
    b = Bench(TINY, latency=12)

    def script():
        for i in range(3):
            b.take = 3
            yield lambda: b.take == 0
            b.enable = 0
            if i == 0:  # otherwise enabled again at once
                yield lambda: b.stored_superblock()[1] == 3
            yield lambda: not b.ready
            b.enable = 1
            yield lambda: b.ready
        b.take = 1
        yield lambda: b.take == 0

    b.run(script)
    assert [a["ppn"] for a in b.allocated] == list(range(10))


def test_nothing_is_served_before_the_mount():
    b = Bench(TINY, filled(TINY, 1))
    b.enable = 0

    def script():
        b.block.items.append({"lpn": 2})
        b.take = 1
        yield lambda: b.cycle > 60
        assert (len(b.block_rsp.items), b.take, b.memory.pending) == (0, 1, 0)
        b.enable = 1
        yield lambda: b.block_rsp.items and b.take == 0

    b.run(script)


@pytest.mark.parametrize("content", [superblock(3, 3)[:3] + b"\x01" + superblock(3, 3)[4:],
                                     superblock(TINY.flash.total_pages + 1, 9), superblock(7, 7)])
def test_a_bad_superblock_mounts_full(content):
    good = content == superblock(7, 7)
    b = Bench(TINY, fail=(lambda addr: addr == TINY.layout.superblock) if good else lambda addr: False)
    b.memory.write(TINY.layout.superblock, content)

    def script():
        yield lambda: b.ready
        assert b.full

    b.run(script)
    assert b.memory.read(TINY.layout.superblock, 16) == content


@pytest.mark.parametrize("config", [TINY, FOUR], ids=["one line", "lines at once"])
def test_memory_errors_are_reported_and_not_cached(config):
    bad = {"on": True}
    map_base = TINY.layout.map
    model = filled(TINY, 5)
    b = Bench(config, model, fail=lambda addr: bad["on"] and addr == map_base + 8)

    def script():
        b.block.items += [{"lpn": 0}, {"lpn": 0}, {"lpn": 100}]  # lpn 0 and the failing beat share a line
        yield lambda: len(b.block_rsp.items) == 3
        b.update.items.append({"lpn": 2, "ppn": 77, "mapped": 1})
        yield lambda: b.update_done.items
        bad["on"] = False
        b.block.items.append({"lpn": 0})
        yield lambda: len(b.block_rsp.items) == 4

    b.run(script)
    for k in range(2):
        assert (b.block_rsp.items[k]["error"], b.block_rsp.items[k]["mapped"]) == (1, 0)
    assert got(b.block_rsp.items[2]) == expect(model, 100)
    assert got(b.block_rsp.items[3]) == expect(model, 0)
    assert b.update_done.items == [{"error": 1}]


@pytest.mark.parametrize("content", [superblock(7, 7), superblock(TINY.flash.total_pages + 1, 9)])
def test_a_sync_never_overwrites_a_superblock_that_did_not_mount(content):
    """It answers an error; once the superblock reads well again, a mount goes on where it says."""
    failing = {"on": content == superblock(7, 7)}
    b = Bench(TINY, fail=lambda addr: failing["on"] and addr == TINY.layout.superblock)
    b.memory.write(TINY.layout.superblock, content)

    def script():
        yield lambda: b.ready
        failing["on"] = False
        b.sync.items.append(0)
        yield lambda: b.sync_done.items
        assert b.memory.read(TINY.layout.superblock, 16) == content
        assert b.full
        b.memory.write(TINY.layout.superblock, superblock(7, 7))  # what a repair would do
        b.enable = 0
        yield lambda: not b.ready
        b.enable = 1
        yield lambda: b.ready and not b.full
        b.take = 1
        yield lambda: b.take == 0
        b.sync.items.append(0)
        yield lambda: len(b.sync_done.items) == 2

    b.run(script)
    assert b.sync_done.items == [{"error": 1}, {"error": 0}]
    assert b.stored_superblock() == (SUPERBLOCK_MAGIC, 8, 8)


class RefusingBench(Bench):
    """An FTL whose superblock writes fail while ``failing``; refused words do not reach memory."""

    def __init__(self, cursor: int):
        self.failing = False
        super().__init__(TINY, latency=12, fail=self.refuses)
        self.kept = superblock(cursor, cursor)
        self.memory.write(TINY.layout.superblock, self.kept)
        self.attempts = 0

    def refuses(self, addr: int) -> bool:
        if addr != TINY.layout.superblock or not self.failing:
            return False
        self.attempts += 1
        return True

    def settle(self) -> None:
        """Undo what the model memory stores together with its error."""
        self.memory.write(TINY.layout.superblock, self.kept)



def test_a_reservation_is_tried_again_until_it_is_written():
    """One page is handed out ahead of it, and can't be mapped; no second page comes before the superblock covers it."""
    b = RefusingBench(ROW)

    def script():
        yield lambda: b.ready
        b.failing = True
        b.take = 6
        yield lambda: b.take == 5
        b.update.items.append({"lpn": 3, "ppn": ROW, "mapped": 1})
        yield lambda: b.attempts >= 3
        assert b.stalled
        assert b.take == 5
        b.settle()
        b.update.items += [{"lpn": 4, "ppn": ROW - 1, "mapped": 1},
                           {"lpn": 5, "ppn": ROW, "mapped": 0}]
        yield lambda: len(b.update_done.items) == 3
        assert b.update_done.items == [{"error": 1}, {"error": 0}, {"error": 0}]
        b.settle()
        b.failing = False
        yield lambda: b.take == 0
        assert not b.stalled
        assert b.stored_superblock() == (SUPERBLOCK_MAGIC, 2 * ROW, 2 * ROW)
        b.update.items.append({"lpn": 3, "ppn": ROW + 2, "mapped": 1})
        b.block.items += [{"lpn": 3}]
        yield lambda: len(b.update_done.items) == 4 and b.block_rsp.items

    b.run(script)
    assert b.update_done.items[-1] == {"error": 0}
    assert struct.unpack("<3I", b.memory.read(TINY.layout.map + 12, 12)) == (ROW + 3, ROW, 0)
    assert [a["ppn"] for a in b.allocated] == list(range(ROW, ROW + 6))


def test_an_update_waits_for_the_reservation_of_its_page():
    """The first page of a row is mapped only once the superblock covers it."""
    b = Bench(TINY, latency=60)
    seen = []

    def script():
        yield lambda: b.ready
        b.take = 1
        yield lambda: b.take == 0
        b.update.items.append({"lpn": 3, "ppn": 0, "mapped": 1})
        while not b.update_done.items:
            seen.append((b.memory.read(TINY.layout.superblock + 4, 1), b.memory.read(TINY.layout.map + 12, 1), b.cycle))
            yield lambda: b.cycle > seen[-1][2]

    b.run(script)
    reserved = next(c for sb, _, c in seen if sb == bytes([ROW]))
    mapped = next(c for _, entry, c in seen if entry == bytes([1]))
    assert mapped - reserved > 60, "the map was written before the superblock's write was answered"


@pytest.mark.parametrize("end", ["sync", "disable"])
@pytest.mark.parametrize("works", [True, False])
def test_a_stalled_log_still_syncs_and_unmounts(end, works):
    """The reservation may never be written; FLUSH and a reset end all the same."""
    b = RefusingBench(ROW)

    def script():
        yield lambda: b.ready
        b.failing = True
        b.take = 1
        yield lambda: b.stalled
        before = b.attempts
        yield lambda: b.attempts > before  # one is under way: the next write is the one that is asked for now
        b.settle()
        b.failing = not works
        if end == "sync":
            b.sync.items.append(0)
            yield lambda: b.sync_done.items
            assert b.sync_done.items == [{"error": int(not works)}]
            b.failing = False
            if works:
                synced = b.cycle
                yield lambda: b.cycle > synced + 100
                assert b.stored_superblock() == (SUPERBLOCK_MAGIC, ROW + 1, ROW + 1)
        b.enable = 0
        disabled = b.cycle
        yield lambda: not b.ready and b.cycle > disabled + 100
        if b.failing:
            b.settle()
        b.failing = False
        b.enable = 1
        yield lambda: b.ready
        assert not b.stalled
        b.take = 1
        yield lambda: b.take == 0

    b.run(script)
    # a page whose superblock was never written is handed out again: it could not be mapped
    assert [a["ppn"] for a in b.allocated] == [ROW, ROW if end == "disable" and not works else ROW + 1]
