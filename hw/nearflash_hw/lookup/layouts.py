"""Payloads that the components of the lookup engine exchange."""

from __future__ import annotations

from functools import cached_property

from amaranth.lib import data

from ..interfaces import Layouts

__all__ = ["WORD_BITS", "LookupLayouts", "Outcome", "ParseRequest"]

WORD_BITS = 30  # of a stream's length in words: in bytes it must fit 32 bits


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


class Located(data.StructLayout):
    """A lookup with its place."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            "weight": 32,
            "weighted": 1,
            #: 0: the table's parameters contradict each other, nothing may be read.
            "ok": 1,
            "lpn": lay.lba_bits,
            "column": lay.column_bits,
            "beats": lay.column_bits,
        })


class TagEntry(data.StructLayout):
    """What a tag stands for."""

    def __init__(self, lay: LookupLayouts):
        super().__init__({
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            "weight": 32,
            "weighted": 1,
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

    checked = cached_property(Checked)
    pending = cached_property(Pending)
    slot_lookup = cached_property(SlotLookup)
    located = cached_property(Located)
    tag_entry = cached_property(TagEntry)
    poison = cached_property(Poison)
