"""The FTL's map from logical to physical pages: in DRAM, with an on-chip cache in front."""

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ..interfaces import Layouts
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from ..primitives.register_slice import RegisterSlice
from .map_lines import MapLines
from .map_places import LINE_BEATS, MapPlaces
from .small_write import Write

__all__ = ["ERROR", "MapCache", "clients", "translations"]

RESPONSES = 4  # translations in flight, of block I/O, and for each line of the map that may be on its way

ERROR = data.StructLayout({"error": 1})


def clients(config: DeviceConfig) -> int:
    """Who asks for translations: the lookup engine, where there is one, and block I/O."""
    return 2 if config.lookup.max_tables else 1


def translations(config: DeviceConfig) -> list[int]:
    """Of each client, in flight at most."""
    return [RESPONSES * config.lookup.map_misses, RESPONSES][-clients(config):]


@dataclass(frozen=True)
class _Looked:
    """A translation for ``client`` that is looked up, or the ``patch`` of an update: the page becomes ``entry``, which is
    ``patched`` once every later request finds it."""

    at: MapPlaces
    lpn: Signal
    client: Signal
    in_range: Signal
    hit: Signal
    patch: Signal
    patched: Signal
    entry: Signal


class MapCache(wiring.Component):
    """Direct-mapped, write-through cache of the map (one entry: u32, 0 or ppn + 1) in lines of four beats.

    ``req[k]`` / ``rsp[k]``: :func:`clients`, round-robin, each answered in order; one that does not take its responses holds
    up nobody else. ``update``: writes the entry to DRAM through ``write`` / ``write_done``, then the cached copy,
    then answers ``update_done``. ``serve``: requests are taken. ``invalidate``: level; the cache is emptied, then
    ``invalidated`` pulses. A logical page beyond the device is unmapped.

    Latency: a hit 4 cycles, one every 2 cycles; a miss the DRAM's plus 8 cycles, one line fetched, later requests wait.
    With lookup.map_misses above 1 they don't: as many lines are on their way, and what comes behind a miss waits for its
    turn to be answered (:class:`~.map_lines.MapLines`). A hit then takes 6 cycles, a miss the DRAM's plus 10.
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
        at, places = MapPlaces(c), c.lookup.map_cache_lines
        lines = MapLines(c, sum(translations(c)) + 1) if c.lookup.map_misses > 1 else None  # one more: an update
        m.submodules.tags = tags = Memory(shape=at.tag_bits + 1, depth=places, init=[])  # {tag, valid}
        tag_rd, tag_wr = tags.read_port(), tags.write_port()
        reads, writes = [tag_rd], [tag_wr]
        if lines is None:
            m.submodules.lines = content = Memory(shape=c.beat_bytes * 8, depth=places * LINE_BEATS, init=[])
            line_rd, line_wr = content.read_port(), content.write_port(granularity=32)
            reads, writes = [tag_rd, line_rd], [tag_wr, line_wr]
        else:
            m.submodules.lines = lines

        # -- which request next: a pending cache patch, else the clients in turn
        n = clients(c)
        responses = [StreamFifo(lay.translate_response, most) for most in translations(c)]
        credits = [Signal(range(most + 1), init=most, name=f"credit{k}") for k, most in enumerate(translations(c))]
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
        clear = Signal(range(max(2, places)))
        taking = Signal()
        m.d.comb += [
            *(port.en.eq(taking) for port in reads),
            *(port.addr.eq(part(sel_lpn)) for port, part in zip(reads, (at.index, at.row), strict=False)),
            in_range.eq(lpn < c.lbas),
            hit.eq(tag_rd.data[0] & (tag_rd.data[1:] == at.tag(lpn))),
            *(port.addr.eq(part(lpn)) for port, part in zip(writes, (at.index, at.row), strict=False)),
        ]
        looked = _Looked(at, lpn, client, in_range, hit, is_patch, patched, upd_entry)
        if lines is None:
            entry = Signal(32, reset_less=True)
            failed = Signal()
            push = Signal()
            m.d.comb += line_wr.data.eq(upd_entry.replicate(at.words))
            m.d.sync += push.eq(0)
        else:
            push, client, entry, failed = lines.answered, lines.client, lines.entry, lines.failed
            missing, room = self._to_lines(m, looked, lines)
        m.d.sync += self.miss.eq(0)
        rd = self.mem_read
        # The map region is 4 KiB-aligned, hence line-aligned, and padded to 4 KiB: a line never leaves it.
        m.d.comb += [
            rd.req.payload.addr.eq(c.layout.map + (at.line(lpn) << log2(c.beat_bytes * LINE_BEATS))),
            rd.req.payload.beats.eq(LINE_BEATS),
        ]

        with m.FSM(name="lookup"):
            with m.State("READY"):
                if lines is not None:
                    self._forget(m, tag_wr, lines)
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
                        looked.client.eq(pick),
                        last_client.eq(pick),
                    ]
                    m.next = "COMPARE"
            if lines is None:
                self._one_line(m, looked, tag_wr, line_rd, line_wr, push, entry, failed)
            else:
                self._many_lines(m, looked, tag_wr, lines, missing, room)
            with m.State("CLEAR"):
                m.d.comb += [
                    tag_wr.addr.eq(clear),
                    tag_wr.en.eq(1),
                ]
                m.d.sync += clear.eq(clear + 1)
                last = clear == places - 1
                with m.If(last if lines is None else last & lines.idle):  # what is under way ends first
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

        self._updates(m, at, patch, patched, upd_lpn, upd_entry, upd_error, upd_in_range)
        return m

    def _one_line(self, m: Module, looked: _Looked, tag_wr: Any, line_rd: Any, line_wr: Any, push: Signal, entry: Signal,
                  failed: Signal) -> None:
        """States of a lookup whose line is fetched before the next begins."""
        at, lpn, rd = looked.at, looked.lpn, self.mem_read
        beat = Signal(range(LINE_BEATS))
        with m.State("COMPARE"):
            m.d.sync += [
                failed.eq(0),
                beat.eq(0),
            ]
            m.next = "READY"
            m.d.sync += entry.eq(Mux(looked.in_range, line_rd.data.word_select(at.word(lpn), 32), 0))  # whether hit or not
            with m.If(looked.patch):
                m.d.comb += [
                    looked.patched.eq(1),
                    line_wr.en.eq(Mux(looked.hit, 1 << at.word(lpn), 0)),
                ]
            with m.Elif(looked.hit | ~looked.in_range):
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
                line_wr.addr.eq(Cat(beat, at.index(lpn))),
                line_wr.data.eq(rd.rsp.payload.data),
                line_wr.en.eq(rd.rsp.valid.replicate(at.words)),
            ]
            with m.If(rd.rsp.valid):
                m.d.sync += [
                    beat.eq(beat + 1),
                    failed.eq(failed | rd.rsp.payload.error),
                ]
                with m.If(beat == at.row(lpn)[: at.line_bits]):
                    m.d.sync += entry.eq(rd.rsp.payload.data.word_select(at.word(lpn), 32))
                with m.If(beat == LINE_BEATS - 1):
                    m.next = "FILLED"
        with m.State("FILLED"):
            m.d.comb += [
                tag_wr.en.eq(1),
                tag_wr.data.eq(Cat(~failed, at.tag(lpn))),
            ]
            m.d.sync += push.eq(1)
            m.next = "READY"

    def _to_lines(self, m: Module, looked: _Looked, lines: MapLines) -> tuple[Signal, Signal]:
        """What ``lines`` are given. Returns whether the page's line is missing, and whether one may be asked for."""
        rd, tagged, most = self.mem_read, lines.i.payload, self.config.lookup.map_misses
        missing, room, under_way = Signal(), Signal(), Signal(range(most + 1))
        connect(m, flipped(rd.rsp), lines.lines)
        m.d.comb += [
            missing.eq(~looked.patch & ~looked.hit & looked.in_range),
            room.eq(under_way != most),
            tagged.place.eq(looked.lpn),
            tagged.client.eq(looked.client),
            tagged.in_range.eq(looked.in_range),
            tagged.miss.eq(missing),
            tagged.patch.eq(looked.patch),
            tagged.entry.eq(looked.entry),
        ]
        m.d.sync += under_way.eq(under_way + (rd.req.valid & rd.req.ready) - lines.filled)
        return missing, room

    def _many_lines(self, m: Module, looked: _Looked, tag_wr: Any, lines: MapLines, missing: Signal, room: Signal) -> None:
        """States of a lookup that ``lines`` finish, in order; the tags are of a line that is asked for."""
        rd = self.mem_read
        with m.State("COMPARE"):
            m.d.comb += [
                lines.i.valid.eq(~looked.patch | looked.hit),
                looked.patched.eq(looked.patch),
            ]
            m.d.sync += self.miss.eq(missing)
            m.next = "READY"
            with m.If(missing):
                m.next = "MISS"
        with m.State("MISS"):
            with m.If(room):
                m.d.comb += [
                    rd.req.valid.eq(1),
                    tag_wr.en.eq(1),
                    tag_wr.data.eq(Cat(1, looked.at.tag(looked.lpn))),
                ]
                with m.If(rd.req.ready):
                    m.next = "READY"
            with m.Else():
                self._forget(m, tag_wr, lines)  # room may come only once this is done

    @staticmethod
    def _forget(m: Module, tag_wr: Any, lines: MapLines) -> None:
        m.d.comb += [
            lines.forget.ready.eq(1),
            tag_wr.addr.eq(lines.forget.payload),
            tag_wr.en.eq(lines.forget.valid),
        ]

    def _updates(self, m: Module, at: MapPlaces, patch: Signal, patched: Signal, upd_lpn: Signal, upd_entry: Signal,
                 upd_error: Signal, upd_in_range: Signal) -> None:
        """DRAM first, so that a failed write leaves the cached copy as it was, and so that a line fetched meanwhile, with or
        without the update, is complete when the patch comes (it waits for its turn, behind the line)."""
        job, c = self.write, self.config
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
            job.payload.addr.eq(c.layout.map + (upd_lpn[at.word_bits : at.used] << log2(c.beat_bytes))),
            job.payload.data.eq(upd_entry.replicate(at.words)),
            job.payload.strb.eq(0xF << (at.word(upd_lpn) << 2)),
        ]
