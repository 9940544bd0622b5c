"""Flash translation layer: page map, log-structured allocation, superblock."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.onflash import SUPERBLOCK_MAGIC

from ..interfaces import Layouts
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .map_cache import ERROR, MapCache, clients
from .small_write import SmallWrite

__all__ = ["Ftl"]


class Ftl(wiring.Component):
    """Page-map FTL over a log without garbage collection (formats: :mod:`nearflash.contract.onflash`).

    ``lookup_req``/``lookup_rsp`` (with a lookup engine), ``block_req``/``block_rsp``: translation (see :class:`MapCache` for
    the latencies).
    ``update``/``update_done``: change one map entry, in DRAM and visible to every later translation once done.
    ``allocate``: hands out the pages of the log in PPN order; ``full``: none is left; ``stalled``: none is offered because
    the superblock could not be written. ``sync``/``sync_done``: writes the superblock. ``enable``: on its rising edge the
    FTL mounts: it empties the cache and reads the superblock, then raises ``ready``; nothing is served before, and the offer
    on ``allocate`` is withdrawn. A superblock that can't be read, or is neither blank nor valid, mounts full: nothing is
    overwritten, itself included (``sync`` then answers an error), until a mount finds a good one.

    Power cuts: while pages may have been handed out since the last sync, the superblock in DRAM holds the end of the log's
    current row of blocks (block number b of every die) instead of the cursor. A mount after a cut then continues in
    untouched blocks: no page is programmed twice and no mapped page is erased, at the price of the rest of that row. The
    reservation is written with the first page handed out; the second page, and mapping the first, wait for it. A reservation
    that fails is tried again until it is written; meanwhile FTL is ``stalled``, and an ``update`` to a page beyond what the
    superblock reserves answers an error. While ``enable`` is low the FTL writes the exact superblock by itself, so a
    controller reset loses nothing; should that write fail, what the superblock says is still safe.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = Layouts.of(config)
        lookups = {
            #: Translations for the lookup engine.
            "lookup_req": In(stream.Signature(lay.translate_request)),
            "lookup_rsp": Out(stream.Signature(lay.translate_response)),
        } if config.lookup.max_tables else {}
        super().__init__({
            **lookups,
            #: Translations for block I/O.
            "block_req": In(stream.Signature(lay.translate_request)),
            "block_rsp": Out(stream.Signature(lay.translate_response)),
            #: Changes of the map,
            "update": In(stream.Signature(Layouts.of(config).map_update)),
            #: each once it is in DRAM and every later translation sees it.
            "update_done": Out(stream.Signature(ERROR)),
            #: The log's next page.
            "allocate": Out(stream.Signature(Layouts.of(config).log_page)),
            #: None is left.
            "full": Out(1),
            #: None is offered: the superblock could not be written.
            "stalled": Out(1),
            #: Write the superblock.
            "sync": In(stream.Signature(1)),
            #: It is written.
            "sync_done": Out(stream.Signature(ERROR)),
            #: Rises: mount. Falls: write the superblock, exact.
            "enable": In(1),
            #: Mounted.
            "ready": Out(1),
            #: Pulses per line of the map that is fetched.
            "map_miss": Out(1),
            #: Map and superblock.
            "mem_read": Out(MemReadSignature(config.beat_bytes)),
            "mem_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        c, f = self.config, self.config.flash
        m.submodules.cache = cache = MapCache(c)
        m.submodules.writer = writer = SmallWrite(c.beat_bytes, 2)
        names = ("lookup", "block")[-clients(c):]
        for k, name in enumerate(names):
            connect(m, flipped(getattr(self, f"{name}_req")), cache.req[k])
        for k, name in enumerate(names):
            connect(m, cache.rsp[k], flipped(getattr(self, f"{name}_rsp")))
        connect(m, cache.write, writer.i[0])
        connect(m, writer.done[0], cache.write_done)
        connect(m, writer.mem_write, flipped(self.mem_write))
        m.d.comb += self.map_miss.eq(cache.miss)

        enabled_before, remount = Signal(), Signal()

        # -- the log
        die_bits = log2(f.channels) + log2(f.channel_planes)
        row_bits = die_bits + log2(f.pages)
        cursor = Signal(f.ppn_bits + 1)
        sequence = Signal(64)
        durable = Signal.like(cursor)  # the cursor in the superblock: pages from here on were never handed out
        unreserved = Signal()  # a reservation failed and was not written since
        reserve = Signal()  # a page beyond it was: the superblock must move on before the next one
        lost = Signal()  # mounted without a superblock: never write one
        serving = Signal()
        exact = Signal()  # an exact superblock is being written
        taken = Signal()
        offer = self.allocate
        m.d.comb += [
            self.full.eq(serving & cursor[-1]),
            self.stalled.eq(serving & unreserved),
            offer.valid.eq(serving & ~cursor[-1] & ~reserve & ~remount),
            offer.payload.ppn.eq(cursor),
            offer.payload.sequence.eq(sequence),
            offer.payload.erase.eq(cursor[die_bits:row_bits] == 0),
            taken.eq(offer.valid & offer.ready),
        ]
        with m.If(taken):
            m.d.sync += [
                cursor.eq(cursor + 1),
                sequence.eq(sequence + 1),
            ]
            with m.If((cursor == durable) | exact):
                m.d.sync += reserve.eq(1)

        # -- updates: a page that a mount after a power cut would hand out again must not be mapped
        update, done = self.update, self.update_done
        ahead, refuse, refused = Signal(), Signal(), Signal()
        m.d.comb += [
            ahead.eq(update.payload.mapped & reserve & (exact | (update.payload.ppn >= durable))),
            refuse.eq(update.valid & cache.update.ready & ahead & unreserved & ~exact & ~refused),
            cache.update.payload.eq(update.payload),
            cache.update.valid.eq(update.valid & ~ahead & ~refused),
            update.ready.eq(Mux(ahead, refuse, cache.update.ready & ~refused)),
            done.valid.eq(cache.update_done.valid | refused),
            done.payload.error.eq(cache.update_done.payload.error | refused),
            cache.update_done.ready.eq(done.ready),
        ]
        with m.If(refused):
            m.d.sync += refused.eq(~done.ready)
        with m.Elif(refuse):
            m.d.sync += refused.eq(1)

        # -- superblock
        m.d.sync += enabled_before.eq(self.enable)
        with m.If(self.enable & ~enabled_before):
            m.d.sync += remount.eq(1)
        is_reserve, is_sync, sync_error = Signal(), Signal(), Signal()
        sb_cursor, sb_sequence = Signal.like(cursor), Signal(64)
        row_end = Signal.like(cursor)
        m.d.comb += row_end.eq(Cat(Const(0, row_bits), durable[row_bits:] + 1))
        job = writer.i[1]
        beats = max(1, 16 // c.beat_bytes)
        m.d.comb += [
            job.payload.addr.eq(c.layout.superblock),
            job.payload.data.eq(Cat(Const(SUPERBLOCK_MAGIC, 32), sb_cursor | Const(0, 32), sb_sequence)),
            job.payload.strb.eq(0xFFFF if c.beat_bytes > 16 else -1),
            job.payload.two.eq(beats == 2),
        ]
        raw = Signal(128, reset_less=True)
        fields = data.View(data.StructLayout({"magic": 32, "cursor": 32, "sequence": 64}), raw)
        broken = Signal()
        mounting = Signal()
        rd = self.mem_read
        with m.If(mounting):
            m.d.comb += [
                rd.req.payload.addr.eq(c.layout.superblock),
                rd.req.payload.beats.eq(beats),
            ]
        with m.Else():
            m.d.comb += [
                rd.req.payload.eq(cache.mem_read.req.payload),
                rd.req.valid.eq(cache.mem_read.req.valid),
                cache.mem_read.req.ready.eq(rd.req.ready),
                cache.mem_read.rsp.valid.eq(rd.rsp.valid),
                rd.rsp.ready.eq(cache.mem_read.rsp.ready),
            ]
        m.d.comb += cache.mem_read.rsp.payload.eq(rd.rsp.payload)
        m.d.comb += [
            self.ready.eq(serving & self.enable & ~remount & enabled_before),
            cache.serve.eq(serving),
        ]

        with m.FSM(name="superblock") as fsm:
            with m.State("OFF"):
                with m.If(remount):
                    m.next = "CLEAR"
            with m.State("SERVE"):
                m.d.comb += [
                    serving.eq(1),
                    self.sync.ready.eq(~remount & (~reserve | unreserved)),
                ]
                with m.If(reserve & ~unreserved):
                    m.d.sync += [
                        is_reserve.eq(1),
                        is_sync.eq(0),
                    ]
                    m.next = "PREPARE"
                with m.Elif((remount | ~self.enable) & (cursor != durable)):
                    m.d.sync += [
                        is_reserve.eq(0),
                        is_sync.eq(0),
                    ]
                    m.next = "PREPARE"
                with m.Elif(remount):
                    m.next = "CLEAR"
                with m.Elif(self.sync.valid):
                    m.d.sync += [
                        is_reserve.eq(0),
                        is_sync.eq(1),
                        sync_error.eq(1),
                    ]
                    m.next = "PREPARE"
                    with m.If(lost):
                        m.next = "SYNCED"
                with m.Elif(reserve):  # again, behind all that ends such a state in another way
                    m.d.sync += [
                        is_reserve.eq(1),
                        is_sync.eq(0),
                    ]
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.sync += [
                    sb_cursor.eq(Mux(is_reserve, row_end, cursor)),
                    sb_sequence.eq(sequence + Mux(is_reserve, row_end - cursor, 0)[: len(cursor)]),
                ]
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += job.valid.eq(1)
                with m.If(job.ready):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += writer.done[1].ready.eq(1)
                with m.If(writer.done[1].valid):
                    error = writer.done[1].payload.error
                    m.d.sync += sync_error.eq(error)
                    # Whether a failed write reached memory is not known: count on the lower cursor.
                    with m.If(~(error & is_reserve)):
                        m.d.sync += durable.eq(sb_cursor)
                    with m.If(is_reserve | unreserved):  # an exact superblock covers the page too: none was taken since
                        m.d.sync += [
                            reserve.eq(error),
                            unreserved.eq(error),
                        ]
                    m.next = "SERVE"
                    with m.If(is_sync):
                        m.next = "SYNCED"
            with m.State("SYNCED"):
                m.d.comb += [
                    self.sync_done.valid.eq(1),
                    self.sync_done.payload.error.eq(sync_error),
                ]
                with m.If(self.sync_done.ready):
                    m.next = "SERVE"
            with m.State("CLEAR"):
                m.d.sync += remount.eq(0)
                m.d.comb += cache.invalidate.eq(1)
                with m.If(cache.invalidated):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += [
                    mounting.eq(1),
                    rd.req.valid.eq(1),
                ]
                m.d.sync += broken.eq(0)
                with m.If(rd.req.ready):
                    m.next = "RECEIVE"
            with m.State("RECEIVE"):
                m.d.comb += [
                    mounting.eq(1),
                    rd.rsp.ready.eq(1),
                ]
                with m.If(rd.rsp.valid):
                    m.d.sync += [
                        raw.eq(Cat(raw, rd.rsp.payload.data)[-128:] if beats == 2 else rd.rsp.payload.data),
                        broken.eq(broken | rd.rsp.payload.error),
                    ]
                    with m.If(rd.rsp.payload.last):
                        m.next = "MOUNT"
            with m.State("MOUNT"):
                valid = (fields.magic == SUPERBLOCK_MAGIC) & (fields.cursor <= f.total_pages)
                m.d.sync += [
                    reserve.eq(0),
                    unreserved.eq(0),
                    lost.eq(0),
                    sequence.eq(fields.sequence),
                    cursor.eq(fields.cursor),
                    durable.eq(fields.cursor),
                ]
                with m.If(broken | ~(valid | (raw == 0))):
                    m.d.sync += [
                        cursor.eq(f.total_pages),
                        durable.eq(f.total_pages),
                        lost.eq(1),
                    ]
                m.next = "SERVE"
        for state in ("PREPARE", "WRITE", "WAIT", "SYNCED"):
            with m.If(fsm.ongoing(state)):
                m.d.comb += serving.eq(1)
        m.d.comb += exact.eq((fsm.ongoing("PREPARE") | fsm.ongoing("WRITE") | fsm.ongoing("WAIT")) & ~is_reserve)
        return m
