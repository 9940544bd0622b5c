"""Memory ports for units that take turns."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..interfaces import index_bits
from ..primitives.memport import MemReadSignature, MemWriteSignature

__all__ = ["MemSwitch"]


class MemSwitch(wiring.Component):
    """As many read ports as the unit with most has, and a write port, for ``units`` of (read ports, write ports), of which
    unit ``owner`` works; the others ask for nothing.

    ``owner`` changes only while nothing is under way. ``base`` is added to every address. Combinational.
    """

    def __init__(self, beat_bytes: int, units: list[tuple[int, int]], base: int):
        self.beat_bytes, self.units, self.base = beat_bytes, units, base
        self.reads = max(r for r, _ in units)
        super().__init__({
            "owner": In(index_bits(len(units))),
            **{f"read{u}": In(MemReadSignature(beat_bytes)).array(r) for u, (r, _) in enumerate(units) if r},
            **{f"write{u}": In(MemWriteSignature(beat_bytes)) for u, (_, w) in enumerate(units) if w},
            "mem_read": Out(MemReadSignature(beat_bytes)).array(self.reads),
            "mem_write": Out(MemWriteSignature(beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        for k, port in enumerate(self.mem_read):
            users = {u: getattr(self, f"read{u}")[k] for u, (r, _) in enumerate(self.units) if k < r}
            self._request(m, port.req, {u: p.req for u, p in users.items()})
            self._answer(m, port.rsp, {u: p.rsp for u, p in users.items()})
        users = {u: getattr(self, f"write{u}") for u, (_, w) in enumerate(self.units) if w}
        self._request(m, self.mem_write.req, {u: p.req for u, p in users.items()})
        self._forward(m, self.mem_write.data, {u: p.data for u, p in users.items()})
        self._answer(m, self.mem_write.done, {u: p.done for u, p in users.items()})
        return m

    def _forward(self, m: Module, out, users: dict) -> None:
        for u, user in users.items():
            with m.If(self.owner == u):
                m.d.comb += [
                    out.valid.eq(user.valid),
                    out.payload.eq(user.payload),
                    user.ready.eq(out.ready),
                ]

    def _request(self, m: Module, out, users: dict) -> None:
        self._forward(m, out, users)
        chosen = Signal.like(out.payload.addr, name="chosen")
        for u, user in users.items():
            with m.If(self.owner == u):
                m.d.comb += chosen.eq(user.payload.addr)
        m.d.comb += out.payload.addr.eq(chosen + self.base)

    def _answer(self, m: Module, source, users: dict) -> None:
        for u, user in users.items():
            m.d.comb += user.payload.eq(source.payload)
            with m.If(self.owner == u):
                m.d.comb += [
                    user.valid.eq(source.valid),
                    source.ready.eq(user.ready),
                ]
