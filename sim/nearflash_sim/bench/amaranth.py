"""Test bench verbs for the Amaranth simulator: stream sources and sinks with random stalls, a memory behind
:mod:`nearflash_hw.primitives.memport` ports, and a runner with a hard cycle cap.

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

from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Fragment, MemoryData, Module, Value
from amaranth.hdl._mem import MemoryInstance
from amaranth.lib import wiring
from amaranth.sim import Simulator
from nearflash_hw.elaboration import without_gc

from .payload import reader, writer

FORMER_LIVES = os.environ.get("NEARFLASH_FORMER_LIVES", "")  # seed of what a design went through before its test
LONGEST_LIFE = 64 if not FORMER_LIVES else 1024  # cycles
CLEARING = 4096  # cap on the cycles in which a design clears its memories


class SimulationTimeout(AssertionError):
    """A simulation reached its cycle cap."""


class _Payload:
    """A stream's payload, on raw bits."""

    def __init__(self, stream: Any):
        payload = stream.payload
        shape = payload.shape()
        self.bits, self.read, self.write = Value.cast(payload).as_unsigned(), reader(shape), writer(shape)
        self.valid_and_bits = Cat(stream.valid, self.bits)

    def put(self, ctx: Any, value: Any) -> None:
        """Drive ``value`` and valid."""
        ctx.set(self.valid_and_bits, self.write(value) << 1 | 1)


class StreamSource:
    """Puts ``items`` (ints, or dicts for struct payloads) on a stream; idle with probability ``stall`` before each."""

    def __init__(self, stream: Any, items: Iterable[Any] = (), stall: float = 0.0, seed: int = 0):
        self.stream, self.items, self.stall, self.rng = stream, list(items), stall, random.Random(seed)
        self.sent = 0

    async def process(self, ctx: Any) -> None:
        """Runs for ever; items may be appended while running."""
        payload, ticks = _Payload(self.stream), aiter(ctx.tick().sample(self.stream.ready))
        while True:
            if self.sent >= len(self.items) or self.rng.random() < self.stall:
                await anext(ticks)
                continue
            payload.put(ctx, self.items[self.sent])
            while not (await anext(ticks))[-1]:
                pass
            self.sent += 1
            ctx.set(self.stream.valid, 0)

    @property
    def drained(self) -> bool:
        return self.sent == len(self.items)


class StreamSink:
    """Takes every transfer of a stream into ``items``; not ready with probability ``stall`` each cycle.

    Also checks the stream rules: once valid, valid stays and the payload is stable until the transfer.
    """

    def __init__(self, stream: Any, stall: float = 0.0, seed: int = 0, on_item: Callable[[Any], None] | None = None):
        self.stream, self.stall, self.rng, self.on_item = stream, stall, random.Random(seed), on_item
        self.items: list[Any] = []
        self.cycles: list[int] = []
        self._waiting: int | None = None

    async def process(self, ctx: Any) -> None:
        payload, cycle, was_ready = _Payload(self.stream), 0, None
        ticks = aiter(ctx.tick().sample(self.stream.valid, payload.bits))
        while True:
            ready = self.rng.random() >= self.stall
            if ready != was_ready:
                ctx.set(self.stream.ready, ready)
                was_ready = ready
            _, _, valid, item = await anext(ticks)
            cycle += 1
            if self._waiting is not None:
                assert valid, "valid fell before the transfer"
                assert item == self._waiting, (
                    f"payload changed while waiting: {payload.read(self._waiting)} -> {payload.read(item)}")
            if valid and ready:
                item = payload.read(item)
                self.items.append(item)
                self.cycles.append(cycle)
                self._waiting = None
                if self.on_item:
                    self.on_item(item)
            else:
                self._waiting = item if valid else None


class MemoryModel:
    """Byte-addressed sparse memory behind any number of memport read and write ports (client side of the DUT).

    ``latency``: cycles from request to first data; ``stall``: probability of a stall per beat; ``fail``: a predicate on
    the address of a beat that answers with an error.
    """

    def __init__(self, beat_bytes: int, latency: int = 5, stall: float = 0.0, seed: int = 0,
                 fail: Callable[[int], bool] = lambda addr: False):
        self.beat_bytes, self.latency, self.stall, self.fail = beat_bytes, latency, stall, fail
        self.rng = random.Random(seed)
        self.bytes: dict[int, int] = {}
        self.pending = 0  # requests taken and not fully answered, over all ports

    def read(self, addr: int, n: int) -> bytes:
        return bytes(self.bytes.get(addr + i, 0) for i in range(n))

    def write(self, addr: int, content: bytes) -> None:
        for i, b in enumerate(content):
            self.bytes[addr + i] = b

    def _request(self, p: dict[str, int], what: str) -> tuple[int, int]:
        """(address, beats) of a request that was taken."""
        assert p["addr"] % self.beat_bytes == 0, f"unaligned {what} address {p['addr']:#x}"
        assert p["beats"] > 0, f"{what} of 0 beats"
        self.pending += 1
        return p["addr"], p["beats"]

    def read_port(self, port: Any) -> _Pair:
        """The process that serves a MemRead port: pass ``memory.read_port(dut.port)`` to :func:`simulate`."""
        queue: list[tuple[int, int, int]] = []  # (ready cycle, addr, beats)
        state = {"cycle": 0}

        async def requests(ctx: Any) -> None:
            ctx.set(port.req.ready, 1)
            payload = _Payload(port.req)
            async for _, _, valid, bits in ctx.tick().sample(port.req.valid, payload.bits):
                state["cycle"] += 1
                if valid:
                    addr, beats = self._request(payload.read(bits), "read")
                    queue.append((state["cycle"] + self.latency, addr, beats))

        async def responses(ctx: Any) -> None:
            payload, ticks = _Payload(port.rsp), aiter(ctx.tick().sample(port.rsp.ready))
            while True:
                if not queue or state["cycle"] < queue[0][0]:
                    await anext(ticks)
                    continue
                _, addr, beats = queue.pop(0)
                for i in range(beats):
                    while self.rng.random() < self.stall:
                        await anext(ticks)
                    a = addr + i * self.beat_bytes
                    payload.put(ctx, {"data": int.from_bytes(self.read(a, self.beat_bytes), "little"),
                                      "last": int(i == beats - 1), "error": int(self.fail(a))})
                    while not (await anext(ticks))[-1]:
                        pass
                    ctx.set(port.rsp.valid, 0)
                self.pending -= 1

        return _Pair(requests, responses)

    def write_port(self, port: Any) -> _Pair:
        """The process that serves a MemWrite port."""
        queue: list[tuple[int, int]] = []
        done: list[tuple[int, bool]] = []
        state = {"cycle": 0}

        async def requests(ctx: Any) -> None:
            ctx.set(port.req.ready, 1)
            payload = _Payload(port.req)
            async for _, _, valid, bits in ctx.tick().sample(port.req.valid, payload.bits):
                state["cycle"] += 1
                if valid:
                    queue.append(self._request(payload.read(bits), "write"))

        async def content(ctx: Any) -> None:
            payload = _Payload(port.data)
            ticks = aiter(ctx.tick().sample(port.data.valid, payload.bits))
            while True:
                if not queue:
                    await anext(ticks)
                    continue
                addr, beats = queue.pop(0)
                bad = False
                for i in range(beats):
                    while self.rng.random() < self.stall:
                        await anext(ticks)
                    ctx.set(port.data.ready, 1)
                    valid = 0
                    while not valid:
                        _, _, valid, bits = await anext(ticks)
                    ctx.set(port.data.ready, 0)
                    a, beat = addr + i * self.beat_bytes, payload.read(bits)
                    bad |= self.fail(a)
                    raw = beat["data"].to_bytes(self.beat_bytes, "little")
                    for j in range(self.beat_bytes):
                        if beat["strb"] >> j & 1:
                            self.bytes[a + j] = raw[j]
                done.append((state["cycle"] + self.latency, bad))

        async def responses(ctx: Any) -> None:
            payload, ticks = _Payload(port.done), aiter(ctx.tick().sample(port.done.ready))
            while True:
                if not done or state["cycle"] < done[0][0]:
                    await anext(ticks)
                    continue
                _, bad = done.pop(0)
                payload.put(ctx, {"error": int(bad)})
                while not (await anext(ticks))[-1]:
                    pass
                ctx.set(port.done.valid, 0)
                self.pending -= 1

        return _Pair(requests, content, responses)


class _Pair:
    """Processes that serve one port together."""

    def __init__(self, *processes: Any):
        self.processes = processes


class _Simulation:
    """A compiled design, run any number of times: compiling takes longer than most runs.

    Every run begins with another life of the design, which a reset ends: what ``rst`` does not restore shows in any test.
    """

    def __init__(self, dut: Elaboratable):
        top = Module()
        top.submodules.dut = dut
        top.domains.sync = self.domain = ClockDomain()  # a purely combinational block has no clock of its own
        with without_gc():
            fragment = Fragment.get(top, None)
            self.simulator = Simulator(fragment)
        self.memories = list(_written_memories(fragment)) if FORMER_LIVES else []
        self.simulator.add_clock(1e-6)
        members = getattr(dut, "signature", wiring.Signature({})).flatten(dut)
        inputs = [Value.cast(v) for _, member, v in members if member.flow == wiring.In]
        self.inputs = [v for v in inputs if not isinstance(v, Const)]  # a stream that is always ready
        self.cleared = getattr(dut, "cleared", None)
        self.slots, self.runs = 0, 0
        self.born = False
        self.processes: list[Callable[[Any], Any]] = []  # of this run

    def run(self, processes: list[Callable[[Any], Any]], vcd: str | None) -> None:
        """With ``processes``, which run in their order, from reset until the last of them ends."""
        self.simulator.reset()
        self.runs, self.born = self.runs + 1, False
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
        rng = random.Random(f"{FORMER_LIVES} {self.runs} {os.environ.get('PYTEST_CURRENT_TEST')}")
        for memory in self.memories:
            for row in range(memory.depth):
                ctx.set(memory[row], rng.getrandbits(len(memory[row])))
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
    """
    processes: list[Callable[[Any], Any]] = []
    for a in actors:
        processes += a.processes if isinstance(a, _Pair) else [a.process if hasattr(a, "process") else a]
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
    simulation = vars(dut).pop("_simulation", None) or _Simulation(dut)
    simulation.run([*processes, watch], vcd)
    vars(dut)["_simulation"] = simulation  # not one that ended in an error
    return result["cycles"]
