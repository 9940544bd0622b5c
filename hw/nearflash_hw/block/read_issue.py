"""Sends the pages of READs to the flash."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import FlashOp
from .layouts import BlockLayouts

__all__ = ["ReadIssue"]


class ReadIssue(wiring.Component):
    """For each command on ``start``: opens it (``open``), and for each of its pages takes a ``tag``, stores the pieces of
    host memory it goes to (``place``), translates it and orders its READ (``order``). A page that is not mapped, or whose
    translation failed, goes to ``blank`` instead. A bad PRP list ends a command: ``failed`` retires the pages not ordered.

    One page at a time, in order: about 15 cycles each, where the map's cache has it.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: A READ,
            "start": In(stream.Signature(lay.command)),
            #: and its host memory.
            "piece": In(stream.Signature(lay.piece)),
            #: Of each page.
            "tag": In(stream.Signature(lay.read_bits)),
            #: To the ledger: it begins.
            "open": Out(stream.Signature(lay.opened)),
            #: To the sender: a page's host memory.
            "place": Out(stream.Signature(lay.place, always_ready=True)),
            #: Translations.
            "ftl_req": Out(stream.Signature(lay.translate_request)),
            "ftl_rsp": In(stream.Signature(lay.translate_response)),
            #: READs of pages.
            "order": Out(stream.Signature(lay.order)),
            #: Pages that are not read.
            "blank": Out(stream.Signature(lay.page)),
            #: To the ledger: pages that are not even sent.
            "failed": Out(stream.Signature(lay.retired)),
        })

    def elaborate(self, platform):
        m = Module()
        lay = BlockLayouts.of(self.config)
        start, piece, rsp = self.start.payload, self.piece.payload, self.ftl_rsp.payload
        command, tag = Signal(lay.read_bits), Signal(lay.read_bits)
        lpn, left = Signal(lay.lba_bits), Signal(lay.count_bits)
        index = Signal.like(self.place.payload.index)
        ppn, bad, status = Signal(lay.ppn_bits), Signal(), Signal(11)
        sent = Signal()
        m.d.comb += [
            self.open.payload.command.eq(self.tag.payload),
            self.open.payload.qid.eq(start.qid),
            self.open.payload.cid.eq(start.cid),
            self.open.payload.count.eq(start.count),
            self.place.payload.tag.eq(tag),
            self.place.payload.index.eq(index),
            self.place.payload.command.eq(command),
            self.place.payload.addr.eq(piece.addr),
            self.place.payload.beats.eq(piece.beats),
            self.place.payload.page_end.eq(piece.page_end),
            self.ftl_req.payload.lpn.eq(lpn),
            self.order.payload.op.eq(FlashOp.READ),
            self.order.payload.ppn.eq(ppn),
            self.order.payload.tag.eq(tag),
            self.blank.payload.tag.eq(tag),
            self.blank.payload.blank.eq(1),
            self.blank.payload.bad.eq(bad),
            self.failed.payload.tag.eq(tag),
            self.failed.payload.command.eq(command),
            self.failed.payload.count.eq(left),
            self.failed.payload.status.eq(status),
        ]
        with m.If(sent):
            m.d.sync += [
                left.eq(left - 1),
                lpn.eq(lpn + 1),
            ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.open.valid.eq(self.start.valid & self.tag.valid)
                m.d.sync += [
                    command.eq(self.tag.payload),
                    tag.eq(self.tag.payload),
                    lpn.eq(start.lpn),
                    left.eq(start.count),
                ]
                with m.If(self.open.valid & self.open.ready):
                    m.d.comb += [
                        self.start.ready.eq(1),
                        self.tag.ready.eq(1),
                    ]
                    m.next = "PIECE"
            with m.State("PIECE"):
                m.d.comb += [
                    self.piece.ready.eq(1),
                    self.place.valid.eq(self.piece.valid),
                ]
                m.d.sync += status.eq(piece.status)
                with m.If(self.piece.valid):
                    m.d.sync += index.eq(index + 1)
                    with m.If(piece.status != 0):
                        m.next = "FAIL"
                    with m.Elif(piece.page_end):
                        m.next = "ASK"
            with m.State("ASK"):
                m.d.sync += index.eq(0)
                m.d.comb += self.ftl_req.valid.eq(1)
                with m.If(self.ftl_req.ready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.ftl_rsp.ready.eq(1)
                m.d.sync += [
                    ppn.eq(rsp.ppn),
                    bad.eq(rsp.error),
                ]
                with m.If(self.ftl_rsp.valid):
                    m.next = "ORDER"
                    with m.If(rsp.error | ~rsp.mapped):
                        m.next = "BLANK"
            for state, out in (("ORDER", self.order), ("BLANK", self.blank)):
                with m.State(state):
                    m.d.comb += [
                        out.valid.eq(1),
                        sent.eq(out.ready),
                    ]
                    with m.If(out.ready):
                        m.next = "TAG"
                        with m.If(left == 1):
                            m.next = "IDLE"
            with m.State("TAG"):
                m.d.comb += self.tag.ready.eq(1)
                m.d.sync += tag.eq(self.tag.payload)
                with m.If(self.tag.valid):
                    m.next = "PIECE"
            with m.State("FAIL"):
                m.d.sync += index.eq(0)
                m.d.comb += self.failed.valid.eq(1)
                with m.If(self.failed.ready):
                    m.next = "IDLE"
        return m
