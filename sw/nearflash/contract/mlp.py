"""The MLP graph a device is generated for, and the image its parameters are loaded from.

A graph is a tuple of :class:`Node`, in topological order. Kinds:

``dense``
    the dense features of a sample, ``width`` elements (at most one such node)
``tables``
    the pooled vectors of ``tables`` (ids, in the order concatenated), ``width`` = sum of their dimensions
``fc``
    fully connected: ``cat(inputs)`` (C elements) to ``width`` = R outputs, optional ReLU
``dot``
    strictly lower triangle (i > j, row-major) of the pairwise dot products of the features of ``inputs``, each
    input being one or more features of ``dim`` elements (facebookresearch/dlrm's ``dot``)
``mul``
    element-wise product of two inputs of equal width (NCF's MF branch)

The last node must be an ``fc``: its outputs are the logits. Every node but ``dense``/``tables`` has exactly one kernel.
The integer semantics of every node are in :mod:`nearflash.reference.mlp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigError

__all__ = ["KINDS", "SCANS", "WEIGHT_PLACES", "Core", "Node", "cores", "interaction_word", "kernel_latency", "output_lanes",
           "validate_graph"]

KINDS = ("dense", "tables", "fc", "dot", "mul")
SCANS = ("row", "column")
#: In the memory that suits them; in block RAM even where there is UltraRAM; streamed.
WEIGHT_PLACES = ("onchip", "bram", "dram")
DOT_LANES = 8
COLUMN_SCAN_LANES, COLUMN_SCAN_SHARE = 8, 64


@dataclass(frozen=True)
class Node:
    """One node of the MLP graph with its kernel (paper: FC kernel of kr x kc multipliers)."""

    name: str
    kind: str
    width: int
    inputs: tuple[str, ...] = ()
    tables: tuple[int, ...] = ()
    dim: int = 0  #: dot: elements per feature
    relu: bool = False
    kr: int = 1  #: outputs per kernel step
    kc: int = 1  #: inputs per kernel step, power of two
    kc_split: tuple[int, ...] = ()  #: decomposed fc: kc of each input's core (default: kc for all)
    kr_split: tuple[int, ...] = ()  #: decomposed fc: kr of each input's core; the outputs are joined
    scan: str = "row"  #: "row": emits outputs progressively; "column": consumes inputs progressively
    weights: str = "onchip"
    weight_bits: int = 8
    lanes: int = 0  #: column scan: requantisers; 0: as many as :func:`output_lanes` finds good
    decomposed: bool = False  #: fc with several inputs: one core per input, partial sums added (intra-layer decomposition)
    lut_rows: int = 0  #: rows of each of its cores' kernels whose products are made of LUTs, not on DSP slices


@dataclass(frozen=True)
class Core:
    """One multiplier array with its own input buffer and weights: an fc node has one, or one per input if decomposed."""

    index: int  #: parameter target of its weights
    node: str
    inputs: tuple[str, ...]
    rows: int  #: R
    columns: int  #: C
    kr: int
    kc: int
    scan: str
    weights: str
    weight_bits: int
    lut_rows: int = 0  #: of the kernel's kr

    @property
    def row_blocks(self) -> int:
        return -(-self.rows // self.kr)

    @property
    def column_blocks(self) -> int:
        return -(-self.columns // self.kc)

    @property
    def steps(self) -> int:
        """Kernel steps per sample (paper: (R/kr)(C/kc), rounded up for widths the kernel does not divide)."""
        return self.row_blocks * self.column_blocks

    @property
    def word_bytes(self) -> int:
        """Bytes of one weight word: kr x kc weights, [row][column], column fastest, little-endian."""
        return self.kr * self.kc * self.weight_bits // 8


def cores(graph: tuple[Node, ...]) -> tuple[Core, ...]:
    """Every FC core of ``graph``, numbered in graph order, then input order."""
    width = {n.name: n.width for n in graph}
    out: list[Core] = []
    for n in graph:
        if n.kind != "fc":
            continue
        groups = [(i,) for i in n.inputs] if n.decomposed else [n.inputs]
        for g, ins in enumerate(groups):
            kc = n.kc_split[g] if n.decomposed and n.kc_split else n.kc
            kr = n.kr_split[g] if n.decomposed and n.kr_split else n.kr
            out.append(Core(len(out), n.name, tuple(ins), n.width, sum(width[i] for i in ins), kr, kc, n.scan,
                            n.weights, n.weight_bits, n.lut_rows))
    return tuple(out)


def _clog2(v: int) -> int:
    return (v - 1).bit_length()


def _low_bit(v: int) -> int:
    return v & -v


def kernel_latency(kc: int) -> int:
    """Cycles from a kernel's operands to its sums: operands, products, sums, and one register per two adder levels."""
    return 3 + -(-_clog2(kc) // 2)


def output_lanes(node: Node, node_cores: Sequence[Core], last: bool) -> int:
    """Requantisers of an fc node, whose cores are ``node_cores``: a power of two that divides every core's kr.

    At least the rows its cores finish per cycle on average; for a column scan, which finishes all rows at once, enough that
    sending them adds a 64th to its steps, but not more than 8 for that, unless the node itself says how many. The ``last``
    node sends one logit per cycle.
    """
    if last or node.lanes:
        return node.lanes or 1
    steps = min(c.steps for c in node_cores)
    lanes = 1 << _clog2(-(-node.width // steps))
    if node.scan == "column":
        lanes = max(lanes, min(COLUMN_SCAN_LANES, 1 << _clog2(-(-COLUMN_SCAN_SHARE * node.width // steps))))
    return min(lanes, *(_low_bit(c.kr) for c in node_cores))


def interaction_word(node: Node) -> int:
    """Elements a ``dot`` or ``mul`` node multiplies per cycle: for ``dot`` a power of two that divides a feature, for
    ``mul`` one."""
    return min(_low_bit(node.dim), DOT_LANES) if node.kind == "dot" else 1


def _pow2(v: int) -> bool:
    return v > 0 and v & (v - 1) == 0


def validate_graph(graph: tuple[Node, ...], beat_bytes: int) -> None:
    """Raise :class:`ConfigError` for a graph that no MLP engine can be generated for."""
    seen: dict[str, Node] = {}
    if not graph:
        return
    for n in graph:
        f = f"mlp.graph[{n.name}]"
        if n.name in seen:
            raise ConfigError(f + ".name", n.name, "must be unique")
        if n.kind not in KINDS:
            raise ConfigError(f + ".kind", n.kind, f"must be one of {KINDS}")
        if n.width < 1:
            raise ConfigError(f + ".width", n.width, "must be at least 1")
        for i in n.inputs:
            if i not in seen:
                raise ConfigError(f + ".inputs", i, "must name an earlier node")
        if n.kind in ("dense", "tables"):
            if n.inputs:
                raise ConfigError(f + ".inputs", n.inputs, f"a {n.kind} node is a source")
            if n.kind == "tables" and not n.tables:
                raise ConfigError(f + ".tables", n.tables, "must name at least one table")
        elif not n.inputs:
            raise ConfigError(f + ".inputs", n.inputs, "must name at least one node")
        if n.kind == "fc":
            for v in (n.kr, *n.kr_split):
                if not 1 <= v <= 128:
                    raise ConfigError(f + ".kr", v, "must be from 1 to 128")
            for v in (n.kc, *n.kc_split):
                if not _pow2(v) or v > 128:
                    raise ConfigError(f + ".kc", v, "must be a power of two from 1 to 128")
            if n.scan not in SCANS:
                raise ConfigError(f + ".scan", n.scan, f"must be one of {SCANS}")
            if n.weights not in WEIGHT_PLACES:
                raise ConfigError(f + ".weights", n.weights, f"must be one of {WEIGHT_PLACES}")
            if n.weight_bits not in (8, 16):
                raise ConfigError(f + ".weight_bits", n.weight_bits, "must be 8 or 16")
            for k in ("kr_split", "kc_split"):
                if getattr(n, k) and len(getattr(n, k)) != len(n.inputs):
                    raise ConfigError(f + "." + k, getattr(n, k), f"needs one entry per input ({len(n.inputs)})")
            least = min(n.kr_split or (n.kr,))
            if not 0 <= n.lut_rows < least:
                raise ConfigError(f + ".lut_rows", n.lut_rows, f"must be at least 0 and less than kr ({least})")
            if n.lanes and (n.scan != "column" or not _pow2(n.lanes) or any(v % n.lanes for v in n.kr_split or (n.kr,))):
                raise ConfigError(f + ".lanes", n.lanes, "must be 0, or a power of two that divides the kr of a column scan")
            if n.lanes > 1 and n is graph[-1]:
                raise ConfigError(f + ".lanes", n.lanes, "must be at most 1 for the last node, which has one")
            parts = len(n.inputs)
            for kr, kc in zip(n.kr_split or (n.kr,) * parts, n.kc_split or (n.kc,) * parts, strict=False):
                word = kr * kc * n.weight_bits // 8
                if word > beat_bytes and word % beat_bytes:
                    raise ConfigError(f + ".kr", kr, f"times kc ({kc}) weights must fit or fill beats of {beat_bytes} B")
        if n.kind == "mul" and (len(n.inputs) != 2 or any(seen[i].width != n.width for i in n.inputs)):
            raise ConfigError(f + ".inputs", n.inputs, "must be two nodes of this node's width")
        if n.kind == "dot":
            if n.dim < 1 or any(seen[i].width % n.dim for i in n.inputs):
                raise ConfigError(f + ".dim", n.dim, "must divide the width of every input")
            feats = sum(seen[i].width for i in n.inputs) // n.dim
            if n.width != feats * (feats - 1) // 2:
                raise ConfigError(f + ".width", n.width, f"must be {feats * (feats - 1) // 2} for {feats} features")
        seen[n.name] = n
    if graph[-1].kind != "fc":
        raise ConfigError("mlp.graph", graph[-1].kind, "the last node must be an fc")
    if sum(n.kind == "dense" for n in graph) > 1:
        raise ConfigError("mlp.graph", "dense", "at most one dense node")
    used = [t for n in graph if n.kind == "tables" for t in n.tables]
    if sorted(used) != list(range(len(used))):
        raise ConfigError("mlp.graph.tables", sorted(used), "the tables nodes must name tables 0..T-1, each once")
