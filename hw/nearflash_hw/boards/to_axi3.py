"""AXI4 to AXI3."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..primitives.axi import ADDRESS_FIELDS, Axi3Signature, AxiSignature

__all__ = ["ToAxi3"]


class ToAxi3(wiring.Component):
    """Puts AXI4 bursts ``i`` of at most 16 beats on AXI3 port ``o`` (Arm IHI 0022, A5.4 and A13): the same bursts, with WID.

    AXI4 sends write data in the order of its addresses, so WID comes from a queue of the IDs of AW, of ``outstanding``
    bursts. An ID enters it as its address is *offered*, not as it is taken: a memory may wait for WVALID before AWREADY.
    Data offered before their address wait for it. The upper bits of AWLEN and ARLEN must be 0.

    Latency 0, but data follow their address after a cycle at the earliest; one beat a cycle, also across bursts.
    """

    def __init__(self, addr_bits: int, data_bits: int, id_bits: int, outstanding: int = 16):
        if outstanding < 1:
            raise ValueError(f"outstanding = {outstanding}: must be at least 1")
        self.outstanding, self.id_bits = outstanding, id_bits
        super().__init__({
            #: AXI4 bursts of at most 16 beats,
            "i": In(AxiSignature(addr_bits, data_bits, id_bits)),
            #: on an AXI3 port.
            "o": Out(Axi3Signature(addr_bits, data_bits, id_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        m.submodules.ids = ids = SyncFIFO(width=self.id_bits, depth=self.outstanding)
        for ch in ("aw", "ar"):
            for name in ADDRESS_FIELDS:
                m.d.comb += getattr(o, ch + name).eq(getattr(i, ch + name))
        m.d.comb += [
            o.arvalid.eq(i.arvalid),
            i.arready.eq(o.arready),
        ]

        entered, may = Signal(), Signal()  # the ID of the address on offer is in the queue; there or has room
        m.d.comb += [
            may.eq(entered | ids.w_rdy),
            ids.w_data.eq(i.awid),
            ids.w_en.eq(i.awvalid & ~entered),
            o.awvalid.eq(i.awvalid & may),
            i.awready.eq(o.awready & may),
        ]
        m.d.sync += entered.eq(o.awvalid & ~o.awready)

        m.d.comb += [
            o.wid.eq(ids.r_data),
            o.wdata.eq(i.wdata),
            o.wstrb.eq(i.wstrb),
            o.wlast.eq(i.wlast),
            o.wvalid.eq(i.wvalid & ids.r_rdy),
            i.wready.eq(o.wready & ids.r_rdy),
            ids.r_en.eq(i.wvalid & o.wready & i.wlast),
        ]

        m.d.comb += [
            i.bid.eq(o.bid),
            i.bresp.eq(o.bresp),
            i.bvalid.eq(o.bvalid),
            o.bready.eq(i.bready),
            i.rid.eq(o.rid),
            i.rdata.eq(o.rdata),
            i.rresp.eq(o.rresp),
            i.rlast.eq(o.rlast),
            i.rvalid.eq(o.rvalid),
            o.rready.eq(i.rready),
        ]
        return m
