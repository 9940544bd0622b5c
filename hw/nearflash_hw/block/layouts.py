"""Payloads that the components of block I/O exchange."""

from __future__ import annotations

from functools import cached_property

from amaranth.lib import data
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import HOST_PAGE

from ..interfaces import FlashOp, Layouts, bits_for, index_bits
from ..primitives.memport import ADDR_BITS
from .range_list import MAX_RANGES

__all__ = ["BlockLayouts"]


class Command(data.StructLayout):
    """A command without its host memory."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "opcode": 8,
            "qid": 3,
            "cid": 16,
            "lpn": lay.lba_bits,
            #: Logical blocks from ``lpn`` on, or ranges.
            "count": lay.count_bits,
            #: It has host memory at all.
            "moves": 1,
        })


class Outcome(data.StructLayout):
    """A command is done."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "qid": 3,
            "cid": 16,
            #: nvme.Status.
            "status": 11,
        })


class Opened(data.StructLayout):
    """A READ of ``count`` pages began."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            #: What it goes by: the tag of its first page.
            "command": lay.read_bits,
            "qid": 3,
            "cid": 16,
            "count": lay.count_bits,
        })


class Retired(data.StructLayout):
    """``count`` pages of a READ are done."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            #: Free again, unless it is the command's.
            "tag": lay.read_bits,
            "command": lay.read_bits,
            "count": lay.count_bits,
            "status": 11,
        })


class Page(data.StructLayout):
    """A page to send."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "tag": lay.read_bits,
            #: Of the read buffer.
            "slot": lay.read_slot_bits,
            #: In no slot, and all zeros.
            "blank": 1,
            #: Not to be sent.
            "bad": 1,
        })


class Order(data.StructLayout):
    """A flash command by the page's number."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "op": FlashOp,
            "ppn": lay.ppn_bits,
            "tag": lay.tag_bits,
        })


class Programmed(data.StructLayout):
    """A page on its way into the flash."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "lpn": lay.lba_bits,
            "ppn": lay.ppn_bits,
            #: It went nowhere, and its slot is to be freed.
            "dropped": 1,
        })


class Feed(data.StructLayout):
    """A page for a channel, with the out-of-band fields (contract.onflash)."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "channel": lay.channel_bits,
            "slot": lay.page_slot_bits,
            "lpn": lay.lba_bits,
            "sequence": 64,
        })


class Stored(data.StructLayout):
    """A piece of host memory, and the command it belongs to."""

    def __init__(self, lay: BlockLayouts):
        super().__init__({
            "addr": ADDR_BITS,
            "beats": lay.piece["beats"].width,
            #: The page's last piece.
            "page_end": 1,
            "command": lay.read_bits,
        })


class Place(data.StructLayout):
    """Piece ``index`` of page ``tag``."""

    def __init__(self, lay: BlockLayouts):
        # A logical block may begin anywhere in a host page.
        pieces = -(-lay.config.lba_bytes // HOST_PAGE) + 1
        super().__init__({
            "tag": lay.read_bits,
            "index": index_bits(pieces),
            **{name: field.shape for name, field in lay.stored},
        })


class BlockLayouts(Layouts):
    """Beside :class:`~nearflash_hw.interfaces.Layouts`: what stays inside block I/O."""

    def __init__(self, config: DeviceConfig):
        super().__init__(config)
        h = config.host
        self.read_bits = index_bits(h.block_reads)
        self.read_slot_bits = index_bits(h.read_slots)
        self.page_slot_bits = index_bits(h.page_slots)
        #: of a command's logical blocks, or of its ranges
        self.count_bits = bits_for(max(h.mdts_pages, MAX_RANGES))

    command = cached_property(Command)
    outcome = cached_property(Outcome)
    opened = cached_property(Opened)
    retired = cached_property(Retired)
    page = cached_property(Page)
    order = cached_property(Order)
    programmed = cached_property(Programmed)
    feed = cached_property(Feed)
    stored = cached_property(Stored)
    place = cached_property(Place)
