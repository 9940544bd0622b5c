"""A device is divided into units that leave nothing out."""

import re

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import ConfigError, DeviceConfig
from nearflash_hw.device import Device
from nearflash_hw.synthesis.kept_units import kept_units
from nearflash_hw.synthesis.netlist import subtree, units


class Leaf(wiring.Component):
    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i + 1)
        return m


class Pair(wiring.Component):
    """Two equal leaves and a register of its own."""

    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = Leaf()
        m.submodules.second = second = Leaf()
        held = Signal(8)
        m.d.sync += held.eq(first.o)
        m.d.comb += [first.i.eq(self.i), second.i.eq(held), self.o.eq(second.o)]
        return m


def registers(rtlil: str) -> int:
    return sum(int(width) for width in re.findall(r"cell \$dff \S+\n +parameter \\WIDTH (\d+)", rtlil))


def test_children_are_black_boxes_to_their_parent():
    found = {u.path: u.rtlil for u in units(Pair())}
    assert list(found) == ["", "first", "second"]
    assert registers(found[""]) == registers(found["first"]) == registers(found["second"]) == 8
    assert found[""].count("attribute \\blackbox 1") == 2


def test_units_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    made = []

    def make():
        made.append(units([Pair, Leaf][len(made)]()))
        return made[-1]

    assert kept_units(make, "pair") == kept_units(make, "pair") == made[0]
    assert len(made) == 1
    assert kept_units(make, "another") == made[1] != made[0]


def test_every_register_of_a_device_is_in_one_unit():
    device = Device(DeviceConfig.preset("tiny"))
    found = units(device)
    paths = [u.path for u in found]
    assert len(set(paths)) == len(paths)
    assert {"nvme", "nvme.queues", "lookup.translator", "pooling.accumulators", "channel0", "ftl"} <= set(paths)
    assert sum(registers(u.rtlil) for u in found) == registers(subtree(device, "")) > 1000


def test_equal_units_of_a_device_are_equal_texts():
    found = {u.path: u.rtlil for u in units(Device(DeviceConfig.preset("tiny")))}
    assert found["channel0"] == found["channel1"]


def test_subtree_by_name():
    assert subtree(Pair(), "first") == units(Pair())[1].rtlil
    assert registers(subtree(Pair(), "")) == 24
    with pytest.raises(ConfigError, match=r"block = 'third'.*first, second"):
        subtree(Pair(), "third")
