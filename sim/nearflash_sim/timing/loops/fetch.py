"""Entries of submission queues, fetched one at a time (``nearflash_hw.host.queues``): commands and block I/O share that.

Block I/O's are found in order of time, and with them the next two commands', which a READ's may wait for; other commands'
when their turn is to be parsed.
"""

from __future__ import annotations

from .compiled import compiled
from .host import next_sent, second_sent
from .host_reads import after_others
from .intervals import gap
from .state import FETCHES, INF

__all__ = ["fetch", "fetch_block"]


@compiled
def _entry(d, a, at, command):
    """An entry, a ``command``'s or one of block I/O, is fetched from cycle ``at`` on, or as soon as nothing else is: when
    it's complete."""
    beats = 64 // d.beat_bytes
    reading = d.k.FETCH_REQUEST + d.k.READ_REQUEST + d.host_latency + d.k.READ_RESPONSE + beats
    if d.block_reads:
        at = gap(a.fetched, at, reading + d.k.VERDICT + d.k.NEXT_FETCH)
        complete = after_others(a, at + d.k.FETCH_REQUEST, at + reading - beats) + beats
        place = a.s[0].fetches % FETCHES
        a.s[0].fetches += 1
        a.fetched[place, 0], a.fetched[place, 1] = at, complete + d.k.VERDICT + d.k.NEXT_FETCH
        if a.fetched[place, 1] > a.s[0].fetcher_free:
            a.s[0].fetcher_free, a.s[0].fetched_command = a.fetched[place, 1], command
        return complete
    return at + reading


@compiled
def fetch(d, a, at, register_free):
    """An entry that may be fetched from cycle ``at`` on, for a command register that is empty from ``register_free`` on:
    when the fetch that takes it ends. One that finds the register full stays in its queue and is fetched again."""
    s = a.s[0]
    complete = s.early if s.early else _entry(d, a, at, 1)
    if complete + d.k.VERDICT < register_free:
        complete = _entry(d, a, max(register_free + d.k.REGISTER_SEEN, complete + d.k.VERDICT + d.k.DEFERRED), 1)
    s.early, s.second_early = s.second_early, 0
    return complete


@compiled
def _command_at(d, a):
    """From when on the next command's entry may be fetched, as far as is known; INF if it was."""
    s = a.s[0]
    if s.early == 0:
        return max(next_sent(d, a) + d.k.DOORBELL + d.k.BELL_TO_FETCH, s.fetch_free)
    if s.early + d.k.VERDICT < s.register_free:
        return max(s.register_free + d.k.REGISTER_SEEN, s.early + d.k.VERDICT + d.k.DEFERRED)
    return INF


@compiled
def _second_at(d, a):
    """The same of the command behind it, once that has the register, in which this one most often doesn't find room."""
    s = a.s[0]
    if s.early == 0 or s.second_early or s.early + d.k.VERDICT < s.register_free:
        return INF
    return max(second_sent(d, a) + d.k.DOORBELL + d.k.BELL_TO_FETCH, s.early + d.k.VERDICT + d.k.NEXT_FETCH)


@compiled
def fetch_block(d, a, at):
    """An entry of block I/O that may be fetched from cycle ``at`` on, in turn with the commands': when it's complete."""
    s = a.s[0]
    while True:
        command, second = _command_at(d, a), _second_at(d, a)
        chosen = max(min(at, min(command, second)), s.fetcher_free)
        if min(command, second) > chosen or (at <= chosen and s.fetched_command):
            return _entry(d, a, at, 0)
        if second < command:
            s.second_early = _entry(d, a, second, 1)
        else:
            s.early = _entry(d, a, command, 1)
