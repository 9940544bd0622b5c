"""A list of ranges, from its beats to its changes of the map."""

import random
import struct

import pytest
from nearflash.contract import DeviceConfig, Opcode, Status
from nearflash_hw.block.trimmer import Trimmer
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

C = DeviceConfig.preset("tiny")


def run(ranges, stall=0.0, errors=(), max_cycles=5000):
    """Lets the list go through; (changes, answers, faults)."""
    dut = reused(Trimmer, C)
    raw = b"".join(struct.pack("<IIQ", 0, n, lpn) for lpn, n in ranges)
    beats = StreamSource(dut.beat, [], stall, 1)
    done = StreamSource(dut.update_done, [], stall, 2)
    updates = StreamSink(dut.update, stall, 3, lambda u: done.items.append({"error": int(u["lpn"] in errors)}))
    answers = StreamSink(dut.completion, stall, 4)
    faults = []

    async def script(ctx):
        cmd = {"opcode": Opcode.DSM, "qid": 2, "cid": 77, "lpn": 0, "count": len(ranges), "moves": 1}
        ctx.set(dut.command, cmd)
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        ctx.set(dut.lists, 1)
        beats.items += [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
        while not beats.drained:
            assert not updates.items, "a change before the whole list was checked"
            await ctx.tick()
        ctx.set(dut.fetched, 1)
        while True:
            _, _, listed, fault = await ctx.tick().sample(dut.listed, dut.fault)
            if fault:
                faults.append(fault)
            if listed or fault:
                break
        ctx.set(dut.lists, 0)
        ctx.set(dut.fetched, 0)
        # The next command is a WRITE: it does not touch the list.
        ctx.set(dut.command, {**cmd, "opcode": Opcode.WRITE, "qid": 0, "cid": 1, "count": 3})
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)

    simulate(dut, [beats, done, updates, answers, script], until=lambda: bool(answers.items or faults),
             max_cycles=max_cycles, settle=200)
    return updates.items, answers.items, faults


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_every_block_of_every_range_is_unmapped(stall):
    rng = random.Random(3)
    ranges = [(rng.randrange(C.lbas - 9), rng.randrange(9)) for _ in range(12)]
    updates, answers, faults = run(ranges, stall)
    assert updates == [{"lpn": lpn + i, "ppn": 0, "mapped": 0} for lpn, n in ranges for i in range(n)]
    assert answers == [{"qid": 2, "cid": 77, "status": 0}]
    assert not faults


def test_a_change_that_fails_shows_in_the_answer_and_the_rest_is_unmapped():
    updates, answers, _ = run([(4, 6)], errors=(6,))
    assert len(updates) == 6
    assert answers == [{"qid": 2, "cid": 77, "status": Status.WRITE_FAULT}]


@pytest.mark.parametrize(("ranges", "status"), [([(0, 1), (C.lbas - 1, 2)], Status.LBA_OUT_OF_RANGE),
                                            ([(0, C.lbas), (0, 1)], Status.COMMAND_SIZE_LIMIT)])
def test_a_bad_list_changes_nothing(ranges, status):
    updates, answers, faults = run(ranges)
    assert (updates, answers, set(faults)) == ([], [], {status})
