"""Elaboration for estimates: deep memories are cut short, because writing out their contents takes most of the time."""

from __future__ import annotations

from amaranth.hdl import Fragment, MemoryData, MemoryInstance, Shape
from amaranth.lib.memory import Memory

__all__ = ["DEPTH", "Shallow"]

DEPTH = "nearflash_depth"  # attribute of a memory that was cut: the words it had
#: Bits left of it: more than make its module a unit of its own (``netlist.SMALL``), so that units stay as they are.
LEFT_BITS = 1 << 15


class Shallow:
    """A platform (``elaborate``'s argument) that cuts writable memories of more than twice :data:`LEFT_BITS` to that.

    What it makes has the features of the design, but does not work.
    """

    def get_memory(self, memory: Memory) -> Fragment:
        words = max(2, LEFT_BITS // max(1, Shape.cast(memory.shape).width))
        data, attrs = memory.data, dict(memory.attrs)
        if memory.write_ports and memory.depth > 2 * words:
            data = MemoryData(shape=memory.shape, depth=words, init=[])
            attrs[DEPTH] = memory.depth
        instance = MemoryInstance(data=data, attrs=attrs)
        bits = (data.depth - 1).bit_length()
        writes = {p: instance.write_port(domain=p.domain, addr=p.addr[:bits], data=p.data, en=p.en)
                  for p in memory.write_ports}
        for p in memory.read_ports:
            instance.read_port(domain=p.domain, addr=p.addr[:bits], data=p.data, en=p.en,
                               transparent_for=tuple(writes[w] for w in p.transparent_for))
        return instance
