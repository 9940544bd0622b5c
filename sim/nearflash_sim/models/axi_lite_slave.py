"""An AXI4-Lite target, for test benches of the Amaranth simulator."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ..bench.streams import Processes

__all__ = ["AxiLiteSlave"]


class AxiLiteSlave(Processes):
    """Words of memory by word address, 0 before they are written. Takes address and data in any order, stalls every
    channel with probability ``stall``; ``respond``: the response to an access of (address, "r" or "w"), whose write is done
    only if it is 0. ``log``: (kind, address, data, strobes) of every access. Checks that nothing offered changes before it
    is taken."""

    def __init__(self, port: Any, stall: float = 0.0, seed: int = 0,
                 respond: Callable[[int, str], int] = lambda addr, kind: 0):
        super().__init__(self._write, self._read)
        self.port, self.stall, self.respond, self.rng = port, stall, respond, random.Random(seed)
        self.words: dict[int, int] = {}
        self.log: list[tuple[str, int, int, int]] = []

    async def _accept(self, ctx: Any, ch: str, names: tuple[str, ...]) -> list[int]:
        valid, ready = getattr(self.port, ch + "valid"), getattr(self.port, ch + "ready")
        values, held = [getattr(self.port, ch + n) for n in names], None
        while True:
            willing = self.rng.random() >= self.stall
            ctx.set(ready, willing)
            _, _, offered, *now = await ctx.tick().sample(valid, *values)
            assert held is None or (offered and now == held), f"{ch}: {held} became {now if offered else 'nothing'}"
            held = now if offered else None
            if offered and willing:
                ctx.set(ready, 0)
                return now

    async def _answer(self, ctx: Any, ch: str, row: dict[str, int]) -> None:
        while self.rng.random() < self.stall:
            await ctx.tick()
        for name, value in (row | {"valid": 1}).items():
            ctx.set(getattr(self.port, ch + name), value)
        taken = False
        while not taken:
            _, _, taken = await ctx.tick().sample(getattr(self.port, ch + "ready"))
        ctx.set(getattr(self.port, ch + "valid"), 0)

    async def _write(self, ctx: Any) -> None:
        while True:
            order = (("aw", ("addr",)), ("w", ("data", "strb")))
            got: dict[str, list[int]] = {}
            for ch, names in order if self.rng.random() < 0.5 else order[::-1]:
                got[ch] = await self._accept(ctx, ch, names)
            (addr,), (data, strb) = got["aw"], got["w"]
            resp = self.respond(addr, "w")
            if not resp:
                mask = sum(0xFF << 8 * k for k in range(4) if strb >> k & 1)
                self.words[addr // 4] = self.words.get(addr // 4, 0) & ~mask | data & mask
            self.log.append(("w", addr, data, strb))
            await self._answer(ctx, "b", {"resp": resp})

    async def _read(self, ctx: Any) -> None:
        while True:
            (addr,) = await self._accept(ctx, "ar", ("addr",))
            resp, data = self.respond(addr, "r"), self.words.get(addr // 4, 0)
            self.log.append(("r", addr, data, 0))
            await self._answer(ctx, "r", {"data": data, "resp": resp})
