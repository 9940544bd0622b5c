"""Where each page in flight goes to: pieces of host memory by tag."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.nvme import HOST_PAGE

from ..host.pieces import piece_layout
from ..interfaces import index_bits
from ..primitives.memport import ADDR_BITS
from .layouts import BlockLayouts

__all__ = ["PieceTable", "place_layout", "stored_layout"]


def pieces_of_a_page(config: DeviceConfig) -> int:
    """At most: a logical block may begin anywhere in a host page."""
    return -(-config.lba_bytes // HOST_PAGE) + 1


def stored_layout(config: DeviceConfig) -> data.StructLayout:
    """A piece, and the command it belongs to."""
    piece = piece_layout(config)
    return data.StructLayout({"addr": ADDR_BITS, "beats": piece["beats"].width, "page_end": 1,
                              "command": BlockLayouts.of(config).read_bits})


def place_layout(config: DeviceConfig) -> data.StructLayout:
    """Piece ``index`` of page ``tag``."""
    return data.StructLayout({"tag": BlockLayouts.of(config).read_bits, "index": index_bits(pieces_of_a_page(config)),
                              **{name: field.shape for name, field in stored_layout(config)}})


class PieceTable(wiring.Component):
    """``place`` stores a piece; ``row`` is that of ``tag`` and ``index``, in the same cycle."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        place = place_layout(config)
        super().__init__({
            #: A piece to store.
            "place": In(stream.Signature(place, always_ready=True)),
            #: Which one is wanted:
            "tag": In(place["tag"].shape),
            "index": In(place["index"].shape),
            #: It, in the same cycle.
            "row": Out(stored_layout(config)),
        })

    def elaborate(self, platform):
        m = Module()
        low = log2(self.config.beat_bytes)
        stored = stored_layout(self.config)
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
