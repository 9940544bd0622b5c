"""Commands in, each to its half, with its own pieces of host memory."""

import random

import pytest
from nearflash.contract import DeviceConfig, Opcode
from nearflash_hw.block.intake import Intake
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

C = DeviceConfig.preset("tiny")
READ, WRITE, TRIM = range(3)


def command(opcode, cid, nlb=0, deallocate=0):
    return {"opcode": opcode, "qid": cid % 4, "cid": cid, "slba": cid * 3, "nlb": nlb, "prp1": cid << 12, "prp2": cid << 20,
            "deallocate": deallocate}


class Bench:
    def __init__(self, commands, stall=0.0):
        self.dut = dut = reused(Intake, C)
        ports = (dut.read_cmd, dut.write_cmd, dut.trim_cmd)
        self.ports = [StreamSource(p, commands[k], stall, k) for k, p in enumerate(ports)]
        self.runs = StreamSource(dut.prp_run, [], stall, 4)
        self.walks = StreamSink(dut.prp_req, stall, 5, self.walk)
        self.read, self.write = StreamSink(dut.read, stall, 6), StreamSink(dut.write, 0.0, 7)
        self.pieces = [StreamSink(dut.read_piece, stall, 8), StreamSink(dut.write_piece, stall, 9)]

    def walk(self, item):
        """Host pages in one run each, that say whose they are."""
        left, at = item["length"], item["prp1"]
        while left:
            n = min(left, 4096)
            left -= n
            self.runs.items.append({"addr": at, "bytes": n, "last": int(not left), "status": 0})
            at += 1 << 32

    def actors(self):
        return [*self.ports, self.runs, self.walks, self.read, self.write, *self.pieces]


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_every_command_reaches_its_half_with_its_pieces(stall):
    rng = random.Random(2)
    kinds = [(READ, Opcode.READ), (WRITE, Opcode.WRITE), (WRITE, Opcode.FLUSH), (TRIM, Opcode.DSM)]
    commands = [[], [], []]
    for cid in range(1, 41):
        port, opcode = rng.choice(kinds)
        commands[port].append(command(opcode, cid, rng.randrange(256 if port == TRIM else C.host.mdts_pages),
                                      int(port == TRIM and rng.random() < 0.7)))
    b = Bench(commands, stall)

    async def lists(ctx):
        ctx.set(b.dut.list_free, 1)

    simulate(b.dut, [*b.actors(), lists], until=lambda: all(p.drained for p in b.ports), max_cycles=30_000)
    for sink, sources in ((b.read, [0]), (b.write, [1, 2])):
        for k in sources:  # of one port in order
            of_port = [c["cid"] for c in commands[k]]
            assert [i["cid"] for i in sink.items if i["cid"] in of_port] == of_port
    by_cid = {c["cid"]: c for port in commands for c in port}
    assert len(b.read.items) + len(b.write.items) == 40
    for item in (*b.read.items, *b.write.items):
        c = by_cid[item["cid"]]
        moves = c["opcode"] in (Opcode.READ, Opcode.WRITE) or c["deallocate"]
        assert item == {"opcode": c["opcode"], "qid": c["qid"], "cid": c["cid"], "lpn": c["slba"], "count": c["nlb"] + 1,
                        "moves": int(moves)}
    for half, sink in enumerate((b.read, b.write)):
        beats = {}
        for piece in b.pieces[half].items:
            cid = (piece["addr"] & 0xFFFFFFFF) >> 12
            beats[cid] = beats.get(cid, 0) + piece["beats"]
        unit = {i["cid"]: 16 if i["opcode"] == Opcode.DSM else C.lba_bytes for i in sink.items}
        assert beats == {i["cid"]: i["count"] * unit[i["cid"]] // C.beat_bytes for i in sink.items if i["moves"]}


def test_reads_go_on_while_the_other_half_is_busy():
    b = Bench([[command(Opcode.READ, k) for k in range(10, 15)], [command(Opcode.WRITE, 1)], [command(Opcode.DSM, 2, 0, 1)]])
    b.write.stall = 1.0
    simulate(b.dut, b.actors(), until=lambda: len(b.read.items) == 5, max_cycles=500)
    assert not b.write.items

    # While a list is unmapped (``list_free`` low) the next one waits, and the write does not.
    b = Bench([[], [command(Opcode.WRITE, 1)], [command(Opcode.DSM, 2, 0, 1)]])
    simulate(b.dut, b.actors(), until=lambda: bool(b.write.items), max_cycles=500, settle=200)
    assert [i["cid"] for i in b.write.items] == [1]
