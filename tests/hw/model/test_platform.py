"""What a model's clocks are made of: which block a register belongs to, how far an edge counts, memories without zeros."""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Fragment, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash_hw.model.memories import without_zeros
from nearflash_hw.model.platform import FREE, ModelPlatform, assign_clocks, block_domain, elapsed


class Part(wiring.Component):
    """A register, a memory and ``parts`` inside."""

    def __init__(self, clock=None, parts=(), init=()):
        self.parts, self.init = parts, init
        if clock:
            self.model_clock = clock
        super().__init__({"i": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=4, init=self.init)
        read, write = memory.read_port(), memory.write_port()
        register = Signal(8)
        m.d.sync += register.eq(self.i + read.data)
        m.d.comb += [self.o.eq(register), read.addr.eq(self.i[:2]), write.addr.eq(self.i[2:4]), write.data.eq(self.i),
                     write.en.eq(self.i[7])]
        for k, part in enumerate(self.parts):
            m.submodules[f"part{k}"] = part
            m.d.comb += part.i.eq(self.i)
        return m


def domains(fragment, path=""):
    """The clocked domains of every instance, its memory's with it."""
    found = {path or "top": {d for d in fragment.statements if d != "comb"}}
    for sub, name, _ in fragment.subfragments:
        if name == "memory":
            found[path or "top"] |= {p._domain for port in sub.subfragments or [(sub, "", None)]
                                     for p in (*getattr(port[0], "_read_ports", ()), *getattr(port[0], "_write_ports", ()))}
        else:
            found |= domains(sub, f"{path}.{name}" if path else name)
    return found


def test_every_register_and_memory_is_on_the_clock_of_its_block():
    inner = Part("own", parts=(Part(), Part("free", parts=(Part(),))))
    top = Part(parts=(inner, Part("free"), Part(parts=(Part("own"),))))
    fragment = Fragment.get(top, ModelPlatform())
    assert assign_clocks(fragment) == 3
    b = block_domain
    assert domains(fragment) == {
        "top": {b(0)}, "part0": {b(1)}, "part0.part0": {b(1)}, "part0.part1": {FREE}, "part0.part1.part0": {FREE},
        "part1": {FREE}, "part2": {b(0)}, "part2.part0": {b(2)}}


def test_another_clock_is_refused():
    with pytest.raises(ValueError, match="model_clock = 'mine': must be 'own' or 'free'"):
        assign_clocks(Fragment.get(Part(parts=(Part("mine"),)), ModelPlatform()))


def test_an_edge_is_a_cycle_everywhere_but_in_a_model():
    platform = ModelPlatform()
    assert elapsed(None) == elapsed(object()) == 1
    assert elapsed(platform) is platform.elapsed
    assert platform.elapsed.init == 1


@pytest.mark.parametrize("init", [(), (0, 0), (0, 7)])
def test_zeros_alone_are_left_out(init):
    def text():
        part = Part(init=init)
        return rtlil.convert(part, ports=[part.i, part.o])

    before = text()
    with without_zeros():
        assert ("$meminit" in text()) == any(init)
    assert text() == before
    assert "$meminit" in before
