"""Verilog out of a component.

Amaranth's own ``verilog.convert`` keeps ``always @*`` processes that never run at time 0 in event-driven simulators
(amaranth issue 1629), so registers fed by them start as X. Here Yosys lowers the processes to continuous assignments.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from itertools import count
from typing import Any

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Module, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from .elaboration import without_gc
from .model.gating import gate
from .model.memories import without_zeros
from .model.platform import ModelPlatform, Observation, assign_clocks, block_domain
from .model.registers import assign_in_clocked_processes
from .primitives.axi import Axi3Signature, AxiSignature
from .primitives.axi_lite import AxiLiteSignature

__all__ = ["component_ports", "port_name", "to_verilog"]

ELAPSED = "elapsed"
BUSES = (AxiSignature, Axi3Signature, AxiLiteSignature)


def to_verilog(component: wiring.Component, name: str, *, model: bool = False, gated: bool = True, observed: bool = False
               ) -> str:
    """The Verilog of ``component`` as module ``name``. Deterministic for equal components.

    Ports are ``clk``, ``rst`` and the component's members: a member ``a`` is port ``a``, member ``b`` of a member ``a`` is
    ``a__b``, element 0 of an array ``a`` is ``a__0``; a structured payload is one vector, first field in the low bits.
    AXI ports have the names tools expect: ``awaddr`` of port ``m_axi`` is ``m_axi_awaddr``.

    ``model``: SystemVerilog for a compiled simulation, not for a board, of the same cycles but faster to evaluate:
    registers have their reset values from power-up, memories of zeros are left to a simulator that begins with zeros, and
    there is no ``rst``; both edges of a clock are clock edges; inputs of an AXI port ``p`` are sampled by a clock of their
    own, ``p_clk``, and change nothing until it moves; control flow stays ``if`` and ``case``, where branches not taken cost
    nothing. Unless ``gated`` is false, each block has its own clock too (:mod:`nearflash_hw.model`): ``blockN_clk``, with an
    output ``blockN_awake``; ``elapsed``, sampled by ``elapsed_clk``, is the number of cycles that an edge of ``clk`` stands
    for, which may be above 1 only while no block is awake, and at most every ``remainingN`` that isn't 0.

    ``observed`` (of a gated model): an output ``observedN`` for each :class:`~nearflash_hw.model.platform.Observation`, of
    which ``nf_seen`` (DPI-C) gets every change, with its cycle. The first line is a comment with what they are, as JSON.
    """
    if observed and not (model and gated):
        raise ValueError("observed: must be of a gated model")
    with without_gc(), without_zeros() if model else contextlib.nullcontext():
        text, blocks, seen = _rtlil(component, name, model, gated, observed)
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", "proc -nomux" if model else "proc", "memory_collect", "clean",
              "write_verilog -norename -noattr"]
    # 0.40: the first release that reads the RTLIL of Amaranth 0.5 (its own requirement).
    verilog = find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], "\n".join(script), ignore_warnings=True)
    if model:
        verilog = re.sub(r"^  always @\*", "  always_comb", verilog, flags=re.MULTILINE)  # these run at time 0
        verilog = re.sub(r"^  always @\(posedge (\w+)\)", r"  always @(edge \1)", verilog, flags=re.MULTILINE)
        verilog = assign_in_clocked_processes(verilog)
    # Yosys calls a function of its own after its $procmux cell; Icarus takes any such call for a system function's.
    verilog = re.sub(r"\\\$procmux\$(\d+) ", r"procmux_\1 ", verilog)
    if blocks:
        verilog = gate(verilog, name, blocks)
    verilog = _zeros_as_loops(verilog)
    return _reporting(verilog, name, seen) if observed else verilog


def _reporting(verilog: str, top: str, seen: Sequence[Observation]) -> str:
    """``verilog`` whose module ``top`` tells ``nf_seen`` at every edge what differs from the edge before."""
    lines = ['  import "DPI-C" function void nf_seen(input int number, input longint cycle, input longint value);',
             "  longint seen_cycle;", "  initial seen_cycle = 0;",
             "  reg [31:0] seen_elapsed;", "  initial seen_elapsed = 1;",  # when clk's edge comes, the port is 1 again
             f"  always @(edge {ELAPSED}_clk) seen_elapsed <= {ELAPSED};"]
    for k, o in enumerate(seen):
        lines += [f"  reg [{len(o.signal) - 1}:0] seen{k};", f"  initial seen{k} = 0;",
                  f"  always @(edge clk) begin if (observed{k} != seen{k}) nf_seen({k}, seen_cycle, 64'(observed{k})); "
                  f"seen{k} <= observed{k}; end"]
    lines.append("  always @(edge clk) seen_cycle <= seen_cycle + 64'(seen_elapsed);")
    head, body = re.split(rf"(?=^module {re.escape(top)} ?\()", verilog, maxsplit=1, flags=re.MULTILINE)
    inside, rest = body.split("endmodule\n", 1)
    about = json.dumps([{"kind": o.kind, "fields": o.fields} for o in seen])
    return f"// {about}\n{head}{inside}" + "\n".join(lines) + f"\nendmodule\n{rest}"


def _rtlil(component: wiring.Component, name: str, model: bool, gated: bool, observed: bool
           ) -> tuple[str, int, list[Observation]]:
    """RTLIL, how many blocks of a gated model have a clock of their own, and what components let the simulation see."""
    if not model:
        fragment = Fragment.get(component, None)
        return rtlil.convert(fragment, name=name, ports=component_ports(component), emit_src=False), 0, []
    top = _Model(component, gated, observed)
    fragment = Fragment.get(top, top.platform)
    blocks = assign_clocks(fragment.find_subfragment("component")) if gated else 0
    ports = component_ports(top)
    own = [*top.sampled, *([ELAPSED] if gated else []), *map(block_domain, range(blocks))]
    for domain, clock in (("sync", "clk"), *((d, f"{d}_clk") for d in own)):
        cd = ClockDomain(domain, reset_less=True)
        cd.clk.name = clock
        fragment.add_domains(cd)
        ports[clock] = (cd.clk, PortDirection.Input)
    seen = (top.platform.observed if top.platform else None) or []
    ports |= {f"observed{k}": (o.signal, PortDirection.Output) for k, o in enumerate(seen)}
    return rtlil.convert(fragment, name=name, ports=ports, emit_src=False), blocks, seen


class _Model(wiring.Component):
    """``component`` with a register at every input of its AXI ports, in a clock domain of the port's name, and one that
    ``platform.elapsed`` comes from (``gated``)."""

    def __init__(self, component: wiring.Component, gated: bool, observed: bool):
        self.component = component
        self.platform = ModelPlatform(observed) if gated else None
        self.sampled = sorted(_buses(component))
        members = dict(component.signature.members)
        super().__init__({**members, **({ELAPSED: In(len(self.platform.elapsed))} if self.platform else {})})

    def elaborate(self, platform):
        m = Module()
        m.submodules.component = self.component
        if self.platform is not None:
            m.d[ELAPSED] += self.platform.elapsed.eq(getattr(self, ELAPSED))
        inner = {path: value for path, _, value in self.component.signature.flatten(self.component)}
        for path, member, value in self.signature.flatten(self):
            if path not in inner:
                continue
            if member.flow == wiring.Out:
                m.d.comb += Value.cast(value).eq(inner[path])
            else:
                m.d[path[0] if path[0] in self.sampled else "comb"] += Value.cast(inner[path]).eq(value)
        return m


def _buses(component: wiring.Component) -> set[str]:
    """Names of the ports whose signature is one of :data:`BUSES`, either way round."""
    return {name for name, member in component.signature.members.items() if member.is_signature
            and any(isinstance(x, BUSES) for x in (member.signature, member.signature.flip()))}


def port_name(component: wiring.Component, path: tuple[str | int, ...]) -> str:
    """The Verilog port of the member at ``path`` of the component's signature, as :func:`to_verilog` says."""
    axi = path[0] in _buses(component)
    return ("_" if axi else "__").join(map(str, path))


def component_ports(component: wiring.Component) -> dict[str, Any]:
    ports = {}
    for path, member, value in component.signature.flatten(component):
        direction = PortDirection.Output if member.flow == wiring.Out else PortDirection.Input
        ports[port_name(component, path)] = (Value.cast(value), direction)
    return ports


_INITIAL = re.compile(r"^  initial begin\n((?:    .+\[\d+\] = .+;\n)+)  end\n", re.MULTILINE)
_ZEROS = re.compile(r"^    (.+)\[(\d+)\] = (\d+'h0+);\n(?:    \1\[\d+\] = \3;\n)*    \1\[(\d+)\] = \3;\n", re.MULTILINE)


def _zeros_as_loops(verilog: str) -> str:
    """Yosys writes a line for every word of a memory, which is most of the text of a device with large buffers: runs of
    zero words become loops."""
    number = count()

    def run(m: re.Match[str]) -> str:
        memory, first, zero, last = m.groups()
        if m[0].count("\n") != int(last) - int(first) + 1:
            return m[0]  # not consecutive
        return f"    for (i = {first}; i <= {last}; i = i + 1) {memory}[i] = {zero};\n"

    def block(m: re.Match[str]) -> str:
        body, loops = _ZEROS.subn(run, m[1])
        return f"  initial begin : \\zeros${next(number)} \n    integer i;\n{body}  end\n" if loops else m[0]

    return _INITIAL.sub(block, verilog)
