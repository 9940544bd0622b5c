"""Payloads to and from bits, as Amaranth's own constants are."""

import pytest
from amaranth.hdl import ShapeCastable, signed, unsigned
from amaranth.lib import data, enum
from hypothesis import given
from hypothesis import strategies as st
from nearflash_sim.bench.payload import reader, writer


class Colour(enum.Enum, shape=2):
    RED = 0
    BLUE = 3


INNER = data.StructLayout({"a": 3, "b": signed(5), "none": unsigned(0)})
SHAPE = data.StructLayout({"first": signed(7), "some": data.ArrayLayout(INNER, 3), "flags": data.ArrayLayout(1, 2),
                           "colour": Colour, "last": unsigned(64)})


def plain(const):
    """By Amaranth's own access to fields."""
    if isinstance(const, data.Const) and isinstance(const.shape(), data.StructLayout):
        return {name: plain(const[name]) for name, _ in const.shape()}
    if isinstance(const, data.Const):
        return [plain(const[i]) for i in range(const.shape().length)]
    return const


WIDTH = SHAPE.size
BITS = st.integers(0, (1 << WIDTH) - 1).map(lambda bits: bits | 3 << 7 + 3 * 8 + 2)  # a colour that there is


@given(BITS)
def test_as_amaranth_reads_and_writes(bits):
    want = plain(SHAPE.from_bits(bits))
    assert reader(SHAPE)(bits) == want
    assert writer(SHAPE)(want) == bits == SHAPE.const(want).as_bits()
    assert writer(SHAPE)(SHAPE.from_bits(bits)) == bits


@pytest.mark.parametrize("shape", [unsigned(4), signed(4), unsigned(0), signed(1)])
@pytest.mark.parametrize("value", [-9, -8, -1, 0, 1, 7, 8, 15, 16])
def test_plain_shapes_wrap(shape, value):
    assert not isinstance(shape, ShapeCastable)
    bits = value & (1 << shape.width) - 1
    assert writer(shape)(value) == bits
    assert reader(shape)(bits) == reader(shape)(value) == (bits - (1 << shape.width) if shape.signed
                                                           and bits >> shape.width - 1 else bits)


def test_fields_that_are_not_there_and_lists_of_another_length_are_refused():
    assert writer(INNER)({"b": -1}) == 0b11111000
    with pytest.raises(KeyError, match="c"):
        writer(INNER)({"c": 1})
    with pytest.raises(ValueError, match="must have 2"):
        writer(data.ArrayLayout(1, 2))([1])
