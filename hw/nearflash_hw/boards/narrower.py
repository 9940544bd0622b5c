"""A width converter: AXI4 to a narrower AXI4."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..primitives.axi import ADDRESS_FIELDS, AxiSignature

__all__ = ["Narrower"]


class Narrower(wiring.Component):
    """Puts AXI4 bursts ``i`` of ``wide_bits`` on a port ``o`` of ``narrow_bits``: a burst of n full-width, aligned INCR
    beats (all that :class:`~nearflash_hw.primitives.axi.AxiSignature` allows) becomes one of n times the ratio, which must
    be at most 256 beats. Addresses, and so the 4 KiB rule, stay as they are.

    Reads have ID 0 on ``o``, so that a memory which interleaves IDs cannot mix the parts of two words; the IDs of ``i`` wait
    in a queue of ``outstanding`` bursts. Writes keep their IDs. A word of which any part failed has the or of the parts'
    responses. Low part first (Arm IHI 0022, A3.4).

    Latency: addresses, write data and B 0 cycles, R one cycle after its last part. ``o`` moves a beat in every cycle.
    """

    def __init__(self, addr_bits: int, wide_bits: int, narrow_bits: int, id_bits: int, outstanding: int = 16):
        if wide_bits not in (2 * narrow_bits, 4 * narrow_bits):
            raise ValueError(f"wide_bits = {wide_bits}: must be 2 or 4 times narrow_bits ({narrow_bits})")
        if outstanding < 1:
            raise ValueError(f"outstanding = {outstanding}: must be at least 1")
        self.ratio, self.id_bits, self.outstanding = wide_bits // narrow_bits, id_bits, outstanding
        super().__init__({
            #: Bursts of wide beats,
            "i": In(AxiSignature(addr_bits, wide_bits, id_bits)),
            #: of narrow ones.
            "o": Out(AxiSignature(addr_bits, narrow_bits, id_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o, ratio = self.i, self.o, self.ratio
        shift = ratio.bit_length() - 1
        for ch in ("aw", "ar"):
            for name in ADDRESS_FIELDS:
                m.d.comb += getattr(o, ch + name).eq(getattr(i, ch + name))
            m.d.comb += [getattr(o, ch + "len").eq(Cat(Const(ratio - 1, shift), getattr(i, ch + "len"))),
                         getattr(o, ch + "size").eq(getattr(i, ch + "size") - shift)]

        # -- writes
        part = Signal(shift)
        m.d.comb += [
            o.awvalid.eq(i.awvalid),
            i.awready.eq(o.awready),
            o.wdata.eq(i.wdata.word_select(part, len(o.wdata))),
            o.wstrb.eq(i.wstrb.word_select(part, len(o.wstrb))),
            o.wlast.eq(i.wlast & part.all()),
            o.wvalid.eq(i.wvalid),
            i.wready.eq(o.wready & part.all()),
            i.bid.eq(o.bid),
            i.bresp.eq(o.bresp),
            i.bvalid.eq(o.bvalid),
            o.bready.eq(i.bready),
        ]
        with m.If(o.wvalid & o.wready):
            m.d.sync += part.eq(part + 1)

        # -- reads
        m.submodules.ids = ids = SyncFIFO(width=self.id_bits, depth=self.outstanding)
        m.d.comb += [
            o.arid.eq(0),
            o.arvalid.eq(i.arvalid & ids.w_rdy),
            i.arready.eq(o.arready & ids.w_rdy),
            ids.w_data.eq(i.arid),
            ids.w_en.eq(i.arvalid & o.arready),
        ]
        got = Signal(range(ratio))
        first = Signal()
        m.d.comb += [
            first.eq(got == 0),
            o.rready.eq(~i.rvalid | i.rready),
            i.rid.eq(ids.r_data),
            ids.r_en.eq(i.rvalid & i.rready & i.rlast),
        ]
        with m.If(i.rready):
            m.d.sync += i.rvalid.eq(0)
        with m.If(o.rvalid & o.rready):
            m.d.sync += [
                got.eq(got + 1),
                i.rvalid.eq(got.all()),
                i.rlast.eq(o.rlast),
                i.rresp.eq(Mux(first, 0, i.rresp) | o.rresp),
                i.rdata.word_select(got, len(o.rdata)).eq(o.rdata),
            ]
        return m
