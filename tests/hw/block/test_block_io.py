"""Block I/O with the real FTL and PRP walker, over models of the flash channels, the DRAM and the host memory."""

import dataclasses
import random
import struct

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import Opcode, Status
from nearflash.reference.ftl import FtlModel
from nearflash_hw.block.block_io import BlockIo
from nearflash_hw.controller.ftl import Ftl
from nearflash_hw.host.prp import PrpWalker
from nearflash_hw.interfaces import FlashOp, Layouts
from nearflash_hw.primitives.memport import MemReadSignature, MemWriteSignature
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")
READ, WRITE, TRIM = range(3)  # ports


def variant(beat_bytes, slots=2, reads=8, **flash):
    f = dataclasses.replace(TINY.flash, **flash)
    lookup = dataclasses.replace(TINY.lookup, lanes=beat_bytes // 4)
    host = dataclasses.replace(TINY.host, page_slots=slots, read_slots=slots, block_reads=reads)
    return dataclasses.replace(TINY, beat_bytes=beat_bytes, flash=f, lookup=lookup, host=host)


CONFIGS = {
    "tiny": TINY,
    "beat16": variant(16, page_bytes=4096, oob_bytes=64, blocks=4, pages=4, channels=1),
    "beat32": variant(32, slots=5, channels=4, dies=1),
    "big_page": variant(32, slots=3, page_bytes=8192, blocks=2, pages=4),
    "one_slot": variant(32, slots=1, reads=2, channels=1, dies=1, blocks=8),
}


class Harness(wiring.Component):
    """BlockIo, Ftl and PrpWalker, wired as in the device."""

    def __init__(self, config):
        self.config = config
        lay, n = Layouts.of(config), config.flash.channels
        self.n = n
        super().__init__({
            **{f"{name}_cmd": In(stream.Signature(lay.block_command)) for name in ("read", "write", "trim")},
            "completion": Out(stream.Signature(lay.completion)),
            "flash_cmd": Out(stream.Signature(lay.flash_command)).array(n),
            "flash_in": Out(stream.Signature(lay.data_bits)).array(n),
            "flash_data": In(stream.Signature(lay.flash_data)).array(n),
            "flash_done": In(stream.Signature(lay.flash_done)).array(n),
            "flash_waits": In(1).array(n), "flash_room": Out(1).array(n),
            "host_read": Out(MemReadSignature(config.beat_bytes)), "list_read": Out(MemReadSignature(config.beat_bytes)),
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
            "map_read": Out(MemReadSignature(config.beat_bytes)), "map_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.io = io = BlockIo(self.config)
        m.submodules.ftl = ftl = Ftl(self.config)
        m.submodules.prp = prp = PrpWalker(self.config)
        for outer, inner in (("read_cmd", io.read_cmd), ("write_cmd", io.write_cmd), ("trim_cmd", io.trim_cmd),
                             ("completion", io.completion),
                             ("host_read", io.host_read), ("host_write", io.host_write), ("list_read", prp.mem_read),
                             ("map_read", ftl.mem_read),
                             ("map_write", ftl.mem_write)):
            connect(m, inner, flipped(getattr(self, outer)))
        for k in range(self.n):
            for name in ("flash_cmd", "flash_in", "flash_data", "flash_done"):
                connect(m, getattr(io, name)[k], flipped(getattr(self, name)[k]))
            m.d.comb += [io.flash_waits[k].eq(self.flash_waits[k]), self.flash_room[k].eq(io.flash_room[k])]
        connect(m, io.prp_req, prp.req)
        connect(m, prp.run, io.prp_run)
        connect(m, io.ftl_req, ftl.block_req)
        connect(m, ftl.block_rsp, io.ftl_rsp)
        connect(m, io.update, ftl.update)
        connect(m, ftl.update_done, io.update_done)
        connect(m, ftl.allocate, io.allocate)
        connect(m, io.sync, ftl.sync)
        connect(m, ftl.sync_done, io.sync_done)
        m.d.comb += [io.full.eq(ftl.full), io.stalled.eq(ftl.stalled), ftl.enable.eq(1)]
        return m


class FlashModel:
    """One channel: commands of a die in order, dies in any order, each at a random time; NAND rules checked. A page is sent
    when there is room for it; its beats must then all be taken at once."""

    def __init__(self, bench, k, stall):
        self.b, self.k = bench, k
        f = bench.config.flash
        self.rng = random.Random(100 + k)
        self.cmd = StreamSink(bench.dut.flash_cmd[k], stall, 10 + k, self.take)
        self.beats = StreamSink(bench.dut.flash_in[k], stall, 20 + k)
        self.data = StreamSource(bench.dut.flash_data[k], [], stall, 30 + k)
        self.waits, self.room = bench.dut.flash_waits[k], bench.dut.flash_room[k]
        self.stuck: set[int] = set()  # dies that do nothing
        self.done = StreamSource(bench.dut.flash_done[k], [], stall, 40 + k)
        self.queues = [[] for _ in range(f.dies)]
        self.programs = 0
        self.rate = 0.02
        self.dead: set[int] = set()  # PPNs that fail

    def take(self, c):
        if c["op"] == FlashOp.PROGRAM:
            c = {**c, "nth": self.programs}
            self.programs += 1
        self.queues[c["die"]].append(c)
        self.b.deepest = max(self.b.deepest, sum(len(q) for ch in self.b.flash for q in ch.queues))

    async def process(self, ctx):
        cfg, f = self.b.config, self.b.config.flash
        raw, size = cfg.raw_page_beats, cfg.beat_bytes
        page = []  # to be sent when there is room
        while True:
            await ctx.tick()
            ctx.set(self.waits, int(bool(page) and self.data.drained))
            if page and self.data.drained and ctx.get(self.room):
                self.data.items += page
                page = []
            for die, q in enumerate(self.queues):
                if not q or die in self.stuck or self.rng.random() > self.rate:
                    continue
                if page and q[0]["op"] == FlashOp.READ:  # one at a time leaves the channel
                    continue
                c = q[0]
                row = c["block"] * f.pages + c["page"]
                ppn = (row * f.dies + c["die"]) * f.channels + self.k
                block = (c["block"] * f.dies + c["die"]) * f.channels + self.k
                fails = ppn in self.dead
                if c["op"] == FlashOp.PROGRAM:
                    if len(self.beats.items) < (c["nth"] + 1) * raw:
                        continue
                    content = b"".join(
                        x.to_bytes(size, "little") for x in self.beats.items[c["nth"] * raw : (c["nth"] + 1) * raw])
                    assert (c["column"], c["beats"]) == (0, raw)
                    state = self.b.states.get(block, (f.pages, False, 0))
                    assert state[0] == c["page"], "NAND rule broken"
                    self.b.states[block] = (c["page"] + 1, True, state[2])
                    if not fails:
                        self.b.pages[ppn] = content
                    self.done.items.append({"tag": c["tag"], "error": int(fails)})
                elif c["op"] == FlashOp.ERASE:
                    self.b.states[block] = (0, True, self.b.states.get(block, (0, True, 0))[2] + 1)
                    self.done.items.append({"tag": c["tag"], "error": 0})
                else:
                    part = self.b.pages[ppn][c["column"] * size :]
                    page = [
                        {"data": int.from_bytes(part[i * size : (i + 1) * size], "little"), "tag": c["tag"],
                         "last": int(i == c["beats"] - 1), "error": int(fails)} for i in range(c["beats"])]
                q.pop(0)


class Bench:
    def __init__(self, config, stall=0.0, seed=0):
        self.config = config
        self.rng = random.Random(seed)
        self.dut = reused(Harness, config)
        self.bad_host: set[int] = set()  # host page numbers that answer with errors
        self.bad_dram: set[int] = set()  # DRAM beats that do
        self.host = MemoryModel(config.beat_bytes, stall=stall, seed=1, fail=lambda a: a >> 12 in self.bad_host)
        self.dram = MemoryModel(config.beat_bytes, stall=stall, seed=2, fail=lambda a: a in self.bad_dram)
        self.ports = [StreamSource(port) for port in (self.dut.read_cmd, self.dut.write_cmd, self.dut.trim_cmd)]
        self.trim_cmd = self.ports[TRIM]
        self.sent: list[dict] = []
        self.in_turn = True  # reads, writes and lists of ranges wait for each other, as a careful host's do
        self.completion = StreamSink(self.dut.completion, stall, 3)
        self.pages, self.states, self.deepest = {}, {}, 0
        self.flash = [FlashModel(self, k, stall) for k in range(config.flash.channels)]
        self.model = FtlModel(config)
        self.blocks: dict[int, bytes] = {}  # the oracle: what each LBA reads as
        self.free_page = 16

    # -- host side
    def buffer(self, nbytes, offset=None):
        """A scattered host buffer: (prp1, prp2, host page numbers, offset)."""
        beat = self.config.beat_bytes
        offset = self.rng.randrange(0, 4096, beat) if offset is None else offset
        n = -(-(offset + nbytes) // 4096)
        pages = [self.free_page + i for i in self.rng.sample(range(n + 2), n)]
        self.free_page += n + 2
        prp2 = 0
        if n == 2:
            prp2 = pages[1] << 12
        elif n > 2:
            prp2 = self.free_page << 12
            self.free_page += 1
            self.host.write(prp2, struct.pack(f"<{n - 1}Q", *(p << 12 for p in pages[1:])))
        return (pages[0] << 12 | offset, prp2, pages, offset)

    def put(self, buf, content):
        _, _, pages, at = buf
        for i, byte in enumerate(content):
            self.host.bytes[(pages[at + i >> 12] << 12) + (at + i & 4095)] = byte

    def get(self, buf, n):
        _, _, pages, at = buf
        return bytes(self.host.bytes.get((pages[at + i >> 12] << 12) + (at + i & 4095), 0xEE) for i in range(n))

    def send(self, opcode, slba=0, n=1, buf=(0, 0, [], 0), deallocate=0):
        self.sent.append({"opcode": opcode, "qid": 1, "cid": len(self.sent), "slba": slba, "nlb": n - 1,
                          "prp1": buf[0], "prp2": buf[1], "deallocate": deallocate})

    async def feed(self, ctx):
        """Hands commands on, each to its port."""
        n, last = 0, READ
        while True:
            while n < len(self.sent):
                item = self.sent[n]
                kind = {Opcode.READ: READ, Opcode.DSM: TRIM}.get(item["opcode"], WRITE)
                if self.in_turn and len(self.completion.items) < n and (kind != last or kind == TRIM):
                    break
                last = kind
                self.ports[kind].items.append(item)
                n += 1
            await ctx.tick()

    # -- commands that keep the oracle
    def write(self, slba, contents, model=True):
        buf = self.buffer(len(contents) * self.config.lba_bytes)
        self.put(buf, b"".join(contents))
        self.send(Opcode.WRITE, slba, len(contents), buf)
        for i, content in enumerate(contents if model else ()):
            self.blocks[slba + i] = content
            self.model.write(slba + i, content)
        return buf

    def random_write(self, slba, n):
        self.write(slba, [self.rng.randbytes(self.config.lba_bytes) for _ in range(n)])

    def read(self, slba, n):
        """Returns a check to call after the command completed."""
        size = self.config.lba_bytes
        buf = self.buffer(n * size)
        self.send(Opcode.READ, slba, n, buf)
        want = b"".join(self.blocks.get(slba + i, bytes(size)) for i in range(n))

        def check():
            assert self.get(buf, n * size) == want
            end = buf[3] + n * size & 4095
            assert end == 0 or self.get((0, 0, buf[2][-1:], end), 1) == b"\xee", "wrote past the buffer"
        return check

    def trim(self, ranges, raw=None):
        content = raw or b"".join(struct.pack("<IIQ", 0, n, slba) for slba, n in ranges)
        buf = self.buffer(len(content))
        self.put(buf, content)
        self.send(Opcode.DSM, n=len(content) // 16, buf=buf, deallocate=1)
        for slba, n in ranges if not raw else ():
            for lpn in range(slba, slba + n):
                self.blocks.pop(lpn, None)
                self.model.trim(lpn)

    def run(self, script, max_cycles=60_000):
        waiting = {"for": lambda: True, "over": False}
        steps = iter(script())

        def until():
            while not waiting["over"] and waiting["for"]():
                try:
                    waiting["for"] = next(steps)
                except StopIteration:
                    waiting["over"] = True
            return waiting["over"]

        d = self.dut
        actors = [*self.ports, self.feed, self.completion,
                  self.host.read_port(d.host_read), self.host.read_port(d.list_read),
                  self.host.write_port(d.host_write), self.dram.read_port(d.map_read),
                  self.dram.write_port(d.map_write)]
        for ch in self.flash:
            actors += [ch, ch.cmd, ch.beats, ch.data, ch.done]
        simulate(d, actors, until=until, max_cycles=max_cycles, settle=60)
        assert self.host.pending == self.dram.pending == 0
        assert len(self.completion.items) == len(self.sent)
        for ch in self.flash:
            assert not any(ch.queues)
            assert (ch.data.drained, ch.done.drained) == (True, True)
            assert len(ch.beats.items) == ch.programs * self.config.raw_page_beats

    def all_done(self):
        return len(self.completion.items) == len(self.sent)

    def answered(self, cid):
        return lambda: any(c["cid"] == cid for c in self.completion.items)

    def statuses(self):
        assert sorted(c["cid"] for c in self.completion.items) == list(range(len(self.sent)))
        assert all((c["qid"], c["dw0"], c["dw1"]) == (1, 0, 0) for c in self.completion.items)
        return [Status(c["status"]) for c in sorted(self.completion.items, key=lambda c: c["cid"])]

    def check_image(self):
        """Everything the reference model says is in DRAM (after a FLUSH) is in the flash models and the DRAM."""
        c, a = self.config, self.config.layout
        f = c.flash
        flash = bytearray(f.total_pages * f.page_bytes)
        oob = bytearray(f.total_pages * f.oob_bytes)
        for ppn, raw in self.pages.items():
            flash[ppn * f.page_bytes : (ppn + 1) * f.page_bytes] = raw[: f.page_bytes]
            oob[ppn * f.oob_bytes : (ppn + 1) * f.oob_bytes] = raw[f.page_bytes :]
        for addr, content in self.model.image():
            n = len(content)
            if addr < a.oob:
                assert flash[addr : addr + n] == content
            elif addr < a.block_state:
                assert oob[addr - a.oob : addr - a.oob + n] == content
            elif addr < a.map:
                assert self.states[(addr - a.block_state) // 8] == self.model.block_state((addr - a.block_state) // 8)
            else:
                assert self.dram.read(addr, n) == content


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_commands_match_a_dictionary(name, stall):
    config = CONFIGS[name]
    b = Bench(config, stall, seed=4)
    rng = b.rng
    big = config.lba_bytes > 1024
    longest = 3 if big else 6
    checks = []

    def script():
        written = 0
        for _ in range(5 if big else 10):
            n = rng.randint(1, longest)
            slba = rng.randrange(config.lbas - n)
            kind = rng.random()
            if kind < 0.5 and written + n < config.flash.total_pages:
                b.random_write(slba, n)
                written += n
                checks.append(b.read(max(0, slba - 1), min(n + 1, longest)))
            elif kind < 0.7:
                b.trim([(rng.randrange(config.lbas - 3), rng.randint(0, 3)) for _ in range(rng.randint(1, 4))])
                if b.blocks:
                    checks.append(b.read(min(rng.choice(list(b.blocks)), config.lbas - 2), 2))
            elif kind < 0.8:
                b.send(Opcode.FLUSH)
            elif b.blocks:
                checks.append(b.read(min(rng.choice(list(b.blocks)), config.lbas - n), n))
        b.send(Opcode.FLUSH)
        yield b.all_done

    b.run(script)
    assert set(b.statuses()) == {Status.SUCCESS}
    assert checks
    for check in checks:
        check()
    b.check_image()


def test_pages_of_a_command_are_in_flight_together():
    b = Bench(CONFIGS["beat32"], seed=1)
    for ch in b.flash:
        ch.rate = 0.004

    def script():
        b.random_write(0, 8)
        yield b.all_done
        b.deepest = 0
        check = b.read(0, 8)
        yield b.all_done
        check()
        assert b.deepest >= 4

    b.run(script)


def test_reads_go_on_while_a_die_erases():
    """A WRITE waits for the die that erases its block; READs of the other dies are answered, those of that die wait too."""
    b = Bench(CONFIGS["beat32"], seed=31)  # four channels of one die
    size = b.config.lba_bytes

    def script():
        b.random_write(0, 4)
        yield b.all_done
        b.in_turn = False
        b.flash[0].stuck = {0}
        new = [b.rng.randbytes(size) for _ in range(4)]
        old = b.blocks[0]
        b.write(0, new)  # its first page goes to channel 0
        b.blocks[0] = old
        write = len(b.sent) - 1
        b.read(0, 1)  # the old one, in the die that is busy
        checks = [b.read(1 + i % 3, 1) for i in range(12)]
        yield lambda: len(b.completion.items) >= 1 + 12
        answered = {c["cid"] for c in b.completion.items}
        assert answered == {0, *range(write + 2, write + 14)}
        b.flash[0].stuck = set()
        yield b.all_done
        b.blocks[0] = new[0]
        checks = [b.read(0, 4)]
        yield b.all_done
        for check in checks:
            check()

    b.run(script)
    assert set(b.statuses()) == {Status.SUCCESS}


@pytest.mark.parametrize("name", ["tiny", "beat32"])
def test_reads_queue_and_end_in_any_order(name):
    """As many pages as the configuration says wait in the flash, of commands of one page or several."""
    config = CONFIGS[name]
    b = Bench(config, seed=32)
    n = config.host.block_reads

    def script():
        b.random_write(0, 6)
        yield b.all_done
        for ch in b.flash:
            ch.stuck = set(range(config.flash.dies))
        b.deepest = 0
        checks = [b.read(i % 5, 1 + (i % 4 == 1)) for i in range(2 * n)]
        yield lambda: b.deepest == n
        for ch in b.flash[1:]:
            ch.stuck = set()
        yield lambda: len(b.completion.items) > 1
        b.flash[0].stuck = set()
        yield b.all_done
        assert b.deepest == n
        for check in checks:
            check()

    b.run(script)
    order = [c["cid"] for c in b.completion.items]
    assert order != sorted(order), "commands ended in the order they came: nothing overtook"


@pytest.mark.parametrize("name", ["tiny", "one_slot"])
def test_a_block_is_never_torn(name):
    """Reads of a block beside writes of it: any version that was there or on its way when the read was sent, whole; after a
    write was answered, none from before it."""
    b = Bench(CONFIGS[name], 0.1, seed=33)
    size = b.config.lba_bytes
    versions = [bytes(size)]
    reads = []

    def script():
        b.in_turn = False
        b.completion.stall = 0.98  # so that a block is mapped long before its write is answered
        for _ in range(8):
            oldest = len(versions) - 1  # the last write was answered
            versions.append(b.rng.randbytes(size))
            b.write(3, versions[-1:])
            write = len(b.sent) - 1
            while not b.answered(write)():
                if len(b.sent) - len(b.completion.items) < 4:
                    buf = b.buffer(size)
                    b.send(Opcode.READ, 3, 1, buf)
                    reads.append((buf, oldest))
                sent = len(b.completion.items)
                yield lambda sent=sent: len(b.completion.items) > sent
        yield b.all_done

    b.run(script, max_cycles=120_000)
    assert set(b.statuses()) == {Status.SUCCESS}
    seen = [(versions.index(b.get(buf, size)), oldest) for buf, oldest in reads]
    assert all(version in (oldest, oldest + 1) for version, oldest in seen)
    assert {version - oldest for version, oldest in seen} == {0, 1}, "reads met no write"


def test_flush_covers_what_was_answered_and_reads_pass_it():
    b = Bench(TINY, seed=34)

    def script():
        b.random_write(0, 3)
        yield b.all_done
        b.in_turn = False
        cursor = b.model.cursor
        b.send(Opcode.FLUSH)
        b.read(0, 1)
        yield b.all_done
        assert struct.unpack("<I", b.dram.read(b.config.layout.superblock + 4, 4)) == (cursor,)

    b.run(script)
    assert set(b.statuses()) == {Status.SUCCESS}


def test_dataset_management():
    b = Bench(TINY, seed=3)
    lbas = TINY.lbas

    def script():
        b.random_write(lbas - 5, 5)
        yield b.all_done
        good = struct.pack("<IIQ", 0, 1, lbas - 1)
        for bad in ((1, lbas), (2, lbas - 1), (0, lbas + 1), (0xFFFFFFFF, lbas - 1), (1, 1 << 32), (1, 1 << 63)):
            b.trim([], good + struct.pack("<IIQ", 0, *bad))
        hints = b.buffer(16)
        b.send(Opcode.DSM, buf=hints)  # no deallocate: nothing is even fetched
        b.send(0x7F)
        check = b.read(lbas - 5, 5)
        yield b.all_done
        check()
        b.trim([], struct.pack("<IIQ", 0, lbas - 1, 0) + struct.pack("<IIQ", 0, 2, lbas - 2))  # overlapping, one too many
        b.trim([(i % lbas, 0) for i in range(254)] + [(lbas - 1, 1), (lbas - 5, 2)])  # the longest list
        check = b.read(lbas - 5, 5)
        yield b.all_done
        check()

    b.run(script)
    assert b.statuses() == [0] + [Status.LBA_OUT_OF_RANGE] * 6 + [0, Status.INVALID_OPCODE, 0,
                            Status.COMMAND_SIZE_LIMIT, 0, 0]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("name", ["tiny", "beat32"])
def test_other_commands_go_on_while_ranges_are_unmapped(name, stall):
    """The whole device is unmapped, a block at a time; reads and writes of every kind are answered meanwhile."""
    config = CONFIGS[name]
    b = Bench(config, stall, seed=11)
    lbas, size = config.lbas, config.lba_bytes

    def script():
        contents = [b.rng.randbytes(size) for _ in range(2)]
        b.write(0, contents)
        yield b.all_done
        b.in_turn = False
        b.trim([(0, lbas)])
        b.trim([(0, 1), (lbas - 1, 1)])  # waits for the first one
        yield lambda: b.trim_cmd.sent == 1
        started = len(b.completion.items)
        for _ in range(2):
            b.read(lbas - 1, 1)
            b.write(lbas - 2, [b.rng.randbytes(size)])
        b.send(Opcode.FLUSH)
        yield lambda: len(b.completion.items) >= started + 3
        order = [c["cid"] for c in b.completion.items[started:]]
        assert set(order[:3]) <= {3, 4, 5, 6, 7}, "block I/O waited for the ranges"
        yield b.all_done
        assert [c["cid"] for c in b.completion.items if c["cid"] in (1, 2)] == [1, 2]
        checks = [b.read(i, 1) for i in (0, 1, lbas // 2)]
        yield b.all_done
        for check in checks:
            check()

    b.run(script, max_cycles=120_000)
    assert set(b.statuses()) == {Status.SUCCESS}
    entries = struct.unpack(f"<{lbas}I", b.dram.read(config.layout.map, 4 * lbas))
    assert not any(entries[: lbas - 2])


def test_ranges_and_block_io_do_not_disturb_each_other():
    """Lists of every length against writes, reads and flushes of other blocks, completions slowly taken."""
    b = Bench(TINY, 0.1, seed=13)
    half = TINY.lbas // 2
    checks = []

    def script():
        b.random_write(half, 4)
        yield b.all_done
        b.in_turn = False
        b.completion.stall = 0.98
        for k in range(12):
            b.trim([(half + b.rng.randrange(half - 40), b.rng.choice([1, 1, 2, 30])) for _ in range(b.rng.randint(1, 3))])
            slba = b.rng.randrange(half - 4)
            b.random_write(slba, 1 + k % 4)
            yield b.answered(len(b.sent) - 1)
            checks.append(b.read(slba, 1 + k % 4))
            b.send(Opcode.FLUSH)
            b.send(Opcode.READ, half - 1, 1, b.buffer(TINY.lba_bytes))
        b.trim([(half, half)])
        yield b.all_done
        b.send(Opcode.FLUSH)
        yield b.all_done

    b.run(script, max_cycles=200_000)
    assert set(b.statuses()) == {Status.SUCCESS}
    assert sorted(c["cid"] for c in b.completion.items) == list(range(len(b.sent)))
    for check in checks:
        check()
    b.check_image()


def test_a_list_that_meets_an_error_is_answered_and_the_next_one_works():
    b = Bench(TINY, seed=12)
    lbas = TINY.lbas

    def script():
        b.random_write(0, 4)
        yield b.all_done
        b.bad_dram = {TINY.layout.map + 8}
        b.trim([], struct.pack("<IIQ", 0, 4, 0))
        yield b.all_done
        b.bad_dram = set()
        b.trim([(0, 4), (lbas - 1, 1)])
        check = b.read(0, 4)
        yield b.all_done
        check()

    b.model.trim = lambda lpn: None
    b.run(script)
    assert b.statuses() == [0, Status.WRITE_FAULT, 0, 0]


def test_capacity_exceeded_and_the_device_stays_readable():
    config = dataclasses.replace(CONFIGS["beat32"], flash=dataclasses.replace(
        CONFIGS["beat32"].flash, blocks=2, pages=2, dies=1))
    b = Bench(config, seed=5)
    total = config.flash.total_pages
    n = config.lbas - 1

    def script():
        for _ in range(total // n):
            b.random_write(0, n)
        left = total % n
        contents = [b.rng.randbytes(config.lba_bytes) for _ in range(n)]
        b.write(0, contents, model=False)
        for i in range(left):
            b.model.write(i, contents[i])
            b.blocks[i] = contents[i]
        b.write(1, contents[:2], model=False)
        check = b.read(0, config.lbas)
        b.send(Opcode.FLUSH)
        yield b.all_done
        check()

    b.run(script)
    assert b.statuses()[-4:] == [Status.CAPACITY_EXCEEDED] * 2 + [0, 0]
    b.check_image()


def test_flash_faults():
    b = Bench(CONFIGS["beat32"], seed=6)
    size = b.config.lba_bytes

    def script():
        b.random_write(0, 4)
        yield b.all_done
        new = [b.rng.randbytes(size) for _ in range(4)]
        b.flash[5 % 4].dead.add(5)
        b.write(0, new, model=False)  # PPNs 4..7: the second one fails
        yield b.all_done
        assert b.statuses()[-1] == Status.WRITE_FAULT
        old = dict(b.blocks)
        bufs = b.buffer(4 * size)
        b.send(Opcode.READ, 0, 4, bufs)
        yield b.all_done
        got = b.get(bufs, 4 * size)
        for i in range(4):
            part = got[i * size : (i + 1) * size]
            assert part in ((old[i],) if i == 1 else (old[i], new[i]))
            b.blocks[i] = part
        b.flash[1].dead.add(1)
        b.read(0, 4)
        yield b.all_done
        assert b.statuses()[-1] == Status.UNRECOVERED_READ
        check = b.read(2, 2)
        yield b.all_done
        check()
        b.random_write(1, 3)
        check = b.read(0, 4)
        yield b.all_done
        check()

    b.model.write = lambda lpn, content: None  # failed pages are beyond the model
    b.run(script)
    assert b.statuses()[-3:] == [0, 0, 0]


def test_a_log_whose_superblock_cannot_be_written_refuses_writes():
    """Neither the page handed out ahead of the superblock nor any later one is written, until the superblock is."""
    b = Bench(TINY, seed=9)
    size = TINY.lba_bytes

    def script():
        b.read(0, 1)
        yield b.all_done  # mounted
        b.bad_dram = {TINY.layout.superblock}
        b.write(0, [b.rng.randbytes(size)], model=False)
        yield b.all_done
        b.write(1, [b.rng.randbytes(size)] * 3, model=False)
        check = b.read(0, 4)
        b.send(Opcode.FLUSH)
        yield b.all_done
        check()
        b.bad_dram = set()
        b.read(0, 4)  # meanwhile the superblock is written
        for i in range(5):
            b.random_write(i, 1)
        check = b.read(0, 6)
        yield b.all_done
        check()

    b.model.write = lambda lpn, content: None
    b.run(script)
    assert b.statuses() == [0, Status.WRITE_FAULT, Status.WRITE_FAULT, 0, Status.WRITE_FAULT, *[0] * 7]


@pytest.mark.parametrize("name", ["tiny", "big_page"])
def test_host_errors(name):
    config = CONFIGS[name]
    b = Bench(config, seed=7)
    size = config.lba_bytes

    def script():
        b.random_write(0, 3)
        yield b.all_done
        for opcode in (Opcode.WRITE, Opcode.READ, Opcode.DSM):
            n = 256 if opcode == Opcode.DSM else 9 if size == 512 else 2
            for where in (0, -1):
                buf = b.buffer(4096 if opcode == Opcode.DSM else n * size, offset=2048)
                b.bad_host = {buf[2][where]}
                b.send(opcode, 0, n, buf, deallocate=1)
                yield b.all_done
                b.bad_host = set()
            prp1, prp2, pages, at = b.buffer(4096 if opcode == Opcode.DSM else n * size, offset=2048)
            if len(pages) == 2:
                prp2 += 512
            else:
                b.host.write(prp2, struct.pack("<Q", (pages[1] << 12) + 512))
            b.send(opcode, 0, n, (prp1, prp2, pages, at), deallocate=1)
            b.send(opcode, 0, n, (prp1 + 4, prp2, pages, at), deallocate=1)
            yield b.all_done
        b.random_write(0, 2)
        check = b.read(0, 2)
        yield b.all_done
        check()

    b.model.write = lambda lpn, content: None  # how many pages of a failed write were programmed is free
    b.run(script)
    expected = [Status.DATA_TRANSFER_ERROR] * 2 + [Status.INVALID_PRP_OFFSET] * 2
    assert b.statuses() == [0, *expected * 3, 0, 0]


def test_map_errors():
    b = Bench(TINY, seed=8)
    entry = TINY.layout.map

    def script():
        b.random_write(0, 2)
        yield b.all_done
        b.bad_dram = {entry}
        b.write(0, [bytes(TINY.lba_bytes)] * 2, model=False)
        yield b.all_done
        b.read(1, 3)
        b.trim([], struct.pack("<IIQ", 0, 1, 0))
        yield b.all_done
        b.bad_dram = {TINY.layout.superblock}
        b.send(Opcode.FLUSH)
        yield b.all_done
        b.bad_dram = set()
        b.random_write(0, 3)
        check = b.read(0, 3)
        b.send(Opcode.FLUSH)
        yield b.all_done
        check()

    b.model.write = lambda lpn, content: None
    b.run(script)
    assert b.statuses() == [0, Status.WRITE_FAULT, Status.UNRECOVERED_READ, Status.WRITE_FAULT, Status.WRITE_FAULT,
                            0, 0, 0]
