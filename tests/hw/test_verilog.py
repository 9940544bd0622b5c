import re

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash_hw.model.gating import gate
from nearflash_hw.model.registers import assign_in_clocked_processes
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.axi_lite import AxiLiteSignature
from nearflash_hw.verilog import _zeros_as_loops, to_verilog


class Sample(wiring.Component):
    def __init__(self):
        super().__init__({
            "s_axi": In(AxiLiteSignature(12)), "m_axi": Out(AxiSignature(40, 64, 4)), "irq": Out(1),
            "i": In(stream.Signature(data.StructLayout({"a": 3, "b": 5}))).array(2)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=256, init=[7])
        port, held = memory.read_port(), Signal(8, init=0x5A)
        m.d.comb += [port.en.eq(1), port.addr.eq(self.i[0].payload),
                     self.irq.eq(held[0] & self.s_axi.awvalid & self.m_axi.arready)]
        m.d.sync += held.eq(port.data)
        return m


def test_port_names_are_literal():
    text = to_verilog(Sample(), "sample")
    ports = {name: (kind, width.strip()) for kind, width, name in
             re.findall(r"^  (input|output) (\[\d+:0\] )?(\S+);", text.split("endmodule")[0], re.M)}
    assert ports["clk"] == ports["rst"] == ("input", "")
    assert ports["irq"] == ("output", "")
    assert ports["s_axi_awaddr"] == ("input", "[11:0]")
    assert ports["s_axi_awready"] == ("output", "")
    assert ports["m_axi_awaddr"] == ("output", "[39:0]")
    assert ports["m_axi_rdata"] == ("input", "[63:0]")
    assert ports["i__1__payload"] == ("input", "[7:0]")
    assert "module sample(" in text


def test_output_is_deterministic_and_free_of_at_star():
    text = to_verilog(Sample(), "sample")
    assert text == to_verilog(Sample(), "sample")
    assert "always @*" not in text  # such blocks do not run at time 0 in event-driven simulators
    assert "src =" not in text
    assert re.search(r"reg \[7:0\] \S+ \[255:0\]", text)  # the memory is still one
    assert re.search(r"for \(i = 1; i <= 255; i = i \+ 1\) \S+\[i\] = 8'h00;", text)


def test_model_has_no_reset_and_both_edges():
    text = to_verilog(Sample(), "sample", model=True, gated=False)
    assert not re.search(r"\brst\b|always @\*|posedge|awake", text)
    assert {*re.findall(r"always @\(edge (\w+)\)", text)} == {"clk", "s_axi_clk", "m_axi_clk"}


def test_gated_model_has_a_clock_a_block_and_says_when_it_wakes():
    text = to_verilog(Sample(), "sample", model=True)
    assert {*re.findall(r"always @\(edge (\w+)\)", text)} == {"block0_clk", "s_axi_clk", "m_axi_clk"}
    assert "output block0_awake;" in text
    assert "assign block0_awake = component.block0_awake;" in text
    [awake] = re.findall(r"assign block0_awake = (.* != .*);", text)
    assert "i__0__payload" in awake
    assert "i__1__payload" not in awake  # nothing depends on it
    # what its registers take at the next edge: the memory's output through ``held``
    assert re.search(r"block0_found = block0_found \| \(held != .*\);", text)


class Odd(Sample):
    model_clock = "sometimes"


def test_an_unknown_model_clock_is_refused():
    class Top(wiring.Component):
        def __init__(self):
            super().__init__({"irq": Out(1)})

        def elaborate(self, platform):
            m = Module()
            m.submodules.odd = odd = Odd()
            m.d.comb += self.irq.eq(odd.irq)
            return m

    with pytest.raises(ValueError, match="model_clock = 'sometimes': must be 'own' or 'free'"):
        to_verilog(Top(), "top", model=True)


def test_zeros_become_loops_only_where_consecutive():
    words = "".join(f"    m[{i}] = 8'h{v};\n" for i, v in ((0, "00"), (1, "00"), (2, "07"), (3, "00"), (5, "00"), (6, "00")))
    text = _zeros_as_loops(f"  initial begin\n{words}  end\n")
    assert "for (i = 0; i <= 1; i = i + 1) m[i] = 8'h00;\n    m[2] = 8'h07;\n    m[3]" in text
    assert "m[4]" not in text


MODULE = "module top (block0_clk, a);\n  input block0_clk;\n  input [1:0] a;\n  reg [1:0] q;\n{}  assign x = q;\nendmodule\n"


def test_gating_leaves_no_register_out():
    """A clocked statement of a form that isn't known is refused, not passed over."""
    known = "  always @(edge block0_clk)\n    q <= a ;\n"
    assert "q != (a )" in gate(MODULE.format(known), "top", 1)
    for body in ("    if (a != q) q <= a ;\n", "    case (a)\n      1: q <= a ;\n    endcase\n", "    q = a ;\n",
                 "    while (a) q <= a ;\n", "    if (f(a)) q <= a ;\n"):
        with pytest.raises(ValueError, match="module top: cannot read"):
            gate(MODULE.format(f"  always @(edge block0_clk) begin\n{body}  end\n"), "top", 1)


def test_gating_finds_the_process_that_ends_its_module():
    text = MODULE.replace("  assign x = q;\n", "").format("  always @(edge block0_clk)\n    q <= a ;\n")
    assert "assign block0_awake = (block0_changed)" in gate(text, "top", 1)


def test_of_several_assignments_the_last_decides_whether_a_register_changes():
    text = gate(MODULE.format("  always @(edge block0_clk) begin\n    q <= 2'h0;\n    if (a[0]) begin\n      q <= a;\n"
                              "    end\n  end\n"), "top", 1)
    assert ("block0_last = 1'b0; begin block0_last = (q != (2'h0 )); if (a[0]) begin block0_last = (q != (a )); end end "
            "block0_found = block0_found | block0_last;") in re.sub(r" +", " ", text)


NEXT = """  reg [1:0] n;
  always @(edge clk)
    q <= n;
  always_comb begin
    if (\\$auto$verilog_backend.cc:2355:dump_module$9 ) begin end
    n = q;
    casez (a)
      2'h1:
          n[0] = 1'h1;
      2'h2:
          /* empty */;
    endcase
  end
"""


def test_a_next_value_becomes_its_registers_process():
    text = assign_in_clocked_processes(MODULE.format(NEXT))
    assert re.sub(r"\s+", " ", text[text.index("  always"):text.index("  assign")]) == (
        " always @(edge clk) begin casez (a) 2'h1: q[0] <= 1'h1; 2'h2: ; endcase end ")
    assert not re.search(r"\bn\b", text)


@pytest.mark.parametrize("more", ["  assign y = n;\n", "  always @(edge clk)\n    p <= n;\n",
                                  "  sub s (\n    .i(n)\n  );\n"])
def test_a_next_value_that_something_else_reads_stays(more):
    text = MODULE.format(NEXT + more)
    assert assign_in_clocked_processes(text) == text
