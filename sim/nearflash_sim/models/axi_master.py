"""An initiator on an AXI3 or AXI4 port, for test benches of the Amaranth simulator."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bench.streams import Processes

__all__ = ["AxiMaster", "Burst"]


@dataclass
class Burst:
    """A read of ``beats``, or a write of ``words`` (data, strobes). ``kind``: AxBURST; ``size``: AxSIZE. Afterwards
    ``answer`` has (data, response) of every beat read, or the response of a write alone."""

    id: int
    addr: int
    beats: int
    size: int
    kind: int = 1
    words: Sequence[tuple[int, int]] = ()
    answer: list[Any] = field(default_factory=list)


class AxiMaster(Processes):
    """Sends ``reads`` and ``writes``, all channels on their own and each idle or not ready with probability ``stall``: so
    write data may come before their address, and any number of bursts is under way. Checks that answers belong to bursts in
    the order of their ID, RLAST, and that nothing offered changes before it is taken. Once ``dead`` is set it offers and
    takes nothing more, as an initiator in reset; ``parted`` allows that answers vanish before they are taken.
    """

    def __init__(self, port: Any, reads: Sequence[Burst] = (), writes: Sequence[Burst] = (), stall: float = 0.0,
                 seed: int = 0):
        super().__init__(self._ar, self._aw, self._w, self._r, self._b)
        self.port, self.reads, self.writes, self.stall = port, list(reads), list(writes), stall
        self.rng, self.dead, self.parted = random.Random(seed), False, False
        self.open: dict[str, dict[int, deque[Burst]]] = {"r": {}, "b": {}}  # by ID, oldest first
        self.left = len(self.reads) + len(self.writes)
        self.busy: dict[str, list[int]] = {"r": [], "w": []}  # cycles in which data moved

    @property
    def done(self) -> bool:
        return not self.left

    def _signals(self, names: Sequence[str]) -> list[Any]:
        return [getattr(self.port, name) for name in names]

    async def _send(self, ctx: Any, ch: str, rows: Any) -> None:
        valid, ready = self._signals((ch + "valid", ch + "ready"))
        ticks, cycle = aiter(ctx.tick().sample(ready)), 0
        for row, sent in rows:
            while self.rng.random() < self.stall and not self.dead:
                await anext(ticks)
                cycle += 1
            for name, value in row.items():
                ctx.set(getattr(self.port, ch + name), value)
            ctx.set(valid, 1)
            taken = False
            while not taken and not self.dead:
                _, _, taken = await anext(ticks)
                cycle += 1
            ctx.set(valid, 0)
            if self.dead:
                return
            sent(cycle)

    def _addresses(self, bursts: Sequence[Burst], answers: str) -> Any:
        for b in bursts:
            row = {"id": b.id, "addr": b.addr, "len": b.beats - 1, "size": b.size, "burst": b.kind}
            # An answer may come in the cycle after, so that it's expected as soon as the address is offered.
            self.open[answers].setdefault(b.id, deque()).append(b)
            yield row, lambda cycle: None

    async def _ar(self, ctx: Any) -> None:
        await self._send(ctx, "ar", self._addresses(self.reads, "r"))

    async def _aw(self, ctx: Any) -> None:
        await self._send(ctx, "aw", self._addresses(self.writes, "b"))

    async def _w(self, ctx: Any) -> None:
        axi3 = hasattr(self.port, "wid")
        await self._send(ctx, "w", (
            ({"data": data, "strb": strb, "last": k == b.beats - 1} | ({"id": b.id} if axi3 else {}), self.busy["w"].append)
            for b in self.writes for k, (data, strb) in enumerate(b.words)))

    async def _take(self, ctx: Any, ch: str, names: Sequence[str], take: Any) -> None:
        ready = getattr(self.port, ch + "ready")
        ticks, held, cycle = aiter(ctx.tick().sample(*self._signals([ch + n for n in ("valid", *names)]))), None, 0
        while not self.dead:
            willing = self.rng.random() >= self.stall
            ctx.set(ready, willing)
            _, _, valid, *values = await anext(ticks)
            cycle += 1
            now = values if valid else None
            assert held in (None, now) or self.parted, f"{ch}: {held} became {now}"
            held = values if valid and not willing else None
            if valid and willing:
                take(cycle, *values)
        ctx.set(ready, 0)

    async def _r(self, ctx: Any) -> None:
        def beat(cycle: int, ident: int, data: int, resp: int, last: int) -> None:
            burst = self.open["r"][ident][0]
            burst.answer.append((data, resp))
            self.busy["r"].append(cycle)
            assert last == (len(burst.answer) == burst.beats), f"RLAST wrong at beat {len(burst.answer)} of {burst.beats}"
            if last:
                self.open["r"][ident].popleft()
                self.left -= 1

        await self._take(ctx, "r", ("id", "data", "resp", "last"), beat)

    async def _b(self, ctx: Any) -> None:
        def answer(cycle: int, ident: int, resp: int) -> None:
            self.open["b"][ident].popleft().answer.append(resp)
            self.left -= 1

        await self._take(ctx, "b", ("id", "resp"), answer)
