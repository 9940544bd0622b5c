"""Registers of the contract behind an AXI4-Lite slave."""

from collections.abc import Mapping, Sequence

from amaranth.hdl import Const, Module, Signal, ValueLike
from nearflash.contract.registers import Register

from ..primitives.axi_lite import AxiLiteSlave

__all__ = ["BLOCK_ADDRESS_BITS", "serve"]

BLOCK_ADDRESS_BITS = 12  #: of a small block: 4 KiB are the least that a processor maps


def serve(m: Module, slave: AxiLiteSlave, registers: Sequence[Register],
          values: Mapping[tuple[str, str], ValueLike]) -> dict[str, Signal]:
    """Lets ``slave`` answer for ``registers``: a field reads as its value in ``values``, by names of register and field, or
    as its constant; a write-only one as 0. Returns, by register, what is high in the cycle in which ``slave.wr_data`` is
    written to it.

    Writes to read-only registers do nothing; unmapped offsets, and writes of parts of a register, answer SLVERR."""
    whole = slave.wr_strb.all()
    written = {}
    for r in registers:
        with m.If(slave.rd_word == r.offset // 4):
            m.d.comb += slave.rd_ok.eq(1)
            for f in r.fields:
                if f.access != "wo":
                    value = values.get((r.name, f.name), Const(f.reset, f.width))
                    m.d.comb += slave.rd_data[f.lsb:f.lsb + f.width].eq(value)
        with m.If(slave.wr_word == r.offset // 4):
            m.d.comb += slave.wr_ok.eq(whole)
            if r.access != "ro":
                written[r.name] = strobe = Signal(name=f"{r.name}_written")
                m.d.comb += strobe.eq(slave.wr_en & whole)
    return written
