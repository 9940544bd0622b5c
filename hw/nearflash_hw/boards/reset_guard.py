"""Lets a device be reset in the middle of bursts."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..interfaces import bits_for
from ..primitives.axi import ADDRESS_FIELDS, AxiSignature

__all__ = ["ResetGuard"]


class ResetGuard(wiring.Component):
    """Between a device's AXI4 initiator ``i`` and a memory port ``o`` that outlives its reset.

    While ``closed`` is high the two are apart. No new burst begins; an address or a data beat that was offered already, and
    that AXI does not let anyone take back (Arm IHI 0022, A3.2.1), is offered on until it is taken, for which the device must
    still run. The guard itself sends the data that are then owed, without strobes, so that no byte of memory is written, and
    takes the answers; the device sees none, not even one that it was offered. ``busy``: a burst is under way. If ``closed``
    falls while one is, the two stay apart until none is.

    A device may be reset once ``closed`` is high and ``busy`` low. Reset before that, it takes back what it offers.

    Write data must come in the order of their addresses, as AXI4 has it; those offered before their address wait for it.
    At most ``outstanding`` bursts are under way in each direction, and the data of ``outstanding_data`` are owed.
    Latency 0, but data follow their address after a cycle at the earliest; one beat a cycle.
    """

    def __init__(self, addr_bits: int, data_bits: int, id_bits: int, outstanding: int = 63, outstanding_data: int = 16):
        if outstanding < 1 or outstanding_data < 1:
            raise ValueError(f"outstanding = {outstanding}, outstanding_data = {outstanding_data}: must be at least 1")
        self.outstanding, self.outstanding_data = outstanding, outstanding_data
        axi = AxiSignature(addr_bits, data_bits, id_bits)
        super().__init__({
            #: The device's initiator.
            "i": In(axi),
            #: The memory port.
            "o": Out(axi),
            #: The two are apart.
            "closed": In(1),
            #: A burst is under way.
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        count = bits_for(self.outstanding)
        reads, writes = Signal(count), Signal(count)  # bursts whose last answer is still to come
        apart, draining = Signal(), Signal()
        for ch in ("aw", "ar"):
            for name in ADDRESS_FIELDS:
                m.d.comb += getattr(o, ch + name).eq(getattr(i, ch + name))

        # An address on offer stays on offer, also when the guard closes.
        ar_offered, aw_offered = Signal(), Signal()
        may_ar, may_aw = Signal(), Signal()
        m.submodules.lengths = lengths = SyncFIFO(width=len(i.awlen), depth=self.outstanding_data)
        m.d.comb += [
            may_ar.eq(ar_offered | ~apart & (reads != self.outstanding)),
            o.arvalid.eq(i.arvalid & may_ar),
            i.arready.eq(o.arready & may_ar),
            may_aw.eq(aw_offered | ~apart & (writes != self.outstanding) & lengths.w_rdy),
            o.awvalid.eq(i.awvalid & may_aw),
            i.awready.eq(o.awready & may_aw),
            lengths.w_data.eq(i.awlen),
            lengths.w_en.eq(o.awvalid & ~aw_offered),
        ]
        m.d.sync += [
            ar_offered.eq(o.arvalid & ~o.arready),
            aw_offered.eq(o.awvalid & ~o.awready),
        ]

        # Write data: the device's own, or none.
        own, w_offered, sent = Signal(), Signal(), Signal.like(i.awlen)
        m.d.comb += [
            own.eq(~apart | w_offered),
            o.wdata.eq(i.wdata),
            o.wstrb.eq(Mux(own, i.wstrb, 0)),
            o.wlast.eq(sent == lengths.r_data),
            o.wvalid.eq(lengths.r_rdy & (i.wvalid | ~own)),
            i.wready.eq(lengths.r_rdy & o.wready & own),
            lengths.r_en.eq(o.wvalid & o.wready & o.wlast),
        ]
        m.d.sync += w_offered.eq(own & o.wvalid & ~o.wready)
        with m.If(o.wvalid & o.wready):
            m.d.sync += sent.eq(Mux(o.wlast, 0, sent + 1))

        # Answers
        m.d.comb += [
            i.rid.eq(o.rid),
            i.rdata.eq(o.rdata),
            i.rresp.eq(o.rresp),
            i.rlast.eq(o.rlast),
            i.rvalid.eq(o.rvalid & ~apart),
            o.rready.eq(i.rready | apart),
            i.bid.eq(o.bid),
            i.bresp.eq(o.bresp),
            i.bvalid.eq(o.bvalid & ~apart),
            o.bready.eq(i.bready | apart),
        ]

        m.d.sync += [
            reads.eq(reads + (o.arvalid & o.arready) - (o.rvalid & o.rready & o.rlast)),
            writes.eq(writes + (o.awvalid & o.awready) - (o.bvalid & o.bready)),
            draining.eq(apart & self.busy)]
        m.d.comb += [apart.eq(self.closed | draining),
                     self.busy.eq((reads != 0) | (writes != 0) | ar_offered | aw_offered)]
        return m
