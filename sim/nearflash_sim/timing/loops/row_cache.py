"""The row cache in the controller's DRAM (``nearflash_hw.lookup.row_cache``): tags, and the writer of its lines.

What is done with the tags happens in order of time: lookups, and what the writer wants for a row that flash gave, a line
first and, when the row is in DRAM, that it can be found there. The two take turns; each thing keeps the tags for some
cycles. The writer's things are done when a lookup comes, or a row passes, that is later.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

__all__ = ["LINES_READ", "WRITER_ROWS", "look", "new_cache", "passes"]

MOST = 7  # of a line's count
WRITER_ROWS = 4  # that passed and are not yet written
PLACES = 8  # of the writer's rings: more than its rows
LINES_READ = 8  # rows asked of the DRAM, or on their way to the merge
INF = 1 << 62  # a time that is not known yet
EMPTY, TAKEN = -1, -2  # in place of a line's key; taken: for the row that is being written


def new_cache(sets: int, ways: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys int64 [sets, ways]; how often each was found; the writer's rows, a ring of records)."""
    sets, ways = max(1, sets), max(1, ways)
    fields = [(name, np.int64) for name in ("key", "beats", "came", "released")]
    return np.full((sets, ways), EMPTY), np.zeros((sets, ways), np.int64), np.zeros(PLACES, np.dtype(fields))


@compiled
def _set_of(a, key):
    return key & a.cached.shape[0] - 1


@compiled
def _admit(a, key):
    """The way that ``key`` may have in its set, or -1."""
    line, chosen = _set_of(a, key), -1
    for way in range(a.cached.shape[1]):
        if a.cached[line, way] == key:
            return -1
        if a.cached[line, way] == EMPTY:
            better = chosen < 0 or a.cached[line, chosen] != EMPTY
        else:
            better = chosen < 0 and a.cache_count[line, way] == 0
        if better:
            chosen = way
    if chosen < 0:
        for way in range(a.cached.shape[1]):
            a.cache_count[line, way] -= 1
    else:
        a.cached[line, chosen] = TAKEN
    return chosen


@compiled
def _write_line(d, a):
    """The writer has a line for its row since ``admitted``, and it is known when the hits found before end."""
    s = a.s[0]
    place = s.kept_head % PLACES
    beats = a.keeping[place].beats
    ask = s.admitted + d.k.LINE_ASK
    if s.hit_ended > s.admitted + d.k.VERDICT_SEEN:
        ask = max(ask, s.hit_ended + d.k.LINE_OLDER)
    a.keeping[place].released = ask + (d.k.LINE_SENT + beats if beats > 1 else d.k.LINE_SENT_ONE)
    s.publish_at = ask + beats + d.k.LINE_DONE


@compiled
def hit_read(d, a, ended):
    """The hit that waited for a tag has it; its last beat comes in cycle ``ended``."""
    s = a.s[0]
    s.hit_ended, s.hit_waits = ended, 0
    if s.publish_at == INF:
        _write_line(d, a)


@compiled
def _write(d, a, until):
    """What the writer does with the tags before cycle ``until``; in it too, if the last to have them was a lookup."""
    s = a.s[0]
    while s.kept_head != s.kept_tail:
        place = s.kept_head % PLACES
        r = a.keeping[place]
        ready = s.publish_at if s.publish_at > 0 else max(r.came, s.keeper_free) + d.k.ADMIT
        start = max(ready, s.tags_free)
        if start > until or (start == until and not s.looked):
            return
        s.tags_free, s.looked = start + d.k.TAGS_EVERY, 0
        if s.publish_at > 0:
            line = _set_of(a, r.key)
            for way in range(a.cached.shape[1]):
                if a.cached[line, way] == TAKEN:
                    a.cached[line, way], a.cache_count[line, way] = r.key, 1
            s.publish_at, s.keeper_free = 0, start + 1
            s.kept_head += 1
            s.cache_kept += 1
        elif _admit(a, r.key) >= 0:
            s.admitted = start
            if s.hit_waits:
                s.publish_at = a.keeping[place].released = INF
            else:
                _write_line(d, a)
        else:
            s.keeper_free = start + d.k.LINE_REFUSED + r.beats
            a.keeping[place].released = s.keeper_free
            s.kept_head += 1


@compiled
def look(d, a, at, key):
    """A lookup of ``key`` is ready for the tags in cycle ``at``: (when it has them, whether its row is there)."""
    s = a.s[0]
    start = at - 1
    while start < max(at, s.tags_free):
        start = max(at, s.tags_free)
        _write(d, a, start)
    s.tags_free, s.looked = start + d.k.TAGS_EVERY, 1
    line = _set_of(a, key)
    for way in range(a.cached.shape[1]):
        if a.cached[line, way] == key:
            a.cache_count[line, way] = min(MOST, a.cache_count[line, way] + 1)
            s.cache_hits += 1
            s.hit_waits = 1  # for a tag: when its row comes is not known yet
            return start, True
    return start, False


@compiled
def passes(d, a, key, beats, first, last):
    """A row from flash passes, its first beat in cycle ``first``: the writer takes it, if there is room."""
    s = a.s[0]
    _write(d, a, first)
    if s.kept_tail >= WRITER_ROWS:
        before = s.kept_tail - WRITER_ROWS
        r = a.keeping[before % PLACES]
        waits = before > s.kept_head or (before == s.kept_head and s.publish_at == 0)
        if waits or r.released > first:
            s.cache_dropped += 1
            return
    place = s.kept_tail % PLACES
    a.keeping[place].key, a.keeping[place].beats, a.keeping[place].came = key, beats, last + 1
    s.kept_tail += 1
