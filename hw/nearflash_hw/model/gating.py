"""Gates the blocks of a model: adds to its Verilog what tells, after every clock edge, which blocks have something to do.

The text is what Yosys wrote for :func:`~nearflash_hw.verilog.to_verilog`, its registers assigned in clocked processes
(:mod:`.registers`): one module per instance, ``LHS <= RHS;`` under ``if`` and ``casez`` of signals. A block is the smallest
subtree of instances that holds all assignments on its clock, without those of blocks inside it. In its root module it gets

* ``blockN_changed``: at its last edge a register took another value, or a memory was written;
* ``blockN_awake``: that, or one of its inputs differs from what it was at that edge. Its inputs are the root module's, and
  the outputs of blocks (and of what runs free) inside it.

The top module gets a port ``blockN_awake`` per block, and ``remainingN`` per register ``remaining`` on the free clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["gate"]

GROUP = 8  # comparisons per step of the search for a register that changed: the narrow ones come first, and mostly decide

_MODULE = re.compile(r"^module (\\\S+|\w+) ?\((.*?)\);\n(.*?)^endmodule\n", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"^  (input|output) (?:\[(\d+):0\] )?(\\\S+|\w+) *;", re.MULTILINE)
_REGISTER = re.compile(r"^  reg (?:\[(\d+):0\] )?(\\\S+|\w+) *(\[\d+:0\])?", re.MULTILINE)
_INSTANCE = re.compile(r"^  (\\\S+|\w+) +(\\\S+|\w+) *\(\n(.*?)^  \);", re.MULTILINE | re.DOTALL)
_CONNECTION = re.compile(r"^    \.(\\\S+|\w+) *\((.*?)\),?$", re.MULTILINE)
_CLOCKED = re.compile(r"^  always @\(edge (\w+)\)(.*?)(?=^  \S|\Z)", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"(\\\S+ |[A-Za-z_]\w*)((?:\[[^;()]*\])? ?)<= ([^;]*?) ?;")
_CONTROL = re.compile(r"\\\S+ |\b(?:if|casez) \(|\w+'[bh][\da-fxz?]+|[\w\s)\[\]{},:;]")
_STATEMENT = re.compile(r"^    (?!end|\s)", re.MULTILINE)  # of the highest level of a process
_KEYWORDS = frozenset(("if", "else", "begin", "end", "casez", "endcase", "default"))
_DECLARATION = re.compile(r"^  (?:input|output|wire|reg)\b.*\n", re.MULTILINE)
_NAME = re.compile(r"\\\S+ |(?<![\w'\\$])[A-Za-z_]\w*")
_BLOCK_CLOCK = re.compile(r"block(\d+)_clk")
FREE_CLOCK = "clk"


def _join(terms: Iterable[str], op: str) -> str:
    return f" {op} ".join(f"({t})" for t in terms)


def _names(expression: str) -> set[str]:
    return {name.strip() for name in _NAME.findall(expression + " ")}


@dataclass
class _Module:
    name: str
    body: str
    parent: tuple[_Module, str] | None = None  # and the instance's name there
    children: list[tuple[_Module, dict[str, str]]] = field(default_factory=list)  # and what their ports connect to
    clock: str | None = None  # of its registers
    root_of: int | None = None  # the block whose root it is
    added: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = {name: (kind, int(high or 0) + 1) for kind, high, name in _PORT.findall(self.body)}
        registers = _REGISTER.findall(self.body)
        self.widths = {name: int(high or 0) + 1 for high, name, _ in registers}
        self.memories = {name for _, name, depth in registers if depth}
        logic = _DECLARATION.sub("", _INSTANCE.sub("", _CLOCKED.sub(lambda m: m[2], self.body)))
        self.names = _names(logic)  # in its assignments: not those that only instances are connected to
        clocks = {clock for clock, _ in _CLOCKED.findall(self.body)}
        if len(clocks) == 1:
            self.clock = clocks.pop()
        elif any(c == FREE_CLOCK or _BLOCK_CLOCK.fullmatch(c) for c in clocks):
            raise ValueError(f"module {self.name}: registers on the clocks {sorted(clocks)}")

    def path(self, top: _Module) -> str:
        """The instance's hierarchical name from ``top``, with its dot; empty for ``top`` itself."""
        if self is top:
            return ""
        if self.parent is None:
            raise ValueError(f"module {self.name} is not below {top.name}")
        above, instance = self.parent
        return f"{above.path(top)}{instance} ." if instance.startswith("\\") else f"{above.path(top)}{instance}."

    def above(self) -> Iterator[_Module]:
        """From this module up to the top."""
        module: _Module | None = self
        while module is not None:
            yield module
            module = module.parent[0] if module.parent else None

    @property
    def apart(self) -> bool:
        """Whether it's no part of the block above it: a block itself, or free."""
        return self.root_of is not None or self.clock == FREE_CLOCK

    def uses(self, port: str) -> bool:
        """Whether anything of this instance's own block depends on input ``port``: not what only blocks inside it see."""
        if port in self.names:
            return True
        for child, connections in self.children:
            if not child.apart:
                for inner, net in connections.items():
                    if child.uses(inner) if net.strip() == port else port in _names(net):
                        return True
        return False

    def changes(self, path: str, found: str, last: str) -> Iterator[tuple[int, str]]:
        """(bits to compare, statement) of each clocked process: the statement sets variable ``found`` if the coming edge
        changes a register or writes a memory. It may use variable ``last``."""
        for _, process in _CLOCKED.findall(self.body):
            if rest := _CONTROL.sub("", _ASSIGNMENT.sub("", process)):  # nothing may be left out
                raise ValueError(f"module {self.name}: cannot read {rest!r} in the clocked process {process.strip()!r}")
            assignments = list(_ASSIGNMENT.finditer(process))
            names = {m[1].strip() for m in assignments}
            # Of several assignments to one register the last decides.
            decides = len(names) == 1 and len(_STATEMENT.findall(process)) > 1 and not any(m[2].strip() for m in assignments)
            flag, so_far = (last, "") if decides else (found, f"{found} | ")
            text, end = "", 0
            for m in assignments:
                name, place, value = (_prefixed(part, path) for part in m.groups())
                changes = "1'b1" if m[1].strip() in self.memories else f"{so_far}({name}{place} != ({value}))"
                text += _prefixed(process[end:m.start()], path) + f" {flag} = {changes}; "
                end = m.end()
            text += _prefixed(process[end:], path)
            text = " ".join(text.split())
            text += " end" if text.startswith("begin ") else ""
            if decides:
                text = f"{last} = 1'b0; {text} {found} = {found} | {last};"
            yield max(1 if n in self.memories else self.widths[n] for n in names), text


def _prefixed(text: str, path: str) -> str:
    """``text`` of an instance's module, as the module that sees it under ``path`` writes it."""
    return _NAME.sub(lambda m: m[0] if m[0] in _KEYWORDS else path + m[0], text + " ").strip() + " " if text else ""


def gate(verilog: str, top: str, blocks: int) -> str:
    """``verilog``, whose ``blocks`` blocks are clocked by block0_clk, block1_clk, ..., with the ports of a gated model."""
    modules = {m[1]: _Module(m[1], m[3]) for m in _MODULE.finditer(verilog)}
    _link(modules)
    main = modules[top]
    members: dict[int, list[_Module]] = {k: [] for k in range(blocks)}
    free = []
    for module in modules.values():
        if module.clock and (m := _BLOCK_CLOCK.fullmatch(module.clock)):
            members[int(m[1])].append(module)
        elif module.clock == FREE_CLOCK:
            free.append(module)
    live = [k for k, v in members.items() if v]  # a block may be left without registers
    for k in live:
        root = _common(members[k])
        if root.root_of is not None:
            raise ValueError(f"module {root.name} is the root of blocks {root.root_of} and {k}")
        root.root_of = k
    outputs = []
    for k in live:
        outputs.append((1, f"block{k}_awake", _gate_block(k, members[k], main)))
    for n, (module, name) in enumerate((m, name) for m in free for name in m.widths if name == "remaining"):
        outputs.append((module.widths[name], f"remaining{n}", f"{module.path(main)}{name}"))
    return _rewrite(verilog, modules, main, outputs)


def _link(modules: dict[str, _Module]) -> None:
    for module in modules.values():
        for kind, instance, text in _INSTANCE.findall(module.body):
            child = modules[kind]
            child.parent = (module, instance)
            module.children.append((child, dict(_CONNECTION.findall(text))))


def _common(members: list[_Module]) -> _Module:
    """The lowest module that has all ``members`` below it (or is one)."""
    paths = [list(m.above())[::-1] for m in members]
    common = paths[0][0]
    for level in zip(*paths, strict=False):
        if any(m is not level[0] for m in level):
            break
        common = level[0]
    return common


def _inputs(root: _Module) -> Iterator[tuple[int, str]]:
    """(bits, expression in the root module) of every input of the block with that ``root``."""
    for name, (kind, bits) in root.ports.items():
        if kind == "input" and root.uses(name):
            yield bits, name + " "

    def inside(module: _Module, path: str) -> Iterator[tuple[int, str]]:
        for child, connections in module.children:
            if not child.apart:
                yield from inside(child, child.path(root))
                continue
            for port, net in connections.items():
                kind, bits = child.ports[port]
                if kind == "output" and net.strip():
                    yield bits, _prefixed(net, path)

    yield from inside(root, "")


def _gate_block(k: int, members: list[_Module], top: _Module) -> str:
    """Adds block ``k``'s logic to its root; returns the name of its awake signal, seen from ``top``."""
    root = next(m for m in members[0].above() if m.root_of == k)
    changed, awake, clock = f"block{k}_changed", f"block{k}_awake", f"block{k}_clk"
    found, last = f"block{k}_found", f"block{k}_last"
    changes = sorted((c for m in members for c in m.changes(m.path(root), found, last)), key=lambda c: c[0])
    root.added += [f"  reg {changed} = 1'b1;", f"  reg {found}, {last};", f"  always @(edge {clock}) begin",
                   f"    {found} = 1'b0;"]
    for n in range(0, len(changes), GROUP):
        group = (f"      {statement}" for _, statement in changes[n:n + GROUP])
        root.added += [f"    if (!{found}) begin", *group, "    end"]
    root.added += [f"    {changed} <= {found};", "  end"]
    different = [changed]
    for n, (bits, net) in enumerate(_inputs(root)):
        seen = f"block{k}_seen{n}"
        root.added += [f"  reg [{bits - 1}:0] {seen};", f"  always @(edge {clock}) {seen} <= {net};"]
        different.append(f"{seen} != {net}")
    root.added += [f"  wire {awake};", f"  assign {awake} = {_join(different, '|')};"]
    return root.path(top) + awake


def _rewrite(verilog: str, modules: dict[str, _Module], top: _Module, outputs: list[tuple[int, str, str]]) -> str:
    names = "".join(f", {name}" for _, name, _ in outputs)
    for bits, name, value in outputs:
        width = f"[{bits - 1}:0] " if bits > 1 else ""
        top.added += [f"  output {width}{name};", f"  assign {name} = {value};"]

    def module(m: re.Match[str]) -> str:
        this = modules[m[1]]
        ports = m[2] + (names if this is top else "")
        added = "".join(line + "\n" for line in this.added)
        return f"module {m[1]} ({ports});\n{m[3]}{added}endmodule\n"

    return _MODULE.sub(module, verilog)
