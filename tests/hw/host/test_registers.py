"""Every register offset, from the contract's own list."""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator
from nearflash.contract import DeviceConfig, register_map
from nearflash.contract.registers import ADDRESS_BITS, IRQ_FATAL, counters, doorbell, queue_register
from nearflash_hw.host.registers import PerfCounters, RegisterFile
from nearflash_hw.primitives.axi_lite import OKAY, SLVERR
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models.nvme_host import OFFSET, AxilMaster

TINY = DeviceConfig.preset("tiny")
PAIRS3 = replace(TINY, host=replace(TINY.host, queue_pairs=3))


def play(scenario, config=TINY, stall=0.0, max_cycles=60_000, actors=()):
    dut = reused(RegisterFile, config)
    state = {"done": False}

    async def process(ctx):
        await ctx.tick()
        await scenario(ctx, dut, AxilMaster(dut.axil, 5, stall))
        state["done"] = True
        while True:
            await ctx.tick()

    simulate(dut, [process, *(a(dut) for a in actors)], until=lambda: state["done"], max_cycles=max_cycles)


def mapped(config):
    """Registers by offset."""
    return {r.offset: r for r in register_map(config)}


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_every_offset_reads_back_or_errs(stall):
    config, known = PAIRS3, mapped(PAIRS3)
    offsets = [*known, *(o for o in range(0, 0x300, 4) if o not in known),
               *range(0x400 + 3 * 0x20, 0x400 + 5 * 0x20, 4), *range(0x414, 0x420, 4), 0x1018, 0x1FFC]
    rng = random.Random(1)

    async def scenario(ctx, dut, axil):
        for o, r in known.items():
            if not r.name.startswith("perf"):  # which counts
                assert await axil.read(ctx, o) == (r.reset, OKAY), r.name
        expected = {}
        for o in rng.sample(offsets, len(offsets)):
            value = rng.getrandbits(32)
            if o in known and known[o].name.endswith("_size"):
                value &= config.host.queue_entries - 1
            resp = await axil.write(ctx, o + rng.choice([0, 0, 3]), value)
            assert resp == (OKAY if o in known else SLVERR), hex(o)
            if o in known:
                expected[o] = value & known[o].bits("rw")
        for o in rng.sample(offsets, len(offsets)):
            got, resp = await axil.read(ctx, o)
            assert resp == (OKAY if o in known else SLVERR), hex(o)
            if o not in known or not known[o].name.startswith("perf_"):
                assert got == (expected[o] | known[o].reset & known[o].bits("ro") if o in known else 0), hex(o)

    play(scenario, config, stall)


def test_constants_strobes_and_size_limit():
    async def scenario(ctx, dut, axil):
        read = {}
        for name, o in OFFSET.items():
            read[name] = (await axil.read(ctx, o))[0]
        # CAP: MQES 15, CQR, AMS 0, TO 127.5 s; DSTRD 0, NSSRS 0, CSS NVM, BPS 0, MPSMIN 0, MPSMAX 0
        assert (read["cap_lo"], read["cap_hi"]) == (0xFF01_000F, 0x0000_0020)
        assert read["vs"] == 0x0002_0000
        assert (read["design_id"], read["clock_khz"]) == (TINY.design_id, 100_000)
        o = queue_register(1, "cq_base_lo")
        assert await axil.write(ctx, o, 0xAABBCCDD) == OKAY
        for strb in range(15):  # parts of a register
            assert await axil.write(ctx, o, 0x11223344, strb=strb) == SLVERR
        assert (await axil.read(ctx, o))[0] == 0xAABBC000
        o = queue_register(1, "size")
        for value, kept in ((3, 3), (15, 15), (16, 15), (2, 2), (0xFFFFFFFF, 15), (1 << 31, 15)):
            await axil.write(ctx, o, value)
            assert (await axil.read(ctx, o))[0] == kept
        ctx.set(dut.ready, 1)
        assert (await axil.read(ctx, OFFSET["csts"]))[0] == 1
        ctx.set(dut.fatal, 1)
        assert (await axil.read(ctx, OFFSET["csts"]))[0] == 3
        assert ctx.get(dut.enabled) == 0
        await axil.write(ctx, OFFSET["cc"], 0xFF46000F)  # reserved bits too
        assert ctx.get(dut.enabled) == 1
        assert (await axil.read(ctx, OFFSET["cc"]))[0] == 0x460001

    play(scenario)


def test_settings_and_doorbells_come_out():
    seen = []

    def watch(dut):
        async def process(ctx):
            while True:
                _, _, valid, d = await ctx.tick().sample(dut.doorbell_valid, dut.doorbell)
                if valid:
                    seen.append((d.qid, d.completion, d.value))
        return process

    async def scenario(ctx, dut, axil):
        for q in range(3):
            for name, v in (("sq_base_lo", 0x5000 + 0x1000 * q), ("sq_base_hi", 7 + q), ("cq_base_lo", 0xA000),
                            ("cq_base_hi", q), ("size", 4 + q)):
                await axil.write(ctx, queue_register(q, name), v)
        for q in range(3):
            s = ctx.get(dut.settings)[q]
            assert (s.sq_base, s.cq_base, s.size) == ((7 + q) << 32 | 0x5000 + 0x1000 * q, q << 32 | 0xA000, 4 + q)
            await axil.write(ctx, doorbell(q, False), 10 + q)
            await axil.write(ctx, doorbell(q, True), 20 + q)
        await axil.write(ctx, doorbell(0, False), 0x10001)  # beyond 16 bits
        await axil.write(ctx, doorbell(0, False), 1, strb=0b0001)  # half a value
        await axil.write(ctx, doorbell(0, False), 9, strb=0b0011)

    play(scenario, PAIRS3, actors=[watch])
    assert seen == [e for q in range(3) for e in ((q, 0, 10 + q), (q, 1, 20 + q))] + [(0, 0, 9)]


def test_interrupts_pend_until_1_is_written():
    async def scenario(ctx, dut, axil):
        async def pulse(port, value):
            ctx.set(port, value)
            await ctx.tick()
            ctx.set(port, 0)

        async def pending():
            return (await axil.read(ctx, OFFSET["irq_pending"]))[0]

        await pulse(dut.posted, 0b100)
        await pulse(dut.posted, 0b001)
        ctx.set(dut.fatal, 1)
        assert await pending() == 1 << IRQ_FATAL | 0b101
        assert ctx.get(dut.irq) == 0
        await axil.write(ctx, OFFSET["irq_enable"], 0b110)
        assert ctx.get(dut.irq) == 1
        await axil.write(ctx, OFFSET["irq_pending"], 0b110)
        assert (await pending(), ctx.get(dut.irq)) == (1 << IRQ_FATAL | 0b001, 0)
        await axil.write(ctx, OFFSET["irq_enable"], 1 << IRQ_FATAL)
        assert ctx.get(dut.irq) == 1
        await axil.write(ctx, OFFSET["irq_pending"], 0xFFFFFFFF)
        assert (await pending(), ctx.get(dut.irq)) == (0, 0)  # it is still fatal, but that it became so is known
        ctx.set(dut.posted, 0b010)  # as it is cleared: nothing is lost
        await axil.write(ctx, OFFSET["irq_pending"], 0b010)
        ctx.set(dut.posted, 0)
        assert await pending() == 0b010

    play(scenario, PAIRS3)


def test_counters_count_and_latch_whole():
    names = counters(TINY)
    pulses = {name: 3 + 2 * k for k, name in enumerate(names)}

    async def scenario(ctx, dut, axil):
        for cycle in range(max(pulses.values())):
            ctx.set(dut.event, sum((cycle < pulses[n]) << k for k, n in enumerate(names)))
            await ctx.tick()
        ctx.set(dut.event, 0)
        for k, name in list(enumerate(names))[1:]:
            await axil.write(ctx, OFFSET["perf_index"], k)
            assert await axil.read(ctx, OFFSET["perf_lo"]) == (pulses[name], OKAY), name
            assert await axil.read(ctx, OFFSET["perf_hi"]) == (0, OKAY)
        for beyond in (len(names), 64, 1 << 16, 1 << 31):
            await axil.write(ctx, OFFSET["perf_index"], beyond)
            assert (await axil.read(ctx, OFFSET["perf_lo"]))[0] == 0
        await axil.write(ctx, OFFSET["perf_index"], 0)
        first = (await axil.read(ctx, OFFSET["perf_lo"]))[0]
        for _ in range(37):
            await ctx.tick()
        assert (await axil.read(ctx, OFFSET["perf_lo"]))[0] == first  # held until the index is written
        await axil.write(ctx, OFFSET["perf_index"], 0)
        assert (await axil.read(ctx, OFFSET["perf_lo"]))[0] > first + 37

    play(scenario)


def test_a_counter_carries_into_its_high_word():
    dut = PerfCounters(TINY)
    sim = Simulator(dut)
    sim.add_clock(1e-6)

    async def process(ctx):
        await ctx.tick().repeat(40)  # the memory is cleared first
        ctx.set(dut.counts.data[1], (1 << 32) - 2)
        ctx.set(dut.event, 0b10)
        ctx.set(dut.index, 1)
        await ctx.tick().repeat(4)
        ctx.set(dut.event, 0)
        ctx.set(dut.capture, 1)
        await ctx.tick()
        ctx.set(dut.capture, 0)
        assert ctx.get(dut.value) == (1 << 32) + 2
        ctx.set(dut.event, 0b10)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.value) == (1 << 32) + 2  # held until the next capture

    sim.add_testbench(process)
    sim.run()


def test_counters_are_exact_under_any_captures_and_after_a_reset():
    dut, names, rng = PerfCounters(TINY), counters(TINY), random.Random(1)
    reset = Signal()
    sim = Simulator(ResetInserter(reset)(dut))
    sim.add_clock(1e-6)
    wrong = []

    async def process(ctx):
        for _ in range(2):
            counts = [0] * len(names)
            for cycle in range(1200):
                # every event at its fastest, then at random; captures as often as they may come, then seldom
                events = (1 << len(names)) - 1 if cycle < 600 else rng.getrandbits(len(names))
                capture = cycle % 2 and rng.random() < (1.0 if cycle % 400 < 200 else 0.2)
                index = rng.randrange(len(names) + 2)
                ctx.set(dut.event, events)
                ctx.set(dut.capture, capture)
                ctx.set(dut.index, index)
                expected = counts[index] if index < len(names) else 0
                await ctx.tick()
                counts = [c + (name == "cycles" or events >> k & 1) for k, (c, name) in enumerate(
                    zip(counts, names, strict=True))]
                if capture and ctx.get(dut.value) != expected:
                    wrong.append((cycle, index, ctx.get(dut.value), expected))
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)

    sim.add_testbench(process)
    sim.run()
    assert not wrong


def test_address_space_fits():
    assert max(mapped(replace(TINY, host=replace(TINY.host, queue_pairs=8)))) < 1 << ADDRESS_BITS
