"""The benches' engine against Amaranth's own, cycle by cycle: every signal and memory row of random logic and of blocks."""

import operator
import random

import pytest
from amaranth.hdl import (
    Array,
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    Fragment,
    Module,
    Mux,
    Print,
    Signal,
    Value,
    signed,
    unsigned,
)
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.sim import BrokenTrigger, Simulator
from amaranth.sim.pysim import PySimEngine
from nearflash.contract import DeviceConfig
from nearflash_hw.lookup.pooling import Pooling
from nearflash_sim.bench.engine import BenchEngine, FlatEngine

WIDTHS = (0, 1, 1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 130)


class Twins:
    """Two simulators of one design, and the signals and memory rows to compare."""

    def __init__(self, module):
        top = Module()
        top.submodules.dut = module
        top.domains.sync = self.domain = ClockDomain()
        self.flat = Simulator(Fragment.get(top, None), engine=FlatEngine)
        self.plain = object.__new__(Simulator)  # of the same design: a fragment can be prepared only once
        vars(self.plain).update(vars(self.flat), _engine=PySimEngine(self.flat._design), _clocked=set())
        code = self.flat._engine.code
        self.signals = [s for s in code.signals if s is not self.domain.clk]
        self.rows = [row if isinstance(row := m[i], Value) else Value.cast(row)
                     for _, m in code.memories.values() for i in range(m.depth)]
        driven = code.combinational | code.registers
        self.inputs = [s for i, s in enumerate(code.signals)
                       if i not in driven and s is not self.domain.clk and s is not self.domain.rst]

    def compare(self, seed, cycles):
        logs = []
        for simulator in (self.flat, self.plain):
            simulator.add_clock(1e-6)
            logs.append([])
            simulator.add_testbench(self.bench(random.Random(seed), cycles, logs[-1]))
            simulator.run()
            simulator.reset()
            simulator.run()
        for cycle, (flat, plain) in enumerate(zip(*logs, strict=True)):
            differ = [(str(s), a, b) for s, a, b in zip([*self.signals, *self.rows], flat, plain, strict=True) if a != b]
            assert not differ, f"cycle {cycle}: {differ[:5]}"
            assert {type(value) for value in flat} == {int}  # no bool gets out

    def bench(self, rng, cycles, log):
        async def bench(ctx):
            for _ in range(cycles):
                for port in self.inputs:
                    if rng.random() < 0.7:
                        corner = rng.choice((0, -1, 1, 1 << max(len(port) - 1, 0)))
                        ctx.set(port, rng.getrandbits(len(port)) if len(port) and rng.random() < 0.7 else corner)
                for row in self.rows:
                    if rng.random() < 0.02:
                        ctx.set(row, rng.getrandbits(len(row)))
                ctx.set(self.domain.rst, rng.random() < 0.05)
                log.append([ctx.get(value) for value in (*self.signals, *self.rows)])
                await ctx.tick()

        return bench


class Random:
    """A module of random logic."""

    def __init__(self, seed):
        self.rng, self.m = random.Random(seed), Module()
        self.known = [self.new("i") for _ in range(8)]  # what expressions may read: inputs, and what is driven so far
        registers = [self.new("r") for _ in range(5)]
        self.known += registers
        for i in range(14):
            target = self.new("c")
            if i % 3:
                self.m.d.comb += target.eq(self.value(3))
            else:
                self.block("comb", [target], 2)
            self.known.append(target)
        for register in registers:
            self.block("sync", [register], 3)
        self.block("sync", registers[:3], 2)

    def new(self, name):
        width = self.rng.choice(WIDTHS)
        shape = signed(width) if width and self.rng.random() < 0.4 else unsigned(width)
        return Signal(shape, name=f"{name}{self.rng.randrange(10**6)}", reset_less=self.rng.random() < 0.2,
                      init=self.rng.randrange(-(1 << width >> 1), 1 << width >> 1) if shape.signed else
                      self.rng.getrandbits(width))

    def pick(self):
        return self.rng.choice(self.known)

    def small(self):
        """A shift's or a part's place: few bits, or a result would be very wide."""
        return self.pick().as_unsigned()[:self.rng.randrange(1, 5)]

    def value(self, depth):
        rng = self.rng
        if not depth or rng.random() < 0.1:
            return self.pick() if rng.random() < 0.8 else Const(rng.randrange(-40, 40))
        a, b = self.value(depth - 1), self.value(depth - 1)
        if len(a) > 260 or len(b) > 260:
            return a[:100] & b[:100]
        binary = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
                  "&": operator.and_, "|": operator.or_, "^": operator.xor, "==": operator.eq, "!=": operator.ne,
                  "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
        cut = rng.randrange(len(a) + 1)
        made = {
            **{name: lambda apply=apply: apply(a, b) for name, apply in binary.items()},
            "<<": lambda: a << self.small(), ">>": lambda: a >> self.small(), "~": lambda: ~a, "neg": lambda: -a,
            "any": a.any, "all": a.all, "xor": a.xor, "bool": a.bool, "low": lambda: a[:cut], "high": lambda: a[cut:],
            # Parts of signals: of an expression, Amaranth's engine also shows bits beyond its width.
            "part": lambda: self.pick().bit_select(self.small(), rng.randrange(6)),
            "word": lambda: self.pick().word_select(self.small(), rng.randrange(1, 6)),
            "cat": lambda: Cat(a, b, self.pick()), "mux": lambda: Mux(self.pick(), a, b),
            "array": lambda: Array([self.pick() for _ in range(rng.randrange(1, 7))])[self.small()],
            "signed": lambda: a.as_signed() if len(a) else a, "unsigned": a.as_unsigned,
            "replicate": lambda: a[:1].replicate(rng.randrange(6)),
            "matches": lambda: a.matches(*(self.pattern(len(a)) for _ in range(rng.randrange(3)))),
        }
        return made[rng.choice(list(made))]()

    def pattern(self, width):
        return "".join(self.rng.choice("01-" if self.rng.random() < 0.5 else "--1") for _ in range(width))

    def target(self, signals):
        rng, target = self.rng, self.rng.choice(signals)
        kind = rng.choice(("whole", "whole", "slice", "inner", "part", "word", "cat", "array", "signed"))
        if kind == "slice" or kind == "inner":
            start = rng.randrange(len(target) + 1)
            cut = target[start:rng.randrange(start, len(target) + 1)]
            return cut[len(cut) // 2:] if kind == "inner" else cut
        if kind == "part":
            return target.bit_select(self.small(), rng.randrange(6))
        if kind == "word":
            return target[:len(target) // 2 + 1].word_select(self.small(), rng.randrange(1, 6))
        if kind == "cat":
            return Cat(target[:len(target) // 2], rng.choice(signals)[len(target) // 2:])
        if kind == "array":
            return Array([rng.choice(signals), target[:3], target.as_unsigned()])[self.small()]
        return target.as_signed() if kind == "signed" and len(target) else target

    def block(self, domain, signals, depth):
        m, rng = self.m, self.rng
        for _ in range(rng.randrange(1, 4)):
            kind = rng.choice(("eq", "if", "switch")) if depth else "eq"
            if kind == "eq":
                m.d[domain] += self.target(signals).eq(self.value(2))
            elif kind == "if":
                with m.If(self.value(1).bool()):
                    self.block(domain, signals, depth - 1)
                if rng.random() < 0.7:
                    with m.Elif(self.value(1).bool()):
                        self.block(domain, signals, depth - 1)
                if rng.random() < 0.7:
                    with m.Else():
                        self.block(domain, signals, depth - 1)
            else:
                test = self.value(1)[:5]
                with m.Switch(test):
                    for _ in range(rng.randrange(4)):
                        plain = [rng.randrange(1 << len(test))] if rng.random() < 0.5 else []
                        with m.Case(*plain or (self.pattern(len(test)) for _ in range(rng.randrange(3)))):
                            self.block(domain, signals, depth - 1)
                    if rng.random() < 0.5:
                        with m.Default():
                            self.block(domain, signals, depth - 1)


@pytest.mark.parametrize("seed", range(30))
def test_random_logic(seed):
    Twins(Random(seed).m).compare(seed, 12)


@pytest.mark.parametrize("depth", [1, 5, 8])
@pytest.mark.parametrize(("shape", "granularity"),
                         [(unsigned(8), None), (unsigned(12), 3), (signed(6), None), (unsigned(1), None)])
def test_memories(depth, shape, granularity):
    m = Module()
    m.submodules.memory = dut = Memory(shape=shape, depth=depth, init=[3 % (1 << len(Const(0, shape)) - 1 or 1)])
    writes = [dut.write_port(granularity=granularity) for _ in range(2)]
    dut.read_port()
    dut.read_port(transparent_for=writes)
    dut.read_port(transparent_for=writes[1:])
    dut.read_port(domain="comb")
    Twins(m).compare(depth, 200)


def test_signals_that_depend_on_each_other_by_different_bits():
    """Fields of one signal, and two signals; each with a default that a condition replaces."""
    m = Module()
    layout = data.StructLayout({"low": 4, "middle": 4, "high": 4})
    record, other = Signal(layout), Signal(8)
    a, b = Signal(4), Signal()
    m.d.comb += [record.low.eq(a), record.high.eq(record.middle + 1), other[4:].eq(record.high), record.middle.eq(other[:4])]
    with m.If(b):
        m.d.comb += [record.middle.eq(record.low ^ 5), other[:4].eq(record.low + 2)]
    mixed = Signal(8)
    m.d.comb += mixed[2].eq(mixed[0] & b)
    m.d.comb += mixed[0].eq(mixed[7] ^ a[0])
    with m.If(mixed[2] | a[1]):
        m.d.comb += mixed[3].eq(mixed[1])
    with m.If(~b):
        m.d.comb += mixed[1].eq(mixed[2] ^ a[2])
    m.d.sync += mixed[4:].eq(mixed + a)
    defaulted, through = Signal(6), Signal(6)
    m.d.comb += [defaulted.eq(a), through[0].eq(a[0]), through[2].eq(defaulted[1]), through[3].eq(defaulted[2] ^ b)]
    with m.If(through[0]):
        m.d.comb += defaulted[3:5].eq(through[2:])
    with m.If(through[3]):
        m.d.comb += defaulted[5].eq(1)
    twins = Twins(m)
    assert twins.flat._engine.code.loops == 3
    twins.compare(1, 100)


def test_large_expressions_are_worked_out_when_any_of_their_signals_changes():
    m = Module()
    signals = [Signal(16, name=f"i{i}") for i in range(3)]
    mixed = Cat(a[k] ^ b[15 - k] for k in range(16) for a, b in zip(signals, signals[1:], strict=False))
    logic, register = Signal(32), Signal(32)
    m.d.comb += logic.eq(mixed)
    m.d.sync += register.eq(mixed + 1)
    twins = Twins(m)
    assert "None" in twins.flat._engine.code.text  # of the last time: nothing yet
    twins.compare(1, 60)


def test_a_signal_that_only_outputs_need_beside_one_that_a_register_needs():
    m = Module()
    a, b, output, inner, register = Signal(4), Signal(), Signal(4), Signal(4), Signal(4)
    m.d.comb += output.eq(a)
    with m.If(b):
        m.d.comb += [output.eq(a + 3), inner.eq(a)]
    with m.If(a[0]):
        m.d.comb += output[1].eq(b)
    m.d.sync += register.eq(inner)
    Twins(m).compare(1, 60)


def test_bits_of_one_signal_that_are_registers_and_logic():
    m = Module()
    a, mixed, seen = Signal(8), Signal(12, init=0x5a5), Signal(12)
    m.d.comb += [mixed[2:5].eq(a), seen.eq(mixed + 1)]
    m.d.sync += [mixed[:2].eq(mixed[3:]), mixed[8:].eq(seen)]
    Twins(m).compare(1, 60)


@pytest.mark.parametrize("make", [lambda: Pooling(DeviceConfig.preset("tiny"))])
def test_blocks(make):
    Twins(make()).compare(1, 60)


def test_test_benches():
    """What processes see, and in which order, of ticks, samples, waits for changes and edges, and time."""
    m = Module()
    count, go, odd = Signal(6), Signal(), Signal()
    m.d.sync += count.eq(count + go)
    m.d.comb += odd.eq(count[0])
    twins = Twins(m)
    logs = []
    for simulator in (twins.flat, twins.plain):
        log, late = [], Signal()
        logs.append(log)

        async def driver(ctx, log=log):
            rng = random.Random(1)
            for _ in range(60):
                ctx.set(go, rng.random() < 0.6)
                log.append(("set", ctx.get(count), ctx.get(odd)))
                await ctx.tick()
            log.append(("repeat", await ctx.tick().sample(count, odd).repeat(3)))
            ctx.set(go, 1)
            log.append(("until", await ctx.tick().sample(count).until(count == 5)))
            log.append(("after", ctx.get(Cat(count, odd))))

        async def sampler(ctx, log=log):
            async for hit, reset, value, both in ctx.tick().sample(count, Cat(odd, go)):
                log.append(("tick", hit, reset, value, both))

        async def changes(ctx, log=log):
            while True:
                log.append(("changed", await ctx.changed(odd).sample(count)))

        async def edges(ctx, log=log):
            while True:
                log.append(("edge", await ctx.posedge(odd).delay(2.3e-6).sample(count)))

        async def falls(ctx, log=log):
            async for hit, value in ctx.negedge(twins.domain.clk).sample(count):
                log.append(("falls", hit, value))

        async def misses(ctx, log=log):
            ticks = aiter(ctx.tick())
            await anext(ticks)
            await ctx.tick()
            with pytest.raises(BrokenTrigger):
                await anext(ticks)
            log.append(("missed", ctx.get(count)))

        async def register(ctx, late=late):
            async for _, _, value in ctx.tick().sample(odd):
                ctx.set(late, value)

        async def watcher(ctx, log=log, late=late):
            async for _, _, value in ctx.tick().sample(late):
                log.append(("late", value))

        simulator.add_clock(1e-6)
        simulator.add_process(register)
        for number, bench in enumerate((driver, sampler, changes, edges, falls, watcher, misses)):
            simulator.add_testbench(bench, background=number > 0)
        simulator.run()
        first = len(log)
        simulator.reset()
        simulator.run()
        assert log[:first] == log[first:]
    assert logs[0] == logs[1]
    assert {kind for kind, *_ in logs[0]} == {"set", "repeat", "until", "after", "tick", "changed", "edge", "falls",
                                              "late", "missed"}


def printing(m, _):
    m.d.sync += Print("tick")


def of_two_clocks(m, a):
    m.domains.other = ClockDomain()
    m.d.sync += a.eq(1)
    b = Signal()
    m.d.other += b.eq(a)


def on_a_falling_clock(m, a):
    m.domains.down = ClockDomain(clk_edge="neg")
    m.d.down += a.eq(1)


def with_an_asynchronous_reset(m, a):
    m.domains.any = ClockDomain(async_reset=True)
    m.d.any += a.eq(1)


def with_logic_on_its_clock(m, a):
    m.d.sync += a.eq(ClockSignal())


@pytest.mark.parametrize("part", [printing, of_two_clocks, on_a_falling_clock, with_an_asynchronous_reset,
                                  with_logic_on_its_clock])
def test_designs_left_to_amaranths_engine(part):
    m = Module()
    m.domains.sync = ClockDomain()
    part(m, Signal())
    with pytest.warns(UserWarning, match="Amaranth's own engine"):
        assert type(Simulator(m, engine=BenchEngine)._engine) is PySimEngine


def test_drivers_that_a_test_bench_cannot_override():
    m, a, b = Module(), Signal(), Signal()
    m.d.comb += a.eq(b)
    twins = Twins(m)
    for simulator in (twins.flat, twins.plain):
        async def bench(ctx):
            ctx.set(a, 1)

        simulator.add_testbench(bench)
        with pytest.raises(Exception, match="Combinationally driven"):
            simulator.run()
