"""The ledger of READs: each command is answered once, after its last page, with the first page's failure."""

import random

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.block.ledger import ReadLedger
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

CONFIG = DeviceConfig.preset("tiny")
DEPTH = CONFIG.host.block_reads


class Pages:
    """Takes tags, opens commands of several pages and retires these in random order, some together (as a list that is
    broken does), never with more pages than tags."""

    def __init__(self, stall):
        self.rng = random.Random(5)
        self.dut = reused(ReadLedger, CONFIG)
        self.tags = StreamSink(self.dut.tag, 0.2, 1)
        self.open = StreamSource(self.dut.open, [], stall, 2)
        self.retire = [StreamSource(self.dut.retire[k], [], stall, 3 + k) for k in range(2)]
        self.answers = StreamSink(self.dut.completion, stall, 5)
        self.want: dict[int, int] = {}
        self.flying: list[dict] = []

    async def process(self, ctx):
        rng, used, cid = self.rng, 0, 0

        async def tag():
            nonlocal used
            while len(self.tags.items) == used:
                await ctx.tick()
            used += 1
            return self.tags.items[used - 1]

        while cid < 60:
            cid += 1
            pages = rng.randint(1, 5)
            command = await tag()
            self.open.items.append({"command": command, "qid": cid % 8, "cid": cid, "count": pages})
            while not self.open.drained:
                await ctx.tick()
            self.want[cid] = 0
            first = None
            for page in range(pages):
                number = command if page == 0 else await tag()
                broken = rng.random() < 0.1
                status = rng.choice([0, 0, 0, int(Status.UNRECOVERED_READ), int(Status.DATA_TRANSFER_ERROR)])
                rest = pages - page if broken else 1
                self.retire[rng.randrange(2)].items.append(
                    {"tag": number, "command": command, "count": rest, "status": status})
                while not all(s.drained for s in self.retire):  # so that the first failure is known
                    await ctx.tick()
                first = first or status
                if broken:
                    break
            self.want[cid] = first or 0


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_every_command_is_answered_once_with_its_first_failure(stall):
    p = Pages(stall)
    simulate(p.dut, [p, p.tags, p.open, *p.retire, p.answers], until=lambda: len(p.answers.items) == 60, max_cycles=20_000,
             settle=100)
    assert {a["cid"]: a["status"] for a in p.answers.items} == p.want
    assert all(a["qid"] == a["cid"] % 8 for a in p.answers.items)
    assert len(p.answers.items) == 60


def test_a_command_keeps_its_tag_until_it_is_answered():
    dut = reused(ReadLedger, CONFIG)
    tags, answers = StreamSink(dut.tag), StreamSink(dut.completion, 1.0)
    opened = StreamSource(dut.open, [{"command": 0, "qid": 1, "cid": 9, "count": 2}])
    pages = [{"tag": t, "command": 0, "count": 1, "status": 0} for t in (0, 1)]
    retire = StreamSource(dut.retire[1], [])

    async def script(ctx):
        for _ in range(DEPTH + 4):
            await ctx.tick()
        retire.items += pages
        for _ in range(30):
            await ctx.tick()
        assert tags.items == [*range(DEPTH), 1], "the command's own tag came back before its completion was taken"
        answers.stall = 0.0

    simulate(dut, [tags, answers, opened, retire, script], until=lambda: len(tags.items) == DEPTH + 2, max_cycles=200)
    assert tags.items[-1] == 0
