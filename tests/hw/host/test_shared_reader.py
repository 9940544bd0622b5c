"""Two clients that take turns at one host reader."""

from nearflash.contract import DeviceConfig, Status
from nearflash_hw.host.shared_reader import SharedReader
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")


def test_each_client_gets_what_it_asked_for_and_nothing_else():
    """A transfer each in turn, one of them refused: the other asks all along, unanswered until it owns the reader."""
    memory = MemoryModel(TINY.beat_bytes, latency=7)
    dut = reused(SharedReader, TINY)
    requests, want = ([], []), ([], [])
    for k in range(6):
        content = bytes((17 * k + i) & 255 for i in range(96))
        memory.write(0x1000 * (k + 1), content)
        bad = k == 3
        requests[k & 1].append({"prp1": 0x1000 * (k + 1) + 4 * bad, "prp2": 0, "length": 96 - 8 * k})
        want[k & 1].append((b"" if bad else content[: 96 - 8 * k], Status.INVALID_PRP_OFFSET if bad else 0))
    sources = [StreamSource(dut.req[k], requests[k][:1]) for k in range(2)]
    sinks = [StreamSink(dut.data[k], stall=0.3, seed=k) for k in range(2)]
    turns = []

    async def take_turns(ctx):
        for turn in range(6):
            ctx.set(dut.owner, turn & 1)
            while sum(b["last"] for s in sinks for b in s.items) == turn:
                await ctx.tick()
            turns.append([s.sent for s in sources])
            sources[turn & 1].items += requests[turn & 1][turn // 2 + 1 : turn // 2 + 2]

    simulate(dut, [*sources, *sinks, take_turns, memory.read_port(dut.list_read), memory.read_port(dut.data_read)],
             until=lambda: len(turns) == 6, max_cycles=2000)
    assert turns == [[1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [3, 3]]
    for sink, expected in zip(sinks, want, strict=True):
        got, data = [], b""
        for beat in sink.items:
            data += beat["data"].to_bytes(TINY.beat_bytes, "little")
            if beat["last"]:
                got.append((b"" if beat["status"] else data, beat["status"]))
                data = b""
        assert got == expected
