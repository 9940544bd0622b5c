"""The channel against the NAND model: contents, rules, ordering."""

import random
from dataclasses import replace

import pytest
from flash_bench import check_dram, erase, expect_read, filled, program, random_page, read, run_channel
from nearflash.contract import DeviceConfig, onflash
from nearflash.reference.flash import NandArray
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.models import MemoryModel


def small(beat_bytes: int = 8, max_tables: int = 8, **flash) -> DeviceConfig:
    """tiny with shorter times and fewer blocks; without tables, of block I/O alone."""
    c = DeviceConfig.preset("tiny", **{"blocks": 4, "pages": 4, "t_read_ns": 500, "t_program_ns": 900,
                                       "t_erase_ns": 1_500, **flash})
    return replace(c, beat_bytes=beat_bytes, lookup=replace(c.lookup, lanes=beat_bytes // 4, max_tables=max_tables))


def random_window(config: DeviceConfig, rng: random.Random) -> tuple[int, int]:
    """(column, beats) of the raw page: often across the page's end or up to the last beat."""
    raw, page = config.raw_page_beats, config.page_beats
    kind = rng.randrange(5)
    if kind == 0:  # across page and OOB
        column = rng.randrange(page - 8, page)
        return column, rng.randint(page - column + 1, raw - column)
    if kind == 1:  # OOB only
        column = rng.randrange(page, raw)
        return column, rng.randint(1, raw - column)
    if kind == 2:  # the page's last beats
        beats = rng.randint(1, 9)
        return page - beats, beats
    column = rng.randrange(page)
    return column, rng.randint(1, min(12, page - column))


@pytest.mark.parametrize(("beat_bytes", "channels", "dies", "channel"),
                         [(8, 2, 2, 1), (16, 1, 1, 0), (32, 2, 4, 0), (16, 4, 2, 3)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_reads_of_any_range_match_the_model(beat_bytes, channels, dies, channel, stall):
    config = small(beat_bytes, channels=channels, dies=dies, t_ccs_ns=300 if beat_bytes == 16 else 0)
    rng = random.Random(beat_bytes + dies)
    # Block 0 full, block 1 partly written, block 2 erased, block 3 as from the factory.
    nand = filled(config, rng, channel, {0: 4, 1: 2, 2: 0})

    def reads(n):
        return [read(tag % 16, rng.randrange(dies), rng.choice([0, 0, 0, 1, 1, 2, 3]), rng.randrange(4),
                     *random_window(config, rng)) for tag in range(n)]

    lookups, blocks = reads(20), reads(8)
    memory = MemoryModel(beat_bytes, latency=rng.choice([1, 20]), stall=stall, seed=3)
    r = run_channel(config, channel, nand=nand, lookups=lookups, blocks=blocks, memory=memory, stall=stall, seed=9)
    for got, sent in ((r.lookups, lookups), (r.blocks, blocks)):
        # Order is kept within a die; a tag may be used by several dies, so compare die by die.
        expected = [(c["die"], expect_read(nand, channel, c)) for c in sent]
        assert sorted(got) == sorted(e for _, e in expected)
        for die in range(dies):
            of_die = [e for d, e in expected if d == die]
            rest = iter(got)
            assert all(any(e == g for g in rest) for e in of_die), f"order of die {die}"


def test_unwritten_pages_read_as_ff_whatever_the_dram_holds():
    config = small()
    nand = filled(config, random.Random(1), 0, {0: 4, 1: 3})
    nand.erase(nand.ppn(0, 0, 1, 0))  # erased again: its bytes are still in DRAM
    cases = [read(0, 1, 0, 0, 0, 4), read(1, 1, 0, 3, 62, 6), read(2, 1, 1, 3, 0, 2), read(3, 1, 1, 2, 0, 2)]
    r = run_channel(config, 0, nand=nand, lookups=cases)
    ones = (1 << 64) - 1
    assert [p[1] for p in r.lookups[:3]] == [[ones] * 4, [ones] * 6, [ones] * 2]
    assert r.lookups[3] == expect_read(nand, 0, cases[3])
    assert r.lookups[3][1] != [ones] * 2


@pytest.mark.parametrize(("beat_bytes", "channels", "dies", "channel", "tables"),
                         [(8, 2, 2, 0, 8), (16, 1, 1, 0, 8), (32, 1, 4, 0, 8), (16, 4, 2, 2, 8), (8, 2, 2, 1, 0),
                          (16, 1, 1, 0, 0)])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_programs_erases_and_reads_match_the_model(beat_bytes, channels, dies, channel, tables, stall):
    config = small(beat_bytes, tables, channels=channels, dies=dies, t_ccs_ns=300 if beat_bytes == 16 else 0)
    rng = random.Random(beat_bytes * dies)
    tags = 16 if tables else config.host.block_reads  # that there are
    nand = filled(config, rng, channel, {0: 2, 2: 4})
    memory = MemoryModel(beat_bytes, latency=7, stall=stall, seed=3)
    for address, content in nand.dram():
        memory.write(address, content)
    blocks, pages, reads, dones = [], [], [], []
    for tag in range(26):
        die, block = rng.randrange(dies), rng.randrange(2)
        ppn = nand.ppn(block, 0, die, channel)
        kind = rng.choice(["erase", "program", "program", "program", "read"])
        if kind == "erase":
            blocks.append(erase(tag % tags, die, block))
            dones.append((die, tag % tags, 0 if nand.erase(ppn) else 1))
        elif kind == "program":
            page = min(nand.block(ppn).next_page, 3)
            if rng.random() < 0.2:
                page = rng.randrange(4)  # often out of order
            blocks.append(program(tag % tags, die, block, page))
            pages.append(random_page(config, rng))
            dones.append((die, tag % tags, int(not nand.program(nand.ppn(block, page, die, channel), pages[-1]))))
        else:
            c = read(tag % tags, die, block, rng.randrange(4), *random_window(config, rng))
            blocks.append(c)
            reads.append(expect_read(nand, channel, c))  # commands of a die run in order
    # Lookups of a block that nobody writes run between.
    lookups = [read(t % 16, rng.randrange(dies), 2, rng.randrange(4), *random_window(config, rng))
               for t in range(20 if tables else 0)]
    r = run_channel(config, channel, lookups=lookups, blocks=blocks, pages=pages, memory=memory, stall=stall, seed=5,
                    max_cycles=30_000)
    assert sorted(r.lookups) == sorted(expect_read(nand, channel, c) for c in lookups)
    assert sorted(r.blocks) == sorted(reads)
    assert sorted(r.dones) == sorted((tag, error) for _, tag, error in dones)
    assert any(error for _, _, error in dones)
    assert not all(error for _, _, error in dones)
    check_dram(nand, channel, memory)


def test_broken_rules_are_reported_and_write_nothing():
    config = small()
    rng = random.Random(4)
    nand = filled(config, rng, 0, {0: 1})
    memory = MemoryModel(8)
    for address, content in nand.dram():
        memory.write(address, content)
    before = dict(memory.bytes)
    pages = [random_page(config, rng) for _ in range(4)]
    bad = [program(0, 0, 0, 0),  # again
           program(1, 0, 0, 2),  # skips page 1
           program(2, 0, 1, 0),  # never erased
           program(3, 1, 3, 1)]  # neither
    r = run_channel(config, 0, blocks=bad, pages=pages, memory=memory)
    assert sorted(r.dones) == [(t, 1) for t in range(4)]
    assert {a: b for a, b in memory.bytes.items() if b} == {a: b for a, b in before.items() if b}
    # The data of refused programs were consumed: a good one gets its own.
    good = random_page(config, rng)
    r = run_channel(config, 0, blocks=[bad[1], program(4, 0, 0, 1)], pages=[pages[0], good], memory=memory)
    assert r.dones == [(1, 1), (4, 0)]
    assert nand.program(nand.ppn(0, 1, 0, 0), good)
    check_dram(nand, 0, memory)


def test_program_order_across_dies_and_behind_other_work():
    """Die 1's PROGRAM is accepted after die 0's, which waits behind an ERASE and a READ: data still go where they
    belong, and die 1 serves lookups meanwhile."""
    config = small(t_erase_ns=12_000)
    rng = random.Random(5)
    nand = filled(config, rng, 0, {0: 1, 1: 1})
    memory = MemoryModel(8)
    for address, content in nand.dram():
        memory.write(address, content)
    first, second = random_page(config, rng), random_page(config, rng)
    blocks = [erase(0, 0, 1), read(1, 0, 0, 0, 0, 4), program(2, 0, 1, 0), program(3, 1, 0, 1)]
    lookups = [read(t, 1, 0, 0, t, 3) for t in range(8)]
    r = run_channel(config, 0, blocks=blocks, lookups=lookups, pages=[first, second], memory=memory)
    assert r.dones == [(0, 0), (2, 0), (3, 0)]
    assert r.lookups == [expect_read(nand, 0, c) for c in lookups]
    assert r.lookup_cycles[-1] < r.done_cycles[0]
    nand.erase(nand.ppn(1, 0, 0, 0))
    assert nand.program(nand.ppn(1, 0, 0, 0), first)
    assert nand.program(nand.ppn(0, 1, 1, 0), second)
    check_dram(nand, 0, memory)


def test_a_program_without_data_keeps_no_die_from_its_lookups():
    config = small(dies=1)
    nand = filled(config, random.Random(6), 0, {0: 1})
    lookups = [read(t, 0, 0, 0, t, 3) for t in range(8)]
    page = random_page(config, random.Random(2))
    r = run_channel(config, 0, nand=nand, blocks=[program(1, 0, 0, 1)], lookups=lookups, pages=[page], pages_from=1500)
    assert r.lookup_cycles[-1] < 1500 < r.done_cycles[0]
    assert r.dones == [(1, 0)]


def test_paths_take_turns_at_a_die():
    config = small(dies=2)
    rng = random.Random(7)
    nand = filled(config, rng, 0, {0: 4})
    lookups = [read(t, 0, 0, t % 4, 0, 2) for t in range(10)]
    blocks = [read(t, 0, 0, t, 0, config.raw_page_beats) for t in range(4)]
    r = run_channel(config, 0, nand=nand, lookups=lookups, blocks=blocks)
    ends = sorted([(t, "l") for t in r.lookup_cycles] + [(t, "b") for t in r.block_cycles])
    order = "".join(k for _, k in ends)
    assert "bb" not in order  # a lookup waits for one block operation at most
    assert "lll" not in order[: order.rindex("b")]  # two only at the start, when the block queue was still empty


def test_a_consumer_that_stops_between_pages_stops_only_its_path():
    config = small(dies=2)
    nand = filled(config, random.Random(8), 0, {0: 4})
    lookups = [read(t, t % 2, 0, t % 4, 0, 3) for t in range(12)]
    # The first block read's beat rests in the channel until the consumer comes, and keeps the second one waiting.
    blocks = [read(0, 1, 0, 0, 0, 1), read(1, 1, 0, 1, 0, 5)]
    r = run_channel(config, 0, nand=nand, lookups=lookups, blocks=blocks, block_data_from=3000)
    even = [c["tag"] for c in lookups if c["die"] == 0]
    by_tag = dict(zip([p[0] for p in r.lookups], r.lookup_cycles, strict=True))
    assert all(by_tag[t] < 3000 for t in even)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)


@pytest.mark.parametrize("dies", [1, 2])
def test_a_held_page_leaves_the_bus_to_others(dies):
    """A die that may not send its page keeps it; lookups of the other dies and programs go on meanwhile."""
    config = small(dies=dies)
    nand = filled(config, random.Random(8), 0, {0: 4, 1: 0})
    lookups = [read(t, dies - 1, 0, t % 4, 0, 3) for t in range(8)] if dies > 1 else []
    blocks = [read(0, 0, 0, 2, 1, 5), *([program(1, 1, 1, 0)] if dies > 1 else [])]
    pages = [random_page(config, random.Random(1))] * (dies > 1)
    r = run_channel(config, 0, nand=nand, lookups=lookups, blocks=blocks, pages=pages, hold_until=6000)
    assert r.blocks == [expect_read(nand, 0, blocks[0])]
    assert r.block_cycles[0] > 6000
    assert all(cycle < 6000 for cycle in (*r.lookup_cycles, *r.done_cycles))


def test_dram_errors_reach_the_answers():
    config = small()
    nand = filled(config, random.Random(9), 0, {0: 2, 1: 0})
    bad_page = config.layout.flash + nand.ppn(0, 1, 0, 0) * config.flash.page_bytes + 16
    bad_write = config.layout.oob + nand.ppn(1, 0, 1, 0) * config.flash.oob_bytes
    memory = MemoryModel(8, fail=lambda a: a in (bad_page, bad_write))
    lookups = [read(0, 0, 0, 1, 0, 5), read(1, 0, 0, 1, 3, 5), read(2, 0, 0, 0, 0, 5)]
    r = run_channel(config, 0, nand=nand, lookups=lookups, blocks=[program(3, 1, 1, 0)], memory=memory,
                    pages=[random_page(config, random.Random(1))])
    assert [(tag, error) for tag, _, error in r.lookups] == [(0, 1), (1, 0), (2, 0)]
    assert r.dones == [(3, 1)]
    assert memory.read(config.layout.block_state + 8 * ((1 * 2 + 1) * 2), 2) == b"\1\0"  # the page counts as programmed


class Split(MemoryModel):
    """A memory whose reads and writes fail on their own."""

    def __init__(self, beat_bytes, fail_read, fail_write):
        super().__init__(beat_bytes)
        self.on = {"read": fail_read, "write": fail_write}

    def read_port(self, port):
        return self._with("read", port)

    def write_port(self, port):
        return self._with("write", port)

    def _with(self, what, port):
        one = MemoryModel(self.beat_bytes, fail=self.on[what])
        one.bytes = self.bytes
        return getattr(one, f"{what}_port")(port)


@pytest.mark.parametrize("beat_bytes", [8, 16, 32])
@pytest.mark.parametrize("part", ["flash", "oob"])
def test_a_failed_program_costs_its_page_alone(part, beat_bytes):
    """It answers an error and has no magic; the block's next page can be programmed, the failed one can't."""
    config = small(beat_bytes)
    f, layout = config.flash, config.layout
    rng = random.Random(12)
    nand = filled(config, rng, 0, {0: 1})
    ppn = nand.ppn(0, 1, 0, 0)
    size = f.page_bytes if part == "flash" else f.oob_bytes
    bad = getattr(layout, part) + (ppn + 1) * size - beat_bytes
    memory = MemoryModel(beat_bytes, fail=lambda a: a == bad)
    pages = [random_page(config, rng)[: f.page_bytes] + onflash.oob(7 + i, 70, f.oob_bytes) for i in range(4)]
    r = run_channel(config, 0, nand=nand, memory=memory, pages=[pages[0], pages[0], pages[1], pages[2]],
                    blocks=[program(0, 0, 0, 1), program(1, 0, 0, 1), program(2, 0, 0, 2), program(3, 0, 0, 3)])
    assert r.dones == [(0, 1), (1, 1), (2, 0), (3, 0)]
    assert memory.read(layout.block_state, 8) == onflash.block_state(4, True, 1)
    for k, page in ((2, pages[1]), (3, pages[2])):
        at = nand.ppn(0, k, 0, 0)
        assert memory.read(layout.flash + at * f.page_bytes, f.page_bytes) == page[: f.page_bytes]
        assert memory.read(layout.oob + at * f.oob_bytes, f.oob_bytes) == page[f.page_bytes :]
    magic = memory.read(layout.oob + ppn * f.oob_bytes, 4) == onflash.oob(0, 0, 32)[:4]
    assert magic == (part == "oob")  # an OOB area that can't be written can't be marked


@pytest.mark.parametrize("fails", [1, 3, 4])
@pytest.mark.parametrize("direction", ["read", "write"])
@pytest.mark.parametrize("op", ["program", "erase"])
def test_a_blocks_state_is_tried_four_times(op, direction, fails):
    config = small()
    nand = filled(config, random.Random(13), 0, {0: 1})
    count = {"read": 0, "write": 0}

    def failing(what):
        def fail(address):
            if address != config.layout.block_state:
                return False
            count[what] += 1
            return what == direction and count[what] <= fails
        return fail

    memory = Split(8, failing("read"), failing("write"))
    page = random_page(config, random.Random(14))
    first = program(0, 0, 0, 1) if op == "program" else erase(0, 0, 0)
    r = run_channel(config, 0, nand=nand, memory=memory, blocks=[first], pages=[page] if op == "program" else [])
    assert r.dones == [(0, int(fails == 4))]
    assert count[direction] == min(fails + 1, 4)
    if direction == "read" and fails == 4:
        assert count["write"] == 0
    elif fails < 4:
        state = (2, True, 1) if op == "program" else (0, True, 2)
        assert memory.read(config.layout.block_state, 8) == onflash.block_state(*state)


def test_full_queues_push_back_and_lose_nothing():
    config = small(dies=2)
    config = replace(config, lookup=replace(config.lookup, tags=4))
    nand = filled(config, random.Random(10), 1, {0: 4})
    lookups = [read(t % 4, t * t % 3 % 2, 0, t % 4, t, 2) for t in range(24)]
    blocks = [read(t % 4, t % 2, 0, t % 4, t, 2) for t in range(12)]
    r = run_channel(config, 1, nand=nand, lookups=lookups, blocks=blocks)
    assert sorted(r.lookups) == sorted(expect_read(nand, 1, c) for c in lookups)
    assert sorted(r.blocks) == sorted(expect_read(nand, 1, c) for c in blocks)


def test_model_counts_erases_and_keeps_rules():
    nand = NandArray(small())
    page = bytes(512 + 32)
    assert not nand.program(0, page)
    assert nand.erase(0)
    assert nand.program(0, page)
    assert not nand.program(0, page)
    assert nand.erase(0)
    assert nand.read(0) == b"\xff" * len(page)
    assert (nand.block(0).erase_count, nand.block(0).next_page) == (2, 0)
    assert FlashOp.READ.value == 0  # all-zero commands are READs
