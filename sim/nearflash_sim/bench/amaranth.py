"""Test bench verbs for the Amaranth simulator: stream sources and sinks with random stalls, a memory behind
:mod:`nearflash_hw.primitives.memport` ports, and a runner with a hard cycle cap.

A typical bench::

    src, sink = StreamSource(dut.i, items, seed=1), StreamSink(dut.o, stall=0.3, seed=2)
    simulate(dut, [src, sink], until=lambda: len(sink.items) == n, max_cycles=10_000)
    assert sink.items == expected
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import data
from amaranth.sim import Simulator
from nearflash_hw.elaboration import without_gc


class SimulationTimeout(AssertionError):
    """A simulation reached its cycle cap."""


def _plain(v: Any) -> Any:
    """A payload constant as plain Python: dict for a struct, list for an array, int otherwise."""
    if isinstance(v, data.Const):
        shape = v.shape()
        if isinstance(shape, data.StructLayout):
            return {k: _plain(v[k]) for k, _ in shape}
        if isinstance(shape, data.ArrayLayout):
            return [_plain(v[i]) for i in range(shape.length)]
    return v


class StreamSource:
    """Puts ``items`` (ints, or dicts for struct payloads) on a stream; idle with probability ``stall`` before each."""

    def __init__(self, stream: Any, items: Iterable[Any] = (), stall: float = 0.0, seed: int = 0):
        self.stream, self.items, self.stall, self.rng = stream, list(items), stall, random.Random(seed)
        self.sent = 0

    async def process(self, ctx: Any) -> None:
        """Runs for ever; items may be appended while running."""
        while True:
            if self.sent >= len(self.items) or self.rng.random() < self.stall:
                ctx.set(self.stream.valid, 0)
                await ctx.tick()
                continue
            ctx.set(self.stream.payload, self.items[self.sent])
            ctx.set(self.stream.valid, 1)
            await ctx.tick().until(self.stream.ready)
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
        self._waiting: Any = None

    async def process(self, ctx: Any) -> None:
        cycle = 0
        while True:
            ready = self.rng.random() >= self.stall
            ctx.set(self.stream.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(self.stream.valid, self.stream.payload)
            cycle += 1
            item = _plain(payload) if valid else None
            if self._waiting is not None:
                assert valid, "valid fell before the transfer"
                assert item == self._waiting, f"payload changed while waiting: {self._waiting} -> {item}"
            if valid and ready:
                self.items.append(item)
                self.cycles.append(cycle)
                self._waiting = None
                if self.on_item:
                    self.on_item(item)
            else:
                self._waiting = item


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

    def read_port(self, port: Any) -> _Pair:
        """The process that serves a MemRead port: pass ``memory.read_port(dut.port)`` to :func:`simulate`."""
        queue: list[tuple[int, int, int]] = []  # (ready cycle, addr, beats)
        state = {"cycle": 0}

        async def requests(ctx: Any) -> None:
            ctx.set(port.req.ready, 1)
            while True:
                _, _, valid, p = await ctx.tick().sample(port.req.valid, port.req.payload)
                state["cycle"] += 1
                if valid:
                    assert p.addr % self.beat_bytes == 0, f"unaligned read address {p.addr:#x}"
                    assert p.beats > 0, "read of 0 beats"
                    self.pending += 1
                    queue.append((state["cycle"] + self.latency, p.addr, p.beats))

        async def responses(ctx: Any) -> None:
            while True:
                if not queue or state["cycle"] < queue[0][0]:
                    await ctx.tick()
                    continue
                _, addr, beats = queue.pop(0)
                for i in range(beats):
                    while self.rng.random() < self.stall:
                        await ctx.tick()
                    a = addr + i * self.beat_bytes
                    ctx.set(port.rsp.payload, {"data": int.from_bytes(self.read(a, self.beat_bytes), "little"),
                                               "last": int(i == beats - 1), "error": int(self.fail(a))})
                    ctx.set(port.rsp.valid, 1)
                    await ctx.tick().until(port.rsp.ready)
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
            while True:
                _, _, valid, p = await ctx.tick().sample(port.req.valid, port.req.payload)
                state["cycle"] += 1
                if valid:
                    assert p.addr % self.beat_bytes == 0, f"unaligned write address {p.addr:#x}"
                    assert p.beats > 0, "write of 0 beats"
                    self.pending += 1
                    queue.append((p.addr, p.beats))

        async def content(ctx: Any) -> None:
            while True:
                if not queue:
                    await ctx.tick()
                    continue
                addr, beats = queue.pop(0)
                bad = False
                for i in range(beats):
                    while self.rng.random() < self.stall:
                        await ctx.tick()
                    ctx.set(port.data.ready, 1)
                    p, = await ctx.tick().sample(port.data.payload).until(port.data.valid)
                    ctx.set(port.data.ready, 0)
                    a = addr + i * self.beat_bytes
                    bad |= self.fail(a)
                    raw = p.data.to_bytes(self.beat_bytes, "little")
                    for j in range(self.beat_bytes):
                        if p.strb >> j & 1:
                            self.bytes[a + j] = raw[j]
                done.append((state["cycle"] + self.latency, bad))

        async def responses(ctx: Any) -> None:
            while True:
                if not done or state["cycle"] < done[0][0]:
                    await ctx.tick()
                    continue
                _, bad = done.pop(0)
                ctx.set(port.done.payload, {"error": int(bad)})
                ctx.set(port.done.valid, 1)
                await ctx.tick().until(port.done.ready)
                ctx.set(port.done.valid, 0)
                self.pending -= 1

        return _Pair(requests, content, responses)


class _Pair:
    """Processes that serve one port together."""

    def __init__(self, *processes: Any):
        self.processes = processes


def simulate(dut: Elaboratable, actors: Iterable[Any], *, until: Callable[[], bool], max_cycles: int,
             settle: int = 20, vcd: str | None = None) -> int:
    """Run ``dut`` with ``actors`` (sources, sinks, memory ports, or ``async def process(ctx)`` functions) until
    ``until()`` holds, then ``settle`` more cycles (so that surplus output shows up). Returns the cycles until it held.

    Raises :class:`SimulationTimeout` after ``max_cycles``.
    """
    top = Module()
    top.submodules.dut = dut
    top.domains.sync = ClockDomain()  # a purely combinational block has no clock of its own
    with without_gc():
        sim = Simulator(top)
    sim.add_clock(1e-6)
    for a in actors:
        if isinstance(a, _Pair):
            for p in a.processes:
                sim.add_testbench(p, background=True)
        else:
            sim.add_testbench(a.process if hasattr(a, "process") else a, background=True)
    result = {}

    async def watch(ctx: Any) -> None:
        for cycle in range(max_cycles):
            if until():
                result["cycles"] = cycle
                for _ in range(settle):
                    await ctx.tick()
                return
            await ctx.tick()
        raise SimulationTimeout(f"not finished after {max_cycles} cycles")

    sim.add_testbench(watch)
    if vcd:
        with sim.write_vcd(vcd):
            sim.run()
    else:
        sim.run()
    return result["cycles"]
