"""A whole design as two Python functions: one settles its combinational signals, one is an edge of its clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count
from typing import Any

from amaranth.hdl import Const, Fragment, MemoryData, Shape, Signal
from amaranth.hdl._ast import Assign, Concat, Operator, Part, Slice, Switch, SwitchValue
from amaranth.hdl._mem import MemoryInstance

from .order import Step, steps
from .statement_code import INDENT, Assignment, Scope, Statements, Writer, assigned_bits, reads_by_target
from .value_code import Expression, Unsupported, Values

__all__ = ["DesignCode"]

LOOPS = 1000  # rounds after which signals that depend on each other have settled, or never will


class DesignCode:
    """The ``text`` of ``fragment`` (prepared for simulation). Signals have numbers, ``signals`` in their order, and are
    variables ``v0``, ``v1`` ..; memories are lists ``m0``, ``m1`` .. The text defines ``make``, which returns ``settle``
    (works out the combinational signals that the clock's edge needs), ``settle_outputs`` (all others, after it) and
    ``clock``.

    Raises :class:`Unsupported` for what only Amaranth's engine simulates: clocks other than one that rises, asynchronous
    resets, logic on the clock itself, Print and Assert.
    """

    def __init__(self, fragment: Fragment):
        self.signals: list[Signal] = []
        self.numbers: dict[int, int] = {}
        self.memories: dict[int, tuple[str, MemoryData]] = {}
        self.clock: Any = None
        self.aliases: dict[int, Signal | Const] = {}  # by number
        self.comb: list[Any] = []
        self.sync: list[Any] = []
        self.instances: list[MemoryInstance] = []
        self.collect(fragment)
        self.combinational: set[int] = set()
        self.registers: set[int] = set()
        self.find_targets()
        self.expressions: dict[int, Expression] = {}
        self.temporaries = count()
        self.text = self.make()

    def number(self, signal: Signal) -> int:
        try:
            return self.numbers[id(signal)]
        except KeyError:
            self.numbers[id(signal)] = number = len(self.signals)
            self.signals.append(signal)
            return number

    def memory(self, data: MemoryData) -> str:
        return self.memories.setdefault(id(data), (f"m{len(self.memories)}", data))[0]

    def collect(self, fragment: Fragment) -> None:
        """Statements and memories of the whole hierarchy."""
        domains = dict.fromkeys(fragment.statements)
        if isinstance(fragment, MemoryInstance):
            self.instances.append(fragment)
            domains |= dict.fromkeys(port._domain for port in (*fragment._read_ports, *fragment._write_ports))
        for name in domains:
            if name == "comb":
                self.comb.append(list(fragment.statements.get(name, ())))
                continue
            domain = fragment.domains[name]
            if self.clock is None:
                self.clock = domain
            if domain is not self.clock:
                raise Unsupported("more than one clock domain")
            if domain.clk_edge != "pos" or (domain.async_reset and domain.rst is not None):
                raise Unsupported("a clock that falls, or an asynchronous reset")
            self.sync.append(list(fragment.statements.get(name, ())))
        for sub, _, _ in fragment.subfragments:
            self.collect(sub)

    def find_targets(self) -> None:
        """What kind of signal each is, and which are only other names."""
        driven: defaultdict[int, int] = defaultdict(int)
        for statement in chain.from_iterable(self.comb):
            for target in {self.number(s) for s in targets_of(statement)}:
                driven[target] += 1
        for statement in chain.from_iterable(self.sync):
            self.registers.update(self.number(s) for s in targets_of(statement))
        for instance in self.instances:
            for port in instance._read_ports:
                for signal in assigned(port._data):
                    if port._domain == "comb":
                        driven[self.number(signal)] += 1
                    else:
                        self.registers.add(self.number(signal))
        self.combinational = set(driven)
        if any(self.signals[number]._signed for number in self.mixed):
            raise Unsupported("a signed signal with combinational bits and registers")
        for block in self.comb:
            kept = []
            for statement in block:
                if type(statement) is Assign and type(statement.lhs) is Signal:
                    number = self.number(statement.lhs)
                    same = same_value(statement.lhs, statement.rhs)
                    if same is not None and driven[number] == 1 and number not in self.registers:
                        self.aliases[number] = same
                        continue
                kept.append(statement)
            block[:] = kept
        for number in self.aliases:
            self.resolved(number)

    def resolved(self, number: int) -> int | Const:
        """The signal that signal ``number`` is another name of."""
        for _ in range(len(self.aliases) + 1):
            same = self.aliases.get(number)
            if same is None:
                return number
            if isinstance(same, Const):
                return same
            number = self.number(same)
        raise Unsupported("signals that are only each other")

    def signal(self, signal: Signal) -> Expression:
        """The settled value of ``signal``."""
        number = self.number(signal)
        found = self.expressions.get(number)
        if found is None:
            same = self.resolved(number)
            if isinstance(same, Const):
                text = str(same.value) if same.value >= 0 else f"({same.value})"
                found = Expression((text,), signal._width, signal._signed, frozenset(), same.value)
            elif self.clock is not None and self.signals[same] is self.clock.clk:
                raise Unsupported("logic on a clock")
            else:
                reads = frozenset((same,)) if same in self.combinational else frozenset()
                found = Expression((f"v{same}",), signal._width, signal._signed, reads)
            self.expressions[number] = found
        return found

    def temporary(self) -> str:
        return f"t{next(self.temporaries)}"

    @property
    def mixed(self) -> set[int]:
        """Signals some of whose bits are registers."""
        return self.registers & self.combinational

    def make(self) -> str:
        self.combine()
        clock = self.clocking()
        order, rest = self.settling(self.read_by_clock)
        self.outputs = {target for step in rest for target in targets_in(step)}
        settled = {target for step in order for target in targets_in(step)}
        functions = {"settle": (self.settling_lines(order), settled),
                     "settle_outputs": (self.settling_lines(rest), self.outputs), "clock": (clock, self.registers)}
        lines = ["def make():"]
        lines += [f"{INDENT}v{number} = {signal.init}" for number, signal in enumerate(self.signals)
                  if number not in self.aliases]
        lines += [f"{INDENT}{name} = None" for writer, _ in functions.values() for name in writer.kept]
        for name, (writer, written) in functions.items():
            lines.append(f"{INDENT}def {name}():")
            lines += [f"{INDENT * 2}nonlocal {variable}" for variable in (*writer.kept, *(f"v{n}" for n in sorted(written)))]
            lines += [f"{INDENT}{line}" for line in writer.lines] or [f"{INDENT * 2}pass"]
        lines.append(f"{INDENT}return {', '.join(functions)}")
        return "\n".join(lines) + "\n"

    def row(self, values: Values, instance: MemoryInstance, address: Any) -> Expression:
        """The row of a memory, or 0 beyond it."""
        shape, depth = Shape.cast(instance._data.shape), instance._data.depth
        name, index = self.memory(instance._data), values.unsigned(values(address))
        if depth < 1 << index.width:
            return values.make((f"({name}[", index, "] if ", index, f" < {depth} else 0)"), shape.width, shape.signed)
        return values.make((f"{name}[", index, "]"), shape.width, shape.signed)

    def combine(self) -> None:
        """Trees of the combinational statements."""
        self.values = Values(self.signal)
        statements = Statements(self.number, self.values)
        self.trees = trees = []
        for block in self.comb:
            trees += statements.block(block)
        for instance in self.instances:
            for port in instance._read_ports:
                if port._domain == "comb":
                    row = self.row(self.values, instance, port._addr)
                    trees += statements.store(port._data, 0, self.values.unsigned(row))
        statements.count_uses(trees)
        self.masks = {number: 0 for number in self.mixed}  # of the bits that are no registers
        for tree in trees:
            for target in tree.targets & self.mixed:
                self.masks[target] |= assigned_bits(tree, target)

    def settling(self, needed: set[int]) -> tuple[list[Step], list[Step]]:
        """Steps that settle what the clock's edge needs, directly or not; and those of all else."""
        trees = self.trees
        main: list[Step] = []
        rest: list[Step] = []
        for step in reversed(steps(trees)):
            targets = targets_in(step)
            if needed.isdisjoint(targets):
                rest.append(step)
                continue
            main.append(step)
            for inner in step.loop or (step,):
                reads = reads_by_target(trees[inner.statement])
                for target in inner.targets:
                    needed |= reads[target]
            needed |= targets
        self.begun: set[int] = set()
        self.loops = sum(bool(step.loop) for step in main + rest)
        return main[::-1], rest[::-1]

    def settling_lines(self, order: list[Step]) -> Writer:
        """What takes the steps of ``order``."""
        writer = Writer(self.values, "v")
        scope = Scope(self.temporary)

        def write(step: Step, scope: Scope, indent: str, anew: bool) -> None:
            tree = self.trees[step.statement]
            fresh = step.targets if anew else step.targets - self.begun
            for target in sorted(fresh & self.mixed):
                signal, mask = self.signals[target], self.masks[target]
                kept = (1 << signal._width) - 1 & ~mask
                writer.lines.append(f"{indent}v{target} = v{target} & {kept:#x} | {signal.init & mask:#x}")
            fresh = fresh - self.mixed
            if not isinstance(tree, Assignment):
                writer.lines += [f"{indent}v{target} = {self.signals[target].init}" for target in sorted(fresh)]
            self.begun |= step.targets
            writer.write(tree, step.targets, scope, indent, bool(fresh))

        for step in order:
            if not step.loop:
                write(step, scope, INDENT, False)
                continue
            targets = sorted(targets_in(step))
            before = {target: self.temporary() for target in targets}
            writer.lines.append(f"{INDENT}for _ in range({LOOPS}):")
            writer.lines += [f"{INDENT * 2}{name} = v{target}" for target, name in before.items()]
            # A round reads what the round before it left: what it assigns to signals is not all until its end.
            instead = {f"v{target}": name for target, name in before.items()}
            seen: set[int] = set()
            for inner in step.loop:
                write(inner, Scope(self.temporary, instead=instead), INDENT * 2, seen.isdisjoint(inner.targets))
                seen |= inner.targets
            same = " and ".join(f"{name} == v{target}" for target, name in before.items())
            writer.lines += [f"{INDENT * 2}if {same}:", f"{INDENT * 3}break", f"{INDENT}else:",
                             f"{INDENT * 2}raise RuntimeError('signals that never settle')"]
        return writer

    def clocking(self) -> Writer:
        """What the clock's edge does: the next registers from the present ones, then both exchanged, then memories."""
        values = Values(self.signal)
        statements = Statements(self.number, values)
        trees = [tree for block in self.sync for tree in statements.block(block)]
        statements.count_uses(trees)
        writer, scope = Writer(values, "n"), Scope(self.temporary)
        self.read_by_clock: set[int] = set()
        kept = set(self.registers)
        seen: set[int] = set()
        for tree in trees:
            if isinstance(tree, Assignment) and tree.target not in seen and tree.mask is None \
                    and assigned_bits(tree, tree.target) == (1 << tree.signal._width) - 1:
                kept.discard(tree.target)
            seen |= tree.targets
        writer.lines += [f"{INDENT}n{number} = v{number}" for number in sorted(kept)]
        for tree in trees:
            writer.write(tree, None, scope, INDENT)
            for reads in reads_by_target(tree).values():
                self.read_by_clock |= reads
        if self.clock is not None and self.clock.rst is not None and self.registers:
            reset = values.unsigned(values(self.clock.rst))
            self.read_by_clock |= reset.reads
            writer.lines += [f"{INDENT}if {scope.text(reset, writer.lines, INDENT)}:", f"{INDENT * 2}pass"]
            writer.lines += [f"{INDENT * 2}n{number} = {self.signals[number].init}" for number in sorted(self.registers)
                             if not self.signals[number].reset_less]
        after: list[str] = []
        for instance in self.instances:
            self.memory_edge(instance, statements, writer, scope, after)
        writer.lines += [f"{INDENT}v{number} = n{number}" for number in sorted(self.registers)]
        writer.lines += after
        return writer

    def memory_edge(self, instance: MemoryInstance, statements: Statements, writer: Writer, scope: Scope,
                    after: list[str]) -> None:
        """Reads of ``instance``, and in ``after`` the writes."""
        values, lines = statements.values, writer.lines
        name, shape, depth = self.memory(instance._data), Shape.cast(instance._data.shape), instance._data.depth
        width = shape.width
        writes: list[tuple[str, str, str]] = []

        def text(value: Expression, lines: list[str], scope: Scope, indent: str) -> str:
            self.read_by_clock.update(value.reads)
            return scope.text(value, lines, indent)

        for port in instance._write_ports:
            address, data, enable = (self.temporary() for _ in range(3))
            single = len(port._en) == 1
            mask = port._en if single else Concat(bit.replicate(port._granularity) for bit in port._en)
            lines.append(f"{INDENT}{enable} = {text(values.unsigned(values(mask)), lines, scope, INDENT)}")
            lines.append(f"{INDENT}if {enable}:")
            inner = Scope(self.temporary, scope)
            for variable, value in ((address, port._addr), (data, port._data)):
                code = text(values.unsigned(values(value)), lines, inner, INDENT * 2)
                lines.append(f"{INDENT * 2}{variable} = {code}")
            writes.append((address, data, enable))
            condition = f"{enable} and {address} < {depth}" if depth < 1 << len(port._addr) else enable
            stored = data if single else f"{name}[{address}] & {(1 << width) - 1:#x} & ~{enable} | {data} & {enable}"
            if shape.signed:
                half = 1 << width >> 1
                stored = f"(({stored}) ^ {half:#x}) - {half:#x}"
            after += [f"{INDENT}if {condition}:", f"{INDENT * 2}{name}[{address}] = {stored}"]
        for port in instance._read_ports:
            if port._domain == "comb":
                continue
            data = self.temporary()
            enabled = values.true(values.unsigned(values(port._en)))
            lines.append(f"{INDENT}if {text(enabled, lines, scope, INDENT)}:")
            inner = Scope(self.temporary, scope)
            row = text(values.unsigned(self.row(values, instance, port._addr)), lines, inner, INDENT * 2)
            lines.append(f"{INDENT * 2}{data} = {row}")
            for index in port._transparent_for:
                written, new, mask = writes[index]
                address = text(values.unsigned(values(port._addr)), lines, inner, INDENT * 2)
                lines.append(f"{INDENT * 2}if {mask} and {address} == {written}:")
                lines.append(f"{INDENT * 3}{data} = " + (new if len(instance._write_ports[index]._en) == 1 else
                                                         f"{data} & ~{mask} | {new} & {mask}"))
            for tree in statements.store(port._data, 0, Expression((data,), width, False, frozenset())):
                writer.write(tree, None, inner, INDENT * 2)


def targets_in(step: Step) -> set[int]:
    return step.targets.union(*(inner.targets for inner in step.loop))


def targets_of(statement: Any) -> Iterator[Signal]:
    if type(statement) is Assign:
        yield from assigned(statement.lhs)
    elif type(statement) is Switch:
        for _, body, _ in statement.cases:
            for inner in body:
                yield from targets_of(inner)
    else:
        raise Unsupported(f"{type(statement).__name__} in a design")


def assigned(target: Any) -> Iterator[Signal]:
    kind = type(target)
    if kind is Signal:
        yield target
    elif kind is Operator:
        yield from assigned(target.operands[0])
    elif kind in (Slice, Part):
        yield from assigned(target.value)
    elif kind is Concat:
        for part in target.parts:
            yield from assigned(part)
    elif kind is SwitchValue:
        for _, case in target.cases:
            yield from assigned(case)
    else:
        raise Unsupported(f"{kind.__name__} is assigned to")


def same_value(target: Signal, value: Any) -> Signal | Const | None:
    """The signal or constant that ``target`` always equals, as an integer, when ``value`` is assigned to it."""
    signed: bool | None = None
    while type(value) in (Operator, Slice):
        if type(value) is Operator:
            if value.operator not in ("u", "s"):
                return None
            signed = value.operator == "s" if signed is None else signed
            value = value.operands[0]
        else:
            if value.start or value.stop != len(value.value):
                return None
            signed = False if signed is None else signed
            value = value.value
    if type(value) not in (Const, Signal) or (signed is not None and signed != value.shape().signed):
        return None
    width, extended = len(value), value.shape().signed
    fits = width <= target._width if extended == target._signed else width < target._width and not extended
    return value if fits else None
