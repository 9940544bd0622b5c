"""The kernel search: which hardware answers a model on a board, at which cost.

RM-SSD's rules (section "kernel search"), each a constraint here:

1. weights lie in block RAM or UltraRAM unless they don't fit; then the fewest bytes that make the rest fit are streamed from
   DRAM. Memory that is short is first looked for in the halves of a decomposed layer, which keep a group's sums, in the
   places of samples being pooled and in the tags: the layer becomes one, the places those of one group, the tags half as
   many. What suits UltraRAM but is too much for it moves to block RAM, the smallest layers first;
2. a streamed layer's beats, shared by the N_batch samples of a group, take no longer than the lookups of a sample;
   N_batch = 1, 2, 4, ... until they do;
3. T_bottom and T_top, in kernel steps, are at most ``share`` of the embedding stage's time;
4. neighbouring layers overlap: a row scan and the column scan behind it run side by side. All scan orders are tried.

On a board with a processing system the plan leaves room for the shell around the device. Where nothing fits, ``share`` may
be above 1: then the MLPs set the pace, not the lookups.

Among all kernels, scan orders and numbers of requantisers that satisfy them the cheapest is taken, its cost being the sum of
the shares of the part's LUTs, flip-flops, block RAMs, UltraRAMs and DSP slices that the layers' blocks are estimated to use;
if it does not fit, the shares of what is short count four times as much, twice at most. Where DSP slices alone are short
even so, the fewest products that suffice are made of LUTs (:mod:`.soft`): same kernels, same cycles. The search is exact
over that cost (:mod:`.search`) but does not estimate every kernel: a kernel counts for what it uses at least, its DSP slices
and its weights' memory, until a plan that is cheapest on these terms has it. A cheapest plan of estimated kernels alone is
cheapest. On the same terms, what all fast enough kernels need at least rules sets of streamed layers out before they are
searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import combinations, product
from math import ceil
from typing import Any, Protocol

from ..contract import Core, DeviceConfig, MlpConfig, ModelError, Node, cores
from ..contract.boards import Board
from ..contract.mlp import SCANS, output_lanes
from ..contract.resources import Resources
from ..models.spec import ModelSpec
from .balance import balance, slots_for
from .formats import BITS
from .plan import (
    MAX_N_BATCH,
    PlanOptions,
    compile_device,
    embedding_cycles,
    kernels_of,
    node_cycles,
    segments,
    stage_cycles,
    with_kernels,
)
from .search import Choice, front, least_in_sequence, side_by_side
from .soft import LEAST_LUTS, with_lut_rows

__all__ = ["CostModel", "Fit", "FitOptions", "Layer", "NothingFits", "fit", "to_records"]

#: How multipliers are named: Yosys finds 7-series slices with their registers, but packs none into a DSP48E2.
PRIMITIVE = {"xc7": "inferred", "xcup": "dsp48e2"}
LIMITS = ("lut", "ff", "bram18", "uram", "dsp")
FLOORS = ("bram18", "dsp")  # known before a kernel is estimated (UltraRAM may be block RAM instead)
MEMORIES = {"bram18", "uram"}
BALANCED = 0.9  # of the lookups' pace that random rows should reach, by having enough samples in flight
MOST_SHARE = 4  #: of the embedding time, for an MLP
SHELL = "shell"  #: among a plan's resources: what the board puts around the device
SHORT, ROUNDS = 4.0, 3  # what a resource that ran short counts, and how often the search may change its mind
LEAST_TAGS = 32  # that are not halved
NEAR = 1.1  # of the limit: where slices cannot suffice, what else is short by more is not brought down by counting more


class CostModel(Protocol):
    """Estimated resources; ``nearflash_hw.synthesis.estimate.Estimator`` is one."""

    def device(self, config: DeviceConfig) -> dict[str, Resources]: ...

    def shell(self, config: DeviceConfig, board: Board) -> Resources:
        """What the board puts around the device; nothing where there is no processing system."""
        ...

    def core(self, core: Core, mlp: MlpConfig, beat_bytes: int, lanes: int, hold: bool) -> Resources: ...

    def core_floor(self, core: Core, mlp: MlpConfig, beat_bytes: int) -> Resources:
        """What :meth:`core` is at least, found much faster."""
        ...

    def epilogue(self, node: Node, node_cores: list[Core], mlp: MlpConfig, last: bool) -> Resources: ...

    def epilogue_floor(self, node: Node, node_cores: list[Core], mlp: MlpConfig, last: bool) -> Resources:
        """What :meth:`epilogue` is at least, found much faster."""
        ...


class NothingFits(ModelError):
    """No plan satisfies all constraints; the message says which fails and what would help."""


@dataclass(frozen=True)
class FitOptions:
    """``share``: part of the embedding time each of the bottom and top MLP may take; above 1 (at most :data:`MOST_SHARE`)
    the MLPs set the pace. ``limit``: share of every resource that device and shell may use; the rest is the router's.
    ``formats``: (layer, bits of its weights) where they are not ``weight_bits``. ``packed``: two int8 products on one DSP
    slice, None: if DSP slices would be short. ``stream``: layers that are streamed from DRAM whatever fits; ``onchip``: no
    others are."""

    share: float = 1.0
    limit: float = 0.8
    weight_bits: int = 8
    act_bits: int = 8
    formats: tuple[tuple[str, int], ...] = ()
    packed: bool | None = None
    stream: tuple[str, ...] = ()
    onchip: bool = False

    def __post_init__(self) -> None:
        for name, most in (("share", MOST_SHARE), ("limit", 1)):
            if not 0 < getattr(self, name) <= most:
                raise ModelError(name, getattr(self, name), f"must be above 0 and at most {most}")

    def bits(self, layer: str) -> int:
        """Bits of ``layer``'s weights."""
        return dict(self.formats).get(layer, self.weight_bits)


@dataclass(frozen=True)
class Layer:
    """One core of the plan, ``resources`` with its part of the epilogue, and why it is as it is."""

    core: Core
    resources: Resources
    why: str


@dataclass(frozen=True)
class Fit:
    """A plan. Times in cycles per sample: ``embedding`` of the lookups with every die balanced, ``bottom`` and ``top`` in
    kernel steps, ``allowed`` the most these may take; ``stream`` beats of streamed weights per sample. ``balance``: share of
    the lookups' pace that random rows allow (:func:`~nearflash.compiler.balance.balance`)."""

    config: DeviceConfig
    board: Board
    embedding: float
    balance: float
    allowed: int
    bottom: int
    top: int
    stream: float
    layers: tuple[Layer, ...]
    resources: dict[str, Resources]
    limit: float

    @property
    def total(self) -> Resources:
        return sum(self.resources.values(), Resources())

    @property
    def queries_per_second(self) -> float:
        """Bound by the slowest of lookups of random rows, MLP stages and streamed weights."""
        return self.config.clock_mhz * 1e6 / max(self.embedding / self.balance, self.bottom, self.top, self.stream)


def fit(spec: ModelSpec, base: DeviceConfig, board: Board, cost: CostModel, options: FitOptions | None = None,
        progress: Callable[[str], None] = lambda text: None) -> Fit:
    """The cheapest plan for ``spec`` on a device like ``base`` on ``board``.

    Raises :class:`NothingFits`, which names the constraint that fails and what would satisfy it.
    """
    return _Fitter(spec, base, board, cost, options or FitOptions(), progress).fit()


class _Fitter:
    """Tries what lies above the kernels: which layers are streamed or moved to block RAM, packing, weights of resources."""

    def __init__(self, spec: ModelSpec, base: DeviceConfig, board: Board, cost: CostModel, options: FitOptions,
                 progress: Callable[[str], None]):
        self.spec, self.base, self.board, self.cost, self.options = spec, base, board, cost, options
        self.progress = progress
        self.planned = _planned(spec, base, options)
        self.embedding = embedding_cycles(spec, self.planned)
        self.allowed = max(1, int(self.embedding * options.share))
        may_pack = {options.act_bits, *(n.weight_bits for n in self.planned.mlp.graph if n.kind == "fc")} == {8}
        self.packings = [options.packed] if options.packed is not None else [False, True] if may_pack else [False]
        self.shell = cost.shell(base, board)
        self.rest: dict[tuple[int | bool, ...], Resources] = {}  # of all without the layers, by what it depends on
        self.failures: list[str] = []

    def fit(self) -> Fit:
        part, options = self.board.part, self.options
        for streamed in _streams(self.spec, options):
            named = f" while streaming {', '.join(sorted(streamed))}" if streamed else " with all weights on chip"
            if not _may_hold(self.spec, streamed, self.board, options):
                self.failures.append(f"block RAM is too small for the weights{named}")
                continue
            n_batch = _batches(self.spec, self.planned, streamed, self.allowed, self.board, options)
            if n_batch is None:
                self.failures.append("weights arrive more slowly than lookups, even for groups of "
                                     f"{MAX_N_BATCH} samples,{named}")
                continue
            over: Fit | set[str] = set()
            memories = list(_memories(self.planned, streamed, self.board, 2 * n_batch > self.base.lookup.sample_slots))
            for moved, thrifty in memories:
                if (thrifty and not (MEMORIES | {"dsp"}) & over) or (moved and "uram" not in over):
                    continue
                soft = thrifty or (moved, True) not in memories  # what else helps comes first
                over = self._attempt(streamed, moved, thrifty, soft, n_batch, named)
                if isinstance(over, Fit):
                    return over
            if over and not MEMORIES & over:
                break  # streaming weights frees no logic
        pace = "" if options.share == 1 else f" with {options.share:g} of the lookups' time for an MLP"
        raise NothingFits("board", self.board.name, f"nothing fits in {options.limit:.0%} of {part.name}{pace}: "
                          f"{'; '.join(dict.fromkeys((self.failures[0], self.failures[-1])))}. What "
                          "would: a larger part, fewer flash channels or tags, narrower beats, a higher --limit, or MLPs "
                          "that take longer than the lookups (--slower)")

    def _attempt(self, streamed: frozenset[str], moved: frozenset[str], thrifty: bool, soft: bool, n_batch: int, named: str
                 ) -> Fit | set[str]:
        """The cheapest plan if it fits, or else what there is too little of. ``soft``: products may be made of LUTs."""
        over: set[str] = set()
        part, limit = self.board.part, self.options.limit
        planned = _thrifty(self.planned) if thrifty else self.planned
        groups = 1 if thrifty else 2
        slots = slots_for(self.spec, self.planned, BALANCED, max(self.base.lookup.sample_slots, groups * n_batch))
        for packed in self.packings:
            last = packed == self.packings[-1]
            may_soften = soft and last
            weights: dict[str, float] = dict.fromkeys(LIMITS, 1.0)
            before, hopeless = None, False
            rounds = ROUNDS if last else 1
            while rounds:
                rounds -= 1
                self.progress(f"searching kernels{named}")
                searched = _Search(planned, self.board, self.cost, self.allowed, packed, weights, streamed, moved, n_batch)
                if before is None:
                    config = self._device(planned, searched.graph, packed, n_batch, slots)
                    need = searched.need() + self._rest(config, sized=False)
                    shares = need.shares(part)
                    over = {k for k in FLOORS if shares[k] > limit}
                    products = max(0, need.dsp - limit * part.dsp) * (2 if packed else 1)
                    may_soften &= over <= {"dsp"} and need.lut + products * LEAST_LUTS <= limit * part.lut
                    if over and not may_soften:
                        self.failures.append(", ".join(f"{k} at least {shares[k]:.0%}" for k in sorted(over)) + named)
                        break
                    hopeless = bool(over)  # whatever slices count, they will not do
                graph = searched.best()
                if graph is None:
                    self.failures.append(f"no kernels are fast enough for {self.allowed:,} steps a stage{named}")
                    return over
                rounds = 0 if graph == before and not hopeless else rounds
                before = graph
                config = self._device(planned, graph, packed, n_batch, slots)
                used = self._used(searched, config)
                over = self._over(used)
                if over == {"dsp"} and may_soften and (hopeless or not rounds):
                    rounds = 0
                    config = self._softened(config, ceil(used.dsp - limit * part.dsp))
                    used = self._used(searched, config)
                    over = self._over(used)
                if not over:
                    self.progress("estimating the device")
                    resources = self.cost.device(config)
                    if self.shell != Resources():
                        resources = {**resources, SHELL: self.shell}
                    return _finish(self.spec, config, self.board, self.embedding, searched, resources, limit)
                self.failures.append(", ".join(f"{k} {v:.0%}" for k, v in used.shares(part).items() if k in over) + named)
                short = over - {"dsp"} if hopeless else over
                if hopeless and any(used.shares(part)[k] > NEAR * limit for k in short):
                    break
                weights = {k: w * SHORT if k in short else w for k, w in weights.items()}
            if over and "dsp" not in over:
                break  # packing frees nothing else
        return over

    def _used(self, searched: _Search, config: DeviceConfig) -> Resources:
        return sum((layer.resources for layer in searched.layers(config)), self._rest(config))

    def _over(self, used: Resources) -> set[str]:
        return {k for k, v in used.shares(self.board.part).items() if v > self.options.limit}

    def _softened(self, config: DeviceConfig, excess: int) -> DeviceConfig:
        """``config`` with the fewest products of LUTs that free ``excess`` slices; as it is where all are too few."""
        mlp = config.mlp
        graph = with_lut_rows(mlp.graph, excess, lambda core: self.cost.core_floor(core, mlp, config.beat_bytes).dsp)
        return replace(config, mlp=replace(mlp, graph=graph or mlp.graph))

    def _device(self, planned: DeviceConfig, graph: tuple[Node, ...], packed: bool, n_batch: int, slots: int
                ) -> DeviceConfig:
        mlp = replace(planned.mlp, graph=graph, n_batch=n_batch, packed=packed,
                      primitive=PRIMITIVE[self.board.part.family])
        return replace(planned, name=f"{self.base.name}-{self.spec.name}-{self.board.name}", mlp=mlp,
                       lookup=replace(planned.lookup, sample_slots=slots))

    def _rest(self, config: DeviceConfig, sized: bool = True) -> Resources:
        """Of the device without its layers, and of the shell; ``sized``: their kernels, which take beats, are chosen."""
        every = cores(config.mlp.graph)
        key = (config.mlp.n_batch, config.lookup.sample_slots, config.lookup.tags, len(every),
               sum(c.weights == "dram" for c in every), sized)
        if key not in self.rest:
            self.progress("estimating the rest of the device")
            resources = self.cost.device(config)
            self.rest[key] = sum((r for path, r in resources.items()
                                  if not path.startswith(("mlp.core", "mlp.epilogue"))), self.shell)
        return self.rest[key]


def _planned(spec: ModelSpec, base: DeviceConfig, options: FitOptions) -> DeviceConfig:
    """The device with its graph in the number formats asked for, its kernels yet to be chosen."""
    planned = compile_device(spec, base, PlanOptions(options.weight_bits, options.act_bits, onchip_bytes=1 << 40))
    names = [n.name for n in planned.mlp.graph if n.kind == "fc"]
    for name, bits in options.formats:
        if name not in names:
            raise ModelError("formats", name, f"must be one of {', '.join(names)}")
        if bits not in BITS:
            raise ModelError(f"formats[{name}]", bits, f"must be one of {BITS}")
    graph = tuple(replace(n, weight_bits=options.bits(n.name), kr=1, kc=1, kr_split=(), kc_split=()) if n.kind == "fc" else n
                  for n in planned.mlp.graph)
    return replace(planned, mlp=replace(planned.mlp, graph=graph))


def _streams(spec: ModelSpec, options: FitOptions) -> Iterator[frozenset[str]]:
    """Sets of layers to stream, in the order of the bytes they hold."""
    size = {n.name: n.width * c for n, c in spec.layers() if n.width > 1}
    for name in options.stream:
        if name not in size:
            raise ModelError("stream", name, f"must be one of {', '.join(size)}")
    free = [] if options.onchip else [n for n in size if n not in options.stream]
    sets = [frozenset((*options.stream, *some)) for k in range(len(free) + 1) for some in combinations(free, k)]
    yield from sorted(sets, key=lambda s: sum(size[n] for n in s))


def _memories(planned: DeviceConfig, streamed: frozenset[str], board: Board, spare: bool
              ) -> Iterator[tuple[frozenset[str], bool]]:
    """What to do about memory or DSP slices that are short: layers to keep out of UltraRAM (none, the smallest, the two
    smallest ...), and whether to be thrifty: all layers undivided (one kernel rounds up less than two), the samples of one
    group pooled at a time, half the tags; if either of the first two saves anything (``spare``: the second does)."""
    fc = [n for n in planned.mlp.graph if n.kind == "fc"]
    yield frozenset(), False
    if spare or any(n.decomposed for n in fc):
        yield frozenset(), True
    if board.part.uram:
        width = {n.name: n.width for n in planned.mlp.graph}
        names = [n.name for n in sorted(fc, key=lambda n: n.width * sum(width[i] for i in n.inputs))
                 if n.name not in streamed and n.width > 1]
        for k in range(1, len(names)):
            yield frozenset(names[:k]), False


def _thrifty(planned: DeviceConfig) -> DeviceConfig:
    """``planned`` without intra-layer decomposition (no half's sums, of a whole group, wait for the other's), and with half
    as many reads in flight: 32 a die instead of a board's 64 cost WnD's lookups 0.2 % (timing simulation)."""
    graph = tuple(replace(n, decomposed=False) for n in planned.mlp.graph)
    tags = planned.lookup.tags
    return replace(planned, mlp=replace(planned.mlp, graph=graph),
                   lookup=replace(planned.lookup, tags=tags // 2 if tags > LEAST_TAGS else tags))


def _may_hold(spec: ModelSpec, streamed: frozenset[str], board: Board, options: FitOptions) -> bool:
    """Whether the weights that are not streamed are fewer bits than there is memory for."""
    bits = sum(n.width * c * options.bits(n.name) for n, c in spec.layers() if n.name not in streamed)
    return bits <= options.limit * 1024 * (36 * board.part.bram36 + 288 * board.part.uram)


def _batches(spec: ModelSpec, config: DeviceConfig, streamed: frozenset[str], allowed: int, board: Board,
             options: FitOptions) -> int | None:
    """Least N_batch with which the streamed weights keep up with both the kernels and the board's memory (rule 2)."""
    nbytes = sum(n.width * c * options.bits(n.name) // 8 for n, c in spec.layers() if n.name in streamed)
    cycles = nbytes / min(config.beat_bytes, board.dram_bytes_per_cycle * board.clock_mhz / config.clock_mhz)
    n_batch = 1
    while cycles / n_batch > allowed:
        n_batch *= 2
        if n_batch > MAX_N_BATCH:
            return None
    return n_batch


class _Search:
    """Kernels of least cost, for a set of streamed layers and an N_batch. ``moved``: layers whose weights must be in block
    RAM."""

    def __init__(self, planned: DeviceConfig, board: Board, cost: CostModel, allowed: int, packed: bool,
                 weights: dict[str, float], streamed: frozenset[str], moved: frozenset[str], n_batch: int):
        self.planned, self.board, self.cost, self.allowed, self.packed = planned, board, cost, allowed, packed
        self.weights, self.n_batch = weights, n_batch
        self.graph = tuple(replace(n, weights="dram" if n.name in streamed else "bram" if n.name in moved else "onchip")
                           for n in planned.mlp.graph)
        self.stages = [self._stage(stage) for stage in ("bot", "top")]

    def score(self, r: Resources) -> float:
        return sum(self.weights[k] * v for k, v in r.shares(self.board.part).items())

    def _stage(self, stage: str) -> list[_Layout]:
        """Every choice of scan orders for a stage's layers."""
        chain = [n for n in self.graph if n.kind == "fc" and n.name.startswith(stage)]
        known: dict[tuple[str, str], _Kernels] = {}
        for n, scan in product(chain, SCANS):
            mine = [replace(c, scan=scan) for c in cores(self.graph) if c.node == n.name]
            known[n.name, scan] = _Kernels(self, replace(n, scan=scan), mine)
        layouts = [[replace(n, scan=scan) for n, scan in zip(chain, scans, strict=True)]
                   for scans in product(SCANS, repeat=len(chain))]
        return [[[known[n.name, n.scan] for n in segment] for segment in segments(layout)] for layout in layouts]

    def need(self) -> Resources:
        """What the layers use at least, of each of :data:`FLOORS` by itself, whatever kernels are chosen."""
        out: dict[str, int] = dict.fromkeys(FLOORS, 0)
        for stage, k in product(self.stages, FLOORS):
            fronts: dict[_Kernels, list[Choice]] = {}
            for node in {node for layout in stage for group in layout for node in group}:
                fronts[node] = front([replace(c, cost=getattr(floor, k))
                                      for c, floor in zip(node.choices, node.floors, strict=True)])
            found = [_join([[fronts[node] for node in group] for group in layout], self.allowed) for layout in stage]
            out[k] += int(min((c.cost for c in found if c), default=0))
        return Resources(**out)

    def best(self) -> tuple[Node, ...] | None:
        """The graph with scans, lanes and kernels, or None if no kernels are fast enough."""
        chosen: dict[str, Node] = {}
        kernels: dict[int, tuple[int, int]] = {}
        for stage in self.stages:
            best = self._least(stage)
            if best is None:
                return None
            for node in (node for group in stage[best[0]] for node in group):
                chosen[node.name], sized = node.nodes[best[1].kernels[node.name]]
                kernels |= {c.index: (c.kr, c.kc) for c in sized}
        return with_kernels(tuple(chosen.get(n.name, n) for n in self.graph), [kernels[c.index] for c in cores(self.graph)])

    def _least(self, layouts: list[_Layout]) -> tuple[int, Choice] | None:
        """The layout of least cost for a stage, and its kernels; None if none is fast enough. Only the layout that could be
        cheapest is estimated further: estimates raise costs."""
        waiting = [(0.0, i) for i in range(len(layouts))]
        while waiting:
            _, i = heappop(waiting)
            groups = layouts[i]
            chosen = _join([[node.front for node in group] for group in groups], self.allowed)
            if chosen is None:
                continue
            if not (waiting and chosen.cost > waiting[0][0]) and not [
                    node for group in groups for node in group if node.estimate(chosen)]:
                return i, chosen
            heappush(waiting, (chosen.cost, i))
        return None

    def layers(self, config: DeviceConfig) -> list[Layer]:
        """Every core with its share of its node's resources."""
        out = []
        every = cores(config.mlp.graph)
        for node in config.mlp.graph:
            mine = [c for c in every if c.node == node.name]
            if not mine:
                continue
            lanes = output_lanes(node, mine, node is config.mlp.graph[-1])
            for i, c in enumerate(mine):
                r = self.cost.core(c, config.mlp, config.beat_bytes, lanes, node.decomposed)
                if i == 0:
                    r += self.cost.epilogue(node, mine, config.mlp, node is config.mlp.graph[-1])
                out.append(Layer(c, r, self._why(c)))
        return out

    def _why(self, c: Core) -> str:
        fewer = max((kr * kc for kr, kc in _kernels_within(c, self.planned.beat_bytes, 1 << 62) if kr * kc < c.kr * c.kc),
                    default=0)
        return f"{fewer} multipliers: too slow or dearer" if fewer else "the smallest kernel"


class _Kernels:
    """Every combination of kernels for a node's cores, and of lanes if it scans by columns, each at its estimated cost or,
    until :meth:`estimate`, less. A :class:`Choice` names it by node and number."""

    def __init__(self, search: _Search, node: Node, node_cores: list[Core]):
        self.search, self.name = search, node.name
        self.mlp = replace(search.planned.mlp, n_batch=search.n_batch, graph=(), packed=search.packed,
                           primitive=PRIMITIVE[search.board.part.family])
        self.last = node.name == search.planned.mlp.graph[-1].name
        self.nodes: list[tuple[Node, list[Core]]] = []
        self.choices: list[Choice] = []
        self.floors: list[Resources] = []  # what each of them is at least
        self.estimated: set[int] = set()
        self._front: list[Choice] | None = None  # of `choices` as they are
        cost, beat_bytes = search.cost, search.planned.beat_bytes
        every = [[replace(c, kr=kr, kc=kc) for kr, kc in _kernels_within(c, beat_bytes, search.allowed)] for c in node_cores]
        floors = {c: cost.core_floor(c, self.mlp, beat_bytes) for some in every for c in some}
        for some in product(*every):
            sized = list(some)
            floor = sum((floors[c] for c in sized), Resources())
            for n in _with_lanes(node, sized, self.last):
                steps = node_cycles(n, sized)
                if steps <= search.allowed:
                    self.floors.append(floor + cost.epilogue_floor(n, sized, self.mlp, self.last))
                    self.choices.append(Choice(steps, search.score(self.floors[-1]), {self.name: len(self.nodes)}))
                    self.nodes.append((n, sized))

    @property
    def front(self) -> list[Choice]:
        if self._front is None:
            self._front = front(self.choices)
        return self._front

    def estimate(self, chosen: Choice) -> bool:
        """Estimate the node's part of ``chosen``; False if it was already."""
        i = chosen.kernels[self.name]
        if i in self.estimated:
            return False
        node, sized = self.nodes[i]
        cost, beat_bytes, lanes = self.search.cost, self.search.planned.beat_bytes, output_lanes(node, sized, self.last)
        total = sum((cost.core(c, self.mlp, beat_bytes, lanes, node.decomposed) for c in sized),
                    cost.epilogue(node, sized, self.mlp, self.last))
        self.choices[i] = replace(self.choices[i], cost=self.search.score(total))
        self._front = None
        self.estimated.add(i)
        return True


#: A stage's layers in groups that run one after another; the layers of a group run side by side.
_Layout = list[list[_Kernels]]


def _join(fronts: list[list[list[Choice]]], allowed: int) -> Choice | None:
    """The least cost of a layout whose nodes have these ``fronts``; None if it takes more steps than ``allowed``."""
    parts = [side_by_side(group) for group in fronts]
    return least_in_sequence(parts, allowed) if all(parts) else None


def _with_lanes(node: Node, sized: list[Core], last: bool) -> list[Node]:
    """``node`` with as many lanes as its rule finds good, and with fewer."""
    out, lanes = [node], output_lanes(node, sized, last) // 2 if node.scan == "column" else 0
    while lanes >= max(1, node.width / max(c.steps for c in sized)):
        out.append(replace(node, lanes=lanes))
        lanes //= 2
    return out


def _kernels_within(core: Core, beat_bytes: int, allowed: int) -> list[tuple[int, int]]:
    """Kernels that take at most ``allowed`` steps; of those with equal steps and multipliers the one that streams best."""
    return [k for c in kernels_of(core, beat_bytes) if c.steps <= allowed for k in c.kernels.values()]


def _finish(spec: ModelSpec, config: DeviceConfig, board: Board, embedding: float, searched: _Search,
            resources: dict[str, Resources], limit: float) -> Fit:
    graph = config.mlp.graph
    beats = sum(c.steps * -(-c.word_bytes // config.beat_bytes) for c in cores(graph) if c.weights == "dram")
    slow = max(1.0, config.beat_bytes / (board.dram_bytes_per_cycle * board.clock_mhz / config.clock_mhz))
    return Fit(config, board, embedding, balance(spec, config), searched.allowed, stage_cycles(graph, "bot"),
               stage_cycles(graph, "top"), beats * slow / config.mlp.n_batch, tuple(searched.layers(config)), resources,
               limit)


def to_records(found: Fit) -> dict[str, Any]:
    """Plain values for JSON, units in the keys."""
    part = found.board.part
    return {
        "device": found.config.name, "board": found.board.name, "part": part.name, "clock_mhz": found.config.clock_mhz,
        "design_id": f"{found.config.design_id:#010x}", "embedding_cycles": found.embedding,
        "balance_share": found.balance, "allowed_cycles": found.allowed, "bottom_cycles": found.bottom,
        "top_cycles": found.top, "stream_cycles": found.stream, "sample_slots": found.config.lookup.sample_slots,
        "queries_per_second": found.queries_per_second, "n_batch": found.config.mlp.n_batch,
        "packed": found.config.mlp.packed,
        "layers": [{"core": c.core.index, "node": c.core.node, "rows": c.core.rows, "columns": c.core.columns,
                    "kr": c.core.kr, "kc": c.core.kc, "lut_rows": c.core.lut_rows, "scan": c.core.scan,
                    "weights": c.core.weights, "weight_bits": c.core.weight_bits, "steps": c.core.steps, "why": c.why,
                    **{f"estimated_{k}_count": getattr(c.resources, k) for k in LIMITS}} for c in found.layers],
        **{f"total_{k}_count": getattr(found.total, k) for k in LIMITS},
        **{f"total_{k}_share": v for k, v in found.total.shares(part).items()},
        **{f"slack_{k}_share": found.limit - v for k, v in found.total.shares(part).items()},
    }
