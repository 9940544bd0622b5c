"""Physical Region Pages: from a command's two PRP entries to the runs of host memory of its transfer."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.nvme import HOST_PAGE

from ..interfaces import Layouts
from ..primitives.memport import MemReadSignature

__all__ = ["PrpWalker"]


class PrpWalker(wiring.Component):
    """Walks PRP1, PRP2 and chained PRP lists (NVM Express Base Specification 2.0, section 4.1.1).

    ``req``: {prp1, prp2, length in bytes}; ``run``: {addr, bytes, last, status}, one per host page touched. The first run
    may start anywhere in a page at a beat; every later page must be 4 KiB-aligned. A bad entry ends the list with
    ``bytes`` = 0, ``last`` and a status: INVALID_PRP_OFFSET, or DATA_TRANSFER_ERROR for a list that can't be read or an
    address beyond the bus. One list beat is fetched at a time: a page of data takes longer to move than its entry to read.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            #: A transfer.
            "req": In(stream.Signature(layouts.prp_request)),
            #: One per host page touched.
            "run": Out(stream.Signature(layouts.prp_run)),
            #: PRP lists.
            "mem_read": Out(MemReadSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        beat = self.config.beat_bytes
        entries = beat // 8
        run, rd = self.run, self.mem_read

        length = Signal(32)  # bytes not yet covered by a run
        # An address that goes too far keeps only that it does: as it is refused, nothing else of it counts.
        lay = Layouts.of(self.config)
        width = lay.host_address_bits
        entry = Signal(width, reset_less=True)  # the entry of the next run
        first = Signal()
        list_addr = Signal(width, reset_less=True)  # PRP2, then the address of the list entry to read
        line = Signal(data.ArrayLayout(width, entries), reset_less=True)  # the list beat last fetched
        line_valid = Signal()

        offset = Mux(first, entry[:12], 0)
        room = Signal(13)  # from the entry to its page's end: known from CHECK on
        final = Signal()  # this run ends the transfer
        # A 32-bit length against a page at most: its upper bits count as one.
        more = Signal()  # than a page remains
        pages = length[13:].any()
        m.d.comb += [
            final.eq(~pages & (length[:13] <= room)),
            more.eq(pages | (length[12] & length[:12].any())),
        ]
        m.d.sync += room.eq(HOST_PAGE - offset)
        slot = list_addr[3 : 3 + (entries - 1).bit_length()] if entries > 1 else 0
        word = line[slot]
        at_page_end = list_addr[3:12] == 511
        bad_offset = Signal()
        low = (beat - 1).bit_length()
        m.d.comb += bad_offset.eq(Mux(first, entry[:low] != 0, entry[:12] != 0))
        misplaced = Signal()  # what went wrong: an offset, or else a transfer

        def go_on(offset_bad, address, state: str) -> None:
            """To ``state``, unless ``address`` has a bad offset or lies beyond the bus."""
            m.next = state
            with m.If(offset_bad | address[-1]):
                m.d.sync += misplaced.eq(offset_bad)
                m.next = "FAIL"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.req.ready.eq(1)
                m.d.sync += [
                    length.eq(self.req.payload.length),
                    entry.eq(self.req.payload.prp1),
                    list_addr.eq(self.req.payload.prp2),
                    first.eq(1),
                    line_valid.eq(0),
                ]
                with m.If(self.req.valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                go_on(bad_offset, entry, "RUN")
            with m.State("RUN"):
                m.d.comb += [
                    run.valid.eq(1),
                    run.payload.addr.eq(entry),
                    run.payload.bytes.eq(Mux(final, length, room)),
                    run.payload.last.eq(final),
                ]
                with m.If(run.ready):
                    m.d.sync += [
                        length.eq(length - room),
                        first.eq(0),
                    ]
                    with m.If(final):
                        m.next = "IDLE"
                    with m.Elif(first):
                        m.next = "SECOND"
                    with m.Else():
                        m.next = "ENTRY"
            with m.State("SECOND"):  # PRP2 is the second page, or points to a list when more than a page remains
                m.d.sync += entry.eq(list_addr)
                with m.If(~more):
                    m.next = "CHECK"
                with m.Else():
                    go_on(list_addr[:3] != 0, list_addr, "FETCH")
            with m.State("ENTRY"):
                with m.If(line_valid):
                    m.d.sync += entry.eq(word)
                    with m.If(at_page_end & more):  # last entry of a full list page chains to the next
                        m.d.sync += [
                            list_addr.eq(word),
                            line_valid.eq(0),
                        ]
                        m.next = "CHAIN"
                    with m.Else():
                        m.d.sync += list_addr[3:12].eq(list_addr[3:12] + 1)
                        if entries > 1:
                            m.d.sync += line_valid.eq(slot != entries - 1)
                        else:
                            m.d.sync += line_valid.eq(0)
                        m.next = "CHECK"
                with m.Else():
                    m.next = "FETCH"
            with m.State("CHAIN"):
                go_on(list_addr[:12] != 0, list_addr, "FETCH")
            with m.State("FETCH"):
                m.d.comb += [
                    rd.req.valid.eq(1),
                    rd.req.payload.beats.eq(1),
                    rd.req.payload.addr.eq(Cat(Const(0, low), list_addr[low:-1])),
                ]
                with m.If(rd.req.ready):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += rd.rsp.ready.eq(1)
                with m.If(rd.rsp.valid):
                    m.d.sync += line_valid.eq(1)
                    for k in range(entries):
                        m.d.sync += line[k].eq(lay.host_address(rd.rsp.payload.data.word_select(k, 64)))
                    with m.If(rd.rsp.payload.error):
                        m.d.sync += misplaced.eq(0)
                        m.next = "FAIL"
                    with m.Else():
                        m.next = "ENTRY"
            with m.State("FAIL"):
                m.d.comb += [
                    run.valid.eq(1),
                    run.payload.last.eq(1),
                    run.payload.status.eq(Mux(misplaced, Status.INVALID_PRP_OFFSET, Status.DATA_TRANSFER_ERROR)),
                ]
                with m.If(run.ready):
                    m.next = "IDLE"
        return m
