"""The paper's resource table: MLP engines with fixed kernels against searched ones, at equal throughput.

``python -m bench.paper_resources``: for RMC1, RMC2 and RMC3 on XC7A200T and XCVU9P, four channels of one die. **Naive**:
a kernel of 16 x 16 multipliers for every layer, no intra-layer decomposition, no inter-layer composition. **Searched**: the
plan of `nearflash fit`, its weights where the naive engine has them; and, where that saves less block RAM than the goal,
**streamed**: the plan with the largest layers' weights in DRAM, as few as reach it. All hide behind the lookups, which set
their throughput. Figures are of the MLP engine's layers (cores and epilogues), estimated, or synthesised with
``--synthesise`` (minutes for a naive engine).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearflash.compiler import embedding_cycles, stage_cycles
from nearflash.compiler.fit import Fit, FitOptions, fit
from nearflash.compiler.plan import naive
from nearflash.contract import BOARDS, DeviceConfig, cores
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources
from nearflash.models import model_spec
from nearflash_hw.mlp import MlpEngine
from nearflash_hw.synthesis.estimate import Estimator
from nearflash_hw.synthesis.estimate.model import estimate_units
from nearflash_hw.synthesis.netlist import units
from nearflash_hw.synthesis.yosys import synthesise

from .report import Rows, finish, progress, show_rows, streamed_layers

__all__ = ["main"]

SIDE = 16
GOAL = {"lut": 0.6, "ff": 0.6, "bram18": 0.3, "dsp": 0.75}


def layers(config: DeviceConfig, family: str, measured: bool) -> Resources:
    found = [u for u in units(MlpEngine(config), room=True) if u.path.startswith(("core", "epilogue"))]
    if measured:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # each runs a process
            return sum(pool.map(lambda u: synthesise(u.rtlil, family), found), Resources())
    named = [replace(u, path=f"mlp.{u.path}") for u in found]
    return sum(estimate_units(named, family).values(), Resources())


def largest_first(found: Fit) -> list[str]:
    """The layers whose weights are on chip, those with the most first."""
    size: dict[str, int] = {}
    for c in cores(found.config.mlp.graph):
        if c.weights != "dram" and c.rows > 1:
            size[c.node] = size.get(c.node, 0) + c.rows * c.columns * c.weight_bits
    return sorted(size, key=lambda n: -size[n])


def compare(name: str, board: Board, measured: bool) -> Rows:
    """Rows of one model on one board."""
    spec, base = model_spec(name, 2000), replace(DeviceConfig.preset("paper"), clock_mhz=board.clock_mhz)
    cost = Estimator(board.part.family)

    def row(kind: str, config: DeviceConfig, against: dict[str, Any] | None) -> dict[str, Any]:
        r = layers(config, board.part.family, measured)
        slowest = max(stage_cycles(config.mlp.graph, "bot"), stage_cycles(config.mlp.graph, "top"),
                      embedding_cycles(spec, config))
        saved = {k: 1 - getattr(r, k) / against[f"{k}_count"] for k in GOAL} if against else {}
        return {"model": name, "part": board.part.name, "kernels": kind,
                "streamed_layers": " ".join(streamed_layers(config)), "n_batch": config.mlp.n_batch,
                **{f"{k}_count": getattr(r, k) for k in (*GOAL, "uram")},
                **{f"{k}_saved_share": saved.get(k) for k in GOAL}, "queries_per_second": config.clock_mhz * 1e6 / slowest,
                "source": "synthesised" if measured else "estimated"}

    found = fit(spec, base, board, cost, FitOptions(limit=1.0))
    rows = [row("naive", naive(found.config, SIDE), None)]
    rows.append(row("searched", found.config, rows[0]))
    streamed = streamed_layers(found.config)
    for layer in largest_first(found):
        if rows[-1]["bram18_saved_share"] >= GOAL["bram18"]:
            break
        streamed.append(layer)
        less = fit(spec, base, board, cost, FitOptions(limit=1.0, stream=tuple(streamed)))
        rows[2:] = [row("streamed", less.config, rows[0])]
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.paper_resources", description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["rmc1", "rmc2", "rmc3"])
    parser.add_argument("--parts", nargs="*", default=["xc7a200t", "xcvu9p"])
    parser.add_argument("--synthesise", action="store_true", help="measure with Yosys instead of estimating")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    rows: Rows = []
    with progress() as bar:
        task = bar.add_task("searching", total=len(args.models) * len(args.parts), note="")
        for part in args.parts:
            board = BOARDS[part]
            for name in args.models:
                bar.update(task, note=f"{name} on {part}")
                rows += compare(name, board, args.synthesise)
                bar.advance(task)
    show_rows(f"layers of the MLP engine, {rows[0]['source']}", (
        ("model", "model", ""), ("part", "part", ""), ("kernels", "kernels", ""), ("streamed_layers", "from DRAM", ""),
        ("lut_count", "LUT", ",.0f"), ("lut_saved_share", "saved", ".0%"), ("ff_count", "FF", ",.0f"),
        ("ff_saved_share", "saved", ".0%"),
        ("bram18_count", "RAMB18", ",.0f"), ("bram18_saved_share", "saved", ".0%"), ("uram_count", "URAM", ",.0f"),
        ("dsp_count", "DSP", ",.0f"), ("dsp_saved_share", "saved", ".0%"), ("queries_per_second", "queries/s", ",.0f")),
        rows, ["the paper (second hand): 40 % LUT, 40 % FF, 10 % BRAM, 40 % DSP; goal here: 60, 60, 30, 75 %"])
    finish(args.json, {"paper_resources": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
