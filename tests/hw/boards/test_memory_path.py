"""The way to a memory port: a device's DMA keeps the port busy, and all of the shell between them loses nothing."""

import pytest
from nearflash_sim.models.axi_slave import pattern

from bench.port import BYTES, busy_share, stream


@pytest.mark.parametrize(("board", "beat_bytes", "longest"), [
    ("pynq-z2", 8, 16), ("pynq-z2", 16, 16), ("pynq-z2", 32, 16), ("zcu104", 32, 256)])
def test_a_stream_keeps_the_port_busy(board, beat_bytes, longest):
    """In at least nine of ten cycles, both ways at once, behind a memory that takes its time."""
    run = stream(board, beat_bytes)
    memory, own = run.memory, run.own
    total = 2 * BYTES // own
    for busy in (memory.r_busy, memory.w_busy):
        assert len(busy) == total
        assert busy_share(busy) >= 0.9
    assert max(n for _, _, n in memory.reads + memory.writes) == min(longest, BYTES // own)
    for k, words in enumerate(run.words):
        assert words == [sum(pattern(a + j, own) << 8 * j for j in range(0, beat_bytes, own))
                         for a in range(k << 20, (k << 20) + BYTES, beat_bytes)]
    assert len(memory.memory) == total
