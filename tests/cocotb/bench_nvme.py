"""The host interface, driven by cocotbext-axi's AXI4-Lite master, its rings in AxiRam: formats, phase bit, wrap-around,
doorbells, interrupt. The host here is written from the NVMe specification alone."""

import random
import struct

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster
from nearflash.contract import AdminOpcode, Opcode, Status, TableSpec
from nearflash.contract.identify import identify
from tops import CONFIG, nvme
from verbs import PATTERNS, Bench, Pauses, placed, table_payload

ENTRIES = 4  # small rings wrap often
SQ, CQ, PAGE = 0x10000, 0x20000, 0x40000
INTMS, CC, CSTS, QUEUE, DOORBELL = 0x0C, 0x14, 0x1C, 0x400, 0x1000


class Host:
    """Two rings a queue pair, as NVM Express Base Specification 2.0, section 3.3 has them."""

    def __init__(self, b: Bench, ram, inputs: str):
        self.b, self.ram = b, ram
        self.axil = AxiLiteMaster(AxiLiteBus.from_prefix(b.dut, "axil"), b.dut.clk, b.dut.rst)
        Pauses(b.dut.clk, inputs).add("axil", self.axil)
        self.tail, self.head, self.phase = [0, 0], [0, 0], [1, 1]

    async def enable(self):
        self.tail, self.head, self.phase = [0, 0], [0, 0], [1, 1]
        for q in range(2):
            self.ram.write(CQ + q * 0x1000, bytes(16 * ENTRIES))
            for offset, value in ((0, SQ + q * 0x1000), (4, 0), (8, CQ + q * 0x1000), (12, 0), (16, ENTRIES - 1)):
                await self.axil.write_dword(QUEUE + q * 0x20 + offset, value)
        await self.axil.write_dword(CC, 1)
        await self.ready(1)

    async def ready(self, value):
        for _ in range(200):
            if await self.axil.read_dword(CSTS) & 1 == value:
                return
        raise AssertionError(f"CSTS.RDY did not become {value}")

    async def submit(self, q, opcode, cid, nsid=1, prp1=0, cdw10=0, cdw11=0, cdw12=0, ring=True):
        entry = struct.pack("<BBHI16xQQ6I", opcode, 0, cid, nsid, prp1, 0, cdw10, cdw11, cdw12, 0, 0, 0)
        self.ram.write(SQ + q * 0x1000 + 64 * self.tail[q], entry)
        self.tail[q] = (self.tail[q] + 1) % ENTRIES
        if ring:
            await self.axil.write_dword(DOORBELL + 8 * q, self.tail[q])

    def peek(self, q):
        """(dw0, dw1, SQ head, queue, cid, status) of the completion at the head, None while its phase bit is old."""
        dw0, dw1, sqhd, sqid, cid, sf = struct.unpack("<IIHHHH", self.ram.read(CQ + q * 0x1000 + 16 * self.head[q], 16))
        return (dw0, dw1, sqhd, sqid, cid, sf >> 1) if sf & 1 == self.phase[q] else None

    async def reap(self, q, acknowledge=True):
        for _ in range(3_000):
            if (entry := self.peek(q)) is not None:
                self.head[q] = (self.head[q] + 1) % ENTRIES
                self.phase[q] ^= self.head[q] == 0
                if acknowledge:
                    await self.acknowledge(q)
                assert entry[3] == q
                return entry
            await RisingEdge(self.b.dut.clk)
        raise AssertionError(f"no completion on queue {q}")

    async def acknowledge(self, q):
        await self.axil.write_dword(DOORBELL + 8 * q + 4, self.head[q])


async def attach(dut, inputs, outputs):
    """A ready device; block and inference commands are answered in random order with their cid in the result."""
    b = Bench(dut, nvme())
    await b.begin()
    host = Host(b, b.ram("host", pattern=outputs), inputs)
    b.ram("dram")
    dut.ftl_ready.value = dut.infer_idle.value = 1
    rng, taken = random.Random(f"{inputs}{outputs}"), []

    def engine(name, *commands):
        out = b.source(f"{name}_completion", [], inputs)
        open_ = []

        async def answer():
            while True:
                await RisingEdge(dut.clk)
                if open_ and rng.random() < 0.05:
                    c = open_.pop(rng.randrange(len(open_)))
                    out.items.append({"qid": c["qid"], "cid": c["cid"], "status": 0, "dw0": c["cid"] ^ 0xABCD, "dw1": 7})

        def take(c):
            taken.append((name, c))
            open_.append(c)

        for command in commands:
            b.sink(f"{command}_cmd", outputs, take)
        cocotb.start_soon(answer())

    engine("block", "read", "write", "trim")
    engine("infer", "infer")
    b.sink("parameter", outputs)
    await host.enable()
    return b, host, taken


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def rings_wrap_and_phase_bits_flip(dut, inputs, outputs):
    """Many times round a ring of four: each command once, each completion once, in a fresh entry."""
    b, host, taken = await attach(dut, inputs, outputs)
    want, finished, cid = {}, set(), 0
    while len(finished) < 22:
        while cid < 22 and cid - len(finished) < ENTRIES - 1:
            opcode = (Opcode.READ, Opcode.WRITE, Opcode.LOOKUP)[cid % 3]
            want[cid] = "infer" if opcode == Opcode.LOOKUP else "block", opcode, cid
            await host.submit(1, opcode, cid, prp1=PAGE, cdw10=cid)
            cid += 1
        dw0, dw1, sqhd, _, done, status = await host.reap(1)
        assert (status, dw0, dw1) == (0, done ^ 0xABCD, 7)
        assert done not in finished
        assert (host.tail[1] - sqhd) % ENTRIES < ENTRIES - 1 or cid == 22
        finished.add(done)
    assert sorted((name, c["opcode"], c["cid"]) for name, c in taken) == sorted(want.values())
    assert all(c["slba"] == c["cid"] for name, c in taken if name == "block")
    assert all(c["words"] == c["cid"] for name, c in taken if name == "infer")
    await b.finish(lambda: not int(dut.irq.value), 200)
    assert host.peek(1) is None


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS)
async def doorbells_and_interrupt(dut, inputs):
    b, host, taken = await attach(dut, inputs, "random")
    # Nothing is fetched before the doorbell; a doorbell beyond the ring is ignored; one doorbell brings three commands.
    for cid in range(3):
        await host.submit(1, Opcode.READ, cid, prp1=PAGE, ring=False)
    await host.axil.write_dword(DOORBELL + 8, ENTRIES)
    await ClockCycles(dut.clk, 100)
    assert not taken
    assert not int(dut.irq.value)
    await host.axil.write_dword(DOORBELL + 8, host.tail[1])
    for _ in range(3):
        await host.reap(1, acknowledge=False)
    await ClockCycles(dut.clk, 40)
    assert int(dut.irq.value)
    # The completion ring is full: the next command waits for the host's head doorbell.
    await host.submit(1, Opcode.READ, 3, prp1=PAGE)
    await ClockCycles(dut.clk, 200)
    assert len(taken) == 3
    await host.axil.write_dword(INTMS, 2)
    await ClockCycles(dut.clk, 10)
    assert not int(dut.irq.value)  # masked
    await host.axil.write_dword(INTMS, 0)
    await ClockCycles(dut.clk, 10)
    assert int(dut.irq.value)
    await host.acknowledge(1)
    assert (await host.reap(1))[4] == 3
    assert len(taken) == 4
    # Disabled and enabled again: pointers and phase start over.
    await host.axil.write_dword(CC, 0)
    await host.ready(0)
    await host.enable()
    await host.submit(1, Opcode.FLUSH, 9)
    assert (await host.reap(1))[4:] == (9, 0)
    await b.finish(lambda: not int(dut.irq.value), 200)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def admin_commands_and_refusals(dut):
    b, host, taken = await attach(dut, "random", "random")
    for cns in (0x00, 0x01, 0xC0):
        host.ram.write(PAGE, b"\xa5" * 8192)
        await host.submit(0, AdminOpcode.IDENTIFY, 40 + cns, prp1=PAGE, cdw10=cns)
        assert (await host.reap(0))[4:] == (40 + cns, 0)
        assert host.ram.read(PAGE, 4096) == identify(CONFIG, cns)
        assert host.ram.read(PAGE + 4096, 4096) == b"\xa5" * 4096
    spec = placed(CONFIG, TableSpec(90, 12, lsb_exp=-33, quant_mult=40000, quant_shift=-3), 20, 60)
    host.ram.write(PAGE, spec.descriptor(CONFIG))
    seen = []

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            if int(dut.table_valid.value):
                seen.append(int(dut.table_write.value))

    cocotb.start_soon(watch())
    await host.submit(0, AdminOpcode.TABLE_CREATE, 1, prp1=PAGE, cdw10=5)
    assert (await host.reap(0))[4:] == (1, 0)
    shape = b.shape("table_write")
    assert seen == [shape.const(table_payload(CONFIG, 5, spec)).as_bits()]
    await host.submit(0, AdminOpcode.TABLE_CREATE, 2, prp1=PAGE, cdw10=6)
    assert (await host.reap(0))[::5] == (5, Status.OVERLAPPING_EXTENTS)
    for q, opcode, fields, status in ((1, 0x7F, {}, Status.INVALID_OPCODE), (1, Opcode.READ, {"nsid": 2},
                                      Status.INVALID_NAMESPACE),
                                      (1, Opcode.READ, {"cdw10": CONFIG.lbas}, Status.LBA_OUT_OF_RANGE),
                                      (1, Opcode.INFER, {}, Status.NO_PROGRAM)):
        await host.submit(q, opcode, 77, **fields)
        assert (await host.reap(q))[4:] == (77, status)
    assert not taken
    await host.submit(0, AdminOpcode.TABLE_DELETE, 3, cdw10=5)
    assert (await host.reap(0))[4:] == (3, 0)
    assert len(seen) == 2
    await b.finish(lambda: not int(dut.irq.value), 200)
