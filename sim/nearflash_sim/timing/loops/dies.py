"""The earliest of a channel's dies that may be chosen, wants a command phase, or a data-out: kept with the channel.

Each event changes what one die wants. What is new is compared with the earliest (``k``: that die); when something is not
wanted any more, all are looked at (``k``: -1).
"""

from __future__ import annotations

from .compiled import compiled
from .state import INF

__all__ = ["choose_from", "command_from", "look_at_dies", "out_from", "waits"]


@compiled
def waits(d, a, k):
    """From when on a command waits for die ``k``."""
    if d.block_reads:
        return min(a.die[k].visible, a.die[k].block_visible)
    return a.die[k].visible


@compiled
def choose_from(d, a, c, k):
    """From when on a die is free, and a command waits for it."""
    if k >= 0:
        a.channel[c].dies_choose = min(a.channel[c].dies_choose, max(waits(d, a, k), a.die[k].free_at))
    else:
        at = INF
        for i in range(c * d.dies, (c + 1) * d.dies):
            at = min(at, max(waits(d, a, i), a.die[i].free_at))
        a.channel[c].dies_choose = at


@compiled
def command_from(d, a, c, k):
    """From when on a die wants a command phase."""
    if k >= 0:
        a.channel[c].dies_command = min(a.channel[c].dies_command, a.die[k].want_command)
    else:
        at = INF
        for i in range(c * d.dies, (c + 1) * d.dies):
            at = min(at, a.die[i].want_command)
        a.channel[c].dies_command = at


@compiled
def out_from(d, a, c, k):
    """From when on a die wants a data-out, but for pages of block I/O."""
    if k >= 0:
        a.channel[c].dies_out = min(a.channel[c].dies_out, a.die[k].want_out)
    else:
        at = INF
        for i in range(c * d.dies, (c + 1) * d.dies):
            if d.block_reads == 0 or a.die[i].tag < d.tags:
                at = min(at, a.die[i].want_out)
        a.channel[c].dies_out = at


@compiled
def look_at_dies(d, a, c):
    """All three anew."""
    choose_from(d, a, c, -1)
    command_from(d, a, c, -1)
    out_from(d, a, c, -1)
