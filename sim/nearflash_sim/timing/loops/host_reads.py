"""What host memory gives first: beats in the order in which they were asked for, one a cycle.

WRITEs' blocks, submission entries and a query's beats wait for one another, but for a query's, which wait for no blocks.
"""

from __future__ import annotations

from .compiled import apart, compiled

__all__ = ["HOST_READS", "after_entries", "after_others", "keep_read", "read_block"]

HOST_READS = 256  # the latest ones: more than a write buffer's slots have under way, and a query is known ahead


@apart
def after_others(a, asked, at):
    """The first cycle from ``at`` on in which what was asked for in cycle ``asked`` may come, behind WRITEs' blocks and the
    beats of queries."""
    for k in range(len(a.host_reads)):
        if a.host_reads[k, 0] <= asked:
            at = max(at, a.host_reads[k, 1])
    return at


@apart
def after_entries(d, a, asked, at):
    """The first cycle from ``at`` on in which it may come behind submission entries."""
    for k in range(len(a.fetched)):
        if a.fetched[k, 0] + d.k.FETCH_REQUEST <= asked:
            at = max(at, a.fetched[k, 1] - d.k.VERDICT - d.k.NEXT_FETCH)
    return at


@compiled
def read_block(d, a, asked, beats):
    """``beats`` of a WRITE or of a list are asked for in cycle ``asked``: the cycle after the last of them."""
    taken = asked + d.k.BLOCK_READ_TAKEN
    at = after_others(a, taken, taken + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE)
    at = after_entries(d, a, taken, at)
    keep_read(a, taken, at + beats)
    return at + beats - d.k.BLOCK_READ_TAKEN


@compiled
def keep_read(a, asked, end):
    """What was asked for in cycle ``asked`` has come when cycle ``end`` begins."""
    place = a.block[0].host_reads % len(a.host_reads)
    a.block[0].host_reads += 1
    a.host_reads[place, 0], a.host_reads[place, 1] = asked, end
