"""A top for a unit that is placed alone: every port bit meets a flip-flop, so that paths into and out of the unit are timed
as between blocks whose ports are registered, and a part with few pins holds a unit with many ports."""

from __future__ import annotations

import re

from ..yosys import SynthesisError

__all__ = ["TOP", "harness"]

TOP = "harness"
FOLD = 3  # outputs that one step of the output chain takes: with the chain's own bit, one 4-input LUT

_WIRE = re.compile(r"^  wire(?: width (\d+))?(?: \w+)*? (input|output) \d+ +(?:signed +)?(\\\S+)$", re.MULTILINE)


def harness(rtlil: str) -> tuple[str, int]:
    """Verilog of module ``harness`` around ``\\unit`` of ``rtlil``, and the number of its flip-flops.

    Ports: ``clk``, ``rst``, ``d``, ``q``. A shift register from ``d`` drives the unit's inputs, a flip-flop each; every
    output has a flip-flop, and these are folded into ``q`` by a chain of exclusive ors with a flip-flop per step, so nothing
    of the unit can be optimised away.
    """
    found = re.search(r"^module \\unit\n(.*?)^end$", rtlil, re.MULTILINE | re.DOTALL)
    ports = [(m[3], m[2], int(m[1] or 1)) for m in _WIRE.finditer(found[1])] if found else []
    inputs = [(name, width) for name, way, width in ports if way == "input" and width and name not in (r"\clk", r"\rst")]
    outputs = [(name, width) for name, way, width in ports if way == "output" and width]
    if not outputs or (r"\clk", "input", 1) not in ports:
        raise SynthesisError("nothing to time: the unit has no clocked output")
    fed, seen = max(1, sum(w for _, w in inputs)), sum(w for _, w in outputs)
    steps = -(-seen // FOLD)
    links = [".clk (clk)", *([".rst (reset)"] if (r"\rst", "input", 1) in ports else []), *_links(inputs, "i"),
             *_links(outputs, "o")]
    rest = f"  assign o[{steps * FOLD - 1}:{seen}] = 0;" if steps * FOLD > seen else ""
    fold = "\n".join(f"    fold[{k}] <= {f'fold[{k - 1}] ^ ' if k else ''}^o_q[{FOLD * k + FOLD - 1}:{FOLD * k}];"
                     for k in range(steps))
    instance = ",\n".join(f"    {link}" for link in links)
    return f"""module {TOP}(input clk, input rst, input d, output q);
  reg reset;
  (* shreg_extract = "no" *) reg [{fed - 1}:0] i;  // a flip-flop each, also where the unit ignores an input
  wire [{steps * FOLD - 1}:0] o;
  reg [{steps * FOLD - 1}:0] o_q;
  reg [{steps - 1}:0] fold;
{rest}
  assign q = fold[{steps - 1}];
  always @(posedge clk) begin
    reset <= rst;
    i <= {f"{{i[{fed - 2}:0], d}}" if fed > 1 else "d"};
    o_q <= o;
{fold}
  end
  \\unit unit (
{instance}
  );
endmodule
""", fed + seen + steps + 1


def _links(ports: list[tuple[str, int]], vector: str) -> list[str]:
    links, at = [], 0
    for name, width in ports:
        links.append(f".{name} ({vector}[{at + width - 1}:{at}])")
        at += width
    return links
