"""What host memory gives first: beats in the order in which they were asked for, one a cycle.

WRITEs' blocks, which take longest, and submission entries wait for one another. A query's beats are few: they and the blocks
don't.
"""

from __future__ import annotations

from .compiled import apart, compiled

__all__ = ["HOST_READS", "after_blocks", "read_block"]

HOST_READS = 32  # the latest ones: more than a write buffer's slots have under way


@apart
def after_blocks(a, asked, at):
    """The first cycle from ``at`` on in which what was asked for in cycle ``asked`` may come, behind WRITEs' blocks."""
    for k in range(len(a.host_reads)):
        if a.host_reads[k, 0] <= asked:
            at = max(at, a.host_reads[k, 1])
    return at


@compiled
def read_block(d, a, asked, beats):
    """``beats`` of a WRITE or of a list are asked for in cycle ``asked``: the cycle after the last of them."""
    way = d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE
    at = after_blocks(a, asked, asked + way)
    for k in range(len(a.fetched)):
        entry = a.fetched[k, 0] + d.k.FETCH_REQUEST
        if entry <= asked:
            at = max(at, a.fetched[k, 1] - d.k.VERDICT - d.k.NEXT_FETCH)
    place = a.block[0].host_reads % len(a.host_reads)
    a.block[0].host_reads += 1
    a.host_reads[place, 0], a.host_reads[place, 1] = asked, at + beats
    return at + beats
