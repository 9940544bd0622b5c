"""What the benches share: a top's sources, sinks and memories by port name, stall patterns, and the checks at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import cocotb
from amaranth.lib import wiring
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiRam
from nearflash.contract import DeviceConfig, TableSpec
from nearflash.contract.table import Extent, magic_divide
from nearflash_sim.bench.cocotb import StreamSink, StreamSource, pack, start, until

__all__ = ["PATTERNS", "Bench", "Pace", "Pauses", "attach_ram", "beats_of", "placed", "table_payload"]

#: Stall patterns: never, each cycle on its own, and long pauses between long runs.
PATTERNS = ("flow", "random", "bursts")


class Pace(random.Random):
    """Whether to stall, cycle by cycle, in the way of ``random()`` for a source or sink with stall 0.5."""

    def __init__(self, pattern: str, seed: str):
        super().__init__(seed)
        self.pattern, self.left, self.stalled = pattern, 0, True

    def random(self) -> float:
        if self.pattern == "flow":
            return 1.0
        if self.pattern == "random":
            return super().random() + 0.1
        if not self.left:
            self.stalled, self.left = not self.stalled, 1 + int(super().random() * 24)
        self.left -= 1
        return 0.0 if self.stalled else 1.0


class Pauses:
    """Pauses all five channels of cocotbext-axi's memories and masters by a :class:`Pace` each. One task does it: with a
    pause generator for each channel, which is a task, a cycle takes much longer."""

    def __init__(self, clk: Any, pattern: str):
        self.clk, self.pattern = clk, pattern
        self.paces: dict[Any, Pace] = {}
        self.held: set[Any] = set()  # paused until they are taken out

    def add(self, name: str, agent: Any) -> None:
        """``agent``: what has a ``read_if`` and a ``write_if``."""
        r, w = agent.read_if, agent.write_if
        for interface in (r, w):
            interface.log.setLevel("WARNING")  # a line per burst takes longer than the burst
        if self.pattern == "flow":
            return
        if not self.paces:
            cocotb.start_soon(self._run())
        for k, ch in enumerate((r.ar_channel, r.r_channel, w.aw_channel, w.w_channel, w.b_channel)):
            self.paces[ch] = Pace(self.pattern, f"{name}{k}")

    async def _run(self) -> None:
        edge = RisingEdge(self.clk)
        while True:
            for channel, pace in self.paces.items():
                channel.pause = pace.random() < 0.5 or channel in self.held
            await edge


def attach_ram(dut: Any, master: str, size: int, pattern: str = "flow") -> AxiRam:
    """cocotbext-axi's memory on AXI4 master port ``master``; all five channels stall by ``pattern``."""
    ram = AxiRam(AxiBus.from_prefix(dut, master), dut.clk, dut.rst, size=size)
    Pauses(dut.clk, pattern).add(master, ram)
    return ram


class Bench:
    """The ports of ``dut``, which is the Verilog of ``top``. :meth:`begin` first; :meth:`finish` last."""

    def __init__(self, dut: Any, top: wiring.Component):
        self.dut, self.top = dut, top
        self.sources: list[StreamSource] = []
        self.sinks: list[StreamSink] = []
        self.masters: list[str] = []

    async def begin(self) -> None:
        """Reset."""
        await start(self.dut, self.top)

    def shape(self, name: str) -> Any:
        """Payload shape of stream ``name``, or shape of port ``name``."""
        member = self.top.signature.members[name.split("__")[0]]
        return member.signature.members["payload"].shape if member.is_signature else member.shape

    def source(self, name: str, items: Iterable[Any] = (), pattern: str = "flow") -> StreamSource:
        s = StreamSource(self.dut, name, self.shape(name), items, stall=0.5)
        s.rng = Pace(pattern, name)
        self.sources.append(s)
        return s

    def sink(self, name: str, pattern: str = "flow", on_item: Callable[[Any], None] | None = None) -> StreamSink:
        s = StreamSink(self.dut, name, self.shape(name), stall=0.5, on_item=on_item)
        s.rng = Pace(pattern, name)
        self.sinks.append(s)
        return s

    def ram(self, master: str, size: int = 1 << 20, pattern: str = "flow") -> AxiRam:
        self.masters.append(master)
        return attach_ram(self.dut, master, size, pattern)

    def put(self, name: str, value: Any) -> None:
        """Set plain input ``name``."""
        getattr(self.dut, name).value = pack(self.shape(name), value)

    async def open_tables(self, config: DeviceConfig, specs: Sequence[TableSpec]) -> None:
        """Announce tables 0, 1, ... on the table bus and let the blocks digest them."""
        for t, spec in enumerate(specs):
            self.put("table_write", table_payload(config, t, spec))
            self.dut.table_valid.value = 1
            await RisingEdge(self.dut.clk)
        self.dut.table_valid.value = 0
        await ClockCycles(self.dut.clk, config.lookup.max_tables + 4)

    async def until(self, done: Callable[[], bool], max_cycles: int) -> int:
        return await until(self.dut, done, max_cycles=max_cycles, settle=0)

    async def finish(self, done: Callable[[], bool], max_cycles: int, idle: Sequence[str] = (), settle: int = 150) -> int:
        """Wait for ``done()``, then check that nothing is left: every source drained, nothing more on any sink or bus,
        every signal of ``idle`` 0."""
        cycles = await self.until(done, max_cycles)
        counts = [len(s.items) for s in self.sinks]
        await ClockCycles(self.dut.clk, settle)
        assert [s.name for s in self.sources if not s.drained] == [], "not taken"
        assert [s.name for s, n in zip(self.sinks, counts, strict=True) if len(s.items) != n] == [], "surplus output"
        left = [f"{s.name}__valid" for s in self.sinks]
        left += [f"{m}_{ch}valid" for m in self.masters for ch in ("ar", "r", "aw", "w", "b")]
        assert [n for n in (*left, *idle) if int(getattr(self.dut, n).value)] == [], "still busy"
        return cycles


def beats_of(raw: bytes, beat_bytes: int) -> list[int]:
    return [int.from_bytes(raw[i : i + beat_bytes], "little") for i in range(0, len(raw), beat_bytes)]


def placed(config: DeviceConfig, spec: TableSpec, *lbas: int) -> TableSpec:
    """``spec`` with one extent at each of ``lbas``: the last takes what two pages in each of the others leave."""
    extents = [Extent(2 * k, lba, 2) for k, lba in enumerate(lbas[:-1])]
    done = 2 * len(extents)
    return replace(spec, extents=(*extents, Extent(done, lbas[-1], spec.pages(config) - done)))


def table_payload(config: DeviceConfig, table: int, spec: TableSpec) -> dict[str, Any]:
    """What the table manager broadcasts for ``spec``."""
    magic, shift = magic_divide(spec.rows_per_page(config))
    extents = [{"first_page": e.first_page, "lba": e.lba, "pages": e.pages} for e in spec.extents]
    extents += [{"first_page": 0, "lba": 0, "pages": 0}] * (config.lookup.max_extents - len(extents))
    return {"table": table, "open": 1, "rows": spec.rows, "dim": spec.dim, "format": int(spec.format),
            "mean": int(spec.mode), "headroom": spec.headroom, "stride": spec.stride_beats(config),
            "rows_per_page": spec.rows_per_page(config), "magic": magic, "shift": shift, "lsb_exp": spec.lsb_exp,
            "quant_mult": spec.quant_mult, "quant_shift": spec.quant_shift, "extents": extents,
            "n_extents": len(spec.extents)}
