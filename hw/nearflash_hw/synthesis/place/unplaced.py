"""Timing of a netlist before it is placed: the cells' own delays (:mod:`.delays`, :mod:`.ultrascale`), and one guess for
every net.

Needs nothing but Yosys and takes a minute or two for a device, so it is what to design with; where Vivado or nextpnr is
there, what they say after routing counts. Nets inside a slice are free: a carry chain's own, a look-up table's into a carry
chain, a multiplexer or the one flip-flop it drives. Nets are not guessed longer for having many sinks.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from nearflash.cache import cache_dir, cache_entry, digest, sources_digest

from ..cell_libraries import PORTS_FILE, READ_LIBRARIES, ports_alone
from ..yosys import SynthesisError, run_yosys, yosys_version
from . import ultrascale
from .delays import CellDelays, CellKind, cell_delays, kind_of_cell
from .harness import TOP, harness
from .result import Register, Step, Timing

__all__ = ["NET_NS", "time_unplaced"]

#: A guess, by family: nets of routed 7-series designs take from 0.3 ns (next slice) to more than 1 ns (across the part).
NET_NS = {"xc7": 0.7, "xcup": ultrascale.NET_NS}
CELLS = {"xc7": "Artix-7", "xcup": "UltraScale+"}
#: Synthesis maps by the delays of 7-series cells, four times those of UltraScale+; so that it weighs nets against cells as
#: they are there, nets are four times as long to it.
MAPPED = {"xc7": 1, "xcup": 4}
REGISTERS = 40  # kept in a result
Pin = tuple[str, str, int]  # cell, port, bit


def time_unplaced(rtlil: str, seconds: int, net_ns: float | None = None, family: str = "xc7") -> Timing:
    """Timing of module ``\\unit`` of ``rtlil`` inside :func:`.harness.harness`; cached by content, tool and this package.

    ``net_ns``: what a net takes, by default :data:`NET_NS` of ``family``; synthesis maps to look-up tables with it, too.
    Raises :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when Yosys fails or takes more than ``seconds``.
    """
    net_ns = NET_NS[family] if net_ns is None else net_ns
    top, flipflops = harness(rtlil)
    passes = ["read_rtlil unit.il", "read_verilog harness.v", f"hierarchy -top {TOP}", "flatten", *READ_LIBRARIES,
              f"hierarchy -check -top {TOP}",
              f"scratchpad -set synth_xilinx.abc9.W {round(net_ns * 1e3 * MAPPED[family])}",
              f"synth_xilinx -family {family}{' -uram' if family == 'xcup' else ''} -noiopad -noclkbuf -top {TOP} "
              "-run prepare:", "write_json unit.json"]
    folder = cache_dir() / "unplaced" / digest(rtlil, top, yosys_version(), sources_digest(__package__), *passes)
    with cache_entry(folder) as work:
        if work is not None:
            (work / "unit.il").write_text(rtlil)
            (work / "harness.v").write_text(top)
            (work / PORTS_FILE).write_text(ports_alone(rtlil, family))
            run_yosys(passes, work, ["unit.json"], seconds)
            cells = json.loads((work / "unit.json").read_text())["modules"][TOP]
            kinds = {kind_of_cell(c): c for c in cells["cells"].values() if _is_cell(c)}
            delays = (cell_delays(kinds, work, seconds) if family == "xc7"
                      else {kind: ultrascale.ultrascale_delays(c) for kind, c in kinds.items()})
            (work / "timing.json").write_text(json.dumps(_Netlist(cells, delays, net_ns).result()))
            for name in ("unit.il", "harness.v", PORTS_FILE, "unit.json"):
                (work / name).unlink()
    found = json.loads((folder / "timing.json").read_text())
    steps = tuple(Step(*s) for s in found["path"])
    return Timing("yosys", yosys_version(), f"{CELLS[family]} cells, every net {net_ns:g} ns", False,
                  1e3 / sum(s.ns for s in steps), steps, sum(s.kind == "logic" for s in steps), found["used"], {}, None,
                  tuple(Register(*r) for r in found["registers"]), flipflops, placed=False)


def _is_cell(cell: dict[str, Any]) -> bool:
    return not cell["type"].startswith("$")


class _Netlist:
    """A mapped module of Yosys' JSON."""

    def __init__(self, module: dict[str, Any], delays: dict[CellKind, CellDelays], net_ns: float):
        self.cells = {name: c for name, c in module["cells"].items() if _is_cell(c)}
        self.delays = {name: delays[kind_of_cell(c)] for name, c in self.cells.items()}
        self.net_ns = net_ns
        self.names: dict[int, str] = {}
        for name, net in sorted(module["netnames"].items(), key=lambda item: (item[1].get("hide_name", 0), len(item[0]))):
            for i, bit in enumerate(net["bits"]):
                self.names.setdefault(bit, name if len(net["bits"]) == 1 else f"{name}[{i}]")
        self.driver: dict[int, Pin] = {}
        self.sinks: Counter[int] = Counter()
        for name, c in self.cells.items():
            for port, bits in c["connections"].items():
                drives = c["port_directions"][port] == "output"
                for i, bit in enumerate(bits):
                    if isinstance(bit, int):
                        if drives:
                            self.driver[bit] = (name, port, i)
                        else:
                            self.sinks[bit] += 1
        self.arrival: dict[int, tuple[float, int | None]] = {}  # of a net at its driver, and the net before it
        for bit in self.driver:
            self._arrive(bit)

    def _inputs(self, bit: int) -> list[tuple[int, str, float]]:
        """(net, port, delay) of what the driver of ``bit`` passes through."""
        name, port, i = self.driver[bit]
        wires = self.cells[name]["connections"]
        return [(wires[p][k], p, ns) for (p, k), ns in self.delays[name].through.get((port, i), {}).items()
                if k < len(wires.get(p, ())) and isinstance(wires[p][k], int)]

    def _arrive(self, bit: int) -> None:
        """Arrivals at ``bit`` and all that it follows from. Raises for a loop of logic."""
        stack, open_ = [bit], set()
        while stack:
            at = stack[-1]
            if at in self.arrival:
                stack.pop()
                continue
            missing = [b for b, _, _ in self._inputs(at) if b in self.driver and b not in self.arrival]
            if missing and at in open_:
                raise SynthesisError(f"a loop of logic goes through {self._label(at)}")
            if missing:
                open_.add(at)
                stack += missing
                continue
            name, port, i = self.driver[at]
            best: tuple[float, int | None] = (self.delays[name].from_clock.get((port, i), 0.0), None)
            for b, p, ns in self._inputs(at):
                best = max(best, (self._at(b) + self._net(b, name, p) + ns, b), key=lambda v: v[0])
            self.arrival[at] = best
            stack.pop()

    def _at(self, bit: int) -> float:
        return self.arrival[bit][0] if bit in self.arrival else 0.0

    def _net(self, bit: int, cell: str, port: str) -> float:
        """Of net ``bit`` to ``port`` of ``cell``."""
        if bit not in self.driver:
            return self.net_ns
        source, sink = self.cells[self.driver[bit][0]]["type"], self.cells[cell]["type"]
        if sink.startswith("CARRY"):
            inside = source.startswith("CARRY") if port == "CI" else port == "S" and source.startswith(("LUT", "INV"))
        elif sink.startswith("MUXF"):
            inside = port != "S"
        else:
            inside = (sink.startswith("FD") and port == "D" and self.sinks[bit] == 1
                      and source.startswith(("LUT", "MUXF", "CARRY")))
        return 0.0 if inside else self.net_ns

    def result(self) -> dict[str, Any]:
        """The longest path, the registers that wait longest, and the cells, as plain values."""
        ends: dict[str, tuple[float, int, str, str]] = {}
        for name, delays in self.delays.items():
            wires = self.cells[name]["connections"]
            for (port, i), setup in delays.setup.items():
                bit = wires[port][i] if i < len(wires.get(port, ())) else None
                if isinstance(bit, int):
                    ns = self._at(bit) + self._net(bit, name, port) + setup
                    key = self._register(name)
                    if ns > ends.get(key, (0.0,))[0]:
                        ends[key] = (ns, bit, name, port)
        if not ends:
            raise SynthesisError("nothing to time: no register has an input")
        latest = sorted(ends.items(), key=lambda e: -e[1][0])
        used = Counter(c["type"].lower() for c in self.cells.values())
        return {"path": self._path(*latest[0][1]), "registers": [(k, v[0]) for k, v in latest[:REGISTERS]],
                "used": dict(sorted(used.items()))}

    def _path(self, total: float, bit: int, cell: str, port: str) -> list[tuple[str, float, str]]:
        setup = total - self._at(bit) - self._net(bit, cell, port)
        steps = [("setup", setup, f"{self._register(cell)} {self.cells[cell]['type']}.{port}"),
                 ("routing", self._net(bit, cell, port), self._label(bit))]
        at: int | None = bit
        chained = False  # the step before goes on a carry chain that comes from here
        while at is not None and at in self.driver:
            name, _, _ = self.driver[at]
            here, before = self.arrival[at]
            kind = self.cells[name]["type"]
            if before is None:
                steps.append(("clk-to-q", here, f"{self._label(at)} {kind}"))
            else:
                port = next(p for b, p, ns in self._inputs(at)
                            if b == before and abs(self._at(b) + self._net(b, name, p) + ns - here) < 1e-9)
                net = self._net(before, name, port)
                step = ("logic", here - self._at(before) - net, f"{self._label(at)} {kind}")
                if chained:
                    step = ("logic", step[1] + steps.pop()[1], step[2])
                steps.append(step)
                chained = kind.startswith("CARRY") and port == "CI"
                if net:
                    steps.append(("routing", net, self._label(before)))
            at = before
        return steps[::-1]

    def _label(self, bit: int) -> str:
        name = self.names.get(bit, "")
        return "(logic)" if name.startswith("$") else name.removeprefix("unit.")

    def _register(self, cell: str) -> str:
        """Named after what it drives, without the bit; a memory or a DSP slice by its own name."""
        c = self.cells[cell]
        if c["type"].startswith("FD"):
            bits = [b for p, bits in c["connections"].items() if c["port_directions"][p] == "output" for b in bits]
            return re.sub(r"\[\d+\]$", "", self._label(bits[0])) if bits else cell
        return re.sub(r"(\.\d+)+$", "", cell.removeprefix("unit."))
