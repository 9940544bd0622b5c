"""READs on their way to the flash: pages in order, each with its tag, its pieces and its physical page."""

import dataclasses
import random

import pytest
from nearflash.contract import DeviceConfig, Opcode, Status
from nearflash_hw.block.read_issue import ReadIssue
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")
C = dataclasses.replace(TINY, flash=dataclasses.replace(TINY.flash, blocks=64))


def entry(lpn):
    """The map: some pages are unmapped, some can't be translated."""
    return {"ppn": lpn * 5 % C.flash.total_pages, "mapped": int(lpn % 4 != 1), "error": int(lpn % 7 == 3)}


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_pages_are_ordered_with_their_tags_and_pieces(stall):
    rng = random.Random(3)
    dut = reused(ReadIssue, C)
    names = ("open", "place", "order", "blank", "failed")
    sinks = {name: StreamSink(getattr(dut, name), 0 if name == "place" else stall, k) for k, name in enumerate(names)}
    answers = StreamSource(dut.ftl_rsp, [], stall, 11)
    asked = StreamSink(dut.ftl_req, stall, 12, lambda item: answers.items.append(entry(item["lpn"])))
    commands, pieces, want = [], [], {name: [] for name in names}
    tags = [i * 3 % C.host.block_reads for i in range(300)]  # any number, in any order
    taken = 0
    for cid in range(25):
        count, lpn = rng.randint(1, 6), rng.randrange(C.lbas - 8)
        commands.append({"opcode": Opcode.READ, "qid": cid % 4, "cid": cid, "lpn": lpn, "count": count, "moves": 1})
        command = tags[taken]
        want["open"].append({"command": command, "qid": cid % 4, "cid": cid, "count": count})
        broken = rng.randrange(count) if rng.random() < 0.3 else None
        for page in range(count):
            tag = tags[taken]
            taken += 1
            cut = rng.randrange(C.page_beats)
            for index, beats in enumerate([cut, C.page_beats - cut] if cut else [C.page_beats]):
                end = int(not cut or index == 1)
                bad = page == broken and (end or rng.random() < 0.5)
                piece = {"addr": rng.getrandbits(37) << 3, "beats": beats, "page_end": end,
                         "last": int(bad or (end and page == count - 1)),
                         "status": int(Status.INVALID_PRP_OFFSET) if bad else 0}
                pieces.append(piece)
                if bad:
                    break
                want["place"].append({"tag": tag, "index": index, "command": command, "addr": piece["addr"], "beats": beats,
                                      "page_end": end})
            if page == broken:
                want["failed"].append({"tag": tag, "command": command, "count": count - page,
                                       "status": int(Status.INVALID_PRP_OFFSET)})
                break
            e = entry(lpn + page)
            if e["mapped"] and not e["error"]:
                want["order"].append({"op": FlashOp.READ, "ppn": e["ppn"], "tag": tag})
            else:
                want["blank"].append({"tag": tag, "slot": 0, "blank": 1, "bad": e["error"]})
    sources = [StreamSource(dut.start, commands, stall, 20), StreamSource(dut.piece, pieces, stall, 21),
               StreamSource(dut.tag, tags[:taken], stall, 22)]
    total = sum(len(v) for name, v in want.items() if name != "place")
    simulate(dut, [*sinks.values(), answers, asked, *sources], max_cycles=20_000,
             until=lambda: sum(len(sinks[name].items) for name in names if name != "place") == total)
    for name in names:
        got = sinks[name].items
        if name == "place":  # the broken piece of a list is stored too, where nobody looks
            got = [p for p in got if p in want["place"]]
        assert got == want[name], name
    assert all(s.drained for s in sources), "tags or pieces were left"
    assert all(want[name] for name in names)
