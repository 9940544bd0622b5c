"""Amaranth's values as Python expressions.

An expression is an integer in the range of its value's shape (or a bool, where that is one unsigned bit), so masks and sign
extensions are only where bits are cut off or read with another sign. Shapes follow Amaranth's language guide. Equal
expressions are one object, which a function need work out only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from amaranth.hdl import Const, Signal, Value
from amaranth.hdl._ast import Concat, Operator, Part, Slice, SwitchValue

__all__ = ["Expression", "Unsupported", "Values"]

TABLE = 4  # cases from which a choice among plain values is a look-up
RUN = 3  # equal bits from which a run of them is one choice


class Unsupported(Exception):
    """A part of a design that only Amaranth's own engine simulates."""


class Expression:
    """Python text with further expressions in it.

    ``parts`` are joined; ``reads`` are the numbers of the combinational signals among them; ``uses`` counts what it is part
    of.
    """

    __slots__ = ("number", "parts", "reads", "signed", "uses", "width")

    def __init__(self, parts: tuple[Any, ...], width: int, signed: bool, reads: frozenset[int], number: int | None = None):
        self.parts, self.width, self.signed, self.reads, self.uses = parts, width, signed, reads, 0
        self.number = number  # of a constant

    def weight(self, most: int) -> tuple[int, set[str]] | None:
        """How many operations it takes, and the variables that decide it; ``None`` where a memory decides too, or more than
        ``most`` variables."""
        seen: set[Expression] = set()
        names: set[str] = set()
        left = [self]
        while left:
            value = left.pop()
            if value in seen:
                continue
            seen.add(value)
            for part in value.parts:
                if type(part) is not str:
                    left.append(part)
                elif "[" in part and not part.startswith(")["):
                    return None
            if value.plain and value.number is None:
                only = value.parts[0]
                if type(only) is str:
                    names.add(only)
                    if len(names) > most:
                        return None
        return len(seen), names

    @property
    def plain(self) -> bool:
        """A variable or a number."""
        return len(self.parts) == 1 and (type(self.parts[0]) is str or self.parts[0].plain)


class Values:
    """Turns values into expressions. ``signal`` gives that of a signal."""

    def __init__(self, signal: Callable[[Signal], Expression]):
        self.known: dict[Any, Expression] = {}
        self.kinds: dict[type, Callable[[Any], Expression]] = {
            Const: lambda value: self.number(value.value, len(value), value.shape().signed), Signal: signal,
            Operator: self.operator, Slice: lambda value: self.bits(value.value, value.start, value.stop), Part: self.part,
            Concat: lambda value: self.joined([self(part) for part in value.parts]), SwitchValue: self.choice,
        }

    def __call__(self, value: Value) -> Expression:
        try:
            kind = self.kinds[type(value)]
        except KeyError:
            raise Unsupported(f"{type(value).__name__} in a design") from None
        return kind(value)

    def make(self, parts: tuple[Any, ...], width: int, signed: bool = False) -> Expression:
        key = parts, width, signed
        found = self.known.get(key)
        if found is None:
            reads: frozenset[int] = frozenset()
            for part in parts:
                if type(part) is not str:
                    part.uses += 1
                    reads = reads | part.reads if reads else part.reads
            self.known[key] = found = Expression(parts, width, signed, reads)
        return found

    def number(self, value: int, width: int, signed: bool = False) -> Expression:
        key = value, width, signed
        found = self.known.get(key)
        if found is None:
            text = str(value) if value >= 0 else f"({value})"
            self.known[key] = found = Expression((text,), width, signed, frozenset(), value)
        return found

    def fitted(self, value: Expression, width: int, signed: bool) -> Expression:
        """As assigned to ``width`` bits: extended by its own sign, or cut off."""
        if value.width == width and value.signed == signed:
            return value
        if (value.width <= width) if value.signed == signed else (value.width < width and signed):
            return self.make((value,), width, signed) if value.number is None else self.number(value.number, width, signed)
        mask, half = (1 << width) - 1, 1 << width >> 1
        if value.number is not None or not width:
            bits = (value.number or 0) & mask
            return self.number(bits - (bits & half) * 2 if signed else bits, width, signed)
        if not signed:
            return self.make(("(", value, f" & {mask:#x})"), width)
        if value.width == width and not value.signed:
            return self.make(("((", value, f" ^ {half:#x}) - {half:#x})"), width, True)
        return self.make(("((", value, f" & {mask:#x} ^ {half:#x}) - {half:#x})"), width, True)

    def unsigned(self, value: Expression) -> Expression:
        """The same bits."""
        return self.fitted(value, value.width, False)

    def inverted(self, value: Expression) -> Expression:
        """Of one bit."""
        if value.number is not None:
            return self.number(1 - value.number, 1)
        if value.parts[0] == "(not ":
            return value.parts[1]
        return self.make(("(not ", value, ")"), 1)

    def true(self, value: Expression) -> Expression:
        """Whether any bit is set."""
        if value.width == 1 and not value.signed:
            return value
        return self.make(("(", value, " != 0)"), 1)

    def operator(self, value: Operator) -> Expression:
        parts = [self(operand) for operand in value.operands]
        return (self.unary if len(parts) == 1 else self.binary)(value.operator, *parts)

    def unary(self, operator: str, value: Expression) -> Expression:
        width = value.width
        match operator:
            case "u" | "s":
                return self.fitted(value, width, operator == "s")
            case "-":
                return self.make(("(-", value, ")"), width + 1, True)
            case "~":
                if value.signed:
                    return self.make(("(~", value, ")"), width, True)
                return self.inverted(value) if width == 1 else self.make(("(", value, f" ^ {(1 << width) - 1:#x})"), width)
            case "b" | "r|":
                return self.true(value)
            case "r&":
                return value if width == 1 and not value.signed else self.make(
                    ("(", self.unsigned(value), f" == {(1 << width) - 1:#x})"), 1)
            case "r^":
                return value if width == 1 and not value.signed else self.make(
                    ("((", self.unsigned(value), ").bit_count() & 1)"), 1)
        raise Unsupported(f"operator {operator}")

    def binary(self, operator: str, a: Expression, b: Expression) -> Expression:
        match operator:
            case "&" | "|" | "^":
                width, signed = unified([a, b])
                if (width, signed) == (1, False) and a.width == b.width:
                    operator = {"&": "and", "|": "or", "^": "!="}[operator]
                return self.make(("(", a, f" {operator} ", b, ")"), width, signed)
            case "+" | "-":
                width, signed = unified([a, b])
                return self.make(("(", a, f" {operator} ", b, ")"), width + 1, signed or operator == "-")
            case "*":
                return self.make(("(", a, " * ", b, ")"), a.width + b.width, a.signed or b.signed)
            case "//" | "%":
                width, signed = (a.width + b.signed, a.signed or b.signed) if operator == "//" else (b.width, b.signed)
                if b.number:
                    return self.make(("(", a, f" {operator} ", b, ")"), width, signed)
                return self.make(("(", a, f" {operator} ", b, " if ", b, " else 0)"), width, signed)
            case "<<":
                return self.make(("(", a, " << ", b, ")"), a.width + (1 << b.width) - 1, a.signed)
            case ">>":
                return self.make(("(", a, " >> ", b, ")"), a.width, a.signed)
            case "==" | "!=" | "<" | ">" | "<=" | ">=":
                return self.make(("(", a, f" {operator} ", b, ")"), 1)
        raise Unsupported(f"operator {operator}")

    def bits(self, value: Value, start: int, stop: int) -> Expression:
        """Bits ``start`` to ``stop`` of ``value``, unsigned."""
        while True:
            if type(value) is Slice:
                start, stop, value = start + value.start, stop + value.start, value.value
            elif type(value) is Operator and value.operator in ("u", "s"):
                value = value.operands[0]
            else:
                break
        if type(value) is Concat:
            found, at = [], 0
            for part in value.parts:
                width = len(part)
                if start < at + width and at < stop:
                    found.append(self.bits(part, max(start - at, 0), min(stop - at, width)))
                at += width
            return self.joined(found)
        return self.cut(self(value), start, stop)

    def cut(self, value: Expression, start: int, stop: int) -> Expression:
        width = stop - start
        if start == 0 and width == value.width:
            return self.unsigned(value)
        mask = (1 << width) - 1
        if value.number is not None or not width:
            return self.number((value.number or 0) >> start & mask, width)
        shifted = f" >> {start}" if start else ""
        if stop == value.width and not value.signed:
            return self.make(("(", value, f"{shifted})"), width)
        return self.make(("(", value, f"{shifted} & {mask:#x})"), width)

    def part(self, value: Part) -> Expression:
        whole, offset = self(value.value), self(value.offset)
        scaled = f" * {value.stride}" if value.stride != 1 else ""
        return self.make(("(", whole, " >> ", offset, f"{scaled} & {(1 << value.width) - 1:#x})"), value.width)

    def joined(self, values: Sequence[Expression]) -> Expression:
        """Their bits in one, the first lowest."""
        start, known, parts, index = 0, 0, [], 0
        while index < len(values):
            value = values[index]
            equal = 1
            while index + equal < len(values) and values[index + equal] is value:
                equal += 1
            if value.number is not None or not value.width:
                equal, width = 1, value.width
                known |= ((value.number or 0) & (1 << width) - 1) << start
            elif value.width == 1 and equal >= RUN:
                width = equal
                parts += [" | ", f"({((1 << equal) - 1) << start:#x} if ", value, " else 0)"]
            else:
                equal, width = 1, value.width
                parts += [" | ", self.unsigned(value), f" << {start}"] if start else [" | ", self.unsigned(value)]
            start += width
            index += equal
        if not parts:
            return self.number(known, start)
        if known:
            parts += [" | ", f"{known:#x}"]
        if len(parts) == 2 and start == values[0].width:
            return parts[1]
        return self.make(("(", *parts[1:], ")"), start)

    def matching(self, test: Expression, patterns: Sequence[str] | None) -> Expression:
        """Whether ``test`` matches one of ``patterns`` (``None``: anything does)."""
        if patterns is None:
            return self.number(1, 1)
        found: list[Any] = []
        for pattern in patterns:
            value = int(pattern.replace("-", "0") or "0", 2)
            mask = int("0" + "".join("0" if bit == "-" else "1" for bit in pattern), 2)
            if not mask:
                return self.number(1, 1)
            if test.width == 1 and not test.signed:
                one = test if value else self.inverted(test)
            elif mask == (1 << test.width) - 1:
                one = self.make(("(", self.unsigned(test), f" == {value})"), 1)
            else:
                one = self.make(("(", test, f" & {mask:#x} == {value:#x})"), 1)
            found += [" or ", one]
        if not found:
            return self.number(0, 1)
        return found[1] if len(found) == 2 else self.make(("(", *found[1:], ")"), 1)

    def choice(self, value: SwitchValue) -> Expression:
        cases = [(patterns, self(case)) for patterns, case in value.cases]
        if not cases:
            return self.number(0, 0)
        width, signed = unified([case for _, case in cases])
        test = self(value.test)
        table = self.table(test, cases)
        if table:
            return self.make(table, width, signed)
        parts: list[Any] = ["("]
        for index, (patterns, case) in enumerate(cases):
            condition = self.matching(test, patterns)
            if condition.number == 1:
                parts.append(case)
                break
            if condition.number == 0:
                continue
            if condition.parts[0] == "(not " and index == 0 and len(cases) == 2 and cases[1][0] is None:  # as a rule
                parts += [cases[1][1], " if ", condition.parts[1], " else ", case]
                break
            parts += [case, " if ", condition, " else "]
        else:
            parts.append("0")
        return self.make((*parts, ")"), width, signed)

    def table(self, test: Expression, cases: Sequence[tuple[Sequence[str] | None, Expression]]) -> tuple[Any, ...] | None:
        """A look-up, where the cases are 0, 1, 2 .. and what they give takes no time to work out."""
        if len(cases) < TABLE or not all(case.plain for _, case in cases):
            return None
        for index, (patterns, _) in enumerate(cases):
            if patterns is None and index == len(cases) - 1:
                break
            if patterns is None or len(patterns) != 1 or "-" in patterns[0] or int(patterns[0] or "0", 2) != index:
                return None
        test = self.unsigned(test)
        found: list[Any] = [case for _, case in cases]
        if len(cases) < 1 << test.width and cases[-1][0] is not None:
            found.append("0")
        parts = [part for one in found for part in (one, ", ")]
        if len(found) >= 1 << test.width:
            return ("(", *parts, ")[", test, "]")
        return ("(", *parts, ")[", test, " if ", test, f" < {len(found)} else {len(found) - 1}]")


def unified(values: Sequence[Expression]) -> tuple[int, bool]:
    """The shape that holds each of ``values``."""
    plain = max((value.width for value in values if not value.signed), default=-1)
    extended = max((value.width for value in values if value.signed), default=-1)
    return (plain, False) if extended < 0 else (max(extended, plain + 1), True)
