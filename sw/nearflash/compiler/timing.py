"""How many cycles the MLP engine takes for one inference, exactly, without simulating it.

A sample alone in the engine, weights on chip, inputs offered without gaps, logits taken at once: every cycle then follows
from the graph. With C columns and R rows in CB = ceil(C / kc) column blocks and RB = ceil(R / kr) row blocks, a core's step
takes one cycle, and

* a **row scan** starts 2 cycles after its last input is in its buffer; its row block b is complete after (b + 1) CB steps;
* a **column scan** starts column block b 2 cycles after that block's last input is there, or when it has done the RB steps
  of block b - 1; its row block b is complete after b + 1 steps of the last column block;
* a complete row block can leave the core L + 3 cycles after its last step, the kernel's latency being
  L = 3 + ceil(log2(kc) / 2); its rows reach the next layer's buffer in beats of the node's lanes, :data:`EPILOGUE` + 1
  cycles after they left the core.

So a layer that waits for its whole input adds RB CB + L + 3 + EPILOGUE + 3 cycles between its last input and its last
output, if its output keeps up, and a column scan behind a row scan adds RB steps and the same constant once the row scan is
through. :func:`inference_cycles` evaluates these rules beat by beat, including what waits for room in the result buffers and
FIFOs. Everything here restates ``nearflash_hw.mlp``, and is tested to be equal to its RTL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..contract import Core, DeviceConfig, ModelError, Node, cores
from ..contract.mlp import interaction_word, kernel_latency, output_lanes

__all__ = ["InferenceCycles", "inference_cycles"]

VISIBLE = 2  # a beat's transfer into a buffer to the step that may read it
RESULT = 3  # beside the kernel's latency: step to result word
EPILOGUE = 9  # a beat leaves a core to the activation beat offered
EPILOGUE_DEPTH, INTERACTION_DEPTH = 16, 32  # beats in flight
INTERACTION = 9  # beside the kernel's latency: an interaction's last step to its beat offered
DENSE, POOLED = 7, 8  # element taken to its transfer into a buffer
LOGIT = 7  # logit beat to its fp32 value
RESULTS_MIN = 16


@dataclass(frozen=True)
class InferenceCycles:
    """One sample, alone in the engine. Cycle 0 is the one in which the first input is offered.

    ``last_input``: the last dense or pooled element is taken; ``last_logit``: the last logit leaves; ``node``: the cycle in
    which each node offers its last output.
    """

    last_input: int
    last_logit: int
    node: dict[str, int]

    @property
    def busy(self) -> int:
        """Cycles in which the engine holds the sample: what the counter ``mlp_busy`` counts."""
        return self.last_logit + 1

    @property
    def after_input(self) -> int:
        """Cycles from the last input to the last logit."""
        return self.last_logit - self.last_input


class _Unit:
    """A core or an interaction: when its input elements are in its buffer."""

    def __init__(self, widths: list[int], lanes: list[int], k: int):
        self.lanes, self.offset, at = [], [], 0
        for width, lane in zip(widths, lanes, strict=True):
            self.offset.append(at)
            self.lanes.append(min(lane, k, at & -at if at else k))
            at += width
        self.arrived = [0] * at

    def visible(self) -> list[int]:
        """For each element, the cycle in which a step may first use it and all before it."""
        out, latest = [], 0
        for t in self.arrived:
            latest = max(latest, t + VISIBLE)
            out.append(latest)
        return out


class _Output:
    """The way from a node to its consumers: a FIFO of limited depth, a fork, a lane splitter each. ``pop[j]``: the cycle in
    which beat j left."""

    def __init__(self, lanes: int, width: int, sinks: list[tuple[_Unit, int]], depth: int):
        self.lanes, self.width, self.sinks, self.depth = lanes, width, sinks, depth
        self.pop: list[int] = []
        self.offered = 0

    def room(self) -> int:
        """The first cycle in which the next beat may be on its way here."""
        j = len(self.pop) - self.depth
        return self.pop[j] + 1 if j >= 0 else 0

    def push(self, ready: int) -> None:
        """The next beat may be offered in cycle ``ready``, or when those before it left."""
        j = len(self.pop)
        at = max(ready, self.pop[-1] + 1 if self.pop else 0)
        first, last = j * self.lanes, min(self.width, (j + 1) * self.lanes)
        pieces = 1
        for unit, edge in self.sinks:
            narrow, base = unit.lanes[edge], unit.offset[edge]
            pieces = max(pieces, -(-(last - first) // narrow))
            for e in range(first, last):
                unit.arrived[base + e] = at + (e - first) // narrow
        self.offered = at
        self.pop.append(at + pieces - 1)


class _CoreClock:
    """The steps of one core, in the order its results leave; see the module's text."""

    def __init__(self, core: Core, unit: _Unit, lanes: int, n_batch: int, hold: bool):
        self.subs = core.kr // lanes
        self.row_scan, self.column_blocks = core.scan == "row", core.column_blocks
        self.result = RESULT + kernel_latency(core.kc)
        depth = max(RESULTS_MIN, 2 * n_batch)
        if hold or core.scan == "column":
            depth = max(depth, core.row_blocks * n_batch)
        self.depth = 1 << (depth - 1).bit_length()
        self.freed: list[int] = []  # cycle in which each row block's last beat left
        visible = unit.visible()
        if self.row_scan:
            self.step = visible[-1] - 1  # of the row block before
        else:
            start = 0
            for b in range(core.column_blocks):
                start = max(start, visible[min((b + 1) * core.kc, core.columns) - 1])
                start += core.row_blocks
            self.step = start - core.row_blocks - 1
        self.left = 0  # beats taken of this row block
        self.ready = 0

    def take(self, room: int) -> int:
        """The next beat leaves the results no earlier than ``room``; returns when it does."""
        if self.left == 0:
            block = len(self.freed)
            self.step += self.column_blocks if self.row_scan else 1
            if block >= self.depth:
                self.step = max(self.step, self.freed[block - self.depth] + 1)
            self.ready = self.step + self.result
        return max(self.ready, room)

    def taken(self, cycle: int, end: bool) -> None:
        self.left += 1
        if self.left == self.subs or end:
            self.left = 0
            self.freed.append(cycle)


def _fc(clocks: list[_CoreClock], out: _Output) -> None:
    """Beats from the cores through the epilogue: taken together, one a cycle, while its FIFO has room."""
    beats = -(-out.width // out.lanes)
    core_take, epilogue_take = [-1] * len(clocks), -1
    for j in range(beats):
        for k, clock in enumerate(clocks):
            core_take[k] = clock.take(max(core_take[k] + 1, epilogue_take))
            clock.taken(core_take[k], j == beats - 1)
        epilogue_take = max(*(t + 1 for t in core_take), epilogue_take + 1, out.room())
        out.push(epilogue_take + EPILOGUE)


def _interaction(node: Node, unit: _Unit, out: _Output) -> None:
    k = interaction_word(node)
    words = node.dim // k if node.kind == "dot" else 1
    step = unit.visible()[-1] - 1
    for _ in range(node.width):
        step = max(step + words, out.room())
        out.push(step + kernel_latency(k) + INTERACTION)


def inference_cycles(config: DeviceConfig, dims: Sequence[int] = ()) -> InferenceCycles:
    """Cycles of one sample in an idle engine of ``config``, its dense features and its pooled elements each offered without
    gaps from cycle 0 on. ``dims``: elements of every table; if not given, a node's tables share its width equally.
    Weights must be on chip: raises :class:`~nearflash.contract.ModelError` otherwise."""
    graph, n_batch = config.mlp.graph, config.mlp.n_batch
    shapes = cores(graph)
    for c in shapes:
        if c.weights == "dram":
            raise ModelError(f"mlp.graph[{c.node}].weights", c.weights, "must be on chip: a memory's pace is not modelled")
    by_name = {n.name: n for n in graph}
    lanes = {n.name: output_lanes(n, [c for c in shapes if c.node == n.name], n is graph[-1]) if n.kind == "fc" else 1
             for n in graph}
    units: dict[str, list[_Unit]] = {}
    sinks: dict[str, list[tuple[_Unit, int]]] = {n.name: [] for n in graph}

    def unit(names: tuple[str, ...], k: int) -> _Unit:
        u = _Unit([by_name[i].width for i in names], [lanes[i] for i in names], k)
        for j, i in enumerate(names):
            sinks[i].append((u, j))
        return u

    for n in graph:
        if n.kind == "fc":
            units[n.name] = [unit(c.inputs, c.kc) for c in shapes if c.node == n.name]
        elif n.kind in ("dot", "mul"):
            units[n.name] = [unit(n.inputs, interaction_word(n))]

    done: dict[str, int] = {}
    taken = _sources(graph, dims, sinks, done)
    for n in graph:
        if n.kind in ("dense", "tables"):
            continue
        depth = EPILOGUE_DEPTH if n.kind == "fc" else INTERACTION_DEPTH
        out = _Output(lanes[n.name], n.width, sinks[n.name], depth)
        if n.kind == "fc":
            here = [c for c in shapes if c.node == n.name]
            clocks = [_CoreClock(c, u, lanes[n.name], n_batch, n.decomposed)
                      for c, u in zip(here, units[n.name], strict=True)]
            _fc(clocks, out)
        else:
            _interaction(n, units[n.name][0], out)
        done[n.name] = out.offered
    return InferenceCycles(taken, done[graph[-1].name] + LOGIT, done)


def _sources(graph: tuple[Node, ...], dims: Sequence[int], sinks: dict[str, list[tuple[_Unit, int]]],
             done: dict[str, int]) -> int:
    """Deliver the dense and pooled elements; returns the cycle in which the last is taken."""
    last = 0
    offered: dict[str, list[int]] = {}
    for n in graph:
        if n.kind == "dense":
            offered[n.name] = [i + DENSE for i in range(n.width)]
            last = n.width - 1
    owner = {t: n for n in graph if n.kind == "tables" for t in n.tables}
    cycle = 0
    for t, n in sorted(owner.items()):
        width = dims[t] if dims else n.width // len(n.tables)
        offered.setdefault(n.name, []).extend(range(cycle + POOLED, cycle + width + POOLED))
        cycle += width
    for n in graph:
        if n.kind in ("dense", "tables"):
            if len(offered[n.name]) != n.width:
                raise ModelError("dims", list(dims), f"must add up to the width of {n.name} ({n.width})")
            done[n.name] = offered[n.name][-1]
            for unit, edge in sinks[n.name]:
                at = unit.offset[edge]
                unit.arrived[at : at + n.width] = offered[n.name]
    return max(last, cycle - 1)
