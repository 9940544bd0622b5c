"""Signals, memories and time of :class:`~nearflash_sim.bench.engine.FlatEngine`, as Amaranth's simulator looks them up."""

from __future__ import annotations

from types import CellType
from typing import TYPE_CHECKING, Any

from amaranth.hdl import MemoryData, Shape, Signal
from amaranth.hdl._ir import DriverConflict
from amaranth.sim._base import BaseMemoryState, BaseSignalState
from amaranth.sim.pysim import _PyTimeline

if TYPE_CHECKING:
    from .engine import FlatEngine

__all__ = ["EngineState", "MemoryState", "SignalState"]


class SignalState(BaseSignalState):
    """A signal: a cell variable of the design's functions.

    ``is_comb``: has combinational bits, and with ``mixed`` registers too; ``is_output``: the clock's edge doesn't need it.
    """

    __slots__ = ("cell", "engine", "is_comb", "is_output", "mixed", "signal", "wakers")

    def __init__(self, engine: FlatEngine, signal: Signal, cell: CellType, is_comb: bool = False, is_output: bool = False,
                 mixed: bool = False):
        self.engine, self.signal, self.cell = engine, signal, cell
        self.is_comb, self.is_output, self.mixed = is_comb, is_output, mixed
        self.wakers: list[Any] = []
        self.reset()

    def reset(self) -> None:
        if not self.is_comb or self.mixed:
            self.cell.cell_contents = self.signal.init
        self.wakers.clear()

    def read(self) -> int:
        if self.is_comb:
            self.engine.settled(self.is_output)
        return +self.cell.cell_contents  # an int where the design left a bool

    curr = next = property(read)

    def set(self, value: int) -> None:
        """From outside the design. Raises :class:`DriverConflict` for a signal that its logic drives."""
        if self.is_comb:
            raise DriverConflict("Combinationally driven signals cannot be overriden by testbenches")
        width = self.signal._width
        value &= (1 << width) - 1
        if self.signal._signed and value >> width - 1:
            value -= 1 << width
        self.update(value)

    def update(self, value: int) -> None:
        if self.cell.cell_contents != value:
            self.cell.cell_contents = value
            self.engine.changed(self)

    def add_waker(self, waker: Any) -> None:
        self.wakers.append(waker)
        self.engine.watched.setdefault(self, self.read())


class MemoryState(BaseMemoryState):
    """A memory: a list that the design's functions use."""

    __slots__ = ("data", "engine", "memory", "shape")

    def __init__(self, engine: FlatEngine, memory: MemoryData, data: list[int]):
        self.engine, self.memory, self.data, self.shape = engine, memory, data, Shape.cast(memory.shape)
        self.reset()

    def reset(self) -> None:
        self.data[:] = self.memory._init._raw

    def read(self, addr: int) -> int:
        return +self.data[addr] if addr in range(self.memory.depth) else 0

    def write(self, addr: int, value: int, mask: int | None = None) -> None:
        if addr not in range(self.memory.depth):
            return
        width = self.shape.width
        if mask is not None:
            value = (value & mask) | (self.data[addr] & ~mask)
        value &= (1 << width) - 1
        if self.shape.signed and value >> width - 1:
            value -= 1 << width
        self.data[addr] = value
        self.engine.dirty = True


class EngineState:
    """All of them. Signals that are not in the design get a state when a test bench first uses them."""

    def __init__(self, engine: FlatEngine):
        self.engine = engine
        self.timeline = _PyTimeline()
        self.slots: list[Any] = []
        self.places: dict[int, tuple[Any, int]] = {}  # by id, of signals and memories, which it keeps alive

    def add(self, key: Signal | MemoryData, state: SignalState | MemoryState) -> int:
        index = len(self.slots)
        self.slots.append(state)
        self.places[id(key)] = key, index
        return index

    def get_signal(self, signal: Signal) -> int:
        try:
            return self.places[id(signal)][1]
        except KeyError:
            return self.add(signal, SignalState(self.engine, signal, CellType()))

    def get_memory(self, memory: MemoryData) -> int:
        try:
            return self.places[id(memory)][1]
        except KeyError:
            return self.add(memory, MemoryState(self.engine, memory, []))

    def set_delay_waker(self, interval: int, waker: Any) -> None:
        self.timeline.set_waker(interval, waker)

    def add_signal_waker(self, signal: Signal, waker: Any) -> None:
        self.slots[self.get_signal(signal)].add_waker(waker)
