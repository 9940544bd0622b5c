"""The MLP engine as arithmetic, sample after sample.

The rules are those of :mod:`nearflash.compiler.timing`, which treats the special case of one sample alone in the engine.
What is added here is what a sample finds of those before it: buffers that are full, cores at work, results that wait. Groups
of one sample and weights on chip only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nearflash.compiler import timing
from nearflash.contract import DeviceConfig, ModelError, cores
from nearflash.contract.mlp import interaction_word, kernel_latency, output_lanes

from .compiled import compiled

__all__ = ["Mlp", "check_mlp", "free_from", "infer", "new_mlp"]

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
    freed: np.ndarray  #: [unit, place], ring: cycles in which its row blocks left
    release: np.ndarray  #: [unit, place], ring: cycles of the last reads of its latest samples
    ended: np.ndarray  #: [unit, place], ring: cycles in which its latest samples' last results left
    arrived: np.ndarray  #: [element of a unit's input]: of this sample


def check_mlp(config: DeviceConfig) -> None:
    """Raises :class:`~nearflash.contract.ModelError` if inference on this engine is not simulated."""
    if config.mlp.n_batch != 1:
        raise ModelError("mlp.n_batch", config.mlp.n_batch, "must be 1: groups of several samples are not simulated")
    for c in cores(config.mlp.graph):
        if c.weights == "dram":
            raise ModelError(f"mlp.graph[{c.node}].weights", c.weights, "must be on chip: a memory's pace is not simulated")


def new_mlp(config: DeviceConfig) -> Mlp:
    """The engine of ``config``, idle."""
    graph, m = config.mlp.graph, config.mlp
    shapes = cores(graph)
    by_name = {n.name: n for n in graph}
    lanes = {n.name: output_lanes(n, [c for c in shapes if c.node == n.name], n is graph[-1]) if n.kind == "fc" else 1
             for n in graph}
    units, sinks, nodes, elements = [], {n.name: [] for n in graph}, [], 0

    def unit(names: tuple[str, ...], k: int, *shape: int) -> None:
        nonlocal elements
        at = 0
        for name in names:
            sinks[name].append((len(units), elements + at, min(lanes[name], k, at & -at if at else k)))
            at += by_name[name].width
        units.append((elements, at, k, *shape))
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
                     timing.RESULT + kernel_latency(c.kc), 1 << (depth - 1).bit_length(), c.kr // lanes[n.name], 0)
        if n.kind in ("dot", "mul"):
            k = interaction_word(n)
            unit(n.inputs, k, 0, 0, 0, kernel_latency(k) + timing.INTERACTION, 1, 0,
                 n.dim // k if n.kind == "dot" else 1)
    flat = []
    for n, first in zip(graph, firsts, strict=True):
        kind = {"dense": DENSE, "tables": TABLES, "fc": FC}.get(n.kind, INTERACTION)
        last = firsts[len(nodes) + 1] if len(nodes) + 1 < len(firsts) else len(units)
        depth = timing.EPILOGUE_DEPTH if kind == FC else timing.INTERACTION_DEPTH
        nodes.append((kind, lanes[n.name], n.width, depth, first, last, len(flat), len(flat) + len(sinks[n.name])))
        flat += sinks[n.name]

    def records(rows: list, names: str, kept: str) -> np.ndarray:
        known = names.split()
        out = np.zeros(len(rows), np.dtype([(name, np.int64) for name in (*known, *kept.split())]))
        for j, name in enumerate(known):
            out[name] = [row[j] for row in rows]
        return out

    node = records(nodes, "kind lanes width depth unit units sink sinks", "beats last_pop take")
    node["last_pop"] = node["take"] = -1
    core = records(units, "base columns k row_scan row_blocks column_blocks result depth subs words",
                   "last_step blocks taken ready left step")
    core["last_step"], core["taken"] = -AFTER_RELEASE, -1
    deepest = max((u[7] for u in units), default=1)
    names = ("samples", "buffered", "visible", "dense", "pooled", "logit", "epilogue")
    s = np.zeros(1, np.dtype([(name, np.int64) for name in names]))
    s["buffered"], s["visible"] = m.buffered, timing.VISIBLE
    s["dense"], s["pooled"], s["logit"] = timing.DENSE, timing.POOLED, timing.LOGIT
    s["epilogue"] = timing.EPILOGUE
    n = len(units)
    return Mlp(s, node, core, records(flat, "unit base lanes", ""), pop=np.full((len(nodes), timing.INTERACTION_DEPTH), -1),
               freed=np.full((n, deepest), -1), release=np.full((n, 2), -1), ended=np.full((n, GROUPS), -1),
               arrived=np.zeros(elements, np.int64))


@compiled
def free_from(m, node):
    """The first cycle in which this sample's elements may enter the buffers behind ``node``."""
    at = 0
    number = m.s[0].samples - m.s[0].buffered
    if number >= 0:
        for k in range(m.node[node].sink, m.node[node].sinks):
            at = max(at, m.release[m.sink[k].unit, number % 2] + 1)
    return at


@compiled
def _visible(m, u, columns):
    """When the first ``columns`` elements of unit ``u`` may be read."""
    latest = 0
    for e in range(columns):
        latest = max(latest, m.arrived[m.unit[u].base + e])
    return latest + m.s[0].visible


@compiled
def _begin(m, u):
    """The sample's first row block of core ``u``: the step before its last one."""
    c = m.unit[u]
    first = c.last_step + AFTER_RELEASE
    before = m.s[0].samples - GROUPS
    if before >= 0:
        first = max(first, m.ended[u, before % GROUPS] + 1)
    if c.row_scan:
        c.step = max(first, _visible(m, u, c.columns)) - 1
    else:
        latest, e = 0, 0
        for b in range(c.column_blocks):
            while e < min((b + 1) * c.k, c.columns):
                latest = max(latest, m.arrived[c.base + e])
                e += 1
            first = max(first, latest + m.s[0].visible) + c.row_blocks
        c.step = first - c.row_blocks - 1
    c.left = 0


@compiled
def _take(m, u, room):
    """The core's next beat leaves its results no earlier than ``room``; returns when it does."""
    c = m.unit[u]
    if c.left == 0:
        c.step += c.column_blocks if c.row_scan else 1
        if c.blocks >= c.depth:
            c.step = max(c.step, m.freed[u, c.blocks % c.depth] + 1)
        c.ready = c.step + c.result
    return max(c.ready, room)


@compiled
def _taken(m, u, cycle, end):
    c = m.unit[u]
    c.left += 1
    if c.left == c.subs or end:
        c.left = 0
        m.freed[u, c.blocks % c.depth] = cycle
        c.blocks += 1
    if end:
        c.last_step = c.step
        m.release[u, m.s[0].samples % 2] = c.step
        m.ended[u, m.s[0].samples % GROUPS] = cycle


@compiled
def _push(m, node, ready, first):
    """Beat from element ``first`` on may be offered in cycle ``ready``, or when those before it left."""
    n = m.node[node]
    at = max(ready, n.last_pop + 1)
    last = min(n.width, first + n.lanes)
    free = free_from(m, node)
    left = at
    for k in range(n.sink, n.sinks):
        narrow = m.sink[k].lanes
        begin = max(at, free)
        for e in range(first, last):
            m.arrived[m.sink[k].base + e] = begin + (e - first) // narrow
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
def infer(m, dense_last, pooled):
    """A sample whose last dense feature is taken in cycle ``dense_last`` (they come one a cycle) and whose pooled elements
    enter the buffers in cycles ``pooled``, node after node; returns the cycle in which its last logit leaves."""
    s = m.s[0]
    at, logit = 0, 0
    for node in range(len(m.node)):
        n = m.node[node]
        if n.kind == DENSE:
            free, before = free_from(m, node), -1
            for e in range(n.width):
                before = max(max(dense_last - n.width + 1 + e + s.dense, before + 1), free)
                for k in range(n.sink, n.sinks):
                    m.arrived[m.sink[k].base + e] = before
        elif n.kind == TABLES:
            for e in range(n.width):
                for k in range(n.sink, n.sinks):
                    m.arrived[m.sink[k].base + e] = pooled[at]
                at += 1
        elif n.kind == FC:
            for u in range(n.unit, n.units):
                _begin(m, u)
            beats = (n.width + n.lanes - 1) // n.lanes
            for j in range(beats):
                latest = -1
                for u in range(n.unit, n.units):
                    c = m.unit[u]
                    c.taken = _take(m, u, max(c.taken + 1, n.take))
                    _taken(m, u, c.taken, j == beats - 1)
                    latest = max(latest, c.taken + 1)
                n.take = max(max(latest, n.take + 1), _room(m, node))
                logit = _push(m, node, n.take + s.epilogue, j * n.lanes)
        else:
            u = n.unit
            c = m.unit[u]
            step = max(_visible(m, u, c.columns), c.last_step + AFTER_RELEASE) - 1
            for j in range(n.width):
                step = max(step + c.words, _room(m, node))
                _push(m, node, step + c.result, j)
            c.last_step = step
            m.release[u, s.samples % 2] = step
    s.samples += 1
    return logit + s.logit
