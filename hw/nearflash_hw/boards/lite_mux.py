"""An AXI4-Lite decoder."""

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..primitives.axi_lite import SLVERR, AxiLiteSignature

__all__ = ["DECERR", "LiteMux"]

DECERR = 0b11


class LiteMux(wiring.Component):
    """One AXI4-Lite initiator ``i`` before targets ``o0``, ``o1``, ...: number k has the 2**bits bytes from base on, for
    element (base, bits) of ``targets``, and sees the address within them. DECERR elsewhere; SLVERR for a target whose bit of
    ``away`` is high as the address comes (whoever sets it knows that no access to that target is under way).

    One access of each direction at a time; an address takes 1 cycle, write data follow their address, answers 0 cycles.
    """

    def __init__(self, addr_bits: int, targets: Sequence[tuple[int, int]]):
        ranges = sorted((base, base + (1 << bits)) for base, bits in targets)
        if any(base % (end - base) or end > 1 << addr_bits for base, end in ranges):
            raise ValueError(f"targets = {targets}: must be aligned and below 2**{addr_bits}")
        if any(low[1] > high[0] for low, high in zip(ranges, ranges[1:], strict=False)):
            raise ValueError(f"targets = {targets}: must not overlap")
        self.targets = tuple(targets)
        super().__init__({
            #: The initiator.
            "i": In(AxiLiteSignature(addr_bits)),
            #: A bit per target: it answers SLVERR.
            "away": In(len(targets)),
            #: The targets.
            **{f"o{k}": Out(AxiLiteSignature(bits)) for k, (_, bits) in enumerate(targets)},
        })

    @property
    def ports(self) -> list:
        """The targets' ports in their order."""
        return [getattr(self, f"o{k}") for k in range(len(self.targets))]

    def elaborate(self, platform):
        m = Module()
        i = self.i

        known, at, refusal = self._address(m, "ar", i.rvalid & i.rready)
        m.d.comb += [
            i.rvalid.eq(known & (at == 0)),
            i.rresp.eq(refusal),
        ]
        for k, o in enumerate(self.ports):
            with m.If(at[k]):
                m.d.comb += [
                    i.rvalid.eq(o.rvalid),
                    i.rdata.eq(o.rdata),
                    i.rresp.eq(o.rresp),
                    o.rready.eq(i.rready),
                ]

        known, at, refusal = self._address(m, "aw", i.bvalid & i.bready)
        taken = Signal()  # the data
        m.d.comb += [
            i.wready.eq(known & (at == 0) & ~taken),
            i.bvalid.eq(known & (at == 0) & taken),
            i.bresp.eq(refusal),
        ]
        for k, o in enumerate(self.ports):
            m.d.comb += [
                o.wdata.eq(i.wdata),
                o.wstrb.eq(i.wstrb),
            ]
            with m.If(at[k]):
                m.d.comb += [
                    o.wvalid.eq(i.wvalid & ~taken),
                    i.wready.eq(o.wready & ~taken),
                    i.bvalid.eq(o.bvalid),
                    i.bresp.eq(o.bresp),
                    o.bready.eq(i.bready),
                ]
        with m.If(i.wvalid & i.wready):
            m.d.sync += taken.eq(1)
        with m.If(i.bvalid & i.bready):
            m.d.sync += taken.eq(0)
        return m

    def _address(self, m: Module, ch: str, answered) -> tuple[Signal, Signal, Signal]:
        """Takes an address of channel ``ch`` and offers it to its target. Until ``answered``: whether there is one, which
        target's it is (one-hot), and how to answer if it is none's."""
        address, valid, ready = (getattr(self.i, ch + name) for name in ("addr", "valid", "ready"))
        kept = Signal(max(bits for _, bits in self.targets), name=f"{ch}_kept")
        known, given = Signal(name=f"{ch}_known"), Signal(name=f"{ch}_given")
        at, refusal = Signal(len(self.targets), name=f"{ch}_at"), Signal(2, name=f"{ch}_refusal")
        m.d.comb += ready.eq(~known)
        with m.If(valid & ~known):
            m.d.sync += [
                known.eq(1),
                kept.eq(address),
                refusal.eq(DECERR),
            ]
            for k, (base, bits) in enumerate(self.targets):
                with m.If(address[bits:] == base >> bits):
                    m.d.sync += [
                        at[k].eq(~self.away[k]),
                        refusal.eq(SLVERR),
                    ]
        for k, o in enumerate(self.ports):
            m.d.comb += [
                getattr(o, ch + "addr").eq(kept),
                getattr(o, ch + "valid").eq(at[k] & ~given),
            ]
            with m.If(at[k] & getattr(o, ch + "ready")):
                m.d.sync += given.eq(1)
        with m.If(answered):
            m.d.sync += [
                known.eq(0),
                at.eq(0),
                given.eq(0),
            ]
        return known, at, refusal
