"""Fetches what a WRITE or a list of ranges brings from the host."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.config import log2
from nearflash.contract.nvme import HOST_PAGE

from ..interfaces import bits_for
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from .layouts import BlockLayouts
from .range_list import MAX_RANGES, RANGE_BYTES

__all__ = ["WriteFetch"]


def most_pieces(config: DeviceConfig) -> int:
    """Of one WRITE: its logical blocks, and a cut more wherever a host page ends inside one."""
    pages = config.host.mdts_pages
    return pages + -(-pages * config.lba_bytes // HOST_PAGE)


class WriteFetch(wiring.Component):
    """Stores all pieces of a command (``piece``), so that nobody waits behind them; requests each from the host.

    ``writes``: logical blocks go into the ring of slots of the write buffer (``write_*``; {slot, beat}), and ``filled``
    pulses for each that is complete. A slot is claimed before its block is requested, and comes back by ``freed``.
    ``lists``: the beats go to ``list_beat``. On ``stop`` no more is requested. ``over``: every piece was taken and every
    beat has come; ``held``: a filled slot was not freed. ``fault``: see :class:`~.write_control.WriteControl`; a bad PRP
    list's status, or DATA_TRANSFER_ERROR. ``begin`` starts all anew.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay, c = BlockLayouts.of(config), config
        super().__init__({
            #: Pulses: a command begins, all slots anew.
            "begin": In(1),
            #: Its host memory goes into the write buffer,
            "writes": In(1),
            #: or to ``list_beat``.
            "lists": In(1),
            #: It failed: no more is requested.
            "stop": In(1),
            #: Its host memory.
            "piece": In(stream.Signature(lay.piece)),
            "host_read": Out(MemReadSignature(c.beat_bytes)),
            #: The write buffer's port; {beat, slot}.
            "write_en": Out(1),
            "write_addr": Out(range(c.host.page_slots * c.page_beats)),
            "write_data": Out(lay.data_bits),
            #: A list of ranges.
            "list_beat": Out(stream.Signature(lay.data_bits)),
            #: Pulses: a slot holds a page.
            "filled": Out(1),
            #: Pulses: the oldest slot is free.
            "freed": In(1),
            #: Every piece was taken and every beat has come.
            "over": Out(1),
            #: A filled slot was not freed.
            "held": Out(1),
            #: Not 0 for a cycle: the list or the bus.
            "fault": Out(11),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        slots, beats = c.host.page_slots, c.page_beats
        m.submodules.store = store = StreamFifo(BlockLayouts.of(c).piece, most_pieces(c))
        connect(m, flipped(self.piece), store.i)
        piece, req, rsp = store.o, self.host_read.req, self.host_read.rsp
        in_page = Signal()  # the piece's page has its slot
        used, claim = Signal(range(slots + 1)), Signal()
        last_taken, taken = Signal(), Signal()
        owed = Signal(bits_for(max(slots * beats, MAX_RANGES * RANGE_BYTES // c.beat_bytes)))
        place = Signal(range(slots * beats))
        goes = Signal()  # the piece on offer is requested
        m.d.comb += [
            req.payload.addr.eq(piece.payload.addr),
            req.payload.beats.eq(piece.payload.beats),
            goes.eq(~self.stop & (piece.payload.status == 0)),
            taken.eq(rsp.valid & rsp.ready),
            rsp.ready.eq(~self.lists | self.list_beat.ready),
            self.list_beat.valid.eq(self.lists & rsp.valid),
            self.list_beat.payload.eq(rsp.payload.data),
            self.write_addr.eq(place),
            self.write_data.eq(rsp.payload.data),
            self.write_en.eq(self.writes & taken),
            self.filled.eq(self.write_en & place[: log2(beats)].all()),
            self.over.eq(last_taken & (owed == 0)),
            self.held.eq(used != in_page),
        ]
        with m.If(piece.valid & ~self.stop & (piece.payload.status != 0)):
            m.d.comb += self.fault.eq(piece.payload.status)
        with m.Elif(taken & rsp.payload.error):
            m.d.comb += self.fault.eq(Status.DATA_TRANSFER_ERROR)
        with m.If(self.write_en):
            m.d.sync += place.eq(Mux(place == slots * beats - 1, 0, place + 1))
        m.d.sync += [
            owed.eq(owed + Mux(req.valid & req.ready, req.payload.beats, 0) - taken),
            used.eq(used + claim - self.freed),
        ]
        with m.If(piece.valid & piece.ready & piece.payload.last):
            m.d.sync += last_taken.eq(1)

        with m.FSM():
            with m.State("PIECE"):
                with m.If(piece.valid & ~goes):
                    m.d.comb += piece.ready.eq(1)
                with m.Elif(piece.valid & self.writes & ~in_page):
                    with m.If(used != slots):
                        m.d.comb += claim.eq(1)
                        m.d.sync += in_page.eq(1)
                with m.Elif(piece.valid):
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [
                    req.valid.eq(1),
                    piece.ready.eq(req.ready),
                ]
                with m.If(req.ready):
                    with m.If(piece.payload.page_end):
                        m.d.sync += in_page.eq(0)
                    m.next = "PIECE"
        with m.If(self.begin):
            m.d.sync += [
                last_taken.eq(0),
                in_page.eq(0),
                used.eq(0),
                place.eq(0),
            ]
        return m
