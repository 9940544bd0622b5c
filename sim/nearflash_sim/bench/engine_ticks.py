"""Test benches of :class:`~nearflash_sim.bench.engine.FlatEngine`: Amaranth's, with a shorter way to what they do in every
cycle, which is to wait for the clock, and to sample and set signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from amaranth.hdl import Const, Signal
from amaranth.hdl._ast import ShapeCastable, ValueCastable
from amaranth.sim._async import AsyncProcess, BrokenTrigger, TestbenchContext, TickTrigger

if TYPE_CHECKING:
    from .engine import FlatEngine

__all__ = ["Testbench", "TickState"]


class TickState:
    """A wait for the design's clock to rise. ``readers`` sample what it gives."""

    def __init__(self, engine: FlatEngine, process: Any, readers: list[Callable[[], Any]], oneshot: bool):
        self.process, self.readers, self.oneshot, self.broken = process, readers, oneshot, False
        self.result: tuple[Any, ...] | None = None
        engine.ticks.append(self)

    def initial_eligible(self) -> bool:
        """Amaranth asks any wait whether it ends at the very beginning."""
        return False

    def __await__(self) -> Any:
        if self.broken:
            raise BrokenTrigger
        yield self
        return self.result

    def fire(self) -> bool:
        """At an edge. Whether it waits for the next too."""
        process = self.process
        if process.waits_on is not self:
            self.broken = True
            return False
        self.result = tuple([read() for read in self.readers])
        process.runnable, process.waits_on = True, None
        return not self.oneshot


class Tick(TickTrigger):
    """Edges of the design's clock."""

    def sample(self, *exprs: Any) -> Tick:
        return Tick(self._engine, self._process, domain=self._domain, sampled=(*self._sampled, *exprs))

    def state(self, oneshot: bool) -> TickState:
        engine: Any = self._engine
        reset = self._domain.rst
        readers = [lambda: True, bool if reset is None else lambda: bool(engine.get_value(reset))]
        return TickState(engine, self._process, readers + [engine.reader(expr) for expr in self._sampled], oneshot)

    def __await__(self) -> Any:
        return self.state(True).__await__()

    def __aiter__(self) -> Any:
        return Ticks(self)


class Ticks:
    """One edge after another, from when it is first asked for one."""

    def __init__(self, tick: Tick):
        self.tick = tick
        self.state: TickState | None = None

    def __aiter__(self) -> Ticks:
        return self

    def __anext__(self) -> TickState:
        if self.state is None:
            self.state = self.tick.state(False)
        return self.state

    async def aclose(self) -> None:
        """Like that of the generator it stands for: a wait that nobody waits for ends at the next edge."""


class Context(TestbenchContext):
    def get(self, expr: Any) -> Any:
        if type(expr) is Signal:
            return self._engine.get_value(expr)
        return super().get(expr)

    def set(self, expr: Any, value: Any) -> None:
        engine: Any = self._engine
        if type(expr) is Signal and type(value) in (int, bool):
            engine.signal_state(expr).set(value)
        else:
            if isinstance(expr, ValueCastable) and isinstance(shape := expr.shape(), ShapeCastable):
                value = shape.const(value)
            engine.set_value(expr, value if type(value) is int else Const.cast(value).value)
        if engine.stirred:
            engine.step_design()

    def tick(self, domain: Any = "sync", *, context: Any = None) -> TickTrigger:
        tick = super().tick(domain, context=context)
        if self._engine.ticks_of(tick._domain):
            return Tick(self._engine, self._process, domain=tick._domain)
        return tick


class Testbench(AsyncProcess):
    def __init__(self, design: Any, engine: Any, constructor: Any, *, background: bool):
        self.constructor, self.background = constructor, background
        self.context = Context(design, engine, self)
        self.reset()
