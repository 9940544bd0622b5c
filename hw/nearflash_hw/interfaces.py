"""Payloads that cross from one room of the device to another. Every block's ports are streams of these (or memory
ports), so the top only wires. All are derived from the one :class:`~nearflash.contract.DeviceConfig`.

The path of a lookup batch::

    controller.Nvme --infer_cmd--> lookup.Sequencer (validates, parses the query stream)
      --dense words--> mlp dense quantiser          --lookups--> lookup.Translator --(FTL)--> FlashCommand
      --> flash.Channel[c].lookup_cmd ... --> lookup_data --> lookup.Merge (tag -> slot/table)
      --> VectorBeat --> lookup.Pooling --> PooledElement --> mlp.Engine (or results writer) --> Logit
      --> lookup.Results (host DMA) --> Completion --> controller.Nvme (CQE, interrupt)
"""

from __future__ import annotations

from amaranth.hdl import Cat, Value, signed
from amaranth.lib import data
from amaranth.lib.enum import Enum
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.table import MAX_ROW_BITS

__all__ = ["FlashOp", "ItemKind", "Layouts"]


class FlashOp(Enum, shape=2):
    """What a flash command does."""

    READ = 0
    PROGRAM = 1
    ERASE = 2


class ItemKind(Enum, shape=2):
    """What an item of the parsed query stream is: see :attr:`Layouts.lookup_item`."""

    LOOKUP = 0
    BAG = 1
    SAMPLE = 2


def bits_for(n: int) -> int:
    """Bits to count from 0 to ``n`` inclusive."""
    return max(1, n.bit_length())


def index_bits(n: int) -> int:
    """Bits to number ``n`` things from 0."""
    return max(1, (n - 1).bit_length())


class Layouts:
    """Every inter-room payload layout of one device."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        f, h, lk, m = config.flash, config.host, config.lookup, config.mlp
        self.data_bits = config.beat_bytes * 8
        self.host_address_bits = config.bus.address_bits + 1  # see host_address
        self.channel_bits = index_bits(f.channels)
        self.die_bits = index_bits(f.dies)
        self.block_bits = index_bits(f.blocks)
        self.page_bits = index_bits(f.pages)
        self.ppn_bits = max(1, f.ppn_bits)
        self.lpn_bits = 32
        self.lba_bits = bits_for(config.lbas)  # of a logical block, or of a number of them
        self.column_bits = bits_for(config.raw_page_beats)
        self.table_bits = index_bits(lk.max_tables)
        self.slot_bits = index_bits(lk.sample_slots)
        self.bag_bits = bits_for(lk.max_bag)
        self.nb_bits = bits_for(m.n_batch)
        # of a lookup, of a page that is read, or of a page slot and whether it is erased or programmed
        self.tag_bits = max(config.tag_bits, index_bits(h.block_reads), index_bits(h.page_slots) + 1)

    def host_address(self, address: Value) -> Value:
        """A 64-bit host address as it travels inside: as far as the host bus reaches, and above that one bit that says
        whether the address goes further. So alignment and reach can be checked where the address is used."""
        reach = self.host_address_bits - 1
        return Cat(address[:reach], address[reach:].any())

    # -- flash --------------------------------------------------------------------------------------------------
    @property
    def ppn(self) -> data.StructLayout:
        """A physical page number, channel in the low bits: pages that follow each other lie on different channels, then
        dies. A field of one value has no bits."""
        f = self.config.flash
        return data.StructLayout({name: log2(n) for name, n in (
            ("channel", f.channels), ("die", f.dies), ("page", f.pages), ("block", f.blocks))})

    @property
    def flash_command(self) -> data.StructLayout:
        """One operation for one die. ``column`` and ``beats`` are in beats over page plus OOB; READ moves that range,
        PROGRAM always takes the whole raw page (page then OOB) from the channel's ``block_in``, ERASE moves nothing."""
        return data.StructLayout({
            "op": FlashOp, "die": self.die_bits, "block": self.block_bits, "page": self.page_bits,
            "column": self.column_bits, "beats": self.column_bits, "tag": self.tag_bits})

    @property
    def flash_data(self) -> data.StructLayout:
        """One beat of read data, vector- or page-atomic per channel: no other tag between a tag's first and last beat.
        ``error``: unrecovered read (on every beat)."""
        return data.StructLayout({"data": self.data_bits, "tag": self.tag_bits, "last": 1, "error": 1})

    @property
    def flash_done(self) -> data.StructLayout:
        """Result of a PROGRAM or ERASE. ``error``: NAND rule broken (page order, program before erase) or media fault."""
        return data.StructLayout({"tag": self.tag_bits, "error": 1})

    # -- FTL ----------------------------------------------------------------------------------------------------
    @property
    def translate_request(self) -> data.StructLayout:
        """Which physical page holds the logical one?"""
        return data.StructLayout({"lpn": self.lpn_bits})

    @property
    def translate_response(self) -> data.StructLayout:
        """In request order, per client. ``mapped`` 0: never written or trimmed. ``error``: DRAM error."""
        return data.StructLayout({"ppn": self.ppn_bits, "mapped": 1, "error": 1})

    # -- host interface -----------------------------------------------------------------------------------------
    @property
    def block_command(self) -> data.StructLayout:
        """A checked block command: opcode (contract.nvme.Opcode: READ, WRITE, FLUSH, DSM). ``slba``/``nlb`` in logical
        blocks (nlb = blocks - 1), in range. DSM: ``nlb`` = ranges - 1, ranges (16 B each) at prp1."""
        return data.StructLayout({"opcode": 8, "qid": 3, "cid": 16, "slba": 32, "nlb": 16,
                                  "prp1": self.host_address_bits, "prp2": self.host_address_bits, "deallocate": 1})

    @property
    def infer_command(self) -> data.StructLayout:
        """An INFER or LOOKUP command, fields as in the SQE, not yet checked. Addresses: :meth:`host_address`."""
        address = self.host_address_bits
        return data.StructLayout({"opcode": 8, "qid": 3, "cid": 16, "prp1": address, "prp2": address, "words": 32,
                                  "batch": 16, "weighted": 1, "tables": 8, "dense": 16, "out_addr": address})

    @property
    def completion(self) -> data.StructLayout:
        """A command is done: what its completion queue entry will say. ``status``: nvme.Status."""
        return data.StructLayout({"qid": 3, "cid": 16, "status": 11, "dw0": 32, "dw1": 32})

    @property
    def prp_request(self) -> data.StructLayout:
        """Ask the PRP walker for the host memory runs of a transfer of ``length`` bytes (multiple of 4). Addresses as
        :meth:`host_address` gives them."""
        return data.StructLayout({"prp1": self.host_address_bits, "prp2": self.host_address_bits, "length": 32})

    @property
    def prp_run(self) -> data.StructLayout:
        """One contiguous run of host memory, at most one 4 KiB host page. ``status`` non-zero (nvme.Status) with
        ``last`` ends a bad list; ``bytes`` is then 0."""
        return data.StructLayout({"addr": self.host_address_bits - 1, "bytes": 13, "last": 1, "status": 11})

    # -- tables ---------------------------------------------------------------------------------------------------
    @property
    def table_write(self) -> data.StructLayout:
        """A validated table's parameters, broadcast by the table manager when a table is opened or closed. Each is as wide
        as its largest valid value: what is checked is the descriptor's word."""
        return data.StructLayout({
            "table": self.table_bits, "open": 1, "rows": MAX_ROW_BITS, "dim": bits_for(self.config.lookup.max_dim),
            "format": 2, "mean": 1, "headroom": 5, "stride": self.column_bits,
            "rows_per_page": bits_for(self.config.page_beats), "magic": 32, "shift": 6, "lsb_exp": signed(9),
            "quant_mult": 16, "quant_shift": signed(8),
            "extents": data.ArrayLayout(self.extent, self.config.lookup.max_extents), "n_extents": 5})

    @property
    def extent(self) -> data.StructLayout:
        """A table's pages from ``first_page`` on lie in ``pages`` logical blocks from ``lba`` on."""
        return data.StructLayout({"first_page": self.lba_bits, "lba": self.lba_bits, "pages": self.lba_bits})

    # -- lookup -> pooling -> MLP ---------------------------------------------------------------------------------
    @property
    def sample(self) -> data.StructLayout:
        """What travels with a sample: ``n`` its place in its group of N_batch, ``nb`` the samples in that group - 1,
        ``last`` the last of its command, ``lookup`` LOOKUP (pooled vectors wanted) rather than INFER,
        ``tables`` in use."""
        return data.StructLayout({"n": self.nb_bits, "nb": self.nb_bits, "last": 1, "lookup": 1,
                                  "tables": self.table_bits + 1})

    @property
    def lookup_item(self) -> data.StructLayout:
        """The parsed query stream. LOOKUP: one row (``table``, ``index``, ``weight``); BAG: ``table``'s bag is complete
        with ``count`` lookups (also for empty bags), tables in order; SAMPLE: every bag of the sample was sent."""
        return data.StructLayout({"kind": ItemKind, "table": self.table_bits, "index": 32, "weight": 32, "weighted": 1,
                                  "count": self.bag_bits, "sample": self.sample})

    @property
    def sample_status(self) -> data.StructLayout:
        """One per sample, in order, when it is drained: status (nvme.Status, 0 = good) and the table at fault."""
        return data.StructLayout({"status": 11, "table": self.table_bits, "sample": self.sample})

    @property
    def bag(self) -> data.StructLayout:
        """A slot's bag is complete with ``count`` lookups (sent to pooling before the slot's drain)."""
        return data.StructLayout({"slot": self.slot_bits, "table": self.table_bits, "count": self.bag_bits})

    @property
    def drain(self) -> data.StructLayout:
        """Every vector of ``slot`` was retired: emit its pooled vectors and clear it. ``bad``: emit NaN instead."""
        return data.StructLayout({"slot": self.slot_bits, "bad": 1, "sample": self.sample})

    @property
    def retire(self) -> data.StructLayout:
        """A vector is in its accumulators (one per vector, as its last beat commits)."""
        return data.StructLayout({"slot": self.slot_bits, "table": self.table_bits, "not_finite": 1, "overflow": 1,
                                  "media": 1})

    @property
    def vector_beat(self) -> data.StructLayout:
        """One beat of one row, row-atomic. ``weight`` fp32 bits (1.0 when unweighted); ``error`` with ``last``."""
        return data.StructLayout({"data": self.data_bits, "slot": self.slot_bits, "table": self.table_bits,
                                  "weight": 32, "weighted": 1, "first": 1, "last": 1, "error": 1})

    @property
    def pooled_element(self) -> data.StructLayout:
        """One pooled fp32 element, in order: tables 0..T-1, elements 0..dim-1 of a sample, samples in command order.
        ``bad``: the sample is poisoned (the value is NaN)."""
        return data.StructLayout({"value": 32, "table": self.table_bits, "last_of_table": 1, "last_of_sample": 1,
                                  "bad": 1, "sample": self.sample})

    @property
    def dense_element(self) -> data.StructLayout:
        """One dense fp32 feature, in order, ahead of its sample's pooled vectors."""
        return data.StructLayout({"value": 32, "last": 1, "sample": self.sample})

    @property
    def logit(self) -> data.StructLayout:
        """One fp32 logit: output ``o`` of the group's sample ``n``; order within a group is free. ``error``, on any logit
        of a group: weights it was computed with could not be read."""
        return data.StructLayout({"value": 32, "n": self.nb_bits, "nb": self.nb_bits, "o": 16, "error": 1})

    # -- parameter bus ----------------------------------------------------------------------------------------------
    @property
    def parameter(self) -> data.StructLayout:
        """One beat of a parameter record (contract.program) on its way to its target; ``first`` and ``last`` of the
        record's data (header removed)."""
        return data.StructLayout({"data": self.data_bits, "target": 16, "first": 1, "last": 1})
