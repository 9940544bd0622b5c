"""Payloads that the components of the lookup engine exchange."""

from __future__ import annotations

from functools import cached_property

from amaranth.lib import data

from ..interfaces import Layouts, bits_for, index_bits

__all__ = ["CARRIED", "WORD_BITS", "LookupLayouts", "Outcome", "ParseRequest"]

WORD_BITS = 30  # of a stream's length in words: in bytes it must fit 32 bits
CARRIED = ("slot", "table", "weight", "weighted")  # what goes with a lookup from its item to its vector


class ParseRequest(data.StructLayout):
    """What a query stream should hold; ``batch``, ``tables`` and ``words`` at least 1."""

    def __init__(self):
        super().__init__({
            "words": WORD_BITS,
            "batch": 16,
            "tables": 8,
            "dense": 16,
            "weighted": 1,
            "lookup": 1,
        })


class Outcome(data.StructLayout):
    """What became of a command, with its two result words."""

    def __init__(self):
        super().__init__({
            #: nvme.Status, 0: good.
            "status": 11,
            #: A position in the stream, or a table.
            "dw0": WORD_BITS,
            #: A table.
            "dw1": 8,
        })


class Checked(data.StructLayout):
    """A command and what the checks found."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "command": lay.infer_command,
            "outcome": Outcome(),
        })


class Pending(data.StructLayout):
    """A command whose results are to come, or which failed in pass 1 (``outcome``)."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "lookup": 1,
            "qid": 3,
            "cid": 16,
            "batch": 16,
            "out_addr": lay.config.bus.address_bits,
            "outcome": Outcome(),
        })


class SlotLookup(data.StructLayout):
    """A lookup with the slot its vector is pooled in."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            "index": 32,
            #: fp32 bits, 1.0 when not ``weighted``.
            "weight": 32,
            "weighted": 1,
        })


def _carried(lay: LookupLayouts) -> dict[str, int]:
    """Fields :data:`CARRIED` of a layout."""
    return {"slot": lay.slot_bits, "table": lay.table_bits, "weight": 32, "weighted": 1}


class Located(data.StructLayout):
    """A lookup with its place."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            **_carried(lay),
            #: 0: the table's parameters contradict each other, nothing may be read.
            "ok": 1,
            "lpn": lay.lba_bits,
            "column": lay.column_bits,
            "beats": lay.column_bits,
        })


class RowPlace(data.StructLayout):
    """Where a row lies on flash: what the row cache knows it by."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "ppn": lay.ppn_bits,
            "column": lay.column_bits,
            "beats": lay.column_bits,
        })


class Placed(data.StructLayout):
    """A lookup whose row can be read."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            **_carried(lay),
            "row": lay.row_place,
        })


class Found(data.StructLayout):
    """A lookup and what the row cache knows of its row."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "placed": lay.placed,
            #: The row is in ``line``;
            "hit": 1,
            "line": lay.line_bits,
            #: it is not, and flash's may be kept.
            "keep": 1,
        })


class CachedRead(data.StructLayout):
    """A row to read from the row cache's DRAM."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "line": lay.line_bits,
            "beats": lay.line_beat_bits,
            "tag": lay.tag_bits,
        })


class KeptRow(data.StructLayout):
    """A row and its line in the row cache."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "row": lay.row_place,
            "line": lay.line_bits,
        })


class TagEntry(data.StructLayout):
    """What a tag stands for."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            **_carried(lay),
            # With a row cache: which row it is, and whether the cache may keep it.
            **({"row": lay.row_place, "keep": 1} if lay.config.row_cache.lines else {}),
        })


class Poison(data.StructLayout):
    """A lookup of ``slot`` is over."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            #: nvme.Status, 0: good.
            "status": 11,
        })


class LookupLayouts(Layouts):
    """Beside :class:`~nearflash_hw.interfaces.Layouts`: what stays inside the lookup engine."""

    @property
    def line_bits(self) -> int:
        """Of a line of the row cache: {set, way}."""
        return index_bits(self.config.row_cache.lines)

    @property
    def line_beats(self) -> int:
        """Beats of a line of the row cache."""
        return self.config.row_cache.line_bytes // self.config.beat_bytes

    @property
    def line_beat_bits(self) -> int:
        """To count them."""
        return bits_for(self.line_beats)

    checked = cached_property(Checked)
    pending = cached_property(Pending)
    slot_lookup = cached_property(SlotLookup)
    located = cached_property(Located)
    row_place = cached_property(RowPlace)
    placed = cached_property(Placed)
    found = cached_property(Found)
    cached_read = cached_property(CachedRead)
    kept_row = cached_property(KeptRow)
    tag_entry = cached_property(TagEntry)
    poison = cached_property(Poison)
