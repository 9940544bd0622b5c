"""Estimates against synthesis: memories and multipliers exactly, logic within the bound that the calibration states."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import ConfigError, Core, DeviceConfig, MlpConfig, Node
from nearflash_hw.device import Device
from nearflash_hw.mlp.core import FcCore
from nearflash_hw.mlp.epilogue import Epilogue
from nearflash_hw.mlp.weights import OnChipWeights
from nearflash_hw.synthesis.estimate import Estimator, model
from nearflash_hw.synthesis.estimate.features import Features, features_of
from nearflash_hw.synthesis.estimate.kept import kept, kept_device
from nearflash_hw.synthesis.estimate.memory import MemoryShape, map_memory
from nearflash_hw.synthesis.estimate.model import estimate_unit, exact_part, kind_of
from nearflash_hw.synthesis.estimate.shallow import Shallow
from nearflash_hw.synthesis.netlist import subtree, units
from nearflash_hw.synthesis.yosys import synthesise


class Memories(wiring.Component):
    """One memory of each shape, of clocked reads with an enable."""

    def __init__(self, shapes):
        self.shapes = shapes
        super().__init__({f"{name}{i}": flow(bits) for i, s in enumerate(shapes) for name, flow, bits in (
            ("a", In, (s.depth - 1).bit_length()), ("wd", In, s.width), ("we", In, s.width // s.lane), ("re", In, 1),
            *((f"rd{r}_", Out, s.width) for r in range(s.reads)), *((f"ra{r}_", In, (s.depth - 1).bit_length())
                                                                   for r in range(s.reads)))})

    def elaborate(self, platform):
        m = Module()
        for i, s in enumerate(self.shapes):
            m.submodules[f"memory{i}"] = memory = Memory(shape=s.width, depth=s.depth, init=[])
            write = memory.write_port(granularity=s.lane)
            m.d.comb += [write.addr.eq(getattr(self, f"a{i}")), write.data.eq(getattr(self, f"wd{i}")),
                         write.en.eq(getattr(self, f"we{i}"))]
            for r in range(s.reads):
                read = memory.read_port()
                m.d.comb += [read.addr.eq(getattr(self, f"ra{r}_{i}")), read.en.eq(getattr(self, f"re{i}")),
                             getattr(self, f"rd{r}_{i}").eq(read.data)]
        return m


SHAPES = [MemoryShape(*s) for s in (
    (1, 100, 1), (8, 300, 8), (8, 512, 8), (10, 256, 10), (22, 64, 22), (22, 100, 22), (45, 1024, 45), (32, 2048, 8),
    (128, 512, 32), (128, 2048, 128), (64, 16, 8), (128, 64, 128, 2), (32, 1024, 32, 2), (2, 40960, 2),
    (128, 2056, 128), (128, 12288, 128), (47, 256, 47), (96, 1100, 8))]  # of the first two of these, rows share primitives


@pytest.mark.parametrize("family", ["xc7", "xcup"])
def test_memories_map_as_yosys_maps_them(family):
    rtlil = subtree(Memories(SHAPES), "")
    assert sorted(features_of(rtlil).memories, key=str) == sorted(SHAPES, key=str)
    got, want = sum((map_memory(s, family) for s in SHAPES[1:]), map_memory(SHAPES[0], family)), synthesise(rtlil, family)
    assert (got.bram18, got.uram) == (want.bram18, want.uram)
    assert got.lutram == pytest.approx(want.lutram, rel=0.05)


def test_memories_cut_short_keep_their_features():
    shapes = [*SHAPES, MemoryShape(2056, 100, 2056)]
    whole, cut = (subtree(Memories(shapes), "", platform) for platform in (None, Shallow()))
    assert features_of(cut) == features_of(whole)
    assert len(cut) < len(whole) / 4
    design = DeviceConfig.preset("tiny")
    whole, cut = ({u.path: features_of(u.rtlil) for u in units(Device(design), platform=p)} for p in (None, Shallow()))
    assert cut == whole


CASES = [
    ("mlp.core", lambda: FcCore(Core(0, "", (), 64, 128, 4, 8, "row", "onchip", 8), 8, 1, 2, 16, lanes=2)),
    ("mlp.core", lambda: FcCore(Core(0, "", (), 64, 96, 2, 4, "column", "onchip", 16), 8, 4, 2, 16, lanes=2)),
    ("mlp.core", lambda: FcCore(Core(0, "", (), 64, 128, 4, 8, "row", "onchip", 8), 8, 1, 2, 16, lanes=2, packed=True)),
    ("mlp.core", lambda: FcCore(Core(0, "", (), 64, 128, 4, 4, "row", "dram", 8), 8, 2, 2, 16)),
    ("mlp.core", lambda: FcCore(Core(0, "", (), 64, 96, 6, 4, "row", "onchip", 8, 4), 8, 1, 2, 16, packed=True)),
    ("mlp.epilogue", lambda: Epilogue(96, 4, (20, 22), 8, True, 1)),
]


@pytest.mark.parametrize(("kind", "make"), CASES)
def test_blocks_against_synthesis(kind, make):
    rtlil = subtree(make(), "")
    got, want = estimate_unit(kind, rtlil, "xc7"), synthesise(rtlil, "xc7")
    assert (got.bram18, got.dsp) == (want.bram18, want.dsp)
    assert got.lut == pytest.approx(want.lut, rel=0.25)
    assert got.ff == pytest.approx(want.ff, rel=0.25)


def test_the_search_sees_what_the_device_will_have():
    """A core whose memory is counted apart costs what it costs whole."""
    core = Core(0, "", (), 64, 512, 2, 2, "row", "onchip", 8)
    whole = estimate_unit("mlp.core", subtree(FcCore(core, 8, 1, 2, 16, lanes=2), ""), "xc7")
    apart = Estimator("xc7").core(core, MlpConfig(), 16, 2, False)
    assert (apart.bram18, apart.dsp, apart.ff) == (whole.bram18, whole.dsp, whole.ff)
    assert apart.lut == pytest.approx(whole.lut, rel=0.05)


def test_device_estimate_names_units_and_families():
    found = Estimator("xcup").device(DeviceConfig.preset("tiny"))
    assert {"nvme.queues", "channel1", "pooling.drainer"} <= set(found)
    assert all(r.lut >= 0 and r.ff >= 0 for r in found.values())
    with pytest.raises(ConfigError, match="family"):
        Estimator("ecp5")


def test_wide_products_take_several_slices():
    class Wide(wiring.Component):
        a: In(24)
        b: In(24)
        p: Out(48)

        def elaborate(self, platform):
            m = Module()
            m.d.sync += self.p.eq(self.a * self.b)
            return m

    rtlil = subtree(Wide(), "")
    assert exact_part(features_of(rtlil), "xc7").dsp == synthesise(rtlil, "xc7").dsp == 2


@pytest.mark.parametrize(("bits", "slices"), [(7, 0), (8, 0), (9, 1), (23, 1)])
def test_products_of_which_few_bits_are_read_take_no_slice(bits, slices):
    class Low(wiring.Component):
        a: In(16)
        b: In(7)
        p: Out(bits)

        def elaborate(self, platform):
            m = Module()
            m.d.sync += self.p.eq((self.a * self.b)[:bits])
            return m

    rtlil = subtree(Low(), "")
    assert exact_part(features_of(rtlil), "xc7").dsp == synthesise(rtlil, "xc7").dsp == slices


@pytest.mark.parametrize(("bits", "slices"), [(1, 0), (2, 1)])
def test_a_product_with_a_single_bit_takes_no_slice(bits, slices):
    class Chosen(wiring.Component):
        a: In(16)
        b: In(bits)
        p: Out(16 + bits)

        def elaborate(self, platform):
            m = Module()
            m.d.sync += self.p.eq(self.a * self.b)
            return m

    rtlil = subtree(Chosen(), "")
    assert exact_part(features_of(rtlil), "xc7").dsp == synthesise(rtlil, "xc7").dsp == slices


def test_kinds_share_a_factor():
    assert kind_of("channel3") == kind_of("channel0") == "channel"
    assert kind_of("mlp.epilogue_top0") == kind_of("mlp.epilogue_bot1") == "mlp.epilogue"
    assert kind_of("mlp.core12") == "mlp.core"
    assert kind_of("lookup.translator") == "lookup.translator"
    assert kind_of("") == ""


def test_channels_of_other_kinds_have_a_factor_of_their_own():
    """In both families; a plain channel, and every other unit of such a device, keeps its own."""
    plain = DeviceConfig.preset("tiny")
    planes, window = replace(plain, flash=replace(plain.flash, planes=2)), plain.with_page_window(16)
    both = planes.with_page_window(16)
    kinds = [kind_of("channel1", c) for c in (plain, planes, window, both)]
    assert kinds == ["channel", "channel+planes", "channel+window", "channel+planes+window"]
    assert kind_of("lookup.translator", both) == "lookup.translator"
    for family in ("xc7", "xcup"):
        text = (Path(model.__file__).parent / f"{family}.json").read_text()
        assert set(kinds) <= set(json.loads(text)["factors"])


@pytest.mark.parametrize("family", ["xc7", "xcup"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_kernel_costs_no_less_than_its_floor(family, packed):
    """What the kernel search leaves out on the strength of a floor could not have been cheaper."""
    cost, mlp = Estimator(family), MlpConfig(packed=packed)
    for kr, kc, scan, weights, in_luts in ((1, 1, "row", "onchip", 0), (3, 4, "column", "onchip", 2),
                                           (8, 4, "row", "dram", 0), (4, 2, "column", "onchip", 1)):
        core = Core(0, "a", ("b",), 64, 96, kr, kc, scan, weights, 8, in_luts)
        node = Node("a", "fc", 64, ("b",), kr=kr, kc=kc, scan=scan, weights=weights)
        for floor, whole in ((cost.core_floor(core, mlp, 16), cost.core(core, mlp, 16, 1, False)),
                             (cost.epilogue_floor(node, [core], mlp, False), cost.epilogue(node, [core], mlp, False))):
            for k in ("lut", "ff", "bram18", "uram", "dsp"):
                assert getattr(floor, k) <= getattr(whole, k), k


def test_features_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    made = []

    def make():
        made.append(Features(Counter(ff=3), [MemoryShape(8, 64, 8)], [(8, 8, True)], 2))
        return made[-1]

    first = kept(make, "a", 1)
    assert kept(make, "a", 1) == first
    assert len(made) == 1
    kept(make, "a", 2)
    assert len(made) == 2


def test_a_devices_features_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    made, tiny = [], DeviceConfig.preset("tiny")

    def make():
        made.append({"": Features(Counter(ff=3)), "nvme": Features(Counter(lut=len(made)), [MemoryShape(8, 64, 8)])})
        return made[-1]

    first = kept_device(make, tiny)
    assert kept_device(make, tiny) == first == made[0]
    assert len(made) == 1
    assert kept_device(make, replace(tiny, name="other", clock_mhz=50.0)) == made[1] != first


def test_block_ram_on_request():
    """Weights that would suit UltraRAM, kept out of it: in the estimate as in synthesis."""
    for place, kind in (("onchip", "uram"), ("bram", "bram18")):
        core = Core(0, "a", ("b",), 64, 2048, 4, 2, "row", place, 8)
        found = Estimator("xcup").core(core, MlpConfig(), 16, 1, False)
        text = subtree(OnChipWeights(core, 16), "")
        assert getattr(found, kind) >= getattr(synthesise(text, "xcup"), kind) > 0
        assert exact_part(features_of(text), "xcup").uram == synthesise(text, "xcup").uram
        assert exact_part(features_of(text), "xcup").bram18 == synthesise(text, "xcup").bram18
