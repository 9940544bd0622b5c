# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.host.pieces import PieceCutter
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")  # blocks smaller than a host page
LARGE = replace(TINY, flash=replace(TINY.flash, page_bytes=16384))


def pieces_of(config, runs):
    """The bytes of a transfer, one at a time: a piece ends with its run, and with its block."""
    out, place = [], 0
    for k, (addr, nbytes, status) in enumerate(runs):
        last_run = k == len(runs) - 1
        if status:
            out.append({"addr": addr, "beats": 0, "last": 1, "status": status})
            continue
        beats = -(-nbytes // config.beat_bytes)
        while beats:
            n = min(beats, config.page_beats - place)
            beats, place = beats - n, (place + n) % config.page_beats
            out.append({"addr": addr, "beats": n, "page_end": int(place == 0), "last": int(last_run and not beats),
                        "status": 0})
            addr += n * config.beat_bytes
    return out


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("config", [TINY, LARGE], ids=["512 B", "16 KiB"])
def test_pieces_end_with_their_run_and_with_their_block(config, stall):
    rng, beat = random.Random(1), config.beat_bytes
    transfers = []
    for k in range(40):
        first = rng.randrange(0, 4096, beat)
        runs = [(0x10000 + first, 4096 - first, 0)]
        runs += [(rng.randrange(1 << 20) << 12, 4096, 0) for _ in range(rng.randrange(5))]
        addr, nbytes, _ = runs[-1]
        runs[-1] = (addr, rng.choice([nbytes, rng.randint(1, nbytes)]), 0)
        if k % 7 == 6:
            runs.append((0, 0, Status.INVALID_PRP_OFFSET))
        transfers.append(runs)
    expected = [p for t in transfers for p in pieces_of(config, t)]
    runs = [{"addr": a, "bytes": n, "last": k == len(t) - 1, "status": s}
            for t in transfers for k, (a, n, s) in enumerate(t)]
    dut = reused(PieceCutter, config)
    sink = StreamSink(dut.piece, stall, seed=1)
    simulate(dut, [sink, StreamSource(dut.run, runs, stall, seed=2)], until=lambda: len(sink.items) == len(expected),
             max_cycles=40_000)
    for got, want in zip(sink.items, expected, strict=True):
        assert {name: got[name] for name in want} == want
