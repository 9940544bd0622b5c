"""From when on dies want a phase on their channel's bus (``nearflash_hw.flash.bus``)."""

from __future__ import annotations

from .compiled import compiled
from .state import INF

__all__ = ["fill_from", "page_from", "wants"]


@compiled
def fill_from(d, a, c):
    """From when on channel ``c`` may move a page of block I/O to a die: no page register is read again."""
    if d.window:
        return INF if a.channel[c].repeat >= 0 else a.channel[c].repeats_end + 1
    return 0


@compiled
def page_from(d, a, c):
    """From when on channel ``c`` may send a page of block I/O."""
    return max(max(a.channel[c].room, a.channel[c].block_out_at), fill_from(d, a, c))


@compiled
def wants(d, a, c, k, command):
    """From when on die ``k`` of channel ``c`` wants a command phase, or a data phase that may begin then."""
    if command:
        return a.die[k].want_command
    if d.block_reads:
        if a.die[k].tag >= d.tags + d.block_reads:
            return max(a.die[k].want_out, fill_from(d, a, c))
        if a.die[k].tag >= d.tags:
            return max(a.die[k].want_out, page_from(d, a, c))
        return max(a.die[k].want_out, a.channel[c].out_at)
    return a.die[k].want_out
