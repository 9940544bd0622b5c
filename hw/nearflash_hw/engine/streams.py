"""What the blocks of the MLP engine exchange: beats of activations or accumulators."""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data

from ..interfaces import index_bits

__all__ = ["beat_layout", "clog2", "low_bit"]


def clog2(v: int) -> int:
    """Smallest b with 2**b >= v."""
    return (v - 1).bit_length()


def low_bit(v: int) -> int:
    """Largest power of two that divides ``v`` (``v`` above 0)."""
    return v & -v


def beat_layout(lanes: int, bits: int, width: int, nb_bits: int) -> data.StructLayout:
    """``lanes`` signed elements of ``bits`` bits, elements ``pos``..``pos + lanes - 1`` of a vector of ``width`` (a
    multiple of ``lanes``; elements from ``width`` on are padding) of sample ``n`` of a group of ``nb + 1``.

    Every producer sends a group's beats so that, for each element, the last sample's (n = nb) comes after the other
    samples', and a sample's elements come in order: the progress of sample ``nb`` is the progress of the group.
    """
    return data.StructLayout({"data": data.ArrayLayout(signed(bits), lanes), "pos": index_bits(width), "n": nb_bits,
                              "nb": nb_bits})
