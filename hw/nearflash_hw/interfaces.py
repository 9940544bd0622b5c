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

from functools import cached_property, lru_cache
from typing import Self

from amaranth.hdl import Cat, Value, signed
from amaranth.lib import data
from amaranth.lib.enum import Enum
from nearflash.contract import DeviceConfig
from nearflash.contract.config import REACH_BITS, log2
from nearflash.contract.nvme import HOST_PAGE
from nearflash.contract.table import MAX_ROW_BITS

__all__ = ["AdminCommand", "Bag", "BlockCommand", "Completion", "DenseElement", "Drain", "Extent", "FlashCommand",
           "FlashData", "FlashDone", "FlashOp", "HostData", "InferCommand", "ItemKind", "Layouts", "LogPage", "Logit",
           "LookupItem", "MapUpdate", "Parameter", "PhysicalPage", "Piece", "PooledElement", "PrpRequest", "PrpRun",
           "QueueSettings", "Retire", "Sample", "SampleStatus", "TableWrite", "TensorCommand", "TranslateRequest",
           "TranslateResponse", "VectorBeat"]


class FlashOp(Enum, shape=2):
    """What a flash command does."""

    READ = 0
    PROGRAM = 1
    ERASE = 2


class ItemKind(Enum, shape=2):
    """What an item of the parsed query stream is: see :class:`LookupItem`."""

    LOOKUP = 0
    BAG = 1
    SAMPLE = 2


def bits_for(n: int) -> int:
    """Bits to count from 0 to ``n`` inclusive."""
    return max(1, n.bit_length())


def index_bits(n: int) -> int:
    """Bits to number ``n`` things from 0."""
    return max(1, (n - 1).bit_length())


# -- flash ---------------------------------------------------------------------------------------------------------


class PhysicalPage(data.StructLayout):
    """A physical page number, channel in the low bits: pages that follow each other lie on different channels, then dies.
    Each plane of a die is a die here ({plane, die}), and a block is one of its plane's. A field of one value has no bits."""

    def __init__(self, lay: Layouts):
        f = lay.config.flash
        super().__init__({
            "channel": log2(f.channels),
            "die": log2(f.channel_planes),
            "page": log2(f.pages),
            "block": log2(f.plane_blocks),
        })


class FlashCommand(data.StructLayout):
    """One operation for one die. READ moves a range of page plus OOB; PROGRAM takes the whole raw page (page then OOB) from
    the channel's ``block_in``; ERASE moves nothing."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "op": FlashOp,
            "die": lay.die_bits,
            "block": lay.block_bits,
            "page": lay.page_bits,
            #: Of READ: first beat, and how many, counted over page plus OOB.
            "column": lay.column_bits,
            "beats": lay.column_bits,
            #: Comes back with the data or the result.
            "tag": lay.tag_bits,
        })


class FlashData(data.StructLayout):
    """One beat of read data, vector- or page-atomic per channel: no other tag between a tag's first and last beat."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "data": lay.data_bits,
            "tag": lay.tag_bits,
            "last": 1,
            #: Unrecovered read: on every beat.
            "error": 1,
        })


class FlashDone(data.StructLayout):
    """Result of a PROGRAM or ERASE."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "tag": lay.tag_bits,
            #: NAND rule broken (page order, program before erase) or media fault.
            "error": 1,
        })


# -- FTL -----------------------------------------------------------------------------------------------------------


class TranslateRequest(data.StructLayout):
    """Which physical page holds the logical one?"""

    def __init__(self, lay: Layouts):
        super().__init__({"lpn": lay.lpn_bits})


class MapUpdate(data.StructLayout):
    """A change of the map."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "lpn": lay.lpn_bits,
            "ppn": lay.ppn_bits,
            #: 0 unmaps.
            "mapped": 1,
        })


class LogPage(data.StructLayout):
    """The next page of the log."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "ppn": lay.ppn_bits,
            "sequence": 64,
            #: The first page of its block, which must be erased first.
            "erase": 1,
        })


class TranslateResponse(data.StructLayout):
    """In request order, per client."""

    def __init__(self, lay: Layouts):
        super().__init__({
            #: A :class:`PhysicalPage`; means nothing unless ``mapped``.
            "ppn": lay.ppn_bits,
            #: 0: never written, or trimmed.
            "mapped": 1,
            #: DRAM error.
            "error": 1,
        })


# -- host interface ------------------------------------------------------------------------------------------------


class BlockCommand(data.StructLayout):
    """A checked block command (contract.nvme.Opcode: READ, WRITE, FLUSH, DSM)."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "opcode": 8,
            "qid": 3,
            "cid": 16,
            #: In logical blocks, in range.
            "slba": 32,
            #: Blocks - 1. DSM: ranges - 1, of 16 B each, at prp1.
            "nlb": 16,
            #: :meth:`Layouts.host_address`.
            "prp1": lay.host_address_bits,
            "prp2": lay.host_address_bits,
            #: Of DSM.
            "deallocate": 1,
        })


class InferCommand(data.StructLayout):
    """An INFER or LOOKUP command, fields as in the SQE, not yet checked."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "opcode": 8,
            "qid": 3,
            "cid": 16,
            #: Where the query lies: :meth:`Layouts.host_address`.
            "prp1": lay.host_address_bits,
            "prp2": lay.host_address_bits,
            #: Of the query, 32 bits each.
            "words": 32,
            #: Samples.
            "batch": 16,
            #: A weight follows each index.
            "weighted": 1,
            #: Bags of a sample.
            "tables": 8,
            #: Features of a sample.
            "dense": 16,
            #: Where the results go: :meth:`Layouts.host_address`.
            "out_addr": lay.host_address_bits,
        })


class Completion(data.StructLayout):
    """A command is done: what its completion queue entry will say."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "qid": 3,
            "cid": 16,
            #: nvme.Status.
            "status": 11,
            "dw0": 32,
            "dw1": 32,
        })


class PrpRequest(data.StructLayout):
    """Ask the PRP walker for the host memory runs of a transfer."""

    def __init__(self, lay: Layouts):
        super().__init__({
            #: :meth:`Layouts.host_address`.
            "prp1": lay.host_address_bits,
            "prp2": lay.host_address_bits,
            #: In bytes, a multiple of 4.
            "length": 32,
        })


class PrpRun(data.StructLayout):
    """One contiguous run of host memory, at most one 4 KiB host page."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "addr": lay.host_address_bits - 1,
            "bytes": 13,
            "last": 1,
            #: Not 0 (nvme.Status), with ``last`` and 0 ``bytes``: a bad list ends here.
            "status": 11,
        })


class HostData(data.StructLayout):
    """One beat of a transfer out of host memory."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "data": lay.data_bits,
            #: Of the transfer.
            "last": 1,
            #: Not 0 (nvme.Status), with ``last``: it failed.
            "status": 11,
        })


class Piece(data.StructLayout):
    """Part of one logical block in contiguous host memory."""

    def __init__(self, lay: Layouts):
        c = lay.config
        super().__init__({
            "addr": REACH_BITS,
            #: At most those of a logical block.
            "beats": bits_for(max(c.page_beats, HOST_PAGE // c.beat_bytes)),
            #: The block's last piece.
            "page_end": 1,
            #: The transfer's.
            "last": 1,
            #: Not 0 (nvme.Status), with ``last`` and no ``beats``: a bad PRP list.
            "status": 11,
        })


class AdminCommand(data.StructLayout):
    """An admin command that passed the checks; fields as in the SQE."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "opcode": 8,
            "cid": 16,
            #: :meth:`Layouts.host_address`.
            "prp1": lay.host_address_bits,
            "prp2": lay.host_address_bits,
            "cdw10": 32,
        })


class TensorCommand(data.StructLayout):
    """A TENSOR_LOAD (``load``) or TENSOR_RUN command that passed the checks."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "load": 1,
            "qid": 3,
            "cid": 16,
            #: What is loaded, or a program's input: :meth:`Layouts.host_address`.
            "prp1": lay.host_address_bits,
            "prp2": lay.host_address_bits,
            #: Of that, 32 bits each.
            "words": 32,
            #: Where it goes, or the program lies, in the tensor region.
            "offset": 32,
            #: Where a program's output goes: :meth:`Layouts.host_address`.
            "out_addr": lay.host_address_bits,
        })


class QueueSettings(data.StructLayout):
    """One queue pair as the host configured it."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "sq_base": 64,
            "cq_base": 64,
            #: Entries - 1.
            "size": index_bits(lay.config.host.queue_entries),
        })


# -- tables --------------------------------------------------------------------------------------------------------


class Extent(data.StructLayout):
    """A table's pages from ``first_page`` on lie in ``pages`` logical blocks from ``lba`` on."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "first_page": lay.lba_bits,
            "lba": lay.lba_bits,
            "pages": lay.lba_bits,
        })


class TableWrite(data.StructLayout):
    """A validated table's parameters (contract.table), broadcast by the table manager when a table is opened or closed. Each
    is as wide as its largest valid value: what is checked is the descriptor's word."""

    def __init__(self, lay: Layouts):
        c = lay.config
        super().__init__({
            "table": lay.table_bits,
            #: 0: closed, and nothing else counts.
            "open": 1,
            "rows": MAX_ROW_BITS,
            "dim": bits_for(c.lookup.max_dim),
            "format": 2,
            "mean": 1,
            "headroom": 5,
            "stride": lay.column_bits,
            "rows_per_page": bits_for(c.page_beats),
            "magic": 32,
            "shift": 6,
            "lsb_exp": signed(9),
            "quant_mult": 16,
            "quant_shift": signed(8),
            "extents": data.ArrayLayout(lay.extent, c.lookup.max_extents),
            "n_extents": 5,
        })


# -- lookup -> pooling -> MLP --------------------------------------------------------------------------------------


class Sample(data.StructLayout):
    """What travels with a sample."""

    def __init__(self, lay: Layouts):
        super().__init__({
            #: Its place in its group of N_batch.
            "n": lay.nb_bits,
            #: The samples in that group - 1.
            "nb": lay.nb_bits,
            #: The last of its command.
            "last": 1,
            #: LOOKUP (pooled vectors wanted) rather than INFER.
            "lookup": 1,
            #: In use.
            "tables": lay.table_bits + 1,
        })


class LookupItem(data.StructLayout):
    """The parsed query stream. LOOKUP: one row (``table``, ``index``, ``weight``); BAG: ``table``'s bag is complete with
    ``count`` lookups (also for empty bags), tables in order; SAMPLE: every bag of the sample was sent."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "kind": ItemKind,
            "table": lay.table_bits,
            "index": 32,
            #: fp32 bits, 1.0 when not ``weighted``.
            "weight": 32,
            "weighted": 1,
            "count": lay.bag_bits,
            "sample": lay.sample,
        })


class SampleStatus(data.StructLayout):
    """One per sample, in order, when it is drained."""

    def __init__(self, lay: Layouts):
        super().__init__({
            #: nvme.Status, 0: good.
            "status": 11,
            #: At fault.
            "table": lay.table_bits,
            "sample": lay.sample,
        })


class Bag(data.StructLayout):
    """A slot's bag is complete with ``count`` lookups (sent to pooling before the slot's drain)."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            "count": lay.bag_bits,
        })


class Drain(data.StructLayout):
    """Every vector of ``slot`` was retired: emit its pooled vectors and clear it."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "slot": lay.slot_bits,
            #: Emit NaN instead.
            "bad": 1,
            "sample": lay.sample,
        })


class Retire(data.StructLayout):
    """A vector is in its accumulators (one per vector, as its last beat commits)."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            #: An element, its weight, scale or bias is NaN or infinite.
            "not_finite": 1,
            #: A contribution does not fit its table's window.
            "overflow": 1,
            #: It could not be read.
            "media": 1,
        })


class VectorBeat(data.StructLayout):
    """One beat of one row, row-atomic."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "data": lay.data_bits,
            "slot": lay.slot_bits,
            "table": lay.table_bits,
            #: fp32 bits, 1.0 when not ``weighted``.
            "weight": 32,
            "weighted": 1,
            "first": 1,
            "last": 1,
            #: With ``last``: a read of it failed.
            "error": 1,
        })


class PooledElement(data.StructLayout):
    """One pooled fp32 element, in order: tables 0..T-1, elements 0..dim-1 of a sample, samples in command order."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "value": 32,
            "table": lay.table_bits,
            "last_of_table": 1,
            "last_of_sample": 1,
            #: The sample is poisoned, and the value NaN.
            "bad": 1,
            "sample": lay.sample,
        })


class DenseElement(data.StructLayout):
    """One dense fp32 feature, in order, ahead of its sample's pooled vectors."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "value": 32,
            "last": 1,
            "sample": lay.sample,
        })


class Logit(data.StructLayout):
    """One fp32 logit of the group's sample ``n``; order within a group is free."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "value": 32,
            "n": lay.nb_bits,
            "nb": lay.nb_bits,
            #: Which output.
            "o": 16,
            #: On any logit of a group: weights it was computed with could not be read.
            "error": 1,
        })


# -- parameter bus -------------------------------------------------------------------------------------------------


class Parameter(data.StructLayout):
    """One beat of a parameter record (contract.program) on its way to its target."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "data": lay.data_bits,
            "target": 16,
            #: Of the record's data: its header is removed.
            "first": 1,
            "last": 1,
        })


class Layouts:
    """Every inter-room payload of one device, and the widths that they are made of. :meth:`of` keeps them."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        f, h, lk, m = config.flash, config.host, config.lookup, config.mlp
        self.data_bits = config.beat_bytes * 8
        self.host_address_bits = config.bus.address_bits + 1  # see host_address
        self.channel_bits = index_bits(f.channels)
        self.die_bits = index_bits(f.channel_planes)
        self.block_bits = index_bits(f.plane_blocks)
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
        self.tag_bits = max(config.tag_bits if lk.max_tables else 0, index_bits(h.block_reads), index_bits(h.page_slots) + 1)

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, config: DeviceConfig) -> Self:
        """Those of ``config``, made once."""
        return cls(config)

    def host_address(self, address: Value) -> Value:
        """A 64-bit host address as it travels inside: as far as the host bus reaches, and above that one bit that says
        whether the address goes further. So alignment and reach can be checked where the address is used."""
        reach = self.host_address_bits - 1
        return Cat(address[:reach], address[reach:].any())

    ppn = cached_property(PhysicalPage)
    flash_command = cached_property(FlashCommand)
    flash_data = cached_property(FlashData)
    flash_done = cached_property(FlashDone)
    translate_request = cached_property(TranslateRequest)
    translate_response = cached_property(TranslateResponse)
    map_update = cached_property(MapUpdate)
    log_page = cached_property(LogPage)
    block_command = cached_property(BlockCommand)
    infer_command = cached_property(InferCommand)
    completion = cached_property(Completion)
    prp_request = cached_property(PrpRequest)
    prp_run = cached_property(PrpRun)
    host_data = cached_property(HostData)
    piece = cached_property(Piece)
    admin_command = cached_property(AdminCommand)
    tensor_command = cached_property(TensorCommand)
    queue_settings = cached_property(QueueSettings)
    extent = cached_property(Extent)
    table_write = cached_property(TableWrite)
    sample = cached_property(Sample)
    lookup_item = cached_property(LookupItem)
    sample_status = cached_property(SampleStatus)
    bag = cached_property(Bag)
    drain = cached_property(Drain)
    retire = cached_property(Retire)
    vector_beat = cached_property(VectorBeat)
    pooled_element = cached_property(PooledElement)
    dense_element = cached_property(DenseElement)
    logit = cached_property(Logit)
    parameter = cached_property(Parameter)
