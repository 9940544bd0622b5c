"""AXI3 or AXI4 to AXI4-Lite."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..primitives.axi import Axi3Signature, AxiSignature
from ..primitives.axi_lite import AxiLiteSignature

__all__ = ["ToAxiLite"]

FIXED, WRAP = 0b00, 0b10
PAGE_BITS = 12  # no INCR burst crosses a 4 KiB boundary, so an address counts below it


def within(size: Value) -> Value:
    """The bits of an address within a beat of 2**size bytes, all ones."""
    return Cat(size >= 1, size >= 2)


class ToAxiLite(wiring.Component):
    """Accesses of an AXI3 or AXI4 initiator at ``i`` (of 32 bits) as AXI4-Lite accesses ``o``, one at a time: a burst a beat
    after the other, reads and writes in turn where both wait.

    Every kind of burst and beats of 1, 2 and 4 bytes (Arm IHI 0022, A3.4). A write beat without a strobe does nothing. A
    burst answers the or of its beats' responses; exclusive accesses answer as ordinary ones (not EXOKAY), cache and
    protection bits are ignored, and so is WID: who has one burst accepted at a time gets the data of that one.

    Latency, beside the target's: 2 cycles from the address and its data to AWVALID and WVALID, 1 from BVALID to BVALID, 1
    from ARVALID to ARVALID, 0 from RVALID to RVALID.
    """

    def __init__(self, bus: AxiSignature | Axi3Signature):
        if bus.data_bits != 32:
            raise ValueError(f"data_bits = {bus.data_bits}: must be 32")
        super().__init__({
            #: The initiator.
            "i": In(bus),
            #: Its accesses, one at a time.
            "o": Out(AxiLiteSignature(bus.addr_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        ident, addr, left = Signal.like(i.awid), Signal.like(i.awaddr), Signal.like(i.awlen)
        size, burst = Signal(2), Signal(2)
        wrap = Signal(6)  # bits of the address that count in a burst of type WRAP
        strb, resp = Signal.like(i.wstrb), Signal(2)
        wrote = Signal()  # the last burst was a write

        low, beyond, following = addr[:PAGE_BITS], Signal(PAGE_BITS), Signal(PAGE_BITS)
        m.d.comb += [
            beyond.eq((low | within(size)) + 1),
            following.eq(beyond),
        ]
        with m.Switch(burst):
            with m.Case(FIXED):
                m.d.comb += following.eq(low)
            with m.Case(WRAP):
                kept = low[:len(wrap)] & ~wrap
                m.d.comb += following.eq(Cat(kept | (beyond[:len(wrap)] & wrap), low[len(wrap):]))

        def accept(ch: str) -> None:
            length, size_of = getattr(i, ch + "len"), getattr(i, ch + "size")[:2]
            m.d.comb += getattr(i, ch + "ready").eq(1)
            m.d.sync += [
                ident.eq(getattr(i, ch + "id")),
                addr.eq(getattr(i, ch + "addr")),
                left.eq(length),
                size.eq(size_of),
                burst.eq(getattr(i, ch + "burst")),
                resp.eq(0),
                wrote.eq(ch == "aw"),
                wrap.eq((length << size_of) | within(size_of)),
            ]

        def go_on(beat: str, end: str) -> None:
            """From one beat of a burst to the next, or to what follows the burst."""
            m.d.sync += [
                low.eq(following),
                left.eq(left - 1),
            ]
            m.next = beat
            with m.If(left == 0):
                m.next = end

        m.d.comb += [
            o.awaddr.eq(addr),
            o.araddr.eq(addr),
            o.wstrb.eq(strb),
            i.bid.eq(ident),
            i.rid.eq(ident),
            i.bresp.eq(resp),
            i.rdata.eq(o.rdata),
            i.rresp.eq(o.rresp),
            i.rlast.eq(left == 0),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(i.awvalid & ~(i.arvalid & wrote)):
                    accept("aw")
                    m.next = "TAKE"
                with m.Elif(i.arvalid):
                    accept("ar")
                    m.next = "ASK"
            with m.State("TAKE"):
                m.d.comb += i.wready.eq(1)
                m.d.sync += [
                    o.wdata.eq(i.wdata),
                    strb.eq(i.wstrb),
                ]
                with m.If(i.wvalid & i.wstrb.any()):
                    m.d.sync += [
                        o.awvalid.eq(1),
                        o.wvalid.eq(1),
                    ]
                    m.next = "PUT"
                with m.Elif(i.wvalid):
                    go_on("TAKE", "ANSWER")
            with m.State("PUT"):
                m.d.comb += o.bready.eq(1)
                with m.If(o.awready):
                    m.d.sync += o.awvalid.eq(0)
                with m.If(o.wready):
                    m.d.sync += o.wvalid.eq(0)
                with m.If(o.bvalid):
                    m.d.sync += resp.eq(resp | o.bresp)
                    go_on("TAKE", "ANSWER")
            with m.State("ANSWER"):
                m.d.comb += i.bvalid.eq(1)
                with m.If(i.bready):
                    m.next = "IDLE"
            with m.State("ASK"):
                m.d.comb += o.arvalid.eq(1)
                with m.If(o.arready):
                    m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += [
                    i.rvalid.eq(o.rvalid),
                    o.rready.eq(i.rready),
                ]
                with m.If(o.rvalid & i.rready):
                    go_on("ASK", "IDLE")
        return m
