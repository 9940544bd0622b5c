"""The host interface as a whole: every malformed command gets its status, and the next good one works."""

from dataclasses import replace

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator
from nearflash.contract import AdminOpcode, DeviceConfig, Node, Opcode, Status
from nearflash.contract.nvme import sqe
from nearflash.contract.registers import counters
from nearflash_hw.controller.dispatch import Dispatcher
from nearflash_hw.controller.nvme import Nvme
from nearflash_sim.models.nvme_host import OFFSET, Host

TINY = DeviceConfig.preset("tiny")
WITH_MLP = replace(TINY, mlp=replace(TINY.mlp, graph=(
    Node("d", "dense", 4), Node("top", "fc", 1, ("d",), kc=4))))
LBAS, MDTS = TINY.lbas, TINY.host.mdts_pages


def rw(opcode, cid, lba=0, nlb=0, **kw):
    fields = {"nsid": 1, "prp1": 0x20_0000, "prp2": 0x30_0000, "cdw10": lba & 0xFFFFFFFF, "cdw11": lba >> 32,
              "cdw12": nlb}
    return sqe(opcode, cid, **{**fields, **kw})


def with_flags(entry, flags):
    return entry[:1] + bytes([flags]) + entry[2:]


BAD_READS = [
    ("nsid 0", {"nsid": 0}, Status.INVALID_NAMESPACE),
    ("nsid 2", {"nsid": 2}, Status.INVALID_NAMESPACE),
    ("nsid broadcast", {"nsid": 0xFFFFFFFF}, Status.INVALID_NAMESPACE),
    ("nsid high bit", {"nsid": 0x80000001}, Status.INVALID_NAMESPACE),
    ("first beyond", {"lba": LBAS}, Status.LBA_OUT_OF_RANGE),
    ("last beyond", {"lba": LBAS - 1, "nlb": 1}, Status.LBA_OUT_OF_RANGE),
    ("64-bit lba", {"lba": 1 << 32}, Status.LBA_OUT_OF_RANGE),
    ("wraps 32 bits", {"lba": 0xFFFFFFFF, "nlb": 0}, Status.LBA_OUT_OF_RANGE),
    ("wraps 32 bits to 0", {"lba": 0xFFFFFFFF, "nlb": 1}, Status.LBA_OUT_OF_RANGE),
    ("wraps 64 bits", {"lba": (1 << 64) - 1, "nlb": 1}, Status.LBA_OUT_OF_RANGE),
    ("too long", {"nlb": MDTS}, Status.INVALID_FIELD),
    ("much too long", {"nlb": 0xFFFF, "lba": 1}, Status.LBA_OUT_OF_RANGE),
    ("prp1 by 1", {"prp1": 0x20_0001}, Status.INVALID_PRP_OFFSET),
    ("prp1 by 4", {"prp1": 0x20_0004}, Status.INVALID_PRP_OFFSET),
]


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.WRITE])
def test_malformed_block_commands(opcode):
    host = Host(TINY)

    async def scenario(ctx, host):
        await host.start(ctx)
        for k, (what, fields, status) in enumerate(BAD_READS):
            got = await host.command(ctx, 1, lambda cid, f=fields: rw(opcode, cid, **f))
            assert got == (status, 0, 0), what
            assert len(host.block.taken) == k, what
            assert (await host.command(ctx, 1, lambda cid: rw(opcode, cid, lba=5)))[0] == 0, "after " + what

    host.run(scenario, max_cycles=30_000)


def test_flags_opcodes_and_namespaces():
    host = Host(TINY)
    admin = {int(o) for o in AdminOpcode} - {int(AdminOpcode.PROGRAM_LOAD)}
    io = {int(o) for o in Opcode}

    async def scenario(ctx, host):
        await host.start(ctx)
        for flags in (0x01, 0x02, 0x40, 0x80, 0xC3):
            for opcode in io:
                got = await host.command(ctx, 1, lambda cid, o=opcode, f=flags: with_flags(rw(o, cid), f))
                assert got[0] == Status.INVALID_FIELD
            got = await host.command(ctx, 0, lambda cid, f=flags: with_flags(sqe(AdminOpcode.IDENTIFY, cid), f))
            assert got[0] == Status.INVALID_FIELD
        assert (await host.command(ctx, 1, lambda cid: with_flags(rw(Opcode.READ, cid), 0x3C)))[0] == 0  # reserved bits
        for opcode in {*range(16), 0x7F, 0x80, 0x82, 0x84, 0xFF, *admin} - io:
            assert (await host.command(ctx, 1, lambda cid, o=opcode: rw(o, cid)))[0] == Status.INVALID_OPCODE, opcode
        for opcode in {*range(16), 0x7F, 0x80, 0xC2, 0xC4, 0xC5, 0xFF, *io} - admin:
            assert (await host.command(ctx, 0, lambda cid, o=opcode: rw(o, cid)))[0] == Status.INVALID_OPCODE, opcode
        for nsid, status in ((1, 0), (0xFFFFFFFF, 0), (0, Status.INVALID_NAMESPACE), (2, Status.INVALID_NAMESPACE)):
            assert (await host.command(ctx, 1, lambda cid, n=nsid: sqe(Opcode.FLUSH, cid, nsid=n)))[0] == status
        for nsid, status in ((1, 0), (0xFFFFFFFF, Status.INVALID_NAMESPACE), (0, Status.INVALID_NAMESPACE)):
            assert (await host.command(ctx, 1, lambda cid, n=nsid: sqe(Opcode.DSM, cid, nsid=n)))[0] == status
        assert (await host.command(ctx, 1, lambda cid: sqe(Opcode.INFER, cid, nsid=1)))[0] == Status.NO_PROGRAM
        assert (await host.command(ctx, 1, lambda cid: sqe(Opcode.LOOKUP, cid, nsid=1)))[0] == 0

    host.run(scenario, max_cycles=60_000)


def test_fields_arrive_as_sent():
    host = Host(TINY, stall=0.2)

    async def scenario(ctx, host):
        await host.start(ctx)
        a, b = 0x78_5634_1210, 0xFEDC_BA98_7654_3210
        # Of an address beyond the 40 bits of the bus it is kept that it is.
        cut = 1 << 40 | 0x98_7654_3210
        for cid, entry in enumerate((
            sqe(Opcode.READ, 0, nsid=1, prp1=a, prp2=b, cdw10=LBAS - MDTS, cdw12=(0xABCD << 16) | MDTS - 1),
            sqe(Opcode.WRITE, 1, nsid=1, prp1=a + 8, prp2=b, cdw10=LBAS - 1),
            sqe(Opcode.DSM, 2, nsid=1, prp1=b, prp2=a, cdw10=0xFFFFFF37, cdw11=4, cdw12=0xFFFF),
            sqe(Opcode.DSM, 3, nsid=1, prp1=b, cdw10=0, cdw11=0xFFFFFFFB),
            sqe(Opcode.FLUSH, 4, nsid=1, cdw10=0xFFFFFFFF, cdw11=0xFFFFFFFF),
            sqe(Opcode.LOOKUP, 5, nsid=1, prp1=a, prp2=b, cdw10=0x89ABCDEF, cdw11=0xFFFE1234, cdw12=0x5678FF9A,
                cdw14=0x11112222, cdw15=0x33334444),
            sqe(Opcode.LOOKUP, 6, nsid=1, cdw11=0x10001),
        )):
            host.put(1, entry)
            await host.ring_sq(ctx, 1)
            assert (await host.completion(ctx, 1))[:2] == (0, cid)
        r, w, d, d2, f = host.block.taken
        assert (r.opcode, r.qid, r.cid, r.slba, r.nlb, r.prp1, r.prp2) == (Opcode.READ, 1, 0, LBAS - MDTS, MDTS - 1, a, cut)
        assert (w.opcode, w.slba, w.nlb, w.prp1) == (Opcode.WRITE, LBAS - 1, 0, a + 8)
        assert (d.opcode, d.nlb, d.deallocate, d.prp1, d.prp2) == (Opcode.DSM, 0x37, 1, cut, a)
        assert (d2.nlb, d2.deallocate) == (0, 0)
        assert (f.opcode, f.deallocate, f.cid) == (Opcode.FLUSH, 0, 4)
        i, i2 = host.infer.taken
        assert (i.opcode, i.qid, i.cid, i.prp1, i.prp2, i.words) == (Opcode.LOOKUP, 1, 5, a, cut, 0x89ABCDEF)
        assert (i.batch, i.weighted, i.tables, i.dense, i.out_addr) == (0x1234, 0, 0x9A, 0x5678, 1 << 40 | 0x44_1111_2222)
        assert (i2.batch, i2.weighted) == (1, 1)

    host.run(scenario)


@pytest.mark.parametrize("width", [8, 16, 32])
def test_alignment_is_to_a_beat(width):
    config = replace(TINY, beat_bytes=width, lookup=replace(TINY.lookup, lanes=width // 4))
    host = Host(config)

    async def scenario(ctx, host):
        await host.start(ctx)
        for offset in (4, 8, 16, 32, 64):
            status = (await host.command(ctx, 1, lambda cid, o=offset: rw(Opcode.READ, cid, prp1=0x20_0000 + o)))[0]
            assert status == (0 if offset % width == 0 else Status.INVALID_PRP_OFFSET)

    host.run(scenario)


def test_statuses_of_the_engines_pass_through():
    host = Host(TINY)
    host.block.status, host.infer.status = Status.UNRECOVERED_READ, Status.ROW_UNMAPPED

    async def scenario(ctx, host):
        await host.start(ctx)
        got = await host.command(ctx, 1, lambda cid: rw(Opcode.READ, cid))
        assert got == (Status.UNRECOVERED_READ, 0x12345678, 0xFFFFFFFF ^ host.cid)
        got = await host.command(ctx, 1, lambda cid: sqe(Opcode.LOOKUP, cid, nsid=1))
        assert got == (Status.ROW_UNMAPPED, 0x12345678, 0xFFFFFFFF ^ host.cid)

    host.run(scenario)


def test_infer_needs_a_program():
    host = Host(WITH_MLP)

    async def scenario(ctx, host):
        await host.start(ctx)
        assert (await host.command(ctx, 1, lambda cid: sqe(Opcode.INFER, cid, nsid=1)))[0] == Status.NO_PROGRAM
        assert not host.infer.taken
        assert (await host.command(ctx, 1, lambda cid: sqe(Opcode.LOOKUP, cid, nsid=1)))[0] == 0

    host.run(scenario)


def test_performance_events_are_counted():
    host = Host(TINY)
    k = len(counters(TINY)) - 1

    async def scenario(ctx, host):
        ctx.set(host.dut.perf[k], 1)
        await ctx.tick().repeat(9)
        ctx.set(host.dut.perf[k], 0)
        await host.axil.write(ctx, OFFSET["perf_index"], k)
        assert (await host.axil.read(ctx, OFFSET["perf_lo"]))[0] == 9

    host.run(scenario)


@pytest.mark.parametrize("preset", ["tiny", "paper", "tlc"])
def test_elaborates_for_presets(preset):
    assert "module" in rtlil.convert(Nvme(DeviceConfig.preset(preset)))


@pytest.mark.parametrize("released", range(1, 10))
def test_an_infer_is_judged_by_the_program_it_would_run_with(released):
    """The hold for a failing program load is released in any cycle of the decision: INFER never slips through."""
    dut = Dispatcher(WITH_MLP)
    outcome = []
    entry = int.from_bytes(sqe(Opcode.INFER, 77, nsid=1), "little") << 3 | 1

    async def process(ctx):
        ctx.set(dut.entry.as_value(), entry)
        ctx.set(dut.hold_infer, 1)
        for cycle in range(40):
            if cycle == released:
                ctx.set(dut.hold_infer, 0)
            ctx.set(dut.entry_valid, int(not outcome))
            ctx.set(dut.take, ctx.get(dut.verdict & dut.acceptable))
            if ctx.get(dut.take):
                outcome.append(cycle)
            await ctx.tick()
            assert not ctx.get(dut.infer_cmd.valid)
        assert outcome
        assert ctx.get(dut.reject.valid)
        assert ctx.get(dut.reject.payload.status) == Status.NO_PROGRAM
        assert ctx.get(dut.reject.payload.cid) == 77

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(process)
    sim.run()
