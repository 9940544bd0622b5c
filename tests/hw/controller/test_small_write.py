# amaranth: UnusedElaboratable=no
import random

import pytest
from nearflash_hw.controller.small_write import SmallWrite
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import MemoryModel


@pytest.mark.parametrize(("beat", "stall"), [(8, 0.0), (8, 0.4), (16, 0.3), (32, 0.2)])
def test_each_client_is_answered_once_its_bytes_are_there(beat, stall):
    rng, n, each = random.Random(beat), 3, 12
    dut, fail = SmallWrite(beat, n), lambda addr: addr % (7 * 64) == 0
    memory = MemoryModel(beat, latency=6, stall=stall, seed=1, fail=fail)
    jobs = []
    for k in range(n):
        mine = []
        for i in range(each):
            two = rng.random() < 0.5
            mine.append({"addr": (k * each + i) * 64, "data": rng.getrandbits(max(128, beat * 8)),
                         "strb": rng.getrandbits(beat), "two": two})
        jobs.append(mine)
    sinks, order = [], []
    for k in range(n):
        def answered(item, k=k):
            job = jobs[k][len(sinks[k].items) - 1]
            order.append(k)
            for beats in range(1 + job["two"]):  # the memory has it when the answer comes
                for b in range(beat):
                    at = job["addr"] + beats * beat + b
                    want = job["data"] >> 8 * (beats * beat + b) & 0xFF if job["strb"] >> b & 1 else 0
                    assert memory.bytes.get(at, 0) == want
            assert item["error"] == fail(job["addr"])
        sinks.append(StreamSink(dut.done[k], stall, seed=k, on_item=answered))
    sources = [StreamSource(dut.i[k], jobs[k], stall, seed=9 + k) for k in range(n)]
    simulate(dut, [memory.write_port(dut.mem_write), *sinks, *sources], max_cycles=6000,
             until=lambda: all(len(s.items) == each for s in sinks))
    assert memory.pending == 0
    if not stall:  # in turn
        assert order[:6] == [0, 1, 2, 0, 1, 2]
