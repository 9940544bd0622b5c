"""A host for controller benches: an AXI4-Lite master, rings in a memory model, and doubles of the command engines."""

import random
import struct
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from nearflash.contract.nvme import CQE, CQE_BYTES, SQE_BYTES
from nearflash.contract.registers import OFFSETS as OFFSET
from nearflash.contract.registers import doorbell, queue_register
from nearflash_hw.controller.nvme import Nvme
from nearflash_hw.host.host_dma import HostReader

from ..bench import StreamSink, StreamSource, reused, simulate
from .memory import MemoryModel


class AxilMaster:
    """``write`` and ``read`` for use inside an async test bench; answers in any order of address and data."""

    def __init__(self, port, seed=0, stall=0.0):
        self.port, self.rng, self.stall = port, random.Random(seed), stall

    async def _idle(self, ctx):
        while self.rng.random() < self.stall:
            await ctx.tick()

    async def write(self, ctx, addr, value, strb=15):
        """Returns the response code."""
        p = self.port
        await self._idle(ctx)
        ctx.set(p.awaddr, addr)
        ctx.set(p.wdata, value)
        ctx.set(p.wstrb, strb)
        start = {"aw": 0, "w": 0}
        start[self.rng.choice(["aw", "w"])] = self.rng.choice([0, 0, 3]) if self.stall else 0
        sent = {"aw": False, "w": False}
        cycle = 0
        while not all(sent.values()):
            for c in sent:
                ctx.set(getattr(p, c + "valid"), int(not sent[c] and cycle >= start[c]))
            _, _, awr, wr, awv, wv = await ctx.tick().sample(p.awready, p.wready, p.awvalid, p.wvalid)
            sent["aw"] |= bool(awr & awv)
            sent["w"] |= bool(wr & wv)
            cycle += 1
            assert cycle < 50, "write not accepted"
        ctx.set(p.awvalid, 0)
        ctx.set(p.wvalid, 0)
        await self._idle(ctx)
        ctx.set(p.bready, 1)
        for _ in range(50):
            _, _, valid, resp = await ctx.tick().sample(p.bvalid, p.bresp)
            if valid:
                ctx.set(p.bready, 0)
                return resp
        raise AssertionError("no write response")

    async def read(self, ctx, addr):
        """Returns (data, response code)."""
        p = self.port
        await self._idle(ctx)
        ctx.set(p.araddr, addr)
        ctx.set(p.arvalid, 1)
        for _ in range(50):
            _, _, ready = await ctx.tick().sample(p.arready)
            if ready:
                break
        else:
            raise AssertionError("read not accepted")
        ctx.set(p.arvalid, 0)
        await self._idle(ctx)
        ctx.set(p.rready, 1)
        for _ in range(50):
            _, _, valid, d, resp = await ctx.tick().sample(p.rvalid, p.rdata, p.rresp)
            if valid:
                ctx.set(p.rready, 0)
                return d, resp
        raise AssertionError("no read response")


class Bench(Elaboratable):
    """Nvme with the host reader of its admin data."""

    def __init__(self, config):
        self.nvme, self.reader = Nvme(config), HostReader(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.nvme, m.submodules.reader = self.nvme, self.reader
        connect(m, self.nvme.admin_req, self.reader.req)
        connect(m, self.reader.data, self.nvme.admin_data)
        return m


class Engine:
    """Takes commands (from each of ``cmds`` while its number is in ``accepts``) and completes each ``delay`` cycles later
    (while ``complete`` holds)."""

    def __init__(self, cmds, completion, delay=5, status=0):
        self.cmds, self.completion, self.delay, self.status = cmds, completion, delay, status
        self.accepts, self.complete = set(range(len(cmds))), True
        self.taken = []
        self.open = []  # (due cycle, command)

    async def process(self, ctx):
        cycle = 0
        sending = None
        while True:
            for k, cmd in enumerate(self.cmds):
                ctx.set(cmd.ready, int(k in self.accepts))
            if sending is None and self.complete and self.open and self.open[0][0] <= cycle:
                sending = self.open[0]
                ctx.set(self.completion.payload, {
                    "qid": sending[1].qid, "cid": sending[1].cid, "status": self.status, "dw0": 0x12345678,
                    "dw1": sending[1].cid ^ 0xFFFFFFFF})
                ctx.set(self.completion.valid, 1)
            _, _, dv, dr, *offers = await ctx.tick().sample(
                self.completion.valid, self.completion.ready,
                *(s for cmd in self.cmds for s in (cmd.valid, cmd.ready, cmd.payload)))
            cycle += 1
            if dv and dr:
                self.open.pop(0)
                sending = None
                ctx.set(self.completion.valid, 0)
            for valid, ready, p in zip(*[iter(offers)] * 3, strict=True):
                if valid and ready:
                    self.taken.append(p)
                    self.open.append((cycle + self.delay, p))


@dataclass
class Ring:
    sq: int
    cq: int
    size: int  # entries
    tail: int = 0
    head: int = 0
    phase: int = 1
    sqhd: int = 0


class Host:
    """Everything outside the controller. A scenario is ``async def scenario(ctx, host)``, run by :meth:`run`."""

    def __init__(self, config, *, stall=0.0, seed=0, latency=5, fail=lambda a: False):
        self.config = config
        self.top = reused(Bench, config)
        self.dut = self.top.nvme
        self.memory = MemoryModel(config.beat_bytes, latency=latency, stall=stall, seed=seed, fail=fail)
        self.dram = MemoryModel(config.beat_bytes, latency=latency, stall=stall, seed=seed + 1)
        self.axil = AxilMaster(self.dut.axil, seed, stall)
        self.block = Engine([self.dut.read_cmd, self.dut.write_cmd, self.dut.trim_cmd], self.dut.block_completion)
        self.infer = Engine([self.dut.infer_cmd], self.dut.infer_completion)
        self.parameters = StreamSink(self.dut.parameter, stall, seed=seed + 2)
        self.tables = []
        self.rings = {}
        self.cid = 0
        self.finished = False

    async def _watch(self, ctx):
        ctx.set(self.dut.ftl_ready, 1)
        ctx.set(self.dut.infer_idle, 1)
        while True:
            _, _, valid, t, busy = await ctx.tick().sample(
                self.dut.table_valid, self.dut.table, self.dut.infer_cmd.valid)
            if valid:
                assert not self.infer.open, "a table changed under an inference command"
                assert not busy, "a table changed under a waiting inference command"
                self.tables.append(t)

    def run(self, scenario, max_cycles=20_000, settle=60):
        async def process(ctx):
            for _ in range(3):
                await ctx.tick()
            await scenario(ctx, self)
            self.finished = True
            while True:
                await ctx.tick()

        d, mem = self.dut, self.memory
        actors = [
            self.block, self.infer, self.parameters, self._watch,
            mem.read_port(d.sq_read), mem.write_port(d.cq_write), mem.write_port(d.identify_write),
            self.dram.write_port(d.dram_write), mem.read_port(self.top.reader.list_read),
            mem.read_port(self.top.reader.data_read), process]
        return simulate(self.top, actors, until=lambda: self.finished, max_cycles=max_cycles, settle=settle)

    # -- driver verbs ---------------------------------------------------------------------------------------------
    async def start(self, ctx, sizes=None):
        """Set up every ring (``sizes``: entries per queue pair) and enable the controller."""
        for q in range(self.config.host.queue_pairs):
            size = (sizes or {}).get(q, self.config.host.queue_entries)
            ring = self.rings[q] = Ring(0x10_0000 + q * 0x1_0000, 0x11_0000_0000 + q * 0x1_0000, size)
            for name, v in (("sq_base_lo", ring.sq), ("sq_base_hi", ring.sq >> 32), ("cq_base_lo", ring.cq),
                            ("cq_base_hi", ring.cq >> 32), ("size", size - 1)):
                assert await self.axil.write(ctx, queue_register(q, name), v & 0xFFFFFFFF) == 0
            for i in range(size):  # stale phase bits of an earlier life are the driver's to clear
                self.memory.write(ring.cq + i * CQE_BYTES, bytes(CQE_BYTES))
        await self.axil.write(ctx, OFFSET["cc"], 1)
        await self.wait_ready(ctx, 1)

    async def wait_ready(self, ctx, value):
        for _ in range(100):
            csts, _ = await self.axil.read(ctx, OFFSET["csts"])
            if csts & 1 == value:
                return
        raise AssertionError(f"CSTS.RDY did not become {value}")

    async def stop(self, ctx):
        await self.axil.write(ctx, OFFSET["cc"], 0)
        await self.wait_ready(ctx, 0)

    def put(self, q, entry):
        """Write an entry at the SQ tail, without the doorbell."""
        ring = self.rings[q]
        assert len(entry) == SQE_BYTES
        self.memory.write(ring.sq + ring.tail * SQE_BYTES, entry)
        ring.tail = (ring.tail + 1) % ring.size

    async def ring_sq(self, ctx, q):
        await self.axil.write(ctx, doorbell(q, False), self.rings[q].tail)

    async def ring_cq(self, ctx, q):
        await self.axil.write(ctx, doorbell(q, True), self.rings[q].head)

    def poll(self, q):
        """The next completion entry of queue ``q``, or None."""
        ring = self.rings[q]
        c = np.frombuffer(self.memory.read(ring.cq + ring.head * CQE_BYTES, CQE_BYTES), CQE)[0]
        if int(c["sf"]) & 1 != ring.phase:
            return None
        ring.head += 1
        if ring.head == ring.size:
            ring.head, ring.phase = 0, ring.phase ^ 1
        assert c["sqid"] == q
        return c

    async def completion(self, ctx, q, ack=True, cycles=3000):
        """Wait for the next completion: (status, cid, dw0, dw1)."""
        for _ in range(cycles):
            c = self.poll(q)
            if c is not None:
                if ack:
                    await self.ring_cq(ctx, q)
                return int(c["sf"]) >> 1, int(c["cid"]), int(c["dw0"]), int(c["dw1"])
            await ctx.tick()
        raise AssertionError(f"no completion on queue {q}")

    async def command(self, ctx, q, make, **fields):
        """Submit one command and wait for it: (status, dw0, dw1)."""
        self.cid = (self.cid + 1) & 0xFFFF
        self.put(q, make(cid=self.cid, **fields))
        await self.ring_sq(ctx, q)
        status, cid, dw0, dw1 = await self.completion(ctx, q)
        assert cid == self.cid
        return status, dw0, dw1


def descriptor_words(raw):
    return list(struct.unpack(f"<{len(raw) // 4}I", raw))


__all__ = ["OFFSET", "AxilMaster", "Engine", "Host", "MemoryModel", "Ring", "StreamSink", "StreamSource",
           "descriptor_words", "simulate"]
