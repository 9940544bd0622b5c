"""Raw pages for the channels: every channel's in order, out-of-band area included, one beat a cycle together."""

import dataclasses
import random

import pytest
from nearflash.contract import DeviceConfig
from nearflash.contract.onflash import oob
from nearflash_hw.block.page_feeders import PageFeeders
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

TINY = DeviceConfig.preset("tiny")


def config(beat_bytes, **flash):
    return dataclasses.replace(
        TINY, beat_bytes=beat_bytes, flash=dataclasses.replace(TINY.flash, **flash),
        lookup=dataclasses.replace(TINY.lookup, lanes=beat_bytes // 4), host=dataclasses.replace(TINY.host, page_slots=4))


CONFIGS = {"beat8": config(8), "beat16": config(16, channels=1, oob_bytes=64), "beat32": config(32, channels=4)}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_raw_pages(name, stall):
    c = CONFIGS[name]
    dut = reused(PageFeeders, c)
    rng = random.Random(1)
    slots, beats, size = c.host.page_slots, c.page_beats, c.beat_bytes
    buffer = [rng.getrandbits(8 * size) for _ in range(slots * beats)]
    jobs = StreamSource(dut.feed)
    sinks = [StreamSink(port, stall, k) for k, port in enumerate(dut.flash_in)]
    want = [b"" for _ in sinks]
    lpn_bits = c.lbas.bit_length()

    async def memory(ctx):
        while True:
            _, _, en, addr = await ctx.tick().sample(dut.read_en, dut.read_addr)
            ctx.set(dut.read_data, buffer[addr] if en else rng.getrandbits(8 * size))

    async def script(ctx):
        busy: dict[int, tuple[int, int]] = {}  # slot to (channel, beats of the channel when it is free)
        for _ in range(12):
            while len(busy) == slots:
                await ctx.tick()
                busy = {s: (k, n) for s, (k, n) in busy.items() if len(sinks[k].items) < n}
            slot = rng.choice([s for s in range(slots) if s not in busy])
            k, lpn, sequence = rng.randrange(len(sinks)), rng.getrandbits(lpn_bits), rng.getrandbits(64)
            jobs.items.append({"channel": k, "slot": slot, "lpn": lpn, "sequence": sequence})
            want[k] += b"".join(w.to_bytes(size, "little") for w in buffer[slot * beats : (slot + 1) * beats])
            want[k] += oob(lpn, sequence, c.flash.oob_bytes)
            busy[slot] = (k, len(want[k]) // size)

    simulate(dut, [jobs, memory, *sinks, script], max_cycles=20_000,
             until=lambda: sum(len(s.items) for s in sinks) == 12 * c.raw_page_beats)
    for sink, raw in zip(sinks, want, strict=True):
        assert b"".join(w.to_bytes(size, "little") for w in sink.items) == raw


def test_one_channel_alone_gets_a_beat_a_cycle():
    c = CONFIGS["beat32"]
    dut = reused(PageFeeders, c)
    jobs = StreamSource(dut.feed, [{"channel": 2, "slot": s, "lpn": 1, "sequence": 2} for s in range(3)])
    sink = StreamSink(dut.flash_in[2])
    simulate(dut, [jobs, sink], until=lambda: len(sink.items) == 3 * c.raw_page_beats, max_cycles=1000)
    assert sink.cycles[-1] - sink.cycles[0] == 3 * c.raw_page_beats - 1


def test_a_channel_that_waits_keeps_no_other_waiting():
    c = CONFIGS["beat32"]
    dut = reused(PageFeeders, c)
    jobs = StreamSource(dut.feed, [{"channel": k, "slot": k, "lpn": k, "sequence": 0} for k in range(3)])
    sinks = [StreamSink(port, float(k == 0), k) for k, port in enumerate(dut.flash_in)]
    simulate(dut, [jobs, *sinks], max_cycles=500,
             until=lambda: [len(s.items) for s in sinks[1:3]] == [c.raw_page_beats] * 2)
    assert not sinks[0].items
