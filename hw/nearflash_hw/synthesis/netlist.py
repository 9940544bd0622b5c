"""A component's RTLIL, and its division into units that are synthesised apart.

A unit is a module with everything below it, flattened. The modules above the units are units too, of their own logic and
their smallest children: every other unit is a black box to them. So a device's resources are the sum over its units; units
of equal text are synthesised once; and nothing is optimised across a boundary between units, which the report states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.lib import wiring
from nearflash.contract import ConfigError

from ..elaboration import without_gc
from ..verilog import component_ports

__all__ = ["ROOMS", "Unit", "subtree", "units"]

#: Submodules that mostly wire others: their children are units of their own.
ROOMS = ("nvme", "lookup", "pooling", "mlp", "tensor")
SMALL = 20_000  # characters of RTLIL: a room's smaller children (FIFOs, forks) count as the room's own logic

_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module (\\\S+)\n.*?^end\n", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^  cell (\\\S+) (\\\S+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Unit:
    """``path``: instance names from the top, joined by dots ("" for the top's own logic); ``rtlil``: a text whose top module
    is ``\\unit``, equal for equal hardware."""

    path: str
    rtlil: str


def units(component: wiring.Component, room: bool = False, platform: Any = None) -> list[Unit]:
    """The units of ``component``: its children, of :data:`ROOMS` the children's children, and what is left above them.
    ``room``: ``component`` is itself such a room; ``platform``: what it is elaborated for."""
    design = _elaborate(component, platform)
    children = [(i, c) for i, c in design.children["\\top"] if not room or design.size(c) > SMALL]
    out = [Unit("", design.unit("\\top", {module for _, module in children}))]
    for instance, module in children:
        below = design.children[module] if instance in ROOMS else []
        apart = [(i, child) for i, child in below if design.size(child) > SMALL]
        out.append(Unit(instance, design.unit(module, {child for _, child in apart})))
        out += [Unit(f"{instance}.{i}", design.unit(child, set())) for i, child in apart]
    return out


def subtree(component: wiring.Component, path: str, platform: Any = None) -> str:
    """RTLIL of the submodule at ``path`` (instance names joined by dots, "" for all) and everything below it, its top module
    named ``\\unit``. Raises :class:`~nearflash.contract.ConfigError` naming the submodules there are."""
    design, module = _elaborate(component, platform), "\\top"
    for step in filter(None, path.split(".")):
        below = dict(design.children[module])
        if step not in below:
            raise ConfigError("block", path, f"must name a submodule; here: {', '.join(sorted(below)) or 'none'}")
        module = below[step]
    return design.unit(module, set())


def _elaborate(component: wiring.Component, platform: Any) -> _Design:
    with without_gc():
        text = rtlil.convert(Fragment.get(component, platform), name="top", ports=component_ports(component), emit_src=False)
    return _Design({m[1]: m[0] for m in _MODULE.finditer(text)})


class _Design:
    def __init__(self, modules: dict[str, str]):
        self.modules = modules
        self.children = {name: [(c[2][1:], c[1]) for c in _CELL.finditer(body) if c[1] in modules]
                         for name, body in modules.items()}

    def below(self, top: str, apart: set[str]) -> list[str]:
        """``top`` and all modules under it, except those of ``apart`` and what is under them alone."""
        found, queue = [top], [top]
        while queue:
            for _, child in self.children[queue.pop()]:
                if child not in found and child not in apart:
                    found.append(child)
                    queue.append(child)
        return found

    def size(self, top: str) -> int:
        return sum(len(self.modules[name]) for name in self.below(top, set()))

    def unit(self, top: str, apart: set[str]) -> str:
        """RTLIL of ``top``, with ``apart`` as black boxes: their ports alone."""
        texts = [self.modules[name] for name in self.below(top, apart)]
        for name in sorted(apart):
            ports = re.findall(r"^  wire [^\n]*(?:input|output|inout) \d+[^\n]*\n", self.modules[name], re.MULTILINE)
            texts.append(f"attribute \\blackbox 1\nmodule {name}\n{''.join(ports)}end\n")
        return _relabel(texts, top)


def _relabel(texts: list[str], top: str) -> str:
    """Module names relative to ``top``, which becomes ``\\unit``; the top's attribute is its own. Amaranth tells equal names
    apart by numbers that count through the whole device: here by the order in which they come."""
    text = "".join(texts).replace("attribute \\top 1\n", "")
    text = re.sub(rf"(?<=[ \n]){re.escape(top)}(?=[.\s$])", r"\\unit", text)
    numbers: dict[str, int] = {}
    text = re.sub(r"(?<=\$)\d+", lambda m: str(numbers.setdefault(m[0], len(numbers))), text)
    return re.sub(r"\n\n+", "\n", text)
