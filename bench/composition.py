"""MLP time of one inference with and without inter-layer composition and intra-layer decomposition, in RTL.

The paper's models, one query at a time with empty bags, so that nothing waits for flash: ``mlp_busy`` counts from the first
feature to the last logit. Kernels are the same with and without composition; only the scan orders differ (plain: every
layer scans by rows and so waits for its whole input). Without decomposition, the first top layer is one core on the
concatenation with at least the multipliers its halves had together.

The kernels are balanced for composition: layers are paired (row scan, column scan), and of each layer's power-of-two kernels
the pair is taken that overlaps best at about the step count asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nearflash.runtime as runtime
import numpy as np
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig, Node, cores
from nearflash.data import synthetic_queries
from nearflash.models import build
from nearflash.quantize import compile_model

from .report import Rows, arguments, finish, progress, show_rows

__all__ = ["balanced", "main", "measure"]

KERNELS = [1 << i for i in range(8)]
MODELS = {"rmc1": 1024, "ncf": 1024, "wnd": 2048, "rmc3": 2560}  # steps aimed at for a model's largest layers


@dataclass(frozen=True)
class _Layer:
    """An fc node as one row of a chain; ``columns`` of its widest core."""

    node: Node
    columns: tuple[int, ...]

    def steps(self, kr: int, kc: int) -> int:
        return max(-(-self.node.width // kr) * -(-c // kc) for c in self.columns)

    def kernels(self) -> dict[int, tuple[int, int]]:
        """The smallest kernel of each step count."""
        best: dict[int, tuple[int, int]] = {}
        for kr in KERNELS:
            for kc in KERNELS:
                s = self.steps(kr, kc)
                if s not in best or kr * kc < best[s][0] * best[s][1]:
                    best[s] = (kr, kc)
        return best


def balanced(graph: tuple[Node, ...], target: int) -> tuple[Node, ...]:
    """``graph`` with kernels for which (row, column) pairs of fc layers take about equally long, at most ``target``
    steps."""
    shapes = cores(graph)
    layers = [_Layer(n, tuple(c.columns for c in shapes if c.node == n.name)) for n in graph if n.kind == "fc"]
    chosen: dict[str, tuple[int, int]] = {}
    for i in range(0, len(layers), 2):
        pair = layers[i : i + 2]
        options = [{s: k for s, k in layer.kernels().items() if s <= target} or
                   {min(layer.kernels()): layer.kernels()[min(layer.kernels())]} for layer in pair]
        if len(pair) == 1:
            largest = max(options[0])
            chosen[pair[0].node.name] = options[0][largest]
            continue
        # least unbalance first, then the smallest multipliers
        a, b = min(((a, b) for a in options[0] for b in options[1]),
                   key=lambda ab: (round(max(ab) / sum(ab), 2), sum(options[j][s][0] * options[j][s][1]
                                                                   for j, s in enumerate(ab))))
        chosen[pair[0].node.name], chosen[pair[1].node.name] = options[0][a], options[1][b]
    out = []
    for n in graph:
        if n.kind == "fc":
            kr, kc = chosen[n.name]
            n = replace(n, kr=kr, kc=kc, kr_split=(), kc_split=())
        out.append(n)
    return tuple(out)


def _scanned(graph: tuple[Node, ...], composed: bool) -> tuple[Node, ...]:
    orders = iter(("row", "column" if composed else "row") * len(graph))
    return tuple(replace(n, scan=next(orders)) if n.kind == "fc" else n for n in graph)


def _merged(graph: tuple[Node, ...]) -> tuple[Node, ...]:
    """``graph`` without decomposition: twice the rows for the core that does both halves' work."""
    return tuple(replace(n, decomposed=False, kr=min(2 * n.kr, 128)) if n.decomposed else n for n in graph)


def mlp_cycles(config: DeviceConfig, name: str) -> tuple[int, int]:
    """(busy cycles of one inference, multipliers) of the MLP engine of ``config``, and check its answer on the way."""
    model = build(name, rows=64)
    shapes = [(t.rows, t.lookups) for t in model.spec.tables]
    dense = model.spec.dense > 0
    calibration = synthetic_queries(shapes, model.spec.dense, 8)
    compiled = compile_model(model, config, [(calibration.dense if dense else None, calibration.bags)])
    empty = (np.zeros(0, np.int64), np.zeros(1, np.int64))
    with runtime.open("sim", config=compiled.config) as device:
        device.load(compiled)
        before = device.counters()["mlp_busy"]
        device.result(device.submit(calibration.dense[:1] if dense else None, [empty] * len(shapes)))
        return device.counters()["mlp_busy"] - before, sum(c.kr * c.kc for c in cores(config.mlp.graph))


def measure(quick: bool = False) -> Rows:
    out: Rows = []
    names = ["rmc1", "ncf"] if quick else list(MODELS)
    with progress() as bar:
        task = bar.add_task("composition", total=3 * len(names), note="")
        for name in names:
            spec = build(name, rows=64).spec
            base = DeviceConfig.preset("tiny")  # the MLP engine is the same in any device; this one compiles fastest
            # all weights on chip: streaming them from DRAM would measure the DRAM
            config = compile_device(spec, base, PlanOptions(onchip_bytes=1 << 30))
            graph = balanced(config.mlp.graph, MODELS[name])
            variants = {"composed": _scanned(graph, True), "plain": _scanned(graph, False),
                        "merged": _scanned(_merged(graph), True)}
            cycles: dict[str, Any] = {}
            for variant, g in variants.items():
                bar.update(task, note=f"{name}, {variant}")
                cycles[variant] = mlp_cycles(replace(config, mlp=replace(config.mlp, graph=g, n_batch=1)), name)
                bar.advance(task)
            on, plain, merged = (cycles[v][0] for v in ("composed", "plain", "merged"))
            out.append({
                "model": name, "multipliers": cycles["composed"][1], "mlp_cycles_composed": on, "mlp_cycles_plain": plain,
                "composition_saved_share": 1 - on / plain, "mlp_cycles_undecomposed": merged,
                "multipliers_undecomposed": cycles["merged"][1], "decomposition_saved_share": 1 - on / merged})
    show_rows("MLP time of one inference, cycles", (
        ("model", "model", ""), ("multipliers", "multipliers", ","), ("mlp_cycles_plain", "plain", ","),
        ("mlp_cycles_composed", "composed", ","), ("composition_saved_share", "composition saves", ".1%"),
        ("mlp_cycles_undecomposed", "not decomposed", ","), ("decomposition_saved_share", "decomposition saves", ".1%"),
    ), out, ("plain and composed: the same kernels, scan orders differ",))
    return out


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(str(__doc__).splitlines()[0], argv)
    finish(args.json, {"composition": measure(args.quick)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
