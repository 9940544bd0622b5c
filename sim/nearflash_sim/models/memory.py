"""A memory behind memory ports (:mod:`nearflash_hw.primitives.memport`), for test benches of the Amaranth simulator."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ..bench.streams import Payload, Processes

__all__ = ["MemoryModel"]


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
        self.asked: list[int] = []  # beats of every request taken, over all ports
        self.pending = 0  # of them, those not fully answered

    def read(self, addr: int, n: int) -> bytes:
        return bytes(self.bytes.get(addr + i, 0) for i in range(n))

    def write(self, addr: int, content: bytes) -> None:
        for i, b in enumerate(content):
            self.bytes[addr + i] = b

    def _requests(self, port: Any, what: str, queue: list[tuple[int, int, int]], state: dict[str, int]) -> Any:
        """The process that takes the requests of ``port`` into ``queue``, as (cycle taken, address, beats), and counts the
        cycles in ``state``."""

        async def requests(ctx: Any) -> None:
            ctx.set(port.req.ready, 1)
            payload = Payload(port.req)
            async for _, _, valid, bits in ctx.tick().sample(port.req.valid, payload.bits):
                state["cycle"] += 1
                if valid:
                    p = payload.read(bits)
                    assert p["addr"] % self.beat_bytes == 0, f"unaligned {what} address {p['addr']:#x}"
                    assert p["beats"] > 0, f"{what} of 0 beats"
                    self.asked.append(p["beats"])
                    self.pending += 1
                    queue.append((state["cycle"], p["addr"], p["beats"]))

        return requests

    def read_port(self, port: Any) -> Processes:
        """The process that serves a MemRead port: pass ``memory.read_port(dut.port)`` to :func:`simulate`."""
        queue: list[tuple[int, int, int]] = []
        state = {"cycle": 0}

        async def responses(ctx: Any) -> None:
            payload, ticks = Payload(port.rsp), aiter(ctx.tick().sample(port.rsp.ready))
            while True:
                if not queue or state["cycle"] < queue[0][0] + self.latency:
                    await anext(ticks)
                    continue
                _, addr, beats = queue.pop(0)
                for i in range(beats):
                    while self.rng.random() < self.stall:
                        await anext(ticks)
                    a = addr + i * self.beat_bytes
                    await payload.send(ctx, ticks, {"data": int.from_bytes(self.read(a, self.beat_bytes), "little"),
                                                    "last": int(i == beats - 1), "error": int(self.fail(a))})
                self.pending -= 1

        return Processes(self._requests(port, "read", queue, state), responses)

    def write_port(self, port: Any) -> Processes:
        """The process that serves a MemWrite port."""
        queue: list[tuple[int, int, int]] = []
        done: list[tuple[int, bool]] = []
        state = {"cycle": 0}

        async def content(ctx: Any) -> None:
            payload = Payload(port.data)
            ticks = aiter(ctx.tick().sample(port.data.valid, payload.bits))
            while True:
                if not queue:
                    await anext(ticks)
                    continue
                _, addr, beats = queue.pop(0)
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
            payload, ticks = Payload(port.done), aiter(ctx.tick().sample(port.done.ready))
            while True:
                if not done or state["cycle"] < done[0][0]:
                    await anext(ticks)
                    continue
                _, bad = done.pop(0)
                await payload.send(ctx, ticks, {"error": int(bad)})
                self.pending -= 1

        return Processes(self._requests(port, "write", queue, state), content, responses)
