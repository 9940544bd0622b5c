"""Random bursts between a device's initiator and a memory, and what they must leave behind."""

from __future__ import annotations

import random
from dataclasses import dataclass

from nearflash_sim.models import AxiMaster, AxiSlave, Burst
from nearflash_sim.models.axi_slave import PAGE, pattern

WRITTEN, READ = 1 << 16, 2 << 16  # where writes go, and what is read


@dataclass
class Traffic:
    """``fails``: of an address of the memory's own width, as :class:`AxiSlave` takes it."""

    reads: list[Burst]
    writes: list[Burst]


def traffic(seed: object, beat_bytes: int, max_beats: int, count: int = 24, ids: int = 4) -> Traffic:
    """Bursts as a device sends them: full width, aligned, up to ``max_beats``, often up to or from a 4 KiB boundary."""
    rng = random.Random(f"{seed}")

    def burst(base: int) -> Burst:
        beats = rng.choice([1, 2, max_beats, rng.randint(1, max_beats)])
        page, room = base + PAGE * rng.randrange(4), PAGE - beats * beat_bytes
        addr = page + rng.choice([0, room, rng.randrange(0, room + 1, beat_bytes)])
        return Burst(rng.randrange(ids), addr, beats, beat_bytes.bit_length() - 1)

    reads, writes = [burst(READ) for _ in range(count)], [burst(WRITTEN) for _ in range(count)]
    for b in writes:
        b.words = [(rng.getrandbits(8 * beat_bytes), rng.choice([(1 << beat_bytes) - 1, rng.getrandbits(beat_bytes)]))
                   for _ in range(b.beats)]
    return Traffic(reads, writes)


def initial(addr: int, beat_bytes: int, memory: AxiSlave) -> int:
    """What ``beat_bytes`` of the memory hold before any write."""
    own = memory.beat_bytes
    return sum(pattern(addr + k, own) << 8 * k for k in range(0, beat_bytes, own))


def check(traffic: Traffic, master: AxiMaster, memory: AxiSlave, beat_bytes: int) -> None:
    """Every byte written by its strobe and no other, in order per byte; every word read; every response."""
    own, expected = memory.beat_bytes, {}
    for b in traffic.writes:
        for k, (data, strb) in enumerate(b.words):
            for j in range(beat_bytes):
                if strb >> j & 1:
                    expected[b.addr + k * beat_bytes + j] = data >> 8 * j & 0xFF
        bad = any(memory.fail(b.addr + k) for k in range(0, b.beats * beat_bytes, own))
        assert [r >> 1 for r in b.answer] == [int(bad)]
    for addr, word in memory.memory.items():
        for j in range(own):
            assert (word >> 8 * j & 0xFF) == expected.pop(addr + j, pattern(addr, own) >> 8 * j & 0xFF), hex(addr + j)
    assert not expected, "bytes not written"
    for b in traffic.reads:
        addresses = [b.addr + k * beat_bytes for k in range(b.beats)]
        assert [data for data, _ in b.answer] == [initial(a, beat_bytes, memory) for a in addresses]
        assert [r >> 1 for _, r in b.answer] == [
            int(any(memory.fail(a + k) for k in range(0, beat_bytes, own))) for a in addresses]
    assert master.done
    assert memory.idle
