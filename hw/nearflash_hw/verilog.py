"""Verilog out of a component.

Amaranth's own ``verilog.convert`` keeps ``always @*`` processes that never run at time 0 in event-driven simulators
(amaranth issue 1629), so registers fed by them start as X. Here Yosys lowers the processes to continuous assignments.
"""

from __future__ import annotations

from typing import Any

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from .primitives.axi import AxiSignature
from .primitives.axi_lite import AxiLiteSignature

__all__ = ["to_verilog"]


def to_verilog(component: wiring.Component, name: str) -> str:
    """The Verilog of ``component`` as module ``name``. Deterministic for equal components.

    Ports are ``clk``, ``rst`` and the component's members: a member ``a`` is port ``a``, member ``b`` of a member ``a`` is
    ``a__b``, element 0 of an array ``a`` is ``a__0``; a structured payload is one vector, first field in the low bits.
    AXI ports have the names tools expect: ``awaddr`` of port ``m_axi`` is ``m_axi_awaddr``.
    """
    text = rtlil.convert(component, name=name, ports=_ports(component), emit_src=False)
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", "proc", "memory_collect", "clean",
              "write_verilog -norename -noattr"]
    # 0.40: the first release that reads the RTLIL of Amaranth 0.5 (its own requirement).
    return find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], "\n".join(script), ignore_warnings=True)


def _ports(component: wiring.Component) -> dict[str, Any]:
    buses = set()
    for name, member in component.signature.members.items():
        if member.is_signature:
            signature = member.signature
            if any(isinstance(x, (AxiSignature, AxiLiteSignature)) for x in (signature, signature.flip())):
                buses.add(name)
    ports = {}
    for path, member, value in component.signature.flatten(component):
        name = ("_" if path[0] in buses else "__").join(map(str, path))
        direction = PortDirection.Output if member.flow == wiring.Out else PortDirection.Input
        ports[name] = (Value.cast(value), direction)
    return ports
