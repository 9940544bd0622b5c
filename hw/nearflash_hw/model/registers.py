"""Assigns registers in their clocked processes.

Yosys writes a register of Amaranth's as ``q <= n``, and its next value ``n`` as a process of its own that begins with
``n = q``. A compiled simulation then evaluates and stores ``n`` whenever something that it depends on moves; as one clocked
process, a register costs the branches that are taken at its edge.
"""

from __future__ import annotations

import re

__all__ = ["assign_in_clocked_processes"]

_MODULE = re.compile(r"^module .*?^endmodule\n", re.MULTILINE | re.DOTALL)
_REGISTER = re.compile(r"^  always @\(edge (\w+)\)\s+(\\\S+ |\w+)\s*<= (\\\S+ |\w+) ?;\n", re.MULTILINE)
_PROCESS = re.compile(r"^  always_comb begin\n(.*?)^  end\n", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"^( +(?:[^\n:\"]+:\s*)?)(\\\S+ |[A-Za-z_]\w*)((?:\[[\d:]+\] ?)?) = ", re.MULTILINE)
_NEVER = re.compile(r"^    if \(\\\$auto\$verilog_backend\S+ \) begin end\n", re.MULTILINE)
_NAME = re.compile(r"\\\S+ |(?<![\w'\\$.])[A-Za-z_]\w*")


def assign_in_clocked_processes(verilog: str) -> str:
    """``verilog`` (as :func:`~nearflash_hw.verilog.to_verilog` makes it for a model), in which every next value that only
    its register reads has become that register's clocked process: the same registers in the same cycles."""
    return _MODULE.sub(lambda m: _module(m[0]), verilog)


def _module(text: str) -> str:
    registers = {next_value.strip(): (clock, name) for clock, name, next_value in _REGISTER.findall(text)}
    uses: dict[str, int] = {}
    for name in _NAME.findall(text):
        uses[name.strip()] = uses.get(name.strip(), 0) + 1
    done: set[str] = set()

    def process(m: re.Match[str]) -> str:
        body = _NEVER.sub("", m[1]).replace("/* empty */", "")
        targets = {name.strip() for _, name, _ in _TARGET.findall(body)}
        own = next(iter(targets), "")
        if len(targets) != 1 or own not in registers or body.count("= ") != len(_TARGET.findall(body)):
            return m[0]
        inside = sum(name.strip() == own for name in _NAME.findall(m[1]))
        # read by its register alone, and not by this process: one more name is its declaration
        if inside != len(_TARGET.findall(body)) or uses[own] != inside + 2:
            return m[0]
        clock, register = registers[own]
        body = re.sub(rf"^    {re.escape(own)} *= {re.escape(register.strip())} *;\n", "", body, count=1)
        done.add(own)
        body = _TARGET.sub(lambda a: f"{a[1]}{register}{a[3]} <= ", body)
        return f"  always @(edge {clock}) begin\n{body}  end\n" if body.strip() else ""

    text = _PROCESS.sub(process, text)
    text = _REGISTER.sub(lambda m: "" if m[3].strip() in done else m[0], text)
    for name in done:
        text = re.sub(rf"^  reg (?:\[\d+:0\] )?{re.escape(name)} *;\n", "", text, count=1, flags=re.MULTILINE)
    return text
