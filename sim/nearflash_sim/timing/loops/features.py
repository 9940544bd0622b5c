"""Dense features on their way from the parser to the MLP's buffers (``nearflash_hw.lookup.sequencer``, ``.mlp.router``).

They pass a slice of two places and a quantiser that stands still while the first layers have no room. When there is room
again is known once the groups before have been through, so what isn't known yet of the latest features is found later.
"""

from __future__ import annotations

from .compiled import apart, compiled
from .mlp import advance, arrive, note_start, room_known, room_of
from .pipe import DENSE, entered, passed, stalled

__all__ = ["KEPT", "resolve", "take"]

KEPT = 4  # features of which is kept when they were taken and left the slice: more than it holds


@compiled
def take(d, a, taken):
    """The parser takes the next feature in cycle ``taken``."""
    s = a.s[0]
    a.feature_taken[s.features % KEPT] = taken
    s.features += 1


@apart
def resolve(d, a, m):
    """Find the cycles of as many features as can be known, and what the MLP makes of them."""
    s = a.s[0]
    width = d.features
    while True:
        n = s.buffered
        place, e = n // width % (2 * d.slots), n % width
        if n < s.sliced:
            group = a.feature_group[place]
            here = passed(a, DENSE, a.feature[place, e], d.k.QUANTIZE)
            if room_known(m, m.s[0].dense_node, group):
                left = max(here, room_of(m, m.s[0].dense_node, group))
                stalled(a, DENSE, here, left)
                a.feature[place, e] = left
                s.buffered += 1
                if e == 0:
                    note_start(m, m.s[0].dense_node, group, left)
                if e == width - 1 and a.feature_ends[place]:
                    arrive(m, m.s[0].dense_node, a.feature[place], 0)
                    advance(m)
                continue
        if s.sliced == s.features:
            return
        at = max(a.feature_taken[s.sliced % KEPT] + 1, a.feature_sliced[(s.sliced - 1) % KEPT] + 1)
        at = entered(a, DENSE, at)
        if n < s.sliced and at >= passed(a, DENSE, a.feature[place, e], d.k.QUANTIZE):
            return
        a.feature_sliced[s.sliced % KEPT] = at
        a.feature[s.sliced // width % (2 * d.slots), s.sliced % width] = at
        s.sliced += 1
