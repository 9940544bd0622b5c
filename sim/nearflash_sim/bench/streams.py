"""Both ends of a stream, for test benches of the Amaranth simulator, with random stalls."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from amaranth.hdl import Cat, Const, Value

from .payload import reader, writer

__all__ = ["Payload", "Processes", "StreamSink", "StreamSource"]


class Payload:
    """A stream's payload, on raw bits."""

    def __init__(self, stream: Any):
        payload = stream.payload
        shape = payload.shape()
        self.bits, self.read, self.write = Value.cast(payload).as_unsigned(), reader(shape), writer(shape)
        self.valid, self.valid_and_bits = stream.valid, Cat(stream.valid, self.bits)

    async def send(self, ctx: Any, ticks: Any, value: Any) -> None:
        """Drive ``value`` until it is taken; ``ticks`` sample the stream's ready."""
        ctx.set(self.valid_and_bits, self.write(value) << 1 | 1)
        while not (await anext(ticks))[-1]:
            pass
        ctx.set(self.valid, 0)


class StreamSource:
    """Puts ``items`` (ints, or dicts for struct payloads) on a stream; idle with probability ``stall`` before each."""

    def __init__(self, stream: Any, items: Iterable[Any] = (), stall: float = 0.0, seed: int = 0):
        self.stream, self.items, self.stall, self.rng = stream, list(items), stall, random.Random(seed)
        self.sent = 0

    async def process(self, ctx: Any) -> None:
        """Runs for ever; items may be appended while running."""
        payload, ticks = Payload(self.stream), aiter(ctx.tick().sample(self.stream.ready))
        while True:
            if self.sent >= len(self.items) or self.rng.random() < self.stall:
                await anext(ticks)
                continue
            await payload.send(ctx, ticks, self.items[self.sent])
            self.sent += 1

    @property
    def drained(self) -> bool:
        return self.sent == len(self.items)


class StreamSink:
    """Takes every transfer of a stream into ``items``; not ready with probability ``stall`` each cycle, unless the stream is
    always ready.

    Also checks the stream rules: once valid, valid stays and the payload is stable until the transfer.
    """

    def __init__(self, stream: Any, stall: float = 0.0, seed: int = 0, on_item: Callable[[Any], None] | None = None):
        self.stream, self.stall, self.rng, self.on_item = stream, stall, random.Random(seed), on_item
        self.items: list[Any] = []
        self.cycles: list[int] = []
        self._waiting: int | None = None

    async def process(self, ctx: Any) -> None:
        payload, cycle, was_ready = Payload(self.stream), 0, None
        always = isinstance(self.stream.ready, Const)
        ticks = aiter(ctx.tick().sample(self.stream.valid, payload.bits))
        while True:
            ready = always or self.rng.random() >= self.stall
            if ready != was_ready and not always:
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


class Processes:
    """Processes that serve one port together."""

    def __init__(self, *processes: Any):
        self.processes = processes
