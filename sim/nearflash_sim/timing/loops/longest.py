"""The longest queue first: which die's data the bus moves (``nearflash_hw.flash.longest``).

Things of one cycle are done in any order, and those of a die's queue before the bus sees them: so of each die its latest two
pushes and its latest pop are kept, for a count as of an earlier cycle.
"""

from __future__ import annotations

from .compiled import compiled

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


@compiled
def longest(d, a, c, now):
    """The die of channel ``c``, by its number in it, that has the data-out of cycle ``now``; one at least wants it."""
    base, best, most = c * d.dies, -1, 0
    anew = True
    for k in range(base, base + d.dies):
        if a.die[k].want_out <= now and not a.die[k].served:
            anew = False
    for k in range(base, base + d.dies):
        if a.die[k].want_out <= now and (anew or not a.die[k].served):
            n = _waiting(d, a, k, now)
            if best < 0 or n > most:
                best, most = k, n
    if anew:
        for k in range(base, base + d.dies):
            a.die[k].served = 0
    a.die[best].served = 1
    return best - base
