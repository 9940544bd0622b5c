"""The runner of test benches in the Amaranth simulator, with a hard cycle cap. What stands at a design's ports:
:mod:`.streams` and :mod:`nearflash_sim.models`.

A typical bench::

    src, sink = StreamSource(dut.i, items, seed=1), StreamSink(dut.o, stall=0.3, seed=2)
    simulate(dut, [src, sink], until=lambda: len(sink.items) == n, max_cycles=10_000)
    assert sink.items == expected
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from amaranth.hdl import ClockDomain, Const, Elaboratable, Fragment, MemoryData, Module, Value
from amaranth.hdl._mem import MemoryInstance
from amaranth.lib import wiring
from amaranth.sim import Simulator
from amaranth.sim.pysim import PySimEngine
from nearflash_hw.elaboration import without_gc

from .engine import BenchEngine
from .streams import Processes

FORMER_LIVES = os.environ.get("NEARFLASH_FORMER_LIVES", "")  # seed of what a design went through before its test
AMARANTH_ENGINE = bool(os.environ.get("NEARFLASH_AMARANTH_ENGINE"))  # not the one of .engine
LONGEST_LIFE = 64 if not FORMER_LIVES else 1024  # cycles
CLEARING = 4096  # cap on the cycles in which a design clears its memories


class SimulationTimeout(AssertionError):
    """A simulation reached its cycle cap."""


class _Simulation:
    """A compiled design, run any number of times: compiling takes longer than most runs.

    Every run begins with another life of the design, which a reset ends: what ``rst`` does not restore shows in any test.
    """

    def __init__(self, dut: Elaboratable, flat: bool):
        top = Module()
        top.submodules.dut = dut
        top.domains.sync = self.domain = ClockDomain()  # a purely combinational block has no clock of its own
        with without_gc():
            fragment = Fragment.get(top, None)
            engine: Any = BenchEngine if flat else PySimEngine
            self.simulator = Simulator(fragment, engine=engine)
        self.memories = list(_written_memories(fragment)) if FORMER_LIVES else []
        self.simulator.add_clock(1e-6)
        members = getattr(dut, "signature", wiring.Signature({})).flatten(dut)
        inputs = [Value.cast(v) for _, member, v in members if member.flow == wiring.In]
        self.inputs = [v for v in inputs if not isinstance(v, Const)]  # a stream that is always ready
        self.cleared = getattr(dut, "cleared", None)
        self.slots, self.runs = 0, 0
        self.test: str | None = None  # that it runs for
        self.born = False
        self.processes: list[Callable[[Any], Any]] = []  # of this run

    def run(self, processes: list[Callable[[Any], Any]], vcd: str | None) -> None:
        """With ``processes``, which run in their order, from reset until the last of them ends."""
        self.simulator.reset()
        test = os.environ.get("PYTEST_CURRENT_TEST")
        self.runs = self.runs + 1 if test == self.test else 1  # a test fails again alone, whatever simulated before it
        self.test, self.born = test, False
        self.processes = [self._former_life, *processes]
        # A testbench stays with its simulator: each is a slot, for which every run has another process, or none.
        while self.slots < len(self.processes):
            self.simulator.add_testbench(self._slot(self.slots), background=True)
            self.slots += 1
        with self.simulator.write_vcd(vcd) if vcd else contextlib.nullcontext():
            self.simulator.run()

    def _slot(self, index: int) -> Callable[[Any], Any]:
        async def slot(ctx: Any) -> None:
            last = index == len(self.processes) - 1
            if index < len(self.processes):
                with ctx.critical() if last else contextlib.nullcontext():
                    while index and not self.born:
                        await ctx.tick()
                    await self.processes[index](ctx)

        return slot

    async def _former_life(self, ctx: Any) -> None:
        """Some cycles of anything at the inputs, and a reset. A design that says so is left alone until it has cleared
        its memories (``cleared``)."""
        rng = random.Random(f"{FORMER_LIVES} {self.runs} {self.test}")
        for memory in self.memories:
            for row in range(memory.depth):
                bits = Value.cast(memory[row])  # a row of a layout is a view, which takes no number
                ctx.set(bits, rng.getrandbits(len(bits)))
        for _ in range(rng.randrange(LONGEST_LIFE)):
            for port in self.inputs:
                ctx.set(port, rng.getrandbits(len(port)) if len(port) > 1 else rng.random() < 0.8)
            await ctx.tick()
        for port in self.inputs:
            ctx.set(port, 0)
        ctx.set(self.domain.rst, 1)
        await ctx.tick()
        ctx.set(self.domain.rst, 0)
        for _ in range(CLEARING):
            if self.cleared is None or ctx.get(self.cleared):
                break
            await ctx.tick()
        else:
            raise SimulationTimeout(f"not cleared within {CLEARING} cycles of the reset")
        self.born = True


def _written_memories(fragment: Fragment) -> Iterator[MemoryData]:
    """Those that the design can write: all but its ROMs."""
    if isinstance(fragment, MemoryInstance) and fragment._write_ports:
        yield fragment._data
    for sub, _, _ in fragment.subfragments:
        yield from _written_memories(sub)


@lru_cache(maxsize=6)
def reused(make: Callable[..., Any], *args: Any) -> Any:
    """``make(*args)``, or what it gave not long ago: a component that several tests simulate is compiled once."""
    return make(*args)


def simulate(dut: Elaboratable, actors: Iterable[Any], *, until: Callable[[], bool], max_cycles: int,
             settle: int = 20, vcd: str | None = None) -> int:
    """Run ``dut`` from reset with ``actors`` (sources, sinks, memory ports, or ``async def process(ctx)`` functions) until
    ``until()`` holds, then ``settle`` more cycles (so that surplus output shows up). Returns the cycles until it held.

    The reset ends a former life of ``dut``, of some cycles with anything at its inputs (``$NEARFLASH_FORMER_LIVES``: another
    seed, longer lives, and memories that begin with anything). Simulating it again starts from reset too, and takes no
    elaboration. Raises :class:`SimulationTimeout` after ``max_cycles``.

    It runs in the engine of ``nearflash_sim.bench.engine``; in Amaranth's own where waveforms are written to a file ``vcd``,
    ``$NEARFLASH_AMARANTH_ENGINE`` is set, or (with a warning) ``dut`` has something that only that one simulates.
    """
    processes: list[Callable[[Any], Any]] = []
    for a in actors:
        processes += a.processes if isinstance(a, Processes) else [a.process if hasattr(a, "process") else a]
    result = {}

    async def watch(ctx: Any) -> None:
        ticks = aiter(ctx.tick())
        for cycle in range(max_cycles):
            if until():
                result["cycles"] = cycle
                for _ in range(settle):
                    await anext(ticks)
                return
            await anext(ticks)
        raise SimulationTimeout(f"not finished after {max_cycles} cycles")

    # With the component, not in a table: a simulation refers to its component, and lives as long.
    simulation = None if vcd else vars(dut).pop("_simulation", None)
    simulation = simulation or _Simulation(dut, flat=not vcd and not AMARANTH_ENGINE)
    simulation.run([*processes, watch], vcd)
    if not vcd:
        vars(dut)["_simulation"] = simulation  # not one that ended in an error
    return result["cycles"]
