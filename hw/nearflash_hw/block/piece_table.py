"""Where each page in flight goes to: pieces of host memory by tag."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from .layouts import BlockLayouts

__all__ = ["PieceTable"]


class PieceTable(wiring.Component):
    """``place`` stores a piece; ``row`` is that of ``tag`` and ``index``, in the same cycle."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        place = BlockLayouts.of(config).place
        super().__init__({
            #: A piece to store.
            "place": In(stream.Signature(place, always_ready=True)),
            #: Which one is wanted:
            "tag": In(place["tag"].shape),
            "index": In(place["index"].shape),
            #: It, in the same cycle.
            "row": Out(BlockLayouts.of(config).stored),
        })

    def elaborate(self, platform):
        m = Module()
        low = log2(self.config.beat_bytes)
        stored = BlockLayouts.of(self.config).stored
        # Addresses are of whole beats: their low bits are not kept.
        kept = data.StructLayout({name: field.width - (low if name == "addr" else 0) for name, field in stored})
        index_width = len(self.index)
        m.submodules.rows = rows = Memory(
            shape=kept, depth=self.config.host.block_reads << index_width, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        given = self.place.payload
        m.d.comb += [
            write.en.eq(self.place.valid),
            write.addr.eq(Cat(given.index, given.tag)),
            read.addr.eq(Cat(self.index, self.tag)),
        ]
        for name, _ in stored:
            cut = low if name == "addr" else 0
            m.d.comb += [
                write.data[name].eq(given[name][cut:]),
                self.row[name].eq(read.data[name] << cut),
            ]
        return m
