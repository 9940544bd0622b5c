"""The FTL's map from logical to physical pages: in DRAM, with an on-chip cache in front."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ..interfaces import Layouts, bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from ..primitives.register_slice import RegisterSlice
from .small_write import Write

__all__ = ["ERROR", "MapCache", "clients"]

LINE_BEATS = 4
RESPONSES = 4  # translations in flight per client

ERROR = data.StructLayout({"error": 1})


def clients(config: DeviceConfig) -> int:
    """Who asks for translations: the lookup engine, where there is one, and block I/O."""
    return 2 if config.lookup.max_tables else 1


class MapCache(wiring.Component):
    """Direct-mapped, write-through cache of the map (one entry: u32, 0 or ppn + 1) in lines of four beats.

    ``req[k]`` / ``rsp[k]``: :func:`clients`, round-robin, each answered in order; one that does not take its responses holds
    up nobody else. ``update``: writes the entry to DRAM through ``write`` / ``write_done``, then the cached copy,
    then answers ``update_done``. ``serve``: requests are taken. ``invalidate``: level; the cache is emptied, then
    ``invalidated`` pulses. A logical page beyond the device is unmapped.

    Latency: a hit 4 cycles, one every 2 cycles; a miss the DRAM's plus 8 cycles, one line fetched, later requests wait.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = Layouts.of(config)
        super().__init__({
            #: Translations of each client,
            "req": In(stream.Signature(lay.translate_request)).array(clients(config)),
            #: to each in its order.
            "rsp": Out(stream.Signature(lay.translate_response)).array(clients(config)),
            #: Changes of the map,
            "update": In(stream.Signature(Layouts.of(config).map_update)),
            #: each once every later translation sees it.
            "update_done": Out(stream.Signature(ERROR)),
            #: To DRAM.
            "write": Out(stream.Signature(Write(config.beat_bytes))),
            "write_done": In(stream.Signature(ERROR)),
            #: Lines of the map, from DRAM.
            "mem_read": Out(MemReadSignature(config.beat_bytes)),
            #: Requests are taken.
            "serve": In(1),
            #: Level: empty the cache.
            "invalidate": In(1),
            #: Pulses: it is.
            "invalidated": Out(1),
            #: Pulses per line fetched.
            "miss": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        lay = Layouts.of(c)
        beat_bits, words = c.beat_bytes * 8, c.beat_bytes // 4
        lines = c.lookup.map_cache_lines
        word_bits, line_bits, index_bits = log2(words), log2(LINE_BEATS), log2(lines)
        lpn_used = max(bits_for(c.lbas - 1), word_bits + line_bits)
        tag_bits = max(0, lpn_used - word_bits - line_bits - index_bits)

        def word_of(lpn):
            return lpn[:word_bits]

        def row_of(lpn):  # {line, beat}: the address in the data memory
            return lpn[word_bits : word_bits + line_bits + index_bits]

        def index_of(lpn):
            return lpn[word_bits + line_bits : word_bits + line_bits + index_bits]

        def tag_of(lpn):
            return lpn[word_bits + line_bits + index_bits : word_bits + line_bits + index_bits + tag_bits]

        m.submodules.tags = tags = Memory(shape=tag_bits + 1, depth=lines, init=[])  # {tag, valid}
        m.submodules.lines = content = Memory(shape=beat_bits, depth=lines * LINE_BEATS, init=[])
        tag_rd, tag_wr = tags.read_port(), tags.write_port()
        line_rd, line_wr = content.read_port(), content.write_port(granularity=32)

        # -- which request next: a pending cache patch, else the clients in turn
        n = clients(c)
        responses = [StreamFifo(lay.translate_response, RESPONSES) for _ in range(n)]
        credits = [Signal(range(RESPONSES + 1), init=RESPONSES, name=f"credit{k}") for k in range(n)]
        able = [Signal(name=f"able{k}") for k in range(n)]
        last_client = Signal()
        pick = Signal()
        patch = Signal()  # an update is in DRAM and must reach the cached copy
        patched = Signal()
        upd_lpn, upd_entry, upd_error, upd_in_range = Signal(32), Signal(32), Signal(), Signal()
        sel_lpn = Signal(32)
        for k in range(n):
            m.submodules[f"responses{k}"] = responses[k]
            m.submodules[f"response{k}"] = response = RegisterSlice(lay.translate_response, "half")
            connect(m, responses[k].o, response.i)
            connect(m, response.o, flipped(self.rsp[k]))
            m.d.comb += able[k].eq(self.req[k].valid & (credits[k] != 0))
        asked = self.req[0].payload.lpn
        if n > 1:
            m.d.comb += pick.eq(Mux(able[0] & able[1], ~last_client, able[1]))
            asked = Mux(pick, self.req[1].payload.lpn, asked)
        m.d.comb += sel_lpn.eq(Mux(patch, upd_lpn, asked))

        # -- the request being looked up
        lpn = Signal(32)
        client = Signal()
        is_patch = Signal()
        in_range, hit = Signal(), Signal()
        entry = Signal(32, reset_less=True)
        failed = Signal()
        push = Signal()
        beat = Signal(range(LINE_BEATS))
        clear = Signal(range(max(2, lines)))
        taking = Signal()
        m.d.comb += [
            tag_rd.en.eq(taking),
            line_rd.en.eq(taking),
            tag_rd.addr.eq(index_of(sel_lpn)),
            line_rd.addr.eq(row_of(sel_lpn)),
            in_range.eq(lpn < c.lbas),
            hit.eq(tag_rd.data[0] & (tag_rd.data[1:] == tag_of(lpn))),
            tag_wr.addr.eq(index_of(lpn)),
            line_wr.addr.eq(row_of(lpn)),
            line_wr.data.eq(upd_entry.replicate(words)),
        ]
        m.d.sync += [
            push.eq(0),
            self.miss.eq(0),
        ]
        rd = self.mem_read
        # The map region is 4 KiB-aligned, hence line-aligned, and padded to 4 KiB: a line never leaves it.
        line_lpn = lpn[word_bits + line_bits : lpn_used]
        m.d.comb += [
            rd.req.payload.addr.eq(c.layout.map + (line_lpn << log2(c.beat_bytes * LINE_BEATS))),
            rd.req.payload.beats.eq(LINE_BEATS),
        ]

        with m.FSM(name="lookup"):
            with m.State("READY"):
                with m.If(patch):
                    m.d.comb += taking.eq(1)
                    m.d.sync += [
                        lpn.eq(sel_lpn),
                        is_patch.eq(1),
                    ]
                    m.next = "COMPARE"
                with m.Elif(self.invalidate):
                    m.d.sync += clear.eq(0)
                    m.next = "CLEAR"
                with m.Elif(self.serve & reduce(or_, able)):
                    m.d.comb += taking.eq(1)
                    for k in range(n):
                        m.d.comb += self.req[k].ready.eq((pick == k) & able[k])
                    m.d.sync += [
                        lpn.eq(sel_lpn),
                        is_patch.eq(0),
                        client.eq(pick),
                        last_client.eq(pick),
                    ]
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += [
                    failed.eq(0),
                    beat.eq(0),
                ]
                m.next = "READY"
                m.d.sync += entry.eq(Mux(in_range, line_rd.data.word_select(word_of(lpn), 32), 0))  # whether hit or not
                with m.If(is_patch):
                    m.d.comb += [
                        patched.eq(1),
                        line_wr.en.eq(Mux(hit, 1 << word_of(lpn), 0)),
                    ]
                with m.Elif(hit | ~in_range):
                    m.d.sync += push.eq(1)
                with m.Else():
                    m.d.sync += self.miss.eq(1)
                    m.next = "MISS"
            with m.State("MISS"):
                m.d.comb += [
                    rd.req.valid.eq(1),
                    tag_wr.en.eq(1),
                ]  # not valid while it is being replaced
                with m.If(rd.req.ready):
                    m.next = "FILL"
            with m.State("FILL"):
                m.d.comb += [
                    rd.rsp.ready.eq(1),
                    line_wr.addr.eq(Cat(beat, index_of(lpn))),
                    line_wr.data.eq(rd.rsp.payload.data),
                    line_wr.en.eq(rd.rsp.valid.replicate(words)),
                ]
                with m.If(rd.rsp.valid):
                    m.d.sync += [
                        beat.eq(beat + 1),
                        failed.eq(failed | rd.rsp.payload.error),
                    ]
                    with m.If(beat == row_of(lpn)[:line_bits]):
                        m.d.sync += entry.eq(rd.rsp.payload.data.word_select(word_of(lpn), 32))
                    with m.If(beat == LINE_BEATS - 1):
                        m.next = "FILLED"
            with m.State("FILLED"):
                m.d.comb += [
                    tag_wr.en.eq(1),
                    tag_wr.data.eq(Cat(~failed, tag_of(lpn))),
                ]
                m.d.sync += push.eq(1)
                m.next = "READY"
            with m.State("CLEAR"):
                m.d.comb += [
                    tag_wr.addr.eq(clear),
                    tag_wr.en.eq(1),
                ]
                m.d.sync += clear.eq(clear + 1)
                with m.If(clear == lines - 1):
                    m.d.comb += self.invalidated.eq(1)
                    m.next = "READY"

        # -- responses
        for k in range(n):
            answer = responses[k].i
            m.d.comb += [
                answer.valid.eq(push & (client == k)),
                answer.payload.ppn.eq(entry - 1),
                answer.payload.mapped.eq((entry != 0) & ~failed),
                answer.payload.error.eq(failed),
            ]
            m.d.sync += credits[k].eq(
                credits[k] - (self.req[k].valid & self.req[k].ready) + (self.rsp[k].valid & self.rsp[k].ready))

        # -- updates: DRAM first, so that a failed write leaves the cached copy as it was, and so that a line fetched
        # meanwhile, with or without the update, is complete when the patch comes (it waits for a fill to end)
        job = self.write
        with m.FSM(name="update"):
            with m.State("IDLE"):
                m.d.comb += self.update.ready.eq(self.serve)
                m.d.sync += [
                    upd_lpn.eq(self.update.payload.lpn),
                    upd_entry.eq(Mux(self.update.payload.mapped, self.update.payload.ppn + 1, 0)),
                    upd_error.eq(0),
                ]
                with m.If(self.update.valid & self.update.ready):
                    m.next = "RANGE"
            with m.State("RANGE"):
                m.d.sync += upd_in_range.eq(upd_lpn < c.lbas)
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += job.valid.eq(upd_in_range)
                with m.If(~upd_in_range):
                    m.next = "DONE"
                with m.Elif(job.ready):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += self.write_done.ready.eq(1)
                with m.If(self.write_done.valid):
                    m.d.sync += upd_error.eq(self.write_done.payload.error)
                    m.next = "PATCH"
                    with m.If(self.write_done.payload.error):
                        m.next = "DONE"
            with m.State("PATCH"):
                m.d.comb += patch.eq(1)
                with m.If(patched):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [
                    self.update_done.valid.eq(1),
                    self.update_done.payload.error.eq(upd_error),
                ]
                with m.If(self.update_done.ready):
                    m.next = "IDLE"
        m.d.comb += [
            job.payload.addr.eq(c.layout.map + (upd_lpn[word_bits:lpn_used] << log2(c.beat_bytes))),
            job.payload.data.eq(upd_entry.replicate(words)),
            job.payload.strb.eq(0xF << (word_of(upd_lpn) << 2)),
        ]
        return m
