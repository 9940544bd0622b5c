"""Every board and every model: the plan, what it uses, and whether its device does what the plan says.

``python -m bench.utilisation --plans plans``: `nearflash fit` for each pair, kept in a folder and read from there the next
time. ``--synthesise``: each device through Yosys, beside its estimate. ``--simulate``: each device's RTL answers queries,
every answer compared with the integer reference and the cycles with the plan's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nearflash.cli.fit import fit_board, load_plan, load_spec
from nearflash.cli.output import write_json
from nearflash.cli.run import RunOptions, run_queries
from nearflash.compiler.fit import FitOptions, NothingFits, to_records
from nearflash.contract import BOARDS, cores
from nearflash.contract.boards import Board
from nearflash.contract.resources import Resources
from nearflash.whole import whole_file
from nearflash_hw.synthesis.report import measure

from .report import Rows, console, finish, show_rows, streamed_layers

__all__ = ["main"]

MODELS = ("rmc1", "rmc2", "rmc3", "ncf", "wnd")
FRESH = 1e5  # locality: practically every lookup is of a new row, which is what a plan's speed is predicted for
LEAST_CYCLES, LEAST_QUERIES, MOST_BATCH = 3e6, 24, 16  # of a simulation
OPTIONAL = dict.fromkeys(("streamed_layers", "n_batch", "multipliers_count", "lut_products_count", "cycles_per_query",
                          "queries_per_second", "simulated_queries_per_second", "mismatches"))
KINDS = ("lut", "ff", "bram18", "uram", "dsp")


def planned(folder: Path, model: str, board: Board, onchip: bool) -> dict[str, Any]:
    """The plan's figures; its file lies beside them, or ``refused`` says why there is none."""
    records, file = folder / f"{model}-{board.name}.json", folder / f"{model}-{board.name}.toml"
    if not records.is_file():
        result: dict[str, Any]
        try:
            found = fit_board(load_spec(model), board, FitOptions(onchip=onchip))
        except NothingFits as e:
            result = {"refused": str(e)}
        else:
            with whole_file(file) as part:
                part.write_text(found.config.to_toml())
            result = to_records(found)
        write_json(records, result)
    return json.loads(records.read_text())


def row(folder: Path, model: str, board: Board, onchip: bool, synthesise: bool, simulate: bool) -> dict[str, Any]:
    plan = planned(folder, model, board, onchip)
    out: dict[str, Any] = {"model": model, "board": board.name, "part": board.part.name}
    if "refused" in plan:
        return {**out, "refused": plan["refused"]}
    file = folder / f"{model}-{board.name}.toml"
    config = load_plan(file)
    out |= {"streamed_layers": " ".join(streamed_layers(config)), "n_batch": config.mlp.n_batch,
            "multipliers_count": sum(c.kr * c.kc for c in cores(config.mlp.graph)), "clock_mhz": config.clock_mhz,
            "lut_products_count": sum(c.lut_rows * c.kc for c in cores(config.mlp.graph)),
            "queries_per_second": plan["queries_per_second"],
            "cycles_per_query": config.clock_mhz * 1e6 / plan["queries_per_second"],
            **{f"estimated_{k}_count": plan[f"total_{k}_count"] for k in KINDS},
            **{k: v for k, v in plan.items() if k.startswith("total_") and k.endswith("_share")}}
    if synthesise:
        total = sum(measure(config, board.part.family).units.values(), Resources())
        out |= {f"synthesised_{k}_count": getattr(total, k) for k in KINDS}
        out |= {f"synthesised_{k}_share": v for k, v in total.shares(board.part).items()}
    if simulate:
        spec = load_spec(model)
        cycles = config.clock_mhz * 1e6 / plan["queries_per_second"]
        queries = config.mlp.n_batch * max(LEAST_QUERIES, math.ceil(LEAST_CYCLES / cycles / config.mlp.n_batch))
        batch = max(1, min(MOST_BATCH, config.host.max_batch, 4096 // max(1, spec.lookups)))
        ran = run_queries(RunOptions(model=model, plan=file, queries=queries, batch=batch, locality=FRESH, block_io=0))
        out |= {"simulated_queries_count": queries, "mismatches": ran["mismatches"] + ran["block_mismatches"],
                "simulated_queries_per_second": ran["queries_per_second"],
                "simulated_share": ran["queries_per_second"] / plan["queries_per_second"]}
    return out


def show(rows: Rows, what: str) -> None:
    def text(r: dict[str, Any], k: str) -> str | None:
        count, share = r.get(f"{what}_{k}_count"), r.get(f"{'total' if what == 'estimated' else what}_{k}_share")
        if count is None:
            return None
        used = f"{count / 2:g}" if k == "bram18" else f"{count:,.0f}"
        return used if share is None else f"{used} ({share:.0%})"

    show_rows(f"devices of 4 channels x 1 die, {what}", (
        ("board", "board", ""), ("model", "model", ""), ("streamed_layers", "streamed", ""), ("n_batch", "N_batch", "d"),
        ("multipliers_count", "multipliers", ",d"), ("lut_products_count", "of LUTs", ",d"), ("lut", "LUT", ""),
        ("ff", "FF", ""), ("bram18", "BRAM36", ""), ("uram", "URAM", ""), ("dsp", "DSP", ""),
        ("cycles_per_query", "cycles/query", ",.0f"), ("queries_per_second", "queries/s", ",.0f"),
        ("simulated_queries_per_second", "simulated", ",.0f"), ("mismatches", "mismatches", "d")),
        [{**OPTIONAL, **r, **{k: text(r, k) for k in KINDS}} for r in rows],
        [f"{r['model']} on {r['board']}: {r['refused']}" for r in rows if "refused" in r])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.utilisation", description=str(__doc__).splitlines()[0])
    parser.add_argument("--boards", nargs="*", choices=list(BOARDS), default=list(BOARDS))
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--plans", type=Path, default=Path("build/plans"), help="folder of the plans")
    parser.add_argument("--onchip", action="store_true", help="plans that stream no weights (in a folder of their own)")
    parser.add_argument("--synthesise", action="store_true", help="measure with Yosys, beside the estimate")
    parser.add_argument("--simulate", action="store_true", help="run each plan's device on random queries")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    rows: Rows = []
    for board in (BOARDS[b] for b in args.boards):
        for model in args.models:
            console.print(f"[dim]{model} on {board.name}[/dim]")
            rows.append(row(args.plans, model, board, args.onchip, args.synthesise, args.simulate))
    for what in ("estimated", *(("synthesised",) if args.synthesise else ())):
        show(rows, what)
    finish(args.json, {"utilisation": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
