"""The MLP engine as arithmetic, group after group.

The rules are those of :mod:`nearflash.compiler.timing`, which treats the special case of one sample alone in the engine.
What is added here is what a group finds of those before it: buffers that are full, cores at work, results that wait; and
groups of several samples, which take each step one after the other; and weights that are streamed. A layer's cores work on a
group as soon as each has its inputs: that of the dense features lets go of them, and so lets more of them in, while another
still waits for vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nearflash.compiler import timing
from nearflash.contract import DeviceConfig, cores
from nearflash.contract.mlp import interaction_word, kernel_latency, output_lanes

from ..latency import Latency
from .compiled import apart, compiled, entry
from .dram import READS_KEPT
from .state import INF, new_dram
from .trace import FIELDS, OTHER, note
from .trace import MLP as MLP_TRACK
from .weights import next_burst, plan_bursts, stream_of, take_word, word_here

__all__ = ["Mlp", "advance", "advance_bursts", "arrive", "new_mlp", "note_start", "room_known", "room_of"]

DENSE, TABLES, FC, INTERACTION = range(4)
GROUPS = 4  # between a core's first step and its last output (mlp/core)
AFTER_RELEASE = 2  # a buffer's last read to the next sample's first (mlp/buffer)


class Mlp(NamedTuple):
    """An engine and where it stands. Without nodes: none."""

    s: np.ndarray  #: one record
    node: np.ndarray
    unit: np.ndarray  #: cores and interactions
    sink: np.ndarray  #: the edges from a node to its consumers
    pop: np.ndarray  #: [node, place], ring: cycles in which its beats left
    freed: np.ndarray  #: [unit, place], ring: cycles in which its result words left
    ready: np.ndarray  #: [unit, sample of the group]: cycle from which on the result word of this row block may leave,
    result: np.ndarray  #: [unit, place], ring: and of each of the unit's latest result words
    release: np.ndarray  #: [unit, place], ring: cycles of the last reads of its latest groups
    ended: np.ndarray  #: [unit, place], ring: cycles in which its latest groups' last results left
    arrived: np.ndarray  #: [element of a unit's input, place], ring of groups: of its last sample
    source: np.ndarray  #: the nodes that a node reads
    samples: np.ndarray  #: ring: of each group
    started: np.ndarray  #: [unit, place], ring of groups: cycle in which the first element arrived
    weight_came: np.ndarray  #: [unit, place], ring: cycles in which beats of streamed weights came,
    weight_read: np.ndarray  #: and left their FIFO
    dram: np.ndarray  #: as of the state of the rest of the device, with which a simulation shares them
    dram_kept: np.ndarray
    through: np.ndarray  #: [place], ring: cycles in which the latest groups gave their last logits
    trace: np.ndarray  #: [slice, field] for a timeline: none, or what there is room for


def new_mlp(config: DeviceConfig, dram_latency: int = 30, slices: int = 0) -> Mlp:
    """The engine of ``config``, idle; ``dram_latency`` cycles of a read, for streamed weights; ``slices``: room for a
    timeline's."""
    graph, m = config.mlp.graph, config.mlp
    shapes = cores(graph)
    by_name = {n.name: n for n in graph}
    lanes = {n.name: output_lanes(n, [c for c in shapes if c.node == n.name], n is graph[-1]) if n.kind == "fc" else 1
             for n in graph}
    units, sinks, nodes, elements = [], {n.name: [] for n in graph}, [], 0

    def unit(names: tuple[str, ...], k: int, *shape: int, stream: tuple[int, ...] = (0, 1, 1, 1)) -> None:
        nonlocal elements
        at = 0
        for name in names:
            sinks[name].append((len(units), elements + at, min(lanes[name], k, at & -at if at else k)))
            at += by_name[name].width
        units.append((elements, at, k, *shape, len(firsts) - 1, *stream))
        elements += at

    firsts = []
    for n in graph:
        firsts.append(len(units))
        for c in shapes:
            if c.node == n.name:
                depth = max(timing.RESULTS_MIN, 2 * m.n_batch)
                if n.decomposed or c.scan == "column":
                    depth = max(depth, c.row_blocks * m.n_batch)
                unit(c.inputs, c.kc, c.scan == "row", c.row_blocks, c.column_blocks,
                     timing.RESULT + kernel_latency(c.kc), 1 << (depth - 1).bit_length(), c.kr // lanes[n.name], 0,
                     stream=stream_of(c, config.beat_bytes))
        if n.kind in ("dot", "mul"):
            k = interaction_word(n)
            unit(n.inputs, k, 0, 0, 0, kernel_latency(k) + timing.INTERACTION, 1, 0,
                 n.dim // k if n.kind == "dot" else 1)
    flat, sources, number = [], [], {n.name: k for k, n in enumerate(graph)}
    for n, first in zip(graph, firsts, strict=True):
        kind = {"dense": DENSE, "tables": TABLES, "fc": FC}.get(n.kind, INTERACTION)
        last = firsts[len(nodes) + 1] if len(nodes) + 1 < len(firsts) else len(units)
        depth = timing.EPILOGUE_DEPTH if kind == FC else timing.INTERACTION_DEPTH
        streams = any(units[u][-4] for u in range(first, last))
        nodes.append((kind, lanes[n.name], n.width, depth, streams, first, last, len(flat), len(flat) + len(sinks[n.name]),
                      len(sources), len(sources) + len(n.inputs)))
        flat += sinks[n.name]
        sources += [number[name] for name in n.inputs]

    def records(rows: list, names: str, kept: str) -> np.ndarray:
        known = names.split()
        out = np.zeros(len(rows), np.dtype([(name, np.int64) for name in (*known, *kept.split())]))
        for j, name in enumerate(known):
            out[name] = [row[j] for row in rows]
        return out

    node = records(nodes, "kind lanes width depth streams unit units sink sinks source sources",
                   "beats last_pop take groups at_beat at_sample")
    node["last_pop"] = node["take"] = -1
    core = records(units, "base columns k row_scan row_blocks column_blocks result depth subs words_of_pair owner "
                   "word_beats pass_beats burst room",
                   "first_step last_step words words_taken words_freed words_due taken left step begun released beat asked "
                   "requested read used word starts stepping inner outer")
    core["last_step"], core["taken"] = -AFTER_RELEASE, -1
    deepest = max((u[7] for u in units), default=1)
    names = ("buffered", "visible", "logit", "epilogue", "dense_node", "through", "dram", "traced")
    s = np.zeros(1, np.dtype([(name, np.int64) for name in names]))
    s["buffered"], s["visible"] = m.buffered, timing.VISIBLE
    s["epilogue"], s["logit"] = timing.EPILOGUE, timing.LOGIT
    k = Latency()
    s["dram"] = k.READ_REQUEST + dram_latency + k.READ_RESPONSE
    s["dense_node"] = next((k for k, n in enumerate(graph) if n.kind == "dense"), 0)
    n = len(units)
    most = max((u[-1] for u in units), default=1)
    return Mlp(s, node, core, records(flat, "unit base lanes", ""), pop=np.full((len(nodes), timing.INTERACTION_DEPTH), -1),
               freed=np.full((n, deepest), -1), ready=np.zeros((n, m.n_batch), np.int64),
               result=np.zeros((n, deepest), np.int64), release=np.full((n, 2), -1), ended=np.full((n, GROUPS), -1),
               arrived=np.zeros((elements, 2), np.int64), source=np.array(sources, np.int64),
               samples=np.zeros(2 * config.lookup.sample_slots, np.int64), started=np.full((n, 2), INF),
               weight_came=np.zeros((n, most), np.int64), weight_read=np.zeros((n, most), np.int64),
               dram=new_dram(), dram_kept=np.zeros((READS_KEPT, 2), np.int64),
               through=np.zeros(2 * config.lookup.sample_slots, np.int64),
               trace=np.zeros((slices, FIELDS), np.int64))


@compiled
def room_known(m, node, group):
    """Whether it is known when elements of ``group`` may enter the buffers behind ``node``."""
    for k in range(m.node[node].sink, m.node[node].sinks):
        if m.unit[m.sink[k].unit].released <= group - m.s[0].buffered:
            return False
    return True


@compiled
def room_of(m, node, group):
    """The first cycle in which they may."""
    at = 0
    number = group - m.s[0].buffered
    if number >= 0:
        for k in range(m.node[node].sink, m.node[node].sinks):
            at = max(at, m.release[m.sink[k].unit, number % 2] + 1)
    return at


@entry
def arrive(m, node, cycles, first):
    """Elements of the next group's last sample enter the buffers behind the source ``node`` in ``cycles[first:]``."""
    n = m.node[node]
    for e in range(n.width):
        for k in range(n.sink, n.sinks):
            m.arrived[m.sink[k].base + e, n.groups % 2] = cycles[first + e]
    n.groups += 1


@compiled
def note_start(m, node, group, at):
    """The first element of ``group`` enters the buffers behind ``node``."""
    for k in range(m.node[node].sink, m.node[node].sinks):
        u = m.sink[k].unit
        if at < m.started[u, group % 2]:
            m.started[u, group % 2] = at
            if m.unit[u].word_beats:
                m.unit[u].starts = group + 1
                plan_bursts(m)


@compiled
def _visible(m, u, columns, group):
    """When the first ``columns`` elements of unit ``u`` may be read."""
    latest = 0
    for e in range(columns):
        latest = max(latest, m.arrived[m.unit[u].base + e, group % 2])
    return latest + m.s[0].visible


@compiled
def _begin(m, u, group, samples):
    """The group's first row block of core ``u``: the step before its last one."""
    c = m.unit[u]
    first = c.last_step + AFTER_RELEASE
    if group >= GROUPS:
        first = max(first, m.ended[u, group % GROUPS] + 1)
    if c.row_scan:
        c.step = max(first, _visible(m, u, c.columns, group)) - 1
        c.first_step = c.step + 1
    else:
        latest, e = 0, 0
        for b in range(c.column_blocks):
            while e < min((b + 1) * c.k, c.columns):
                latest = max(latest, m.arrived[c.base + e, group % 2])
                e += 1
            first = max(first, latest + m.s[0].visible)
            if b == 0:
                c.first_step = first
            if b < c.column_blocks - 1:
                first += c.row_blocks * samples
        c.step = first - 1
    c.begun += 1
    c.words_due = c.words + c.row_blocks * samples


@compiled
def _word(m, u, n, group, samples):
    """The core's next result word, of the group's sample ``n``."""
    c = m.unit[u]
    c.step += (c.column_blocks - 1) * samples + 1 if c.row_scan and n == 0 else 1
    if c.words >= c.depth:
        c.step = max(c.step, m.freed[u, c.words % c.depth] + 1)
    m.result[u, c.words % c.depth] = c.step + c.result
    c.words += 1
    if c.words == c.words_due:
        _let_go(m, u, group)


@compiled
def _let_go(m, u, group):
    """Core ``u`` has taken the group's last step."""
    c = m.unit[u]
    c.last_step = c.step
    m.release[u, group % 2], m.started[u, group % 2] = c.step, INF
    c.released += 1
    note(m.s[0], m.trace, MLP_TRACK, u, OTHER, c.first_step, c.step + 1, -1, group)


@apart
def _stream(m, node, u):
    """Core ``u``, whose weights are streamed, takes as many steps as is known when; returns whether it took any."""
    c = m.unit[u]
    moved = False
    while word_here(c):
        if c.stepping == 0:
            if not _inputs_known(m, node, u):
                break
            c.stepping, c.inner, c.outer = 1, 0, 0
            c.step = c.last_step + AFTER_RELEASE - 1
            if c.begun >= GROUPS:
                c.step = max(c.step, m.ended[u, c.begun % GROUPS])
            if c.row_scan:
                c.step = max(c.step, _visible(m, u, c.columns, c.begun) - 1)
            c.begun += 1
        group = c.begun - 1
        samples = m.samples[group % len(m.samples)]
        columns, column = c.column_blocks, c.inner if c.row_scan else c.outer
        if column == columns - 1 and c.words + samples > c.words_freed + c.depth:
            break
        moved = True
        at = c.step + 1
        if not c.row_scan and c.inner == 0:
            at = max(at, _visible(m, u, min((column + 1) * c.k, c.columns), group))
        if column < columns - 1:
            at = take_word(m, u, at)
            c.step = at + samples - 1
        else:
            for n in range(samples):
                if c.words >= c.depth:
                    at = max(at, m.freed[u, c.words % c.depth] + 1)
                if n == 0:
                    at = take_word(m, u, at)
                m.result[u, c.words % c.depth] = at + c.result
                c.words += 1
                c.step = at
                at += 1
        if c.inner == 0 and c.outer == 0:
            c.first_step = c.used
        c.inner += 1
        if c.inner == (columns if c.row_scan else c.row_blocks):
            c.inner = 0
            c.outer += 1
            if c.outer == (c.row_blocks if c.row_scan else columns):
                c.stepping = 0
                _let_go(m, u, group)
    return moved


@apart
def _work_ahead(m, u, group, samples):
    """Core ``u`` does all of a group whose other cores' inputs aren't all there, if its results have room."""
    c = m.unit[u]
    _begin(m, u, group, samples)
    for _ in range(c.row_blocks):
        for n in range(samples):
            _word(m, u, n, group, samples)


@compiled
def _inputs_known(m, node, u):
    """Whether all of core ``u``'s next group is there, and so few groups are in the core that it may begin."""
    c = m.unit[u]
    for k in range(m.node[node].source, m.node[node].sources):
        source = m.node[m.source[k]]
        for j in range(source.sink, source.sinks):
            if m.sink[j].unit == u and source.groups <= c.begun:
                return False
    return m.node[node].groups > c.begun - GROUPS


@compiled
def _may_work_ahead(m, node, u):
    """Whether all of core ``u``'s next group is there, and its results have room."""
    c = m.unit[u]
    words = c.row_blocks * m.samples[c.begun % len(m.samples)]
    return c.word_beats == 0 and c.words + words <= c.words_freed + c.depth and _inputs_known(m, node, u)


@compiled
def _take(m, u, n, group, samples, room):
    """The core's next beat, of the group's sample ``n``, leaves its results no earlier than ``room``; returns when."""
    c = m.unit[u]
    if c.left == 0:
        if c.words_taken == c.words:
            _word(m, u, n, group, samples)
        m.ready[u, n] = m.result[u, c.words_taken % c.depth]
        c.words_taken += 1
    return max(m.ready[u, n], room)


@compiled
def _taken(m, u, n, group, samples, cycle, end):
    c = m.unit[u]
    if n < samples - 1:
        return
    c.left += 1
    if c.left == c.subs or end:
        c.left = 0
        for _ in range(samples):
            m.freed[u, c.words_freed % c.depth] = cycle
            c.words_freed += 1
    if end:
        m.ended[u, group % GROUPS] = cycle


@compiled
def _push(m, node, ready, first, free):
    """Beat from element ``first`` on may be offered in cycle ``ready``, or when those before it left. Of a group's samples,
    the last one's arrival is what counts."""
    n = m.node[node]
    at = max(ready, n.last_pop + 1)
    last = min(n.width, first + n.lanes)
    left = at
    if first == 0:
        note_start(m, node, n.groups, max(at, free))
    for k in range(n.sink, n.sinks):
        narrow = m.sink[k].lanes
        begin = max(at, free)
        for e in range(first, last):
            m.arrived[m.sink[k].base + e, n.groups % 2] = begin + (e - first) // narrow
        left = max(left, begin + (last - first + narrow - 1) // narrow - 1)
    n.last_pop = left
    m.pop[node, n.beats % n.depth] = left
    n.beats += 1
    return at


@compiled
def _room(m, node):
    """The first cycle in which the next beat of ``node`` may be on its way to its FIFO."""
    n = m.node[node]
    return m.pop[node, n.beats % n.depth] + 1 if n.beats >= n.depth else 0


@compiled
def _may_work(m, node):
    """Whether all of ``node``'s next group is there, and when it has room behind it."""
    group = m.node[node].groups
    for k in range(m.node[node].source, m.node[node].sources):
        if m.node[m.source[k]].groups <= group:
            return False
    return room_known(m, node, group)


@compiled
def _results_known(m, node):
    """Whether each core of ``node`` has its next beat."""
    for u in range(m.node[node].unit, m.node[node].units):
        c = m.unit[u]
        if c.word_beats and c.left == 0 and c.words_taken == c.words:
            return False
    return True


@compiled
def _work(m, node):
    """The next group goes through ``node``, an fc layer or an interaction, if its weights aren't streamed; else so much of
    it as is known. Returns when its last beat is offered, if that is known; else -1."""
    n, s = m.node[node], m.s[0]
    group = n.groups
    samples = m.samples[group % len(m.samples)]
    free = room_of(m, node, group)
    offered = 0
    if n.kind == FC:
        for u in range(n.unit, n.units):
            if m.unit[u].begun == group and m.unit[u].word_beats == 0:
                _begin(m, u, group, samples)
        beats = (n.width + n.lanes - 1) // n.lanes
        first, n.at_beat = n.at_beat, 0
        for j in range(first, beats):
            first, n.at_sample = n.at_sample, 0
            for i in range(first, samples):
                if n.streams and not _results_known(m, node):
                    n.at_beat, n.at_sample = j, i
                    return -1
                latest = -1
                for u in range(n.unit, n.units):
                    c = m.unit[u]
                    c.taken = _take(m, u, i, group, samples, max(c.taken + 1, n.take))
                    _taken(m, u, i, group, samples, c.taken, j == beats - 1)
                    latest = max(latest, c.taken + 1)
                n.take = max(max(latest, n.take + 1), _room(m, node))
                offered = _push(m, node, n.take + s.epilogue, j * n.lanes, free)
    else:
        u = n.unit
        c = m.unit[u]
        step = max(_visible(m, u, c.columns, group), c.last_step + AFTER_RELEASE) - 1
        begin = step + 1
        for _ in range(samples):
            for j in range(n.width):
                step = max(step + c.words_of_pair, _room(m, node))
                _push(m, node, step + c.result, j, free)
        c.last_step = step
        m.release[u, group % 2] = step
        c.released += 1
        note(s, m.trace, MLP_TRACK, u, OTHER, begin, step + 1, -1, group)
    n.groups += 1
    return offered


@entry
def advance(m):
    """Take every group as far as it can be known how long that takes; returns when the latest that is through to the end
    gave its last logit."""
    s, last = m.s[0], len(m.node) - 1
    moved, streams = True, False
    while moved:
        moved = False
        for node in range(len(m.node)):
            if m.node[node].kind < FC:
                continue
            if m.node[node].streams:
                streams = True
                for u in range(m.node[node].unit, m.node[node].units):
                    if m.unit[u].word_beats and _stream(m, node, u):
                        moved = True
            offered = -1
            if _may_work(m, node):
                before = m.node[node].beats
                offered = _work(m, node)
                moved = moved or m.node[node].beats > before
            if offered >= 0:
                if node == last:
                    s.through = m.through[(m.node[node].groups - 1) % len(m.through)] = offered + s.logit
            elif m.node[node].kind == FC:
                for u in range(m.node[node].unit, m.node[node].units):
                    if _may_work_ahead(m, node, u):
                        c = m.unit[u]
                        _work_ahead(m, u, c.begun, m.samples[c.begun % len(m.samples)])
                        moved = True
    if streams:
        plan_bursts(m)
    return s.through


@entry
def advance_bursts(m):
    """The next burst of streamed weights is given, with what follows from it."""
    next_burst(m)
    advance(m)
