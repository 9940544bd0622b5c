"""From when on dies want a phase on their channel's bus (``nearflash_hw.flash.bus``)."""

from __future__ import annotations

from .compiled import compiled
from .state import INF

__all__ = ["page_from", "wants"]


@compiled
def page_from(d, a, c):
    """From when on channel ``c`` may send a page of block I/O."""
    at = max(a.channel[c].room, a.channel[c].block_out_at)
    if d.window:
        at = INF if a.channel[c].repeat >= 0 else max(at, a.channel[c].repeats_end + 1)
    return at


@compiled
def wants(d, a, c, k, command):
    """From when on die ``k`` of channel ``c`` wants a command phase, or a data-out that may begin then."""
    if command:
        return a.die[k].want_command
    if d.block_reads:
        if a.die[k].tag >= d.tags:
            return max(a.die[k].want_out, page_from(d, a, c))
        return max(a.die[k].want_out, a.channel[c].out_at)
    return a.die[k].want_out
