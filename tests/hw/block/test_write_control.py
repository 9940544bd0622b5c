"""One command at a time, from its begin to its answer."""

import pytest
from nearflash.contract import DeviceConfig, Opcode, Status
from nearflash_hw.block.write_control import FAULTS, WriteControl
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

C = DeviceConfig.preset("tiny")


def command(opcode, moves=1):
    return {"opcode": opcode, "qid": 3, "cid": 0x1234, "lpn": 5, "count": 2, "moves": moves}


def run(item, during=None, sync_error=0, max_cycles=300):
    """Executes ``item``; ``during``: input to (value, first cycle). Returns (answers, cycles of each level, begins)."""
    dut = reused(WriteControl, C)
    source, answers = StreamSource(dut.command, [item]), StreamSink(dut.completion, 0.3, 1)
    synced = StreamSource(dut.sync_done)
    sync = StreamSink(dut.sync, 0.3, 2, lambda _: synced.items.append({"error": sync_error}))
    seen = {"writes": 0, "lists": 0, "begin": 0, "stop": 0}
    idle = []

    async def watch(ctx):
        cycle = 0
        while True:
            for signal, (value, first) in (during or {}).items():
                port = dut.fault[signal] if isinstance(signal, int) else getattr(dut, signal)
                ctx.set(port, value if cycle >= first else 0)
            _, _, *levels, ready = await ctx.tick().sample(*(getattr(dut, k) for k in seen), dut.command.ready)
            cycle += 1
            for k, v in zip(seen, levels, strict=True):
                seen[k] += v
            if ready and seen["begin"]:
                idle.append(cycle)

    simulate(dut, [source, answers, sync, synced, watch], until=lambda: bool(idle), max_cycles=max_cycles)
    assert seen["begin"] == 1
    assert all((a["qid"], a["cid"]) == (3, 0x1234) for a in answers.items)
    return [a["status"] for a in answers.items], seen, len(sync.items)


def test_a_write_ends_when_its_pages_are_gone():
    statuses, seen, _ = run(command(Opcode.WRITE), {"held": (1, 10), "fetched": (1, 5)})
    assert statuses == [0]
    assert 4 <= seen["writes"] <= 6
    with pytest.raises(AssertionError, match="not finished"):
        run(command(Opcode.WRITE), {"held": (1, 0), "fetched": (1, 5)})


@pytest.mark.parametrize("k", range(FAULTS))
def test_the_first_fault_is_the_status(k):
    others = {j: (int(Status.CAPACITY_EXCEEDED), 9) for j in range(FAULTS) if j != k}
    statuses, seen, _ = run(command(Opcode.WRITE), {k: (int(Status.WRITE_FAULT), 6), **others, "fetched": (1, 20)})
    assert statuses == [Status.WRITE_FAULT]
    assert seen["stop"] >= 13


@pytest.mark.parametrize("error", [0, 1])
def test_flush_syncs(error):
    statuses, seen, syncs = run(command(Opcode.FLUSH, 0), sync_error=error)
    assert (statuses, seen["writes"], syncs) == ([Status.WRITE_FAULT if error else 0], 0, 1)


def test_lists():
    assert run(command(Opcode.DSM, 0))[0] == [0], "hints alone are answered at once"
    statuses, seen, _ = run(command(Opcode.DSM), {"fetched": (1, 5), "listed": (1, 12)})
    assert statuses == [], "who unmaps the list answers it"
    assert seen["lists"] > 8
    bad = int(Status.LBA_OUT_OF_RANGE)
    assert run(command(Opcode.DSM), {0: (bad, 9), "fetched": (1, 5)})[0] == [bad]


def test_what_is_no_command_is_refused():
    assert run(command(0x7F, 0))[0] == [Status.INVALID_OPCODE]
