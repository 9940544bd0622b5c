"""Host memory of block I/O's requests, piece by piece, of one request at a time (``nearflash_hw.host.prp``, ``.pieces``).

A piece is what one host page and one logical block have in common.
"""

from __future__ import annotations

from .compiled import compiled

__all__ = ["begin_pieces", "piece"]


@compiled
def begin_pieces(d, a, blocks, now):
    """The PRP list of a request for so many logical ``blocks``, taken from the intake in cycle ``now``, is walked."""
    b = a.block[0]
    b.runs = -(-blocks * d.page_pieces // d.run_pages)
    b.run = b.run_left = 0
    b.piece_taken, b.run_known = now, now + d.k.READ_WALK


@compiled
def piece(d, a, now):
    """The cycle, from ``now`` on, in which the next piece is taken."""
    b = a.block[0]
    if b.run_left == 0:  # the next host page
        known = b.run_known
        if b.run > 0:
            fetched = b.runs > 2 and (b.run - 1) % (d.beat_bytes // 8) == 0
            known = b.run_taken + d.k.WALK_NEXT
            if fetched:
                known = (b.run_taken + d.k.WALK_FETCH + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE
                         + d.k.WALK_FETCHED)
        b.run_taken = max(known, b.piece_taken + 1)
        b.run += 1
        b.run_left = d.run_pages
        b.piece_at = b.run_taken + d.k.PIECE_CUT
    at = max(now, b.piece_at)
    b.piece_taken = at
    b.piece_at = at + d.k.PIECE_CUT
    b.run_left -= 1
    return at
