"""What placement could give at most: orders learnt from MovieTweetings' first half, and from what nobody knows beforehand.

The device of ``nearflash place --dataset`` (preset ``paper``, four dies a channel, a page window of 64 reads), measured on
the second half, with 1 MiB of its DRAM as a cache of pages (modelled, not in RTL) and as a row cache. Learnt from: the first
half, as :mod:`nearflash.placement` does; the second half, but only its lookups of rows that the first half had (what a
perfect forecast from the first half would know); the whole second half.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig
from nearflash.contract.modelled import Modelled
from nearflash.contract.row_cache import with_row_cache
from nearflash.data import QueryBatch
from nearflash.evaluate.device import widest_row
from nearflash.evaluate.placement import compare_orders, halves
from nearflash.evaluate.workload import stored
from nearflash.training import SHIPPED, Recipe, every_query, load_checkpoint

from .locality import DATASET
from .report import Rows, console, progress, show_rows

__all__ = ["measure"]

DIES, WINDOW, CACHE_MIB, BATCH = 4, 64, 1.0, 8
ORDERS = ("frequency", "co-access")


def seen_before(q: QueryBatch, first: QueryBatch) -> QueryBatch:
    """``q`` without the lookups of rows that ``first`` never asks for."""
    bags = []
    for (rows, offsets), (before, _) in zip(q.bags, first.bags, strict=True):
        kept = np.isin(rows, before)
        ends = np.append(0, np.cumsum(kept))
        bags.append((rows[kept], ends[offsets]))
    return QueryBatch(q.dense, tuple(bags))


def measure(quick: bool = False) -> Rows:
    if not DATASET.is_dir():
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
        return []
    model, about = load_checkpoint(SHIPPED)
    first, second = halves(every_query(DATASET, model.spec, Recipe.from_dict(about["recipe"])), 0.5)
    if quick:
        second = second[:5000]
    teachers = {"the first half": first, "the second, rows of the first alone": seen_before(second, first),
                "the second": second}
    config = compile_device(model.spec, DeviceConfig.preset("paper", dies=DIES), PlanOptions(onchip_bytes=1 << 40))
    config = replace(config, mlp=replace(config.mlp, graph=()))  # the embedding stage alone
    window = config.with_page_window(WINDOW)
    rows = with_row_cache(window, CACHE_MIB, widest_row(config, model.spec))
    memories = {"pages (modelled)": (window, Modelled(CACHE_MIB)), "rows": (rows, Modelled())}
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("placement", total=len(memories) * len(teachers), note="")
        for unit, (device, modelled) in memories.items():
            for name, learnt in teachers.items():
                bar.update(task, note=f"{unit}, learnt from {name}")
                found, _ = compare_orders(config, model.spec, learnt, stored("", second), BATCH, config.host.infer_depth,
                                          modelled, methods=ORDERS, more=device)
                for row in found["orders"]:
                    teacher = name if row["order"] in ORDERS else "-"
                    if teacher == "-" and learnt is not first:
                        continue
                    out.append({"cached": unit, "order": row["order"], "learnt_from": teacher}
                               | row["modelled_not_in_rtl" if modelled.any else "with_additions"])
                bar.advance(task)
    lookups = sum(len(i) for i, _ in second.bags)
    distinct = sum(len(np.unique(i)) for i, _ in second.bags)
    show_rows(f"cell reads per lookup, {CACHE_MIB:g} MiB of cache, page window of {WINDOW} reads; second half", (
        ("cached", "cache of", ""), ("order", "order", ""), ("learnt_from", "learnt from", ""),
        ("cell_reads_per_lookup", "cell reads per lookup", ".3f"), ("cell_reads_ratio", "fewer than striped", ".2f"),
        ("queries_per_second", "queries/s", ",.0f")), out,
        (f"{distinct / lookups:.3f} distinct rows per lookup",))
    return out
