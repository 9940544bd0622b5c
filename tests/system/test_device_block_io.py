"""Block I/O of the whole device while lookups run: every byte right, nothing lost over resets, waits bounded."""

from __future__ import annotations

import numpy as np
import pytest
from device_bench import assert_same_bits, expected, open_device, random_bags, random_tables, scatter, submit_lookup
from nearflash.contract import Opcode
from nearflash.runtime import Device
from nearflash_sim.small.device import SMALL, load, make_table
from nearflash_sim.small.models import configured

HOST_WAIT = 400  # cycles: SQEs, PRP lists and completions of six commands of 8 pages on the host's bus
SIZE = SMALL.lba_bytes


class Shadow:
    """What the blocks outside the tables must hold."""

    def __init__(self, device, tables):
        self.device = device
        taken = {e.lba + i for t in tables for e in t.spec.extents for i in range(e.pages)}
        self.free = np.array([lba for lba in range(device.config.lbas) if lba not in taken])
        self.content: dict[int, bytes] = {}

    def run(self, rng, limit=10):
        """A contiguous range of free blocks, (first, count)."""
        first = int(rng.choice(self.free[:200] if rng.random() < 0.7 else self.free))
        count = int(rng.integers(1, limit + 1))
        while not np.isin(np.arange(first, first + count), self.free).all():
            count -= 1
        return first, count

    def expect(self, first, count):
        return b"".join(self.content.get(lba, bytes(SIZE)) for lba in range(first, first + count))

    def step(self, rng):
        """One random operation through the device, checked."""
        first, count = self.run(rng)
        kind = rng.choice(["read", "write", "trim", "flush"], p=[0.5, 0.35, 0.1, 0.05])
        if kind == "read":
            assert self.device.read(first, count) == self.expect(first, count), f"blocks {first} to {first + count - 1}"
        elif kind == "write":
            content = rng.bytes(count * SIZE)
            self.device.write(first, content)
            self.content.update({first + i: content[i * SIZE : (i + 1) * SIZE] for i in range(count)})
        elif kind == "trim":
            self.device.trim(first, count)
            for lba in range(first, first + count):
                self.content.pop(lba, None)
        else:
            self.device.flush()

    def check_all(self):
        for first in range(0, self.device.config.lbas, 64):
            for lba, got in enumerate(cut(self.device.read(first, min(64, self.device.config.lbas - first))), first):
                if lba in self.content or lba in self.free:
                    assert got == self.content.get(lba, bytes(SIZE)), f"block {lba}"


def cut(content):
    return [content[i : i + SIZE] for i in range(0, len(content), SIZE)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stall", [0.0, 0.3], ids=["smooth", "stalls"])
def test_random_block_io_while_lookups_run(seed, stall):
    rng = np.random.default_rng(100 + seed)
    with open_device() as device:
        for k, memory in enumerate((device.backend.device.host, device.backend.device.dram)):
            memory.set_timing(40, 10, stall, seed=seed + k)
        tables = random_tables(rng, SMALL, 3)
        scatter(rng, SMALL, tables)
        load(device, tables)
        shadow = Shadow(device, tables)
        flying = []
        overlapped = 0
        for _ in range(60):
            while len(flying) < 4:
                bags = random_bags(rng, tables, int(rng.integers(1, 9)), weighted=bool(rng.integers(2)))
                flying.append((submit_lookup(device, bags), bags))
            shadow.step(rng)
            overlapped += flying[-1][0].command.completion is None
            while flying and flying[0][0].command.completion is not None:
                ticket, bags = flying.pop(0)
                assert_same_bits(device.result(ticket), expected(device, tables, bags))
        for ticket, bags in flying:
            assert_same_bits(device.result(ticket), expected(device, tables, bags))
        shadow.check_all()
        assert overlapped > 30, "hardly any lookups ran beside the block I/O: nothing was tested"


def test_a_transfer_larger_than_any_command():
    """Host library cuts it; PRP lists and every page slot are used."""
    rng = np.random.default_rng(1)
    with open_device() as device:
        content = rng.bytes(SIZE * 101)
        device.write(7, content)
        assert device.read(7, 101) == content
        assert device.read(6, 103) == bytes(SIZE) + content + bytes(SIZE)


def test_unwritten_and_trimmed_blocks_are_zeros():
    with open_device() as device:
        last = SMALL.lbas - 1
        for lba in (0, 5, last):
            assert device.read(lba) == bytes(SIZE)
        device.write(last, b"\xff" * SIZE)
        device.write(0, b"\x01" * SIZE)
        device.trim(last)
        assert device.read(last) == bytes(SIZE)
        assert device.read(0) == b"\x01" * SIZE


@pytest.mark.parametrize("how", ["controller", "power"])
def test_data_and_tables_survive_a_reset(how):
    """Controller reset (CC.EN) while commands run, and loss of power after a flush."""
    rng = np.random.default_rng(8)
    with open_device() as device:
        tables = random_tables(rng, SMALL, 2)
        load(device, tables)
        shadow = Shadow(device, tables)
        for round_ in range(4):
            for _ in range(12):
                shadow.step(rng)
            bags = random_bags(rng, tables, 8)
            if how == "controller":
                submit_lookup(device, bags)  # dropped
                first, count = shadow.run(rng)
                b = device.driver.buffer(count * SIZE)
                device._block_command(Opcode.READ, b, first, count)
                device.reset()
            else:
                device.flush()
                device.backend.device.reset()
                device = Device(device.backend, timeout=device.driver.timeout)  # old rings are not given back
                device.create_tables({t: (table.spec, None) for t, table in enumerate(tables)})
                shadow.device = device
            shadow.check_all()
            got = np.concatenate(device.lookup(bags), axis=1)
            assert_same_bits(got, expected(device, tables, bags))
            assert device.config.design_id == device.identify()["design_id"], round_


def test_power_cut_without_flush_loses_no_earlier_data():
    """Blocks flushed before the cut keep their contents; those written after it are old or new, each whole."""
    rng = np.random.default_rng(12)
    with open_device() as device:
        old, new = rng.bytes(40 * SIZE), rng.bytes(40 * SIZE)
        device.write(0, old)
        device.flush()
        for at in range(0, 40, 8):
            b = device.driver.buffer(new[at * SIZE : (at + 8) * SIZE])
            device._block_command(Opcode.WRITE, b, at, 8)
        device.backend.idle(4000)  # somewhere in the middle
        device.backend.device.reset()
        device = Device(device.backend, timeout=device.driver.timeout)
        blocks = list(zip(cut(device.read(0, 40)), cut(old), cut(new), strict=True))
        assert all(got in (was, is_) for got, was, is_ in blocks)
        assert 0 < sum(got == is_ for got, _, is_ in blocks) < 40, "the cut was not in the middle"
        device.write(100, new)  # and the log goes on
        assert device.read(100, 40) == new
        assert cut(device.read(0, 40)) == [got for got, _, _ in blocks]


def test_reads_of_other_dies_are_answered_during_an_erase():
    """An ERASE of two milliseconds: reads of other dies take what they take on an idle device; one of the same die waits."""
    config = configured("wide-groups")
    f = config.flash
    assert f.t_erase_ns == 2_000_000
    dies = f.channels * f.dies
    with open_device(config) as device:
        content = np.random.default_rng(3).bytes(dies * f.pages * SIZE)  # the first block of every die
        device.write(0, content)
        idle = max(timed(device, lambda i=i: device.read(i)) for i in range(dies))
        b = device.driver.buffer(bytes(SIZE))
        write = device._block_command(Opcode.WRITE, b, device.config.lbas - 1, 1)  # erases the next block of die 0
        device.backend.idle(2000)
        for _ in range(20):
            for lba in range(1, dies):
                assert timed(device, lambda lba=lba: assert_block(device, content, lba)) <= idle + 100
        assert write.completion is None, "the erase was over: nothing was tested"
        waited = timed(device, lambda: assert_block(device, content, 0))
        assert waited > config.t_erase / 4, "the die read while it erased"
        device.driver.drain([write])


def assert_block(device, content, lba):
    assert device.read(lba) == content[lba * SIZE : (lba + 1) * SIZE]


# -- bounded waits ----------------------------------------------------------------------------------------------------
def timed(device, f):
    start = device.backend.cycles
    f()
    return device.backend.cycles - start


def test_block_io_waits_little_in_a_saturating_lookup_stream():
    """One block in a stream of lookups that keeps every die busy: at most two lookups and two page transfers later than
    on an idle device (its die's lookup in progress, and the channel bus)."""
    rng = np.random.default_rng(21)
    bound = 2 * (SMALL.t_read + SMALL.bus_cycles(SIZE))
    with open_device() as device:
        tables = [make_table(rng, SMALL, 300, 16) for _ in range(2)]
        load(device, tables, preload=True)
        at = SMALL.lbas - 64
        device.write(at, rng.bytes(64 * SIZE))
        idle = {"read": max(timed(device, lambda i=i: device.read(at + i)) for i in range(16)),
                "write": max(timed(device, lambda i=i: device.write(at + i, bytes(SIZE))) for i in range(40))}
        flying, worst = [], {"read": 0, "write": 0}
        before = device.counters()
        for i in range(40):
            while flying and flying[0].command.completion is not None:
                device.result(flying.pop(0))
            while len(flying) < 6:  # more than the engine takes at once
                flying.append(submit_lookup(device, random_bags(rng, tables, 32, 32)))
            worst["read"] = max(worst["read"], timed(device, lambda i=i: device.read(at + i)))
            worst["write"] = max(worst["write"], timed(device, lambda i=i: device.write(at + i, bytes(SIZE))))
        spent = {k: v - before[k] for k, v in device.counters().items()}
        for ticket in flying:
            device.result(ticket)
        busy = [v / spent["cycles"] for k, v in spent.items() if "_die" in k]
        assert min(busy) > 0.7, f"the lookups did not saturate the dies: {busy}"
        for kind in worst:
            assert worst[kind] <= idle[kind] + bound, (kind, worst, idle, bound)


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.WRITE], ids=["reads", "writes"])
def test_lookups_wait_little_in_a_saturating_block_stream(opcode):
    """Every lookup waits for at most one page operation of the block path on its die, and its transfer; beside that a
    command waits for others on the host's bus, as one without lookups does in the same stream."""
    rng = np.random.default_rng(22)
    with open_device() as device:
        tables = [make_table(rng, SMALL, 300, 16) for _ in range(2)]
        load(device, tables, preload=True)
        at = SMALL.lbas - 64
        device.write(at, rng.bytes(64 * SIZE))
        small, large = random_bags(rng, tables, 1, 1), random_bags(rng, tables, 8, 16)
        nothing = [(np.zeros(0, np.int64), np.zeros(1, np.int64)) for _ in tables]
        idle = [max(timed(device, lambda b=b: device.lookup(b)) for _ in range(4)) for b in (nothing, small, large)]
        flying = []

        def saturate():
            flying[:] = [c for c in flying if c.completion is None or c.release()]
            while len(flying) < 6:
                b = device.driver.buffer(bytes(8 * SIZE))
                flying.append(device._block_command(opcode, b, at + 8 * int(rng.integers(8)), 8))

        page = {Opcode.READ: SMALL.t_read, Opcode.WRITE: SMALL.t_program + SMALL.t_erase // SMALL.flash.pages}[opcode]
        page += SMALL.bus_cycles(SIZE + SMALL.flash.oob_bytes)
        once = SMALL.t_erase if opcode == Opcode.WRITE else 0  # an erase in progress on the way
        host, waits = 0, []
        for _ in range(10):
            for bags, alone in zip((nothing, small, large), idle, strict=True):
                saturate()
                taken = timed(device, lambda bags=bags: device.lookup(bags))
                lookups = sum(len(b[0]) for b in bags)
                if lookups:
                    waits.append((taken - alone, lookups * page + once))
                else:
                    host = max(host, taken - alone)
                if bags is large:
                    assert taken <= 2.5 * alone, (taken, alone)
        assert host <= HOST_WAIT, host
        assert all(wait <= most + host for wait, most in waits), (host, waits)
        assert flying, "the stream ran dry"
        device.driver.drain(flying)
