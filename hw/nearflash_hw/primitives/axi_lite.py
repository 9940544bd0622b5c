"""AXI4-Lite: the signature, and a slave that turns it into one write and one read strobe."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

__all__ = ["OKAY", "SLVERR", "AxiLiteSignature", "AxiLiteSlave"]

OKAY = 0b00
SLVERR = 0b10


class AxiLiteSignature(Signature):
    """AXI4-Lite with 32-bit data, as seen by the master (initiator); names are those of the AMBA specification
    (ARM IHI 0022, part B) in lower case. AWPROT and ARPROT are left out: nothing here tells accesses apart by them."""

    def __init__(self, addr_bits: int):
        if addr_bits < 3:
            raise ValueError(f"addr_bits = {addr_bits}: must be at least 3")
        self._addr_bits = addr_bits
        super().__init__({
            "awaddr": Out(addr_bits),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata": Out(32),
            "wstrb": Out(4),
            "wvalid": Out(1),
            "wready": In(1),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
            "araddr": Out(addr_bits),
            "arvalid": Out(1),
            "arready": In(1),
            "rdata": In(32),
            "rresp": In(2),
            "rvalid": In(1),
            "rready": Out(1),
        })

    @property
    def addr_bits(self) -> int:
        return self._addr_bits

    def __eq__(self, other):
        return isinstance(other, AxiLiteSignature) and self._addr_bits == other._addr_bits

    def __repr__(self):
        return f"AxiLiteSignature({self._addr_bits})"


class AxiLiteSlave(wiring.Component):
    """One access of each direction at a time.

    The byte part of an address is ignored. Address and write data may come in either order. Latency: 2 cycles from the
    address (and data) handshake to BVALID or RVALID.
    """

    def __init__(self, addr_bits: int):
        self.addr_bits = addr_bits
        super().__init__({
            "bus": In(AxiLiteSignature(addr_bits)),
            #: A write, for one cycle.
            "wr_en": Out(1),
            #: Its address, in words.
            "wr_word": Out(addr_bits - 2),
            "wr_data": Out(32),
            "wr_strb": Out(4),
            #: Taken in that cycle: 0 answers SLVERR.
            "wr_ok": In(1),
            #: A read, for one cycle.
            "rd_en": Out(1),
            #: Its address, in words.
            "rd_word": Out(addr_bits - 2),
            #: Taken in that cycle, as ``rd_ok``: 0 answers SLVERR.
            "rd_data": In(32),
            "rd_ok": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.bus

        have_addr, have_data = Signal(), Signal()
        m.d.comb += [
            bus.awready.eq(~have_addr & ~bus.bvalid),
            bus.wready.eq(~have_data & ~bus.bvalid),
            self.wr_en.eq(have_addr & have_data),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [
                have_addr.eq(1),
                self.wr_word.eq(bus.awaddr[2:]),
            ]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [
                have_data.eq(1),
                self.wr_data.eq(bus.wdata),
                self.wr_strb.eq(bus.wstrb),
            ]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(self.wr_en):
            m.d.sync += [
                have_addr.eq(0),
                have_data.eq(0),
                bus.bvalid.eq(1),
                bus.bresp.eq(Mux(self.wr_ok, OKAY, SLVERR)),
            ]

        m.d.comb += bus.arready.eq(~self.rd_en & ~bus.rvalid)
        m.d.sync += self.rd_en.eq(bus.arvalid & bus.arready)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += self.rd_word.eq(bus.araddr[2:])
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(self.rd_en):
            m.d.sync += [
                bus.rvalid.eq(1),
                bus.rdata.eq(Mux(self.rd_ok, self.rd_data, 0)),
                bus.rresp.eq(Mux(self.rd_ok, OKAY, SLVERR)),
            ]
        return m
