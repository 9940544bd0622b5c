"""Payloads as plain Python and as bits: a shape is looked at once, not for every value.

Plain is an int (signed if its shape is), a dict for a struct, a list for an array; a value of another castable shape (an
enumeration, say) is what Amaranth makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Const, Shape, ShapeCastable
from amaranth.lib import data

__all__ = ["reader", "writer"]


def reader(shape: Any) -> Callable[[int], Any]:
    """From the bits of a value of ``shape`` (higher ones are ignored) to the plain value."""
    width = Shape.cast(shape).width
    mask = (1 << width) - 1
    if isinstance(shape, data.StructLayout):
        fields = [(name, field.offset, reader(field.shape)) for name, field in shape]
        return lambda bits: {name: read(bits >> offset) for name, offset, read in fields}
    if isinstance(shape, data.ArrayLayout):
        element, step = reader(shape.elem_shape), Shape.cast(shape.elem_shape).width
        offsets = range(0, shape.length * step, step) if step else [0] * shape.length
        return lambda bits: [element(bits >> offset) for offset in offsets]
    if isinstance(shape, ShapeCastable):
        return lambda bits: shape.from_bits(bits & mask)
    if Shape.cast(shape).signed:
        sign = 1 << width - 1 if width else 0
        return lambda bits: (bits & mask ^ sign) - sign
    return lambda bits: bits & mask


def writer(shape: Any) -> Callable[[Any], int]:
    """From a plain value, or a constant of ``shape``, to its bits. As in Amaranth, what does not fit wraps, and fields that
    are not named are 0. Raises ``KeyError`` for a field that is not there, ``ValueError`` for a list of another length."""
    mask = (1 << Shape.cast(shape).width) - 1

    def whole(value: Any) -> int:
        return Const.cast(shape.const(value)).value & mask

    if isinstance(shape, data.StructLayout):
        fields = {name: (field.offset, writer(field.shape)) for name, field in shape}

        def struct(value: Any) -> int:
            if not isinstance(value, Mapping):
                return whole(value)
            bits = 0
            for name, v in value.items():
                offset, write = fields[name]
                bits |= write(v) << offset
            return bits

        return struct
    if isinstance(shape, data.ArrayLayout):
        element, step = writer(shape.elem_shape), Shape.cast(shape.elem_shape).width

        def array(value: Any) -> int:
            if not isinstance(value, Sequence):
                return whole(value)
            if len(value) != shape.length:
                raise ValueError(f"value = {value}: must have {shape.length} elements")
            return sum(element(v) << i * step for i, v in enumerate(value))

        return array
    if isinstance(shape, ShapeCastable):
        return whole
    return lambda value: (value if isinstance(value, int) else Const.cast(value).value) & mask
