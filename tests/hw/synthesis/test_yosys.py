"""Synthesis: known designs cost what they must, and a tool that fails or stops early is an error, never a zero."""

import re

import pytest
from amaranth.hdl import ClockSignal, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import ConfigError
from nearflash.contract.resources import ControlSets, Resources
from nearflash_hw.synthesis import yosys
from nearflash_hw.synthesis.netlist import subtree
from nearflash_hw.synthesis.report import measure
from nearflash_hw.synthesis.yosys import WITH_MEMORIES, SynthesisError, control_sets, run_yosys, synthesise
from yosys_share import XILINX


class Mac(wiring.Component):
    a: In(signed(8))
    b: In(signed(8))
    total: Out(signed(32))

    def elaborate(self, platform):
        m = Module()
        a, b, product = Signal(signed(8)), Signal(signed(8)), Signal(signed(16))
        m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b), self.total.eq(self.total + product)]
        return m


class Ram(wiring.Component):
    def __init__(self, width: int, depth: int):
        self.width, self.depth = width, depth
        bits = (depth - 1).bit_length()
        super().__init__({"wa": In(bits), "wd": In(width), "we": In(1), "ra": In(bits), "re": In(1), "rd": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [write.addr.eq(self.wa), write.data.eq(self.wd), write.en.eq(self.we), read.addr.eq(self.ra),
                     read.en.eq(self.re), self.rd.eq(read.data)]
        return m


class Registers(wiring.Component):
    """Eight flip-flops with an enable and the reset, five with another enable and none, one with neither."""

    a: In(8)
    en: In(2)
    b: Out(8)
    c: Out(5)
    d: Out(1)

    def elaborate(self, platform):
        m = Module()
        kept, last = Signal(5, reset_less=True), Signal(reset_less=True)
        with m.If(self.en[0]):
            m.d.sync += self.b.eq(self.a)
        with m.If(self.en[1]):
            m.d.sync += kept.eq(self.a)
        m.d.sync += last.eq(self.a[7])
        m.d.comb += [self.c.eq(kept), self.d.eq(last)]
        return m


class Enabled(wiring.Component):
    """``n`` flip-flops with one enable."""

    def __init__(self, n: int):
        super().__init__({"a": In(n), "en": In(1), "b": Out(n)})

    def elaborate(self, platform):
        m = Module()
        kept = Signal.like(self.a, reset_less=True)
        with m.If(self.en):
            m.d.sync += kept.eq(self.a)
        m.d.comb += self.b.eq(kept)
        return m


class Pair(wiring.Component):
    """Two units with enables of the same names."""

    def __init__(self):
        super().__init__({f"{name}{k}": member for k in range(2) for name, member in Registers().signature.members.items()})

    def elaborate(self, platform):
        m = Module()
        for k in range(2):
            m.submodules[f"unit{k}"] = unit = Registers()
            for name, member in unit.signature.members.items():
                inner, outer = getattr(unit, name), getattr(self, f"{name}{k}")
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        return m


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))


def test_a_multiplier_and_its_accumulator_are_one_slice():
    r = synthesise(subtree(Mac(), ""), "xc7")
    assert (r.dsp, r.bram18) == (1, 0)
    assert r.lut == 0
    assert r.ff <= 34


def test_memory_primitives():
    # 64 bits x 512 words fill a RAMB36 (two RAMB18); 6 bits x 32 words one RAM32M of 4 LUTs, with 6 output registers
    assert synthesise(subtree(Ram(64, 512), ""), "xc7").bram18 == 2
    small = synthesise(subtree(Ram(6, 32), ""), "xc7")
    assert (small.lutram, small.ff, small.bram18) == (4, 6, 0)


def test_passes_for_memories_are_left_out_without_any(tmp_path):
    for name, component in (("none", Mac()), ("some", Ram(6, 32))):
        (tmp_path / f"{name}.il").write_text(subtree(component, ""))
    lines = ["hierarchy -top unit", "proc", "memory -nomap", f"{WITH_MEMORIES}exec -expect-return 0 -- false"]
    run_yosys(["read_rtlil none.il", *lines], tmp_path, [])
    with pytest.raises(SynthesisError, match="code"):
        run_yosys(["read_rtlil some.il", *lines], tmp_path, [])


class Vendor(wiring.Component):
    """A cell that Yosys knows by its ports alone."""

    d: In(1)
    q: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.cell = Instance("IDDR", i_C=ClockSignal(), i_D=self.d, o_Q1=self.q)
        return m


def test_cells_without_a_model_are_read_where_a_unit_has_them():
    # it gets as far as the counting, which refuses what no part of the device is made of
    with pytest.raises(SynthesisError, match="1 cells IDDR, whose resources are not known"):
        synthesise(subtree(Vendor(), ""), "xc7")


def test_control_sets_are_those_of_the_flip_flops():
    found = control_sets(subtree(Registers(), ""), "xc7")
    assert sorted(found.values()) == [1, 5, 8]
    by_size = {n: key for key, n in found.items()}
    assert by_size[8][2] == r"\rst"
    assert by_size[8][1] != by_size[5][1]
    assert {key[0] for key in found} == {r"\clk"}


@pytest.mark.parametrize(("family", "least"), [("xc7", 4), ("xcup", 2)])
def test_an_enable_of_few_flip_flops_becomes_logic(family, least):
    (few,), (enough,) = (control_sets(subtree(Enabled(n), ""), family) for n in (least - 1, least))
    assert few[1] in ("", "1'1")
    assert enough[1] == r"\en"
    assert synthesise(subtree(Enabled(least - 1), ""), family).lut == least - 1
    assert synthesise(subtree(Enabled(least), ""), family).lut == 0


def test_units_share_the_control_sets_of_clock_and_reset_alone(monkeypatch):
    monkeypatch.setattr("nearflash_hw.synthesis.report.Device", lambda config: Pair())
    monkeypatch.setattr("nearflash_hw.synthesis.report.kept_units", lambda make, key: make())
    measured = measure(None, "xc7")
    assert measured.control_sets["unit0"] == measured.control_sets["unit1"] == ControlSets(3, 1)
    assert measured.total_control_sets == ControlSets(5, 0)  # the one without an enable has a flip-flop in each unit


@pytest.mark.usefixtures("own_cache")
def test_results_are_kept(monkeypatch):
    rtlil = subtree(Mac(), "")
    first = synthesise(rtlil, "xc7")
    monkeypatch.setattr(yosys, "run_yosys", lambda *a: pytest.fail("synthesised again"))
    assert synthesise(rtlil, "xc7") == first


@pytest.mark.usefixtures("own_cache")
def test_failures_are_loud(tmp_path):
    with pytest.raises(ConfigError, match="family"):
        synthesise("", "ice40")
    with pytest.raises(SynthesisError, match="code"):
        synthesise("module \\unit\n  cell \\nothing \\x\n  end\nend\n", "xc7")
    with pytest.raises(SynthesisError, match=r"without stat\.json"):
        run_yosys(["log stops here"], tmp_path, ["stat.json"])
    with pytest.raises(SynthesisError, match="more than 1 s"):
        run_yosys(["exec -- sleep 5"], tmp_path, [], seconds=1)


def test_every_memory_that_yosys_may_map_to_has_a_size():
    text = (XILINX / "lutrams_xc5v_map.v").read_text()  # of 7 series and UltraScale
    cells = set(re.findall(r"\b((?:RAM|SRLC?)\d+\w*)\b", text))
    assert {"RAM32M", "RAM256X1D"} <= cells
    assert cells <= set(yosys.LUTRAM)


def test_cells_of_unknown_size_are_refused():
    assert yosys._resources({"LUT6": 3, "INV": 1, "SRLC32E": 2, "RAM64M": 1, "FDRE": 5, "CARRY4": 2, "RAMB36E1": 1,
                             "DSP48E1": 1, "MUXF7": 4, "unit.child": 1}) == Resources(10, 6, 5, 2, 0, 1, 8)
    with pytest.raises(SynthesisError, match="GTXE2"):
        yosys._resources({"GTXE2_CHANNEL": 1})
    for text in ("", "{}", '{"modules": {}}'):
        with pytest.raises(SynthesisError, match="can't be read"):
            yosys._cells(text)
