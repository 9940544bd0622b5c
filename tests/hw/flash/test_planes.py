"""Planes of a die: READs beside one another, a PROGRAM or ERASE alone; contents, rules and turns."""

import random
from dataclasses import replace

import pytest
from flash_bench import check_dram, erase, expect_read, filled, program, random_page, read, run_channel
from nearflash_hw.flash.die import Die
from nearflash_hw.flash.planes import PlaneGate
from nearflash_sim.bench import simulate
from nearflash_sim.models import MemoryModel
from test_channel import random_window, small

WAITS, RUNS, RESTS = range(3)


@pytest.mark.parametrize("planes", [2, 4])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_the_gate_keeps_a_program_alone_and_everybody_gets_a_turn(planes, share):
    """Planes that want a command phase most of the time, ``share`` of them for a PROGRAM or ERASE, on a bus that chooses at
    random. Nothing begins beside what must be alone, and of that a READ sees one go before it, else each plane's one."""
    dut, rng = PlaneGate(planes), random.Random(planes)
    state, alone = [RESTS] * planes, [False] * planes
    passed = [0] * planes  # PROGRAMs and ERASEs that began since a plane waits
    begun = {False: 0, True: 0}
    beside = [0]  # READs that began while another ran

    def offer(ctx):
        ctx.set(dut.want, sum((s == WAITS) << k for k, s in enumerate(state)))
        ctx.set(dut.free, sum((s == RESTS) << k for k, s in enumerate(state)))
        ctx.set(dut.alone, sum(a << k for k, a in enumerate(alone)))

    async def drive(ctx):
        while min(begun.values()) < (40 if share < 1 else 0) or begun[True] < 40:
            for k in range(planes):
                if state[k] == RESTS and rng.random() < 0.7:
                    state[k], alone[k], passed[k] = WAITS, rng.random() < share, 0
                elif state[k] == RUNS and rng.random() < 0.2:
                    state[k] = RESTS
            offer(ctx)
            may = ctx.get(dut.may)
            if may and rng.random() < 0.7:
                k = rng.choice([k for k in range(planes) if may >> k & 1])
                assert state[k] == WAITS
                running = [j for j in range(planes) if state[j] == RUNS]
                assert not running if alone[k] else not any(alone[j] for j in running)
                await ctx.tick().repeat(rng.randint(1, 3))  # the command phase
                state[k] = RUNS
                begun[alone[k]] += 1
                beside[0] += bool(running)
                assert passed[k] <= (planes - 1 if alone[k] else 1)
                passed[:] = [n + (alone[k] and state[j] == WAITS) for j, n in enumerate(passed)]
                offer(ctx)
            await ctx.tick()
        done.append(True)

    done = []
    simulate(dut, [drive], until=lambda: bool(done), max_cycles=20_000)
    assert share == 1 or beside[0] > 5


def test_a_gate_is_of_several_planes():
    with pytest.raises(ValueError, match="planes = 1: must be at least 2"):
        PlaneGate(1)


@pytest.mark.parametrize(("beat_bytes", "channels", "dies", "planes", "channel"),
                         [(8, 2, 1, 2, 1), (16, 1, 2, 2, 0), (8, 1, 1, 4, 0)])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_programs_erases_and_reads_match_the_model(beat_bytes, channels, dies, planes, channel, stall):
    """What a plane does in order is what one die would do, whatever the others do meanwhile."""
    config = small(beat_bytes, channels=channels, dies=dies, planes=planes, blocks=4 * planes,
                   t_ccs_ns=300 if beat_bytes == 16 else 0)
    rng, n = random.Random(beat_bytes * planes), dies * planes
    nand = filled(config, rng, channel, {0: 2, 2: 4})
    memory = MemoryModel(beat_bytes, latency=7, stall=stall, seed=3)
    for address, content in nand.dram():
        memory.write(address, content)
    blocks, pages, reads, dones = [], [], [], []
    for tag in range(30):
        die, block = rng.randrange(n), rng.randrange(2)
        ppn = nand.ppn(block, 0, die, channel)
        kind = rng.choice(["erase", "program", "program", "read", "read"])
        if kind == "erase":
            blocks.append(erase(tag % 16, die, block))
            dones.append((tag % 16, 0 if nand.erase(ppn) else 1))
        elif kind == "program":
            page = min(nand.block(ppn).next_page, 3)
            blocks.append(program(tag % 16, die, block, page))
            pages.append(random_page(config, rng))
            dones.append((tag % 16, int(not nand.program(nand.ppn(block, page, die, channel), pages[-1]))))
        else:
            c = read(tag % 16, die, block, rng.randrange(4), *random_window(config, rng))
            blocks.append(c)
            reads.append(expect_read(nand, channel, c))
    lookups = [read(t % 16, rng.randrange(n), 2, rng.randrange(4), *random_window(config, rng)) for t in range(30)]
    r = run_channel(config, channel, lookups=lookups, blocks=blocks, pages=pages, memory=memory, stall=stall, seed=5,
                    max_cycles=60_000)
    assert sorted(r.lookups) == sorted(expect_read(nand, channel, c) for c in lookups)
    assert sorted(r.blocks) == sorted(reads)
    assert sorted(r.dones) == sorted(dones)
    check_dram(nand, channel, memory)


def test_reads_of_a_dies_planes_share_their_array_time():
    """Eight vectors of a die: one after the other on one plane, in half and a quarter of the time on two and four."""
    times = {}
    for planes in (1, 2, 4):
        config = small(dies=1, channels=1, planes=planes, t_read_ns=4_000)
        nand = filled(config, random.Random(1), 0, {0: 4})
        lookups = [read(t, t % planes, 0, t // planes % 4, 0, 4) for t in range(8)]
        r = run_channel(config, nand=nand, lookups=lookups, settle=5)
        assert r.lookups == [expect_read(nand, 0, c) for c in lookups]
        times[planes] = r.lookup_cycles[-1]
    each = small(t_read_ns=4_000).t_read
    for planes, cycles in times.items():
        assert 8 // planes * each <= cycles <= 8 // planes * each + 8 * 30


@pytest.mark.parametrize("op", ["program", "erase"])
def test_a_die_is_occupied_by_what_one_plane_writes(op):
    """A lookup of the other plane takes as long as one of the same plane would: until the end, and a READ. One of another
    die goes on."""
    config = small(dies=2, channels=1, planes=2, t_program_ns=9_000, t_erase_ns=9_000)
    nand = filled(config, random.Random(1), 0, {0: 1})
    first = program(0, 0, 1, 0) if op == "program" else erase(0, 0, 1)
    nand.erase(nand.ppn(1, 0, 0, 0))
    busy = config.t_program if op == "program" else config.t_erase
    ends = {}
    for die in (2, 1):  # the other plane of die 0; die 1
        r = run_channel(config, nand=nand, blocks=[first], lookups=[read(0, 1, 0, 0, 0, 4)] + [read(1, die, 0, 0, 0, 4)] * 2,
                        pages=[bytes(512 + 32)] * (op == "program"), settle=5)
        ends[die] = r.lookup_cycles[-1]
    assert ends[2] > busy + config.t_read
    assert ends[1] < ends[2] - busy / 2


def test_lookups_of_other_planes_do_not_keep_a_program_waiting():
    """Dozens of lookups are queued on the other planes, one of which always reads, when a PROGRAM and an ERASE come: these
    end long before those."""
    config = small(dies=1, channels=1, planes=4)
    config = replace(config, lookup=replace(config.lookup, tags=64))
    nand = filled(config, random.Random(1), 0, {0: 3})
    nand.erase(nand.ppn(0, 0, 0, 0))
    lookups = [read(t % 16, 1 + t % 3, 0, t // 3 % 3, 0, 2) for t in range(60)]
    r = run_channel(config, nand=nand, lookups=lookups, blocks=[program(0, 0, 0, 0), erase(1, 0, 0)],
                    pages=[random_page(config, random.Random(2))], settle=5)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
    assert sorted(r.dones) == [(0, 0), (1, 0)]
    assert sum(cycle < max(r.done_cycles) for cycle in r.lookup_cycles) < 20


def test_writes_of_both_planes_do_not_keep_lookups_waiting():
    """Erases without end on both planes: a lookup of each plane still gets in after at most three of them."""
    config = small(dies=1, channels=1, planes=2)
    nand = filled(config, random.Random(1), 0, {0: 4})
    lookups = [read(t % 16, t % 2, 0, t // 2 % 4, 0, 2) for t in range(6)]
    r = run_channel(config, nand=nand, lookups=lookups, blocks=[erase(t % 16, t % 2, 1) for t in range(20)],
                    max_cycles=40_000, settle=5)
    assert sorted(r.lookups) == sorted(expect_read(nand, 0, c) for c in lookups)
    for before, after in zip([0, *r.lookup_cycles], r.lookup_cycles, strict=False):
        assert sum(before < cycle < after for cycle in r.done_cycles) <= 3


def test_the_gate_reads_a_die_as_it_is():
    """What it takes for `under way` (neither waiting nor free) is a die between its command phase and its data-out."""
    dut = Die(small())
    seen = []

    async def drive(ctx):
        async def step(**values):
            for name, value in values.items():
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            for name in values:
                ctx.set(getattr(dut, name), 0)
            seen.append(not (ctx.get(dut.want_command) or ctx.get(dut.command.ready)))

        seen.append(not (ctx.get(dut.want_command) or ctx.get(dut.command.ready)))
        ctx.set(dut.command.payload, {"command": read(0, 0, 0, 0, 0, 1), "path": 0})
        ctx.set(dut.command.valid, 1)
        await ctx.tick()
        ctx.set(dut.command.valid, 0)
        await step()
        await step(command_done=1)
        ctx.set(dut.job.ready, 1)
        await step(job_done=1)
        while not ctx.get(dut.want_out):
            await step()
        await step(out_started=1)
        done.append(True)

    done = []
    simulate(dut, [drive], until=lambda: bool(done), max_cycles=1_000)
    assert seen[:2] == [False, False]
    assert all(seen[2:-1])
    assert seen[-1] is False
