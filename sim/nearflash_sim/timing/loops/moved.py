"""Where logical blocks lie that block I/O wrote or unmapped since the beginning: an open-addressed table, as these are few
among a device's. Every other block lies in the page of its number.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

__all__ = ["UNMAPPED", "move", "new_moved", "page_of"]

UNMAPPED = -1  # in place of a page
EMPTY = -1  # in place of a block
GOLDEN = 2654435761  # Knuth's multiplicative hashing: 2**32 / golden ratio


def new_moved(blocks: int) -> np.ndarray:
    """Room for so many: int32 [places, (block, page)]."""
    return np.full((1 << (2 * blocks).bit_length(), 2), EMPTY, np.int32)


@compiled
def _place(a, block):
    last = a.moved.shape[0] - 1
    at = block * GOLDEN >> 16 & last
    while a.moved[at, 0] != EMPTY and a.moved[at, 0] != block:
        at = at + 1 & last
    return at


@compiled
def move(a, block, page):
    """Logical ``block`` lies in ``page`` now, or is UNMAPPED."""
    at = _place(a, block)
    a.moved[at, 0], a.moved[at, 1] = block, page


@compiled
def page_of(a, block):
    """The page of logical ``block``, or UNMAPPED."""
    at = _place(a, block)
    return np.int64(a.moved[at, 1]) if a.moved[at, 0] == block else block
