"""Payloads that the components of block I/O exchange."""

from amaranth.lib import data
from nearflash.contract import DeviceConfig

from ..interfaces import FlashOp, Layouts, bits_for, index_bits
from .range_list import MAX_RANGES

__all__ = ["BlockLayouts"]


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

    @property
    def command(self) -> data.StructLayout:
        """A command without its host memory: ``count`` logical blocks from ``lpn``, or ``count`` ranges. ``moves``: it has
        host memory at all."""
        return data.StructLayout({"opcode": 8, "qid": 3, "cid": 16, "lpn": self.lba_bits, "count": self.count_bits,
                                  "moves": 1})

    @property
    def outcome(self) -> data.StructLayout:
        """A command is done: ``status`` (nvme.Status)."""
        return data.StructLayout({"qid": 3, "cid": 16, "status": 11})

    @property
    def opened(self) -> data.StructLayout:
        """A READ of ``count`` pages began; it goes by ``command``, the tag of its first page."""
        return data.StructLayout({"command": self.read_bits, "qid": 3, "cid": 16, "count": self.count_bits})

    @property
    def retired(self) -> data.StructLayout:
        """``count`` pages of a READ are done, with ``status``; ``tag`` is free again, unless it is the command's."""
        return data.StructLayout({"tag": self.read_bits, "command": self.read_bits, "count": self.count_bits, "status": 11})

    @property
    def page(self) -> data.StructLayout:
        """A page to send: in ``slot`` of the read buffer, or in none and all zeros (``blank``). ``bad``: not to be sent."""
        return data.StructLayout({"tag": self.read_bits, "slot": self.read_slot_bits, "blank": 1, "bad": 1})

    @property
    def order(self) -> data.StructLayout:
        """A flash command by the page's number."""
        return data.StructLayout({"op": FlashOp, "ppn": self.ppn_bits, "tag": self.tag_bits})

    @property
    def programmed(self) -> data.StructLayout:
        """A page on its way into the flash; ``dropped``: it went nowhere, and its slot is to be freed."""
        return data.StructLayout({"lpn": self.lba_bits, "ppn": self.ppn_bits, "dropped": 1})

    @property
    def feed(self) -> data.StructLayout:
        """A page for a channel: of ``slot``, with the out-of-band fields (contract.onflash)."""
        return data.StructLayout({"channel": self.channel_bits, "slot": self.page_slot_bits, "lpn": self.lba_bits,
                                  "sequence": 64})
