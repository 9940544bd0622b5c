"""From a model to a device: choose every layer's kernel, scan order and weight placement.

The rules are RM-SSD's (section "kernel search"): the least multipliers such that T_bottom <= T and T_top <= T, where T
is the time the embedding stage takes per sample; the times of neighbouring layers balanced, as far as kernels of whole
rows and powers of two of columns allow; weights on chip unless they do not fit; N_batch = 1, 2, 4, ... until the streamed
weights keep up; the first top layer decomposed by its inputs; adjacent layers in alternating scan order.

Times here are kernel steps; :mod:`.timing` gives the cycles of the generated engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from ..contract import Core, DeviceConfig, ModelError, Node, TableSpec, cores
from ..contract.config import FORMATS, MODES
from ..contract.mlp import output_lanes
from ..models.spec import ModelSpec
from .search import Choice, front, least, one_after_another, side_by_side

__all__ = ["PlanOptions", "compile_device", "composed", "embedding_cycles", "merged", "naive", "node_cycles", "plain",
           "plan_graph", "stage_cycles", "with_room"]

MAX_KERNEL = 128  # largest kr or kc
TOLERANCE = 1.05  # multipliers that better balance may cost
FINE = 32  # a kernel's share of its layer, in the direction the layer streams, should not exceed one in so many
MAX_N_BATCH = 32  # two groups must fit the 64 sample slots a device may have


@dataclass(frozen=True)
class PlanOptions:
    """What the planner may do.

    ``composition`` False: every layer scans by rows, so each waits for its whole input. ``decomposition`` False: the
    first top layer is one core on the concatenation. ``onchip_bytes``: a layer with more weight bytes streams them from
    DRAM. ``share``: part of the embedding time each of the bottom and the top MLP may take. ``min_mlp_cycles``: never
    build kernels for less time than this per sample. ``inference_steps``: instead of all that, the least multipliers for
    which one inference, with all of its inputs there, takes at most so many kernel steps from the first layer to the last.
    """

    weight_bits: int = 8
    act_bits: int = 8
    composition: bool = True
    decomposition: bool = True
    onchip_bytes: int = 512 * 1024
    share: float = 0.5
    min_mlp_cycles: int = 256
    inference_steps: int | None = None

    def __post_init__(self) -> None:
        for name, ok in (("weight_bits", self.weight_bits in (8, 16)), ("act_bits", self.act_bits in (8, 16))):
            if not ok:
                raise ModelError(name, getattr(self, name), "must be 8 or 16")
        if not 0 < self.share <= 1:
            raise ModelError("share", self.share, "must be above 0 and at most 1")
        if self.inference_steps is not None and self.inference_steps < 1:
            raise ModelError("inference_steps", self.inference_steps, "must be at least 1")


def embedding_cycles(spec: ModelSpec, config: DeviceConfig) -> float:
    """Cycles of the embedding stage per sample with every die and channel perfectly balanced: nothing is faster."""
    total = 0.0
    for t in spec.tables:
        row = TableSpec(t.rows, t.dim, t.row_format).stride_beats(config) * config.beat_bytes
        total += t.lookups * config.ceiling_cycles_per_lookup(row)
    return total


def segments(chain: list[Node]) -> list[list[Node]]:
    """A chain of fc nodes as its pairs (row scan, then column scan: they overlap) and single nodes."""
    out, i = [], 0
    while i < len(chain):
        pair = i + 1 < len(chain) and chain[i].scan == "row" and chain[i + 1].scan == "column"
        out.append(chain[i : i + 2] if pair else chain[i : i + 1])
        i += len(out[-1])
    return out


def stage_cycles(graph: tuple[Node, ...], prefix: str) -> int:
    """Kernel steps per sample along the chain of fc nodes whose names start with ``prefix`` ("bot" or "top").

    A row-scanning layer followed by a column-scanning one overlap (inter-layer composition): the pair takes the longer.
    The cores of a decomposed layer run side by side.
    """
    every = cores(graph)
    chain = [n for n in graph if n.kind == "fc" and n.name.startswith(prefix)]
    steps = {n.name: node_cycles(n, [c for c in every if c.node == n.name]) for n in chain}
    return sum(max(steps[n.name] for n in segment) for segment in segments(chain))


def node_cycles(node: Node, node_cores: list[Core]) -> int:
    """Kernel steps per sample of one fc node; for one with fewer lanes than :func:`~nearflash.contract.mlp.output_lanes`
    finds good, and the cycles that this adds to sending its outputs."""
    steps = max(c.steps for c in node_cores)
    if node.lanes:
        good = output_lanes(replace(node, lanes=0), node_cores, False)
        steps += max(0, -(-node.width // node.lanes) - -(-node.width // good))
    return steps


def _heights(rows: int) -> list[int]:
    """Values of kr worth building: eight to an octave at most, since its factor of two is its number of output lanes."""
    top = min(MAX_KERNEL, _pow2(rows))
    return [k for k in range(1, top + 1) if (k & -k) * 7 >= k]


@lru_cache(maxsize=1024)
def kernels_of(core: Core, beat_bytes: int) -> list[Choice]:
    """The kernels worth considering for ``core``. Of equal ones, those that let its neighbours overlap: a row scan should
    finish outputs, and a column scan take inputs, in at least FINE portions; else about square."""
    found: dict[tuple[int, int], tuple[tuple[float, float], tuple[int, int]]] = {}
    widths = [1 << i for i in range(min(MAX_KERNEL, _pow2(core.columns)).bit_length())]
    heights = _heights(core.rows)
    bits = core.weight_bits
    fills = core.weights == "dram" and heights[-1] * widths[-1] * bits >= beat_bytes * 8
    for kr in heights:
        for kc in widths:
            word = kr * kc * bits
            if (word > beat_bytes * 8 and word % (beat_bytes * 8)) or (fills and word % (beat_bytes * 8)):
                continue  # a streamed word fills whole beats, or padding would waste bandwidth
            c = replace(core, kr=kr, kc=kc)
            portions = c.row_blocks if core.scan == "row" else c.column_blocks
            if (core.scan == "column" and (kr & -kr) < min(kr, 4)) or (kr & -kr) * c.column_blocks < kr:
                continue  # its output would not keep up
            rank = (max(1.0, FINE / portions), max(kr / kc, kc / kr))
            key = (c.steps, kr * kc)
            if key not in found or rank < found[key][0]:
                found[key] = rank, (kr, kc)
    return front([Choice(steps, mult, {core.index: k}) for (steps, mult), (_, k) in found.items()])


def with_kernels(graph: tuple[Node, ...], kernels: list[tuple[int, int]]) -> tuple[Node, ...]:
    """``graph`` with one (kr, kc) per core, in the order of :func:`~nearflash.contract.cores`."""
    left = iter(kernels)
    out = []
    for n in graph:
        if n.kind == "fc" and n.decomposed:
            ks = [next(left) for _ in n.inputs]
            n = replace(n, kr=ks[0][0], kc=ks[0][1], kr_split=tuple(k[0] for k in ks), kc_split=tuple(k[1] for k in ks))
        elif n.kind == "fc":
            kr, kc = next(left)
            n = replace(n, kr=kr, kc=kc)
        out.append(n)
    return tuple(out)


def _with_scans(graph: tuple[Node, ...], first: dict[str, str]) -> tuple[Node, ...]:
    """``graph`` with alternating scan orders along each stage's fc nodes; ``first``: the stage's first layer's scan."""
    scans, out = dict(first), []
    for n in graph:
        if n.kind == "fc":
            n = replace(n, scan=scans[n.name[:3]])
            scans[n.name[:3]] = "column" if n.scan == "row" else "row"
        out.append(n)
    return tuple(out)


def plain(graph: tuple[Node, ...]) -> tuple[Node, ...]:
    """``graph`` without inter-layer composition: every layer scans by rows, so each waits for its whole input."""
    return tuple(replace(n, scan="row", lanes=0) if n.kind == "fc" else n for n in graph)


def naive(config: DeviceConfig, side: int) -> DeviceConfig:
    """``config``'s device with a kernel of ``side`` x ``side`` for every layer (less where a layer has fewer outputs),
    undecomposed, every layer scanning by rows."""
    def fixed(n: Node) -> Node:
        rows = 1 << (n.width.bit_length() - 1)
        return replace(n, kr=min(side, rows), kc=side, kr_split=(), kc_split=(), decomposed=False) if n.kind == "fc" else n

    graph = plain(tuple(fixed(n) for n in config.mlp.graph))
    return replace(config, mlp=replace(config.mlp, graph=graph, packed=False))


def composed(graph: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """``graph`` with alternating scan orders along the bottom and the top MLP, in all ways there are."""
    return [_with_scans(graph, {"bot": b, "top": t}) for b in ("row", "column") for t in ("row", "column")]


def merged(graph: tuple[Node, ...], config: DeviceConfig) -> tuple[Node, ...]:
    """``graph`` without intra-layer decomposition: one core on the concatenation, with the smallest kernel that has at least
    as many multipliers as the halves together."""
    halves = {n.name: sum(c.kr * c.kc for c in cores(graph) if c.node == n.name) for n in graph}
    whole = tuple(replace(n, decomposed=False, kr_split=(), kc_split=()) for n in graph)
    kernels = {c.node: kernels_of(c, config.beat_bytes) for c in cores(whole)}
    out = []
    for n, before in zip(whole, graph, strict=True):
        if before.decomposed:
            best = next((c for c in reversed(kernels[n.name]) if c.cost >= halves[n.name]), kernels[n.name][0])
            (kr, kc), = best.kernels.values()
            n = replace(n, kr=kr, kc=kc)
        out.append(n)
    return tuple(out)


def plan_graph(spec: ModelSpec, config: DeviceConfig, options: PlanOptions) -> tuple[tuple[Node, ...], int]:
    """(graph with kernels, N_batch) for ``spec`` on a device like ``config``."""
    target = max(options.min_mlp_cycles, int(embedding_cycles(spec, config) * options.share))
    streamed = {n.name for n, c in spec.layers() if n.width * c * options.weight_bits // 8 > options.onchip_bytes}
    base = tuple(
        replace(n, weight_bits=options.weight_bits, weights="dram" if n.name in streamed else "onchip",
                decomposed=options.decomposition and n.name == "top0" and len(n.inputs) > 1)
        if n.kind == "fc" else n for n in spec.nodes())
    layouts = [base]
    if options.composition:
        layouts = composed(base)

    def cost(g: tuple[Node, ...]) -> tuple[int, ...]:
        # the top runs after the last lookup, so its time adds to the latency; the bottom's is hidden by the lookups
        top, bottom = stage_cycles(g, "top"), stage_cycles(g, "bot")
        return max(top, bottom, target), sum(c.kr * c.kc for c in cores(g)), top, bottom

    if options.inference_steps is None:
        best = min((_throughput(g, config, target) for g in layouts), key=cost)
    else:
        best = min((_latency(g, config, options.inference_steps) for g in layouts), key=lambda found: found[0])[1]
    beats = sum(c.steps * -(-c.word_bytes // config.beat_bytes) for c in cores(best) if c.weights == "dram")
    n_batch = 1
    while beats / n_batch > target and n_batch < MAX_N_BATCH:
        n_batch *= 2
    return best, n_batch


def _throughput(graph: tuple[Node, ...], config: DeviceConfig, target: int) -> tuple[Node, ...]:
    """The least multipliers for which each stage takes ``target`` steps, or the fastest kernels if none are that fast."""
    shapes = cores(graph)
    kernels: dict[int, tuple[int, int]] = {}
    for stage in ("bot", "top"):
        chain = [n for n in graph if n.kind == "fc" and n.name.startswith(stage)]
        names = [{n.name for n in s} for s in segments(chain)]
        fronts = [side_by_side([kernels_of(c, config.beat_bytes) for c in shapes if c.node in s]) for s in names]
        kernels |= least(one_after_another(fronts), target).kernels
    return with_kernels(graph, [kernels[c.index] for c in shapes])


def _latency(graph: tuple[Node, ...], config: DeviceConfig, limit: int) -> tuple[float, tuple[Node, ...]]:
    """(multipliers on the path, graph with kernels) for ``limit`` steps from the first layer to the last.

    Of all choices with up to TOLERANCE times the least multipliers, the one in which most steps overlap, that is, whose
    neighbouring layers are best balanced. The half of a decomposed layer that waits for no other layer is not on the path:
    it runs beside the bottom MLP, and gets the least multipliers that stay hidden there.
    """
    shapes = cores(graph)
    options = {c.index: kernels_of(c, config.beat_bytes) for c in shapes}
    layers = [n for n in graph if n.kind == "fc"]
    names = {n.name for n in layers}
    fed = {c.node for c in shapes if names & set(c.inputs)}
    of = {n.name: [c.index for c in shapes if c.node == n.name and (n.name not in fed or names & set(c.inputs))]
          for n in layers}
    chains = [s for stage in ("bot", "top") for s in segments([n for n in layers if n.name.startswith(stage)])]
    parts = [side_by_side([options[i] for n in s for i in of[n.name]]) for s in chains]

    after = [one_after_another(parts[k:]) for k in range(len(parts) + 1)]
    cheapest = least(after[0], limit)
    limit = max(limit, cheapest.steps)
    steps_of = {(i, c.kernels[i]): c.steps for i, some in options.items() for c in some}

    def serial(c: Choice) -> int:
        return sum(max(steps_of[i, c.kernels[i]] for i in of[n]) for n in of if all(i in c.kernels for i in of[n]))

    best = (serial(cheapest) / cheapest.steps, cheapest)

    def search(taken: Choice, total: int, k: int) -> None:
        nonlocal best
        if k == len(parts):
            best = max(best, (total / taken.steps, taken), key=lambda b: b[0])
            return
        for c in parts[k]:
            steps, multipliers = taken.steps + c.steps, taken.cost + c.cost
            rest = least(after[k + 1], limit - steps)
            if steps + rest.steps <= limit and multipliers + rest.cost <= cheapest.cost * TOLERANCE:
                search(Choice(steps, multipliers, taken.kernels | c.kernels), total + serial(c), k + 1)

    search(Choice(0, 0, {}), 0, 0)
    kernels = dict(best[1].kernels)
    bottom = stage_cycles(with_kernels(graph, [kernels.get(c.index, (1, 1)) for c in shapes]), "bot")
    for c in shapes:
        if c.index not in kernels:
            kernels |= next((k for k in reversed(options[c.index]) if k.steps <= bottom), options[c.index][0]).kernels
    return best[1].cost, with_kernels(graph, [kernels[c.index] for c in shapes])


def _pow2(v: int) -> int:
    return 1 << max(0, v - 1).bit_length()


def compile_device(spec: ModelSpec, base: DeviceConfig, options: PlanOptions | None = None) -> DeviceConfig:
    """A device for ``spec``: ``base`` with the MLP graph, lookup limits and flash blocks raised where the model needs more,
    and pooling for the model's table formats and modes alone. ``base``'s timing, width and host interface stay. Raises
    :class:`ModelError` or :class:`~nearflash.contract.ConfigError` for what cannot be built."""
    base.require_lookup()
    options = options or PlanOptions()
    graph, n_batch = plan_graph(spec, base, options)
    lk = base.lookup
    for i, t in enumerate(spec.tables):
        if t.row_format.row_bytes(t.dim) > base.flash.page_bytes:
            raise ModelError(f"tables[{i}].dim", t.dim, f"a {t.format} row must fit a page ({base.flash.page_bytes} B)")
    dims = [t.dim for t in spec.tables]
    lookup = replace(
        lk, max_tables=max(lk.max_tables, len(dims)), max_dim=max(lk.max_dim, *dims),
        max_bag=max(lk.max_bag, *(t.lookups for t in spec.tables)),
        accumulators=_pow2(sum(-(-d // lk.lanes) * lk.lanes for d in dims)),  # a table starts at a whole beat
        sample_slots=max(lk.sample_slots, 2 * n_batch),
        formats=tuple(f for f in FORMATS if any(t.format == f for t in spec.tables)),
        modes=tuple(f for f in MODES if any(t.mode == f for t in spec.tables)))
    mlp = replace(base.mlp, graph=graph, act_bits=options.act_bits, n_batch=n_batch)
    return with_room(spec, replace(base, name=f"{base.name}-{spec.name}", lookup=lookup, mlp=mlp))


def with_room(spec: ModelSpec, config: DeviceConfig) -> DeviceConfig:
    """``config`` with as many flash blocks as ``spec``'s tables need, or more."""
    pages = sum(TableSpec(t.rows, t.dim, t.row_format).pages(config) for t in spec.tables)
    while config.lbas < pages:
        config = replace(config, flash=replace(config.flash, blocks=config.flash.blocks * 2))
    return config
