"""An engine for Amaranth's simulator that evaluates a design as a whole.

Amaranth's own engine runs a function for every module, again whenever one of its inputs changes, and each step through the
hierarchy is a round of its own. Here a design is one function (:mod:`.design_code`), which works out every signal once, when
something that depends on it is asked for. What test benches see is the same in every cycle; between rounds, where a
combinational signal may have glitches, ``changed`` and ``edge`` of such a signal don't see them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import CellType
from typing import Any

from amaranth.hdl import Const, Signal, Value
from amaranth.hdl._ast import Concat, Operator, ShapeCastable, Slice, ValueCastable
from amaranth.hdl._ir import DriverConflict
from amaranth.sim._async import AsyncProcess
from amaranth.sim._base import BaseProcess
from amaranth.sim._pyeval import eval_assign, eval_value
from amaranth.sim.pysim import PySimEngine, _PyTriggerState

from .design_code import DesignCode
from .engine_state import EngineState, MemoryState, SignalState
from .engine_ticks import Testbench, TickState
from .value_code import Unsupported

__all__ = ["BenchEngine", "FlatEngine"]


class Clock(BaseProcess):
    """Times in fs."""

    def __init__(self, engine: FlatEngine, state: SignalState, phase: int, period: int):
        self.engine, self.state, self.phase, self.half = engine, state, phase, period // 2
        self.reset()

    def reset(self) -> None:
        self.runnable, self.critical, self.initial = True, False, True

    def wake(self) -> None:
        self.runnable = True

    def run(self) -> None:
        if not self.initial:
            self.state.update(1 - self.state.read())
        self.engine.state.set_delay_waker(self.phase if self.initial else self.half, self.wake)
        self.initial = False


class FlatEngine(PySimEngine):
    """Simulates ``design``. Raises :class:`~.value_code.Unsupported` where only Amaranth's engine does."""

    def __init__(self, design: Any):
        self._design = design
        self.code = code = DesignCode(design.fragment)
        memories: dict[str, list[int]] = {name: [] for name, _ in code.memories.values()}
        names: dict[str, Any] = {**memories}
        exec(compile(code.text, "<design>", "exec"), names)
        functions = self.settle, self.settle_outputs, self.clock_edge = names["make"]()
        cells: dict[str, CellType] = {}
        for function in functions:
            cells.update(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        self.dirty = self.outputs_dirty = True  # whether settled signals are out of date
        self.watched: dict[SignalState, int] = {}  # signals that something waits for, and their last values
        self.ticks: list[TickState] = []
        self._state = state = EngineState(self)
        for number, signal in enumerate(code.signals):
            same = code.resolved(number)
            if isinstance(same, Const):
                found = SignalState(self, signal, CellType(same.value), True)
            else:
                found = SignalState(self, signal, cells.setdefault(f"v{same}", CellType()), number in code.combinational,
                                    same in code.outputs, number in code.mixed)
            state.add(signal, found)
        for name, memory in code.memories.values():
            state.add(memory, MemoryState(self, memory, memories[name]))
        self.clk = self.signal_state(code.clock.clk) if code.clock else None
        self.rises = self.has_processes = False
        self._processes = []
        self._testbenches = []
        self._active_triggers = set()

    def signal_state(self, signal: Signal) -> SignalState:
        return self._state.slots[self._state.get_signal(signal)]

    def reset(self) -> None:
        self._state.timeline.reset()
        self.watched.clear()
        self.ticks.clear()
        self._active_triggers.clear()
        for state in self._state.slots:
            state.reset()
        self.dirty, self.rises = True, False
        for process in (*self._processes, *self._testbenches):
            process.reset()

    def add_clock_process(self, clock: Signal, *, phase: int, period: int) -> None:
        state = self.signal_state(clock)
        if state.is_comb:
            raise DriverConflict("Clock signal is already driven by combinational logic")
        if self.clk is None:  # that of a design without registers
            self.clk = state
        self._processes.append(Clock(self, state, phase, period))

    def add_async_process(self, simulator: Any, process: Any) -> None:
        self.has_processes = True
        self._processes.append(AsyncProcess(self._design, self, process, testbench=False, background=True))

    def add_async_testbench(self, simulator: Any, process: Any, *, background: bool) -> None:
        self._testbenches.append(Testbench(self._design, self, process, background=background))

    def add_trigger_combination(self, combination: Any, *, oneshot: bool) -> Any:
        return _PyTriggerState(self, combination, self._active_triggers, oneshot=oneshot)

    def ticks_of(self, domain: Any) -> bool:
        """Whether ``domain`` ticks where the design's clock rises, and only there."""
        return (self.clk is not None and domain.clk is self.clk.signal and domain.clk_edge == "pos"
                and not (domain.async_reset and domain.rst is not None))

    def reader(self, expr: Any) -> Callable[[], Any]:
        """What samples ``expr``."""
        value = Value.cast(expr)
        read = self.signal_state(value).read if isinstance(value, Signal) else lambda: self.get_value(value)
        if isinstance(expr, ValueCastable) and isinstance(shape := expr.shape(), ShapeCastable):
            return lambda: shape.from_bits(read())
        return read

    def get_value(self, expr: Any) -> int:
        """As Amaranth's engine does, and quick for what test benches sample most."""
        kind = type(expr)
        if kind is Signal:
            return self.signal_state(expr).read()
        if kind is Slice:
            return self.get_value(expr.value) >> expr.start & (1 << expr.stop - expr.start) - 1
        if kind is Concat:
            bits = start = 0
            for part in expr.parts:
                width = len(part)
                bits |= (self.get_value(part) & (1 << width) - 1) << start
                start += width
            return bits
        if kind is Operator and expr.operator == "u":
            return self.get_value(expr.operands[0]) & (1 << len(expr)) - 1
        return eval_value(self._state, Value.cast(expr))

    def set_value(self, expr: Any, value: int) -> None:
        eval_assign(self._state, Value.cast(expr), value)

    def settled(self, outputs: bool) -> None:
        """Works out what the clock's edge needs, and what it doesn't: ``outputs``."""
        if self.dirty:
            self.dirty, self.outputs_dirty = False, True
            self.settle()
        if outputs and self.outputs_dirty:
            self.outputs_dirty = False
            self.settle_outputs()

    def changed(self, state: SignalState) -> None:
        """``state`` has changed from outside the design."""
        if state is self.clk:
            self.rises = bool(state.read())
        else:
            self.dirty = True

    @property
    def stirred(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.rises or self.watched or self._active_triggers or self.has_processes)

    def watch(self) -> None:
        """Wakes what waits for signals that have changed."""
        for state, before in list(self.watched.items()):
            now = state.read()
            if now != before:
                self.watched[state] = now
                state.wakers[:] = [waker for waker in state.wakers if waker(before, now)]
                if not state.wakers:
                    del self.watched[state]

    def step_design(self) -> None:
        while True:
            for process in self._processes:
                if process.runnable:
                    process.runnable = False
                    process.run()
            if self.watched:
                self.watch()
            if not self.rises and not self._active_triggers:
                return
            rises, self.rises = self.rises, False
            if rises:  # all that is sampled is what it was before registers change
                self.settled(False)
                waiting, self.ticks = self.ticks, []
                self.ticks += [tick for tick in waiting if tick.fire()]
            for trigger in self._active_triggers:
                trigger.run()
            self._active_triggers.clear()
            if rises:
                self.clock_edge()
                self.dirty = True

    def advance(self) -> bool:
        self.step_design()
        runnable = True
        while runnable:
            runnable = False
            for testbench in self._testbenches:
                if testbench.runnable:
                    testbench.runnable = False
                    testbench.run()
                    runnable = True
        self._state.timeline.advance()
        for process in self._testbenches:
            if process.critical:
                return True
        return any(process.critical for process in self._processes)

    def write_vcd(self, **options: Any) -> Any:
        raise Unsupported("waveforms: simulate with Amaranth's own engine")


class BenchEngine(PySimEngine):
    """Makes a :class:`FlatEngine`; or, with a warning, Amaranth's own for a design with something that only it simulates."""

    def __new__(cls, design: Any) -> Any:
        try:
            return FlatEngine(design)
        except Unsupported as error:
            warnings.warn(f"a design is simulated by Amaranth's own engine, which takes longer: {error}", stacklevel=3)
            return PySimEngine(design)
