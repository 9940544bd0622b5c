"""Amaranth's statements as Python statements, in trees of which any part can be written apart from the rest.

A block's combinational statements drive signals that depend on each other through other blocks, so what a statement does to
a signal has a place of its own in the order of evaluation (:mod:`.order`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from amaranth.hdl import Signal
from amaranth.hdl._ast import Assign, Concat, Operator, Part, Slice, Switch, SwitchValue

from .value_code import Expression, Unsupported, Values

__all__ = ["INDENT", "Assignment", "Scope", "Statements", "Tree", "Writer", "assigned_bits", "reads_by_target"]

INDENT = " "
HEAVY = 24  # operations from which it saves time to compare an expression's variables with those of the last time
MOST = 6  # variables that it is worth for
LONG = 1000  # characters of an expression that gets a variable: Python's parser nests only so deep


class Assignment:
    """To bits of a signal: ``pieces`` (first bit, value), of which later ones replace earlier ones.

    Or, where the design works out which bits: ``mask`` of them, and one piece with its bits where they belong.
    """

    def __init__(self, target: int, signal: Signal):
        self.target, self.signal = target, signal
        self.targets = frozenset((target,))
        self.pieces: list[tuple[int, Expression]] = []
        self.mask: Expression | None = None

    @property
    def reads(self) -> set[int]:
        found = set() if self.mask is None else set(self.mask.reads)
        return found.union(*(value.reads for _, value in self.pieces))


class Case:
    def __init__(self, condition: Expression, body: list[Tree]):
        self.condition, self.body = condition, body
        self.targets: set[int] = set().union(*(tree.targets for tree in body))


class Choice:
    """The first of ``cases`` whose condition holds; ``apart``: no two conditions hold together."""

    def __init__(self, cases: list[Case], apart: bool):
        self.cases, self.apart = cases, apart
        self.targets: set[int] = set().union(*(case.targets for case in cases))


Tree = Assignment | Choice


class Statements:
    """Turns statements into trees. ``number`` numbers signals."""

    def __init__(self, number: Callable[[Signal], int], values: Values):
        self.number, self.values = number, values

    def block(self, statements: Iterable[Any]) -> list[Tree]:
        """Trees that do what ``statements`` do, one after another. Raises :class:`Unsupported` for Print and Assert."""
        trees: list[Tree] = []
        growing: dict[int, Assignment] = {}  # what is assigned to a signal by one statement after another
        for statement in statements:
            if type(statement) is Assign:
                target = statement.lhs
                shape = (target._width, target._signed) if type(target) is Signal else (len(target), False)
                found = self.store(target, 0, self.values.fitted(self.values(statement.rhs), *shape))
            elif type(statement) is Switch:
                found = [self.switch(statement)]
            else:
                raise Unsupported(f"{type(statement).__name__} in a design")
            for tree in found:
                if isinstance(tree, Assignment) and tree.mask is None:
                    if tree.target in growing:
                        growing[tree.target].pieces += tree.pieces
                        continue
                    growing[tree.target] = tree
                else:
                    for target in tree.targets:
                        growing.pop(target, None)
                trees.append(tree)
        return trees

    def store(self, target: Any, start: int, value: Expression) -> list[Tree]:
        """``value``, unsigned, to the bits of ``target`` from ``start`` on, as far as there are any."""
        kind, room = type(target), len(target) - start
        if room <= 0 or not value.width:
            return []
        if value.width > room:
            value = self.values.cut(value, 0, room)
        if kind is Signal:
            tree = Assignment(self.number(target), target)
            tree.pieces.append((start, value))
            return [tree]
        if kind is Operator and target.operator in ("u", "s"):
            return self.store(target.operands[0], start, value)
        if kind is Slice:
            return self.store(target.value, start + target.start, value)
        if kind is Concat:
            trees, at = [], 0
            for part in target.parts:
                width = len(part)
                low, high = max(at, start), min(at + width, start + value.width)
                if low < high:
                    trees += self.store(part, low - at, self.values.cut(value, low - start, high - start))
                at += width
            return trees
        if kind is SwitchValue:
            test = self.values(target.test)
            return self.chosen((self.values.matching(test, patterns), self.store(case, start, value))
                               for patterns, case in target.cases)
        if kind is Part:
            return self.store_part(target, start, value)
        raise Unsupported(f"{kind.__name__} is assigned to")

    def store_part(self, target: Part, start: int, value: Expression) -> list[Tree]:
        offset, whole = self.values(target.offset), target.value
        if type(whole) is Signal:
            scaled = f" * {target.stride}" if target.stride != 1 else ""
            shift = self.values.make(("(", offset, f"{scaled} + {start})" if start else f"{scaled})"), 0)
            full = (1 << len(whole)) - 1
            tree = Assignment(self.number(whole), whole)
            tree.mask = self.values.make((f"({(1 << value.width) - 1:#x} << ", shift, f" & {full:#x})"), len(whole))
            tree.pieces.append((0, self.values.make(("(", value, " << ", shift, f" & {full:#x})"), len(whole))))
            return [tree]
        places = min(-(-len(whole) // target.stride), 1 << offset.width)
        return self.chosen((self.values.make(("(", offset, f" == {place})"), 1),
                            self.store(whole, start + place * target.stride, value)) for place in range(places))

    def chosen(self, cases: Iterable[tuple[Expression, list[Tree]]]) -> list[Tree]:
        return [Choice([Case(condition, body) for condition, body in cases], False)]

    def switch(self, statement: Switch) -> Choice:
        """Of a Switch, an If or an FSM."""
        cases, test = [], statement.test
        # If and Elif: a test whose every bit stands for a condition is looked at bit by bit, as far as needed.
        bits = test.parts if type(test) is Concat and all(len(part) == 1 for part in test.parts) else None
        for patterns, body, _ in statement.cases:
            one = patterns[0].strip("-") if bits is not None and patterns and len(patterns) == 1 else ""
            if bits is not None and one in ("0", "1") and patterns:
                condition = self.values.unsigned(self.values(bits[len(test) - 1 - patterns[0].index(one)]))
                condition = condition if one == "1" else self.values.inverted(condition)
            else:
                condition = self.values.matching(self.values(test), patterns)
            cases.append(Case(condition, self.block(body)))
            if condition.number == 1:
                break
        plain = [pattern for patterns, _, _ in statement.cases for pattern in patterns or "-"]
        return Choice(cases, not any("-" in pattern for pattern in plain) and len(set(plain)) == len(plain))

    def count_uses(self, trees: Iterable[Tree]) -> None:
        """Counts what statements use among the uses of expressions."""
        for tree in trees:
            if isinstance(tree, Assignment):
                for _, value in tree.pieces:
                    value.uses += 1
                if tree.mask is not None:
                    tree.mask.uses += 1
            else:
                for case in tree.cases:
                    case.condition.uses += 1
                    self.count_uses(case.body)


class Scope:
    """Variables of expressions that lines written so far have worked out, in a block and those around it; ``instead``: of
    signals, other variables that are read."""

    def __init__(self, temporary: Callable[[], str], around: Scope | None = None, instead: dict[str, str] | None = None):
        self.temporary, self.around = temporary, around
        self.instead: dict[str, str] = instead or (around.instead if around else {})
        self.names: dict[Expression, str] = {}

    def find(self, value: Expression) -> str | None:
        scope: Scope | None = self
        while scope is not None:
            name = scope.names.get(value)
            if name is not None:
                return name
            scope = scope.around
        return None

    def text(self, value: Expression, lines: list[str], indent: str) -> str:
        """Of ``value``, after ``lines`` that are added."""
        if len(value.parts) == 1:
            only = value.parts[0]
            return self.instead.get(only, only) if type(only) is str else self.text(only, lines, indent)
        if value.uses > 1:
            name = self.find(value)
            if name is not None:
                return name
        code = "".join([part if type(part) is str else self.text(part, lines, indent) for part in value.parts])
        if value.uses > 1 or len(code) > LONG:
            name = self.names[value] = self.temporary()
            lines.append(f"{indent}{name} = {code}")
            return name
        return code


class Writer:
    """Writes trees to ``lines``. ``values`` are those of the trees; ``prefix`` begins the variables assigned to."""

    def __init__(self, values: Values, prefix: str):
        self.values, self.prefix, self.lines = values, prefix, []
        self.kept: list[str] = []  # variables that keep their values from one time to the next

    def write(self, tree: Tree, wanted: Collection[int] | None, scope: Scope, indent: str, first: bool = False) -> None:
        """What ``tree`` does to the signals in ``wanted`` (``None``: to all); ``first``: nothing was done to it before."""
        if isinstance(tree, Assignment):
            self.assign(tree, scope, indent, first)
            return
        relevant = [wanted is None or not case.targets.isdisjoint(wanted) for case in tree.cases]
        if True not in relevant:
            return
        last = len(relevant) - 1 - relevant[::-1].index(True)
        kept = [case for case, wants in zip(tree.cases, relevant[:last + 1], strict=False) if wants or not tree.apart]
        conditions = [scope.text(case.condition, self.lines, indent) for case in kept]
        word = "if"
        for case, condition in zip(kept, conditions, strict=True):
            always = case.condition.number == 1
            if always and word == "if":
                inner = indent
            else:
                self.lines.append(f"{indent}else:" if always else f"{indent}{word} {condition}:")
                inner = indent + INDENT
            word = "elif"
            begun, inside = len(self.lines), Scope(scope.temporary, scope)
            for part in case.body:
                if wanted is None or not part.targets.isdisjoint(wanted):
                    self.write(part, wanted, inside, inner)
            if len(self.lines) == begun:
                self.lines.append(f"{inner}pass")
            if always:
                break

    def remembered(self, name: str, value: Expression, scope: Scope, indent: str) -> bool:
        """Assigns ``value``, worked out anew only when what it depends on has changed: where that saves much."""
        weight = value.weight(MOST)
        if weight is None or scope.instead or scope.find(value):
            return False
        operations, names = weight[0], sorted(weight[1])
        if not names or operations < max(HEAVY, 4 * len(names)):
            return False
        before = [scope.temporary() for _ in names]
        result = scope.temporary()
        self.kept += [*before, result]
        changed = " or ".join(f"{old} != {new}" for old, new in zip(before, names, strict=True))
        self.lines.append(f"{indent}if {changed}:")
        inner = Scope(scope.temporary)
        code = inner.text(value, self.lines, indent + INDENT)
        self.lines += [f"{indent}{INDENT}{old} = {new}" for old, new in zip(before, names, strict=True)]
        self.lines += [f"{indent}{INDENT}{result} = {code}", f"{indent}{name} = {result}"]
        return True

    def assign(self, tree: Assignment, scope: Scope, indent: str, first: bool) -> None:
        name, width, signed = f"{self.prefix}{tree.target}", tree.signal._width, tree.signal._signed
        full, half = (1 << width) - 1, 1 << width >> 1
        if tree.mask is not None:
            if first:
                self.lines.append(f"{indent}{name} = {tree.signal.init}")
            mask, value = (scope.text(e, self.lines, indent) for e in (tree.mask, tree.pieces[0][1]))
            code = f"{name} & {full:#x} & ~{mask} | {value}"
        else:
            pieces, covered = overlaid(tree.pieces, self.values)
            whole = len(pieces) == 1 and covered == full
            if whole:
                value = self.values.fitted(pieces[0][1], width, signed)
                if not self.remembered(name, value, scope, indent):
                    code = scope.text(value, self.lines, indent)
                    self.lines.append(f"{indent}{name} = {code}")
                return
            texts = [scope.text(self.values.unsigned(value), self.lines, indent) + (f" << {start}" if start else "")
                     for start, value in pieces]
            if covered != full:
                texts.insert(0, f"{tree.signal.init & full & ~covered:#x}" if first else f"{name} & {full & ~covered:#x}")
            code = " | ".join(texts)
        self.lines.append(f"{indent}{name} = (({code}) ^ {half:#x}) - {half:#x}" if signed else f"{indent}{name} = {code}")


def overlaid(pieces: list[tuple[int, Expression]], values: Values) -> tuple[list[tuple[int, Expression]], int]:
    """What is left of each piece when later ones lie over it, and the mask of them all."""
    covered, found = 0, []
    for start, value in reversed(pieces):
        mask = ((1 << value.width) - 1) << start
        if not covered & mask:
            found.append((start, value))
        elif covered & mask != mask:
            free, at = mask & ~covered, start
            while free >> at:
                if free >> at & 1:
                    end = at
                    while free >> end & 1:
                        end += 1
                    found.append((at, values.cut(value, at - start, end - start)))
                    at = end
                else:
                    at += 1
        covered |= mask
    return found[::-1], covered


def reads_by_target(tree: Tree) -> dict[int, set[int]]:
    """For each target what must be settled before it can be assigned to."""
    found: dict[int, set[int]] = {}
    collect(tree, frozenset(), found)
    return found


def collect(tree: Tree, path: frozenset[int], found: dict[int, set[int]]) -> None:
    if isinstance(tree, Assignment):
        found.setdefault(tree.target, set()).update(path, tree.reads)
        return
    for case in tree.cases:
        path = path | case.condition.reads
        for part in case.body:
            collect(part, path, found)


def assigned_bits(tree: Tree, target: int) -> int:
    """A mask of the bits of ``target`` that ``tree`` may assign to."""
    if isinstance(tree, Choice):
        mask = 0
        for case in tree.cases:
            for part in case.body:
                mask |= assigned_bits(part, target)
        return mask
    if tree.target != target:
        return 0
    if tree.mask is not None:
        return (1 << tree.signal._width) - 1
    mask = 0
    for start, value in tree.pieces:
        mask |= ((1 << value.width) - 1) << start
    return mask
