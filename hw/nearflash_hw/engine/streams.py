"""What the blocks of the MLP engine exchange: beats of activations or accumulators."""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data

from ..interfaces import index_bits

__all__ = ["Beat", "clog2", "low_bit"]


def clog2(v: int) -> int:
    """Smallest b with 2**b >= v."""
    return (v - 1).bit_length()


def low_bit(v: int) -> int:
    """Largest power of two that divides ``v`` (``v`` above 0)."""
    return v & -v


class Beat(data.StructLayout):
    """``lanes`` signed elements of ``bits`` bits of a vector of ``width`` (a multiple of ``lanes``; elements from ``width``
    on are padding).

    Every producer sends a group's beats so that, for each element, the last sample's (n = nb) comes after the other
    samples', and a sample's elements come in order: the progress of sample ``nb`` is the progress of the group.
    """

    def __init__(self, lanes: int, bits: int, width: int, nb_bits: int):
        super().__init__({
            "data": data.ArrayLayout(signed(bits), lanes),
            #: Of the first of these elements in its vector.
            "pos": index_bits(width),
            #: The sample's place in its group,
            "n": nb_bits,
            #: which has ``nb`` + 1.
            "nb": nb_bits,
        })
