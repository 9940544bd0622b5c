"""The longest queue first: which die's data the bus moves (``nearflash_hw.flash.longest``).

Things of one cycle are done in any order, and those of a die's queue before the bus sees them: so of each die its latest two
pushes and its latest pop are kept, for a count as of an earlier cycle.
"""

from __future__ import annotations

from .bus import wants
from .compiled import apart, compiled

__all__ = ["count_pop", "count_push", "longest"]


@compiled
def count_push(a, k, at):
    """Die ``k``'s queue takes a read in cycle ``at``."""
    a.die[k].waiting += 1
    a.die[k].pushed_before, a.die[k].pushed = a.die[k].pushed, at


@compiled
def count_pop(a, k, at):
    """And gives one."""
    a.die[k].waiting -= 1
    a.die[k].popped = at


@compiled
def _waiting(d, a, k, now):
    """What the choice of cycle ``now`` compares: what there was, a register and a comparison ago."""
    last = now - d.k.COMPARED
    die = a.die[k]
    return die.waiting - (die.pushed > last) - (die.pushed_before > last) + (die.popped > last)


@apart
def longest(d, a, c, now):
    """The die of channel ``c``, by its number in it, that has the data-out of cycle ``now``; one at least wants it."""
    base, best, most, due = c * d.dies, -1, 0, 0
    for k in range(base, base + d.dies):
        if wants(d, a, c, k, False) <= now and a.die[k].due >= due:
            n = _waiting(d, a, k, now)
            if best < 0 or a.die[k].due > due or n > most:
                best, most, due = k, n, a.die[k].due
    a.channel[c].turns += 1
    if a.channel[c].turns % d.k.LONGEST_PERIOD == 0:
        for k in range(base, base + d.dies):
            if wants(d, a, c, k, False) <= now:
                a.die[k].due = 1
    a.die[best].due = 0
    return best - base
