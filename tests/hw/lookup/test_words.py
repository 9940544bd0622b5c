"""Host transfers cut into words."""

import random

import pytest
from nearflash.contract import DeviceConfig, Status
from nearflash_hw.lookup.words import WordUnpacker
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

MAX = 0xFFFFFFFF


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("beat_bytes", [8, 16])
def test_words_come_in_order_up_to_the_last_or_the_failure(beat_bytes, stall):
    rng, lanes = random.Random(beat_bytes), beat_bytes // 4
    starts, beats, want = [], [], []
    for length in (1, lanes, lanes + 1, 3 * lanes, *(rng.randint(1, 5 * lanes) for _ in range(20))):
        words = [rng.choice([0, MAX, rng.getrandbits(32)]) for _ in range(length)]
        starts.append((length - 1) % lanes)
        failure = rng.choice([0, 0, Status.INVALID_PRP_OFFSET, Status.DATA_TRANSFER_ERROR])
        if failure:  # in place of any beat, also the last
            words = words[: rng.randrange(-(-length // lanes)) * lanes]
        padded = words + [rng.getrandbits(32)] * (-len(words) % lanes)
        for k in range(0, len(padded), lanes):
            content = sum(w << 32 * i for i, w in enumerate(padded[k : k + lanes]))
            beats.append({"data": content, "last": int(not failure and k + lanes == len(padded)), "status": 0})
        want += [(w, int(not failure and k == len(words) - 1), 0, 0) for k, w in enumerate(words)]
        if failure:
            beats.append({"data": rng.getrandbits(8 * beat_bytes), "last": 1, "status": failure})
            want.append((None, 1, 1, failure))
    dut = reused(WordUnpacker, DeviceConfig.preset({8: "tiny", 16: "paper"}[beat_bytes]))
    sources = [StreamSource(dut.start, starts, stall, seed=1), StreamSource(dut.i, beats, stall, seed=2)]
    sink = StreamSink(dut.o, stall, seed=3)
    simulate(dut, [*sources, sink], until=lambda: len(sink.items) >= len(want), max_cycles=2000)
    got = [(None if o["failed"] else o["word"], o["last"], o["failed"], o["status"]) for o in sink.items]
    assert got == want
    assert all(s.drained for s in sources)
    if not stall:
        gaps = [b - a for a, b, o in zip(sink.cycles, sink.cycles[1:], sink.items, strict=False) if not o["last"]]
        assert {*gaps} == {1}, "one word per cycle within a transfer"
