"""The order in which combinational statements are evaluated once each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .statement_code import Tree, reads_by_target

__all__ = ["Step", "steps"]


@dataclass
class Step:
    """What the statement numbered ``statement`` does to ``targets``; or, where signals depend on each other (by different
    bits), a ``loop`` of such steps, repeated until nothing changes."""

    statement: int
    targets: set[int]
    loop: list[Step]


@dataclass
class Node:
    """What a statement does to one signal."""

    number: int
    statement: int
    target: int
    reads: set[int]
    missing: int = 0  # nodes that come first and have not been


def nodes_of(trees: Sequence[Tree]) -> list[Node]:
    nodes: list[Node] = []
    for statement, tree in enumerate(trees):
        for target, reads in reads_by_target(tree).items():
            nodes.append(Node(len(nodes), statement, target, reads))
    return nodes


def steps(trees: Sequence[Tree]) -> list[Step]:
    """Every part of ``trees``, each after what it reads."""
    nodes = nodes_of(trees)
    drivers: defaultdict[int, list[int]] = defaultdict(list)  # of a signal, in the order in which they assign
    for node in nodes:
        drivers[node.target].append(node.number)
    before: list[set[int]] = [set() for _ in nodes]
    for node in nodes:
        for read in node.reads:
            before[node.number].update(drivers.get(read, ()))
    for chain in drivers.values():
        for first, then in pairwise(chain):
            before[then].add(first)
    after: list[list[int]] = [[] for _ in nodes]
    for node in nodes:
        node.missing = len(before[node.number])
        for first in before[node.number]:
            after[first].append(node.number)

    ready: defaultdict[int, list[int]] = defaultdict(list)  # nodes of a statement
    open_nodes = [0] * len(trees)
    for node in nodes:
        open_nodes[node.statement] += 1
    whole: list[int] = []  # statements of which all that is left is ready

    def becomes_ready(number: int) -> None:
        statement = nodes[number].statement
        ready[statement].append(number)
        if len(ready[statement]) == open_nodes[statement]:
            whole.append(statement)

    for node in nodes:
        if not node.missing:
            becomes_ready(node.number)
    found: list[Step] = []
    left = len(nodes)
    while left:
        while whole and not ready.get(whole[-1]):
            whole.pop()
        if whole:
            statement = whole.pop()
        elif ready:  # as much of one as there is
            statement = max(ready, key=lambda s: len(ready[s]) / open_nodes[s])
        else:
            loop = knot(nodes, before)
            # A round of the loop begins anew with its signals, so also with what was already done to them.
            again = [n for target in sorted({nodes[n].target for n in loop}) for n in drivers[target]]
            found.append(Step(-1, set(), [Step(nodes[n].statement, {nodes[n].target}, []) for n in again]))
            for n in loop:
                open_nodes[nodes[n].statement] -= 1
            left -= len(loop)
            done(loop, nodes, before, after, becomes_ready, set(loop))
            continue
        now = ready.pop(statement)
        open_nodes[statement] -= len(now)
        left -= len(now)
        found.append(Step(statement, {nodes[n].target for n in now}, []))
        done(now, nodes, before, after, becomes_ready, set())
    return found


def done(now: Sequence[int], nodes: Sequence[Node], before: Sequence[set[int]], after: Sequence[Sequence[int]],
         becomes_ready: Callable[[int], None], inside: set[int]) -> None:
    """Nodes ``now`` have their place; ``inside`` are those that it makes ready no more."""
    for number in now:
        nodes[number].missing = -1
    for number in now:
        for then in after[number]:
            if then not in inside:
                nodes[then].missing -= 1
                if nodes[then].missing == 0:
                    becomes_ready(then)


def knot(nodes: Sequence[Node], before: Sequence[set[int]]) -> list[int]:
    """Nodes that wait only for each other."""
    waiting = [node.number for node in nodes if node.missing > 0]
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in waiting:
        if root in index:
            continue
        work = [(root, iter([n for n in before[root] if nodes[n].missing > 0]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            number, rest = work[-1]
            for first in rest:
                if first not in index:
                    index[first] = low[first] = len(index)
                    stack.append(first)
                    on_stack.add(first)
                    work.append((first, iter([n for n in before[first] if nodes[n].missing > 0])))
                    break
                if first in on_stack:
                    low[number] = min(low[number], index[first])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[number])
                if low[number] == index[number]:  # nothing before it but itself: all below in the stack has been found
                    return stack[stack.index(number):]
    raise AssertionError("a node that waits for nothing")
