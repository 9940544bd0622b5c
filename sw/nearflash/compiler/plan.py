"""From a model to a device: choose every layer's kernel, scan order and weight placement.

The rules are RM-SSD's (section "kernel search"): the least multipliers such that T_bottom <= T and T_top <= T, where T
is the time the embedding stage takes per sample; weights on chip unless they do not fit; N_batch = 1, 2, 4, ... until the
streamed weights keep up; the first top layer decomposed by its inputs; adjacent layers in alternating scan order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..contract import DeviceConfig, ModelError, Node, TableSpec, cores
from ..models.spec import ModelSpec

__all__ = ["PlanOptions", "compile_device", "embedding_cycles", "plan_graph", "stage_cycles"]

MAX_KERNEL = 128  # largest kr or kc
MAX_N_BATCH = 32  # two groups must fit the 64 sample slots a device may have


@dataclass(frozen=True)
class PlanOptions:
    """What the planner may do.

    ``composition`` False: every layer scans by rows, so each waits for its whole input. ``decomposition`` False: the
    first top layer is one core on the concatenation. ``onchip_bytes``: a layer with more weight bytes streams them from
    DRAM. ``share``: part of the embedding time each of the bottom and the top MLP may take. ``min_mlp_cycles``: never
    build kernels for less time than this per sample.
    """

    weight_bits: int = 8
    act_bits: int = 8
    composition: bool = True
    decomposition: bool = True
    onchip_bytes: int = 512 * 1024
    share: float = 0.5
    min_mlp_cycles: int = 256

    def __post_init__(self) -> None:
        for name, ok in (("weight_bits", self.weight_bits in (8, 16)), ("act_bits", self.act_bits in (8, 16))):
            if not ok:
                raise ModelError(name, getattr(self, name), "must be 8 or 16")
        if not 0 < self.share <= 1:
            raise ModelError("share", self.share, "must be above 0 and at most 1")


def embedding_cycles(spec: ModelSpec, config: DeviceConfig) -> float:
    """Cycles of the embedding stage per sample with every die and channel perfectly balanced: nothing is faster."""
    total = 0.0
    for t in spec.tables:
        row = TableSpec(t.rows, t.dim, t.row_format).stride_beats(config) * config.beat_bytes
        total += t.lookups * config.ceiling_cycles_per_lookup(row)
    return total


def stage_cycles(graph: tuple[Node, ...], prefix: str) -> int:
    """Kernel steps per sample along the chain of fc nodes whose names start with ``prefix`` ("bot" or "top").

    A row-scanning layer followed by a column-scanning one overlap (inter-layer composition): the pair takes the longer.
    The cores of a decomposed layer run side by side.
    """
    steps: dict[str, int] = {}
    for c in cores(graph):
        steps[c.node] = max(steps.get(c.node, 0), c.steps)
    chain = [n for n in graph if n.kind == "fc" and n.name.startswith(prefix)]
    total, i = 0, 0
    while i < len(chain):
        pair = i + 1 < len(chain) and chain[i].scan == "row" and chain[i + 1].scan == "column"
        total += max(steps[n.name] for n in chain[i : i + 2]) if pair else steps[chain[i].name]
        i += 2 if pair else 1
    return total


def _grow(kr: int, kc: int, rows: int, columns: int) -> tuple[int, int] | None:
    """The next larger kernel, inputs before outputs so that it stays about square; None at the layer's size."""
    wide = kc < min(columns, MAX_KERNEL)
    tall = kr < min(rows, MAX_KERNEL)
    if wide and (kc <= kr or not tall):
        return kr, kc * 2
    return (kr * 2, kc) if tall else None


def _with_kernels(graph: tuple[Node, ...], kernels: list[tuple[int, int]]) -> tuple[Node, ...]:
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


def _with_scans(graph: tuple[Node, ...], first: str) -> tuple[Node, ...]:
    """``graph`` with alternating scan orders along its fc nodes, beginning with ``first``."""
    scan, out = first, []
    for n in graph:
        if n.kind == "fc":
            n = replace(n, scan=scan)
            scan = "column" if scan == "row" else "row"
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
    layouts = [_with_scans(base, s) for s in ("row", "column")] if options.composition else [base]

    def cost(g: tuple[Node, ...]) -> tuple[int, ...]:
        # the top runs after the last lookup, so its time adds to the latency; the bottom's is hidden by the lookups
        top, bottom = stage_cycles(g, "top"), stage_cycles(g, "bot")
        return max(top, bottom, target), sum(c.kr * c.kc for c in cores(g)), top, bottom

    best = min((_search(g, config, target) for g in layouts), key=cost)
    beats = sum(c.steps * -(-c.word_bytes // config.beat_bytes) for c in cores(best) if c.weights == "dram")
    n_batch = 1
    while beats / n_batch > target and n_batch < MAX_N_BATCH:
        n_batch *= 2
    return best, n_batch


def _search(graph: tuple[Node, ...], config: DeviceConfig, target: int) -> tuple[Node, ...]:
    """Grow the slowest core of each stage until the stage meets ``target`` steps, or nothing can grow."""
    shapes = cores(graph)
    kernels = [(1, 1)] * len(shapes)

    def grow(i: int) -> bool:
        k = _grow(*kernels[i], shapes[i].rows, shapes[i].columns)
        if k is not None:
            kernels[i] = k
        return k is not None

    for i, c in enumerate(shapes):  # a streamed word fills whole beats, or padding would waste bandwidth
        while c.weights == "dram" and kernels[i][0] * kernels[i][1] * c.weight_bits // 8 < config.beat_bytes and grow(i):
            pass
    for prefix in ("bot", "top"):
        stuck: set[int] = set()
        while stage_cycles(planned := _with_kernels(graph, kernels), prefix) > target:
            open_ = [c for c in cores(planned) if c.node.startswith(prefix) and c.index not in stuck]
            if not open_:
                break
            slowest = max(open_, key=lambda c: c.steps).index
            if not grow(slowest):
                stuck.add(slowest)
    return _with_kernels(graph, kernels)


def _pow2(v: int) -> int:
    return 1 << max(0, v - 1).bit_length()


def compile_device(spec: ModelSpec, base: DeviceConfig, options: PlanOptions | None = None) -> DeviceConfig:
    """A device for ``spec``: ``base`` with the MLP graph, and lookup limits and flash blocks raised where the model
    needs more. ``base``'s timing, width and host interface stay. Raises :class:`ModelError` or
    :class:`~nearflash.contract.ConfigError` for what cannot be built."""
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
        sample_slots=max(lk.sample_slots, 2 * n_batch))
    mlp = replace(base.mlp, graph=graph, act_bits=options.act_bits, n_batch=n_batch)
    config = replace(base, name=f"{base.name}-{spec.name}", lookup=lookup, mlp=mlp)
    pages = sum(TableSpec(t.rows, t.dim, t.row_format).pages(config) for t in spec.tables)
    while config.lbas < pages:
        config = replace(config, flash=replace(config.flash, blocks=config.flash.blocks * 2))
    return config
