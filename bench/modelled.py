"""What a row cache and a page window are worth, by the timing simulator.

RMC1's lookups alone on tables of 30 GB (preset ``paper``, 4 channels; ``TAGS`` lookups in flight for each die, or the
preset's if that is more), without either, with each and with both. SSD-S has a page cache that holds the repeats alone: a
row's first lookup costs ``read_miss_us``, every other
``read_hit_us``. The bound reads each distinct row once, all dies and buses evenly loaded, without a command's beginning and
end.
"""

from __future__ import annotations

from dataclasses import replace

from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig
from nearflash.contract.row_cache import with_row_cache
from nearflash.evaluate.bound import EachRowOnce
from nearflash.evaluate.costs import Costs
from nearflash.evaluate.device import tables_of, widest_row
from nearflash.evaluate.goals import CACHE_MIB, WINDOW
from nearflash.evaluate.traffic import Traffic
from nearflash.evaluate.workload import scaled, synthetic
from nearflash.models import ModelSpec, model_spec
from nearflash_sim.timing.tool import simulate

from .report import Rows, progress, show_rows

__all__ = ["BATCH", "QUERIES", "lookups_device", "measure"]

QUERIES, BATCH = 240, 8
TAGS = 64
CASES = {"neither": (0, 0.0), "page window": (WINDOW, 0.0), "row cache": (0, CACHE_MIB), "both": (WINDOW, CACHE_MIB)}


def lookups_device(spec: ModelSpec, dies: int) -> DeviceConfig:
    """Preset ``paper`` for the lookups of ``spec`` alone."""
    config = compile_device(spec, DeviceConfig.preset("paper", dies=dies), PlanOptions(onchip_bytes=1 << 40))
    tags = max(config.lookup.tags, TAGS * config.flash.channels * dies)
    return replace(config, mlp=replace(config.mlp, graph=()), lookup=replace(config.lookup, tags=tags))


def measure(quick: bool = False) -> Rows:
    spec, out = scaled(model_spec("rmc1"), 30e9), []
    with progress() as bar:
        task = bar.add_task("modelled", total=(1 if quick else 3) * 3 * len(CASES), note="")
        for k in (0.3,) if quick else (0.3, 1.0, 2.0):
            work = synthetic(spec, QUERIES, k)
            commands = list(work.commands(BATCH))
            for dies in (2, 4, 8):
                config = lookups_device(spec, dies)
                once, lookups = EachRowOnce.of(Traffic.of(spec, config, work), Costs()), QUERIES * spec.lookups
                for name, (window, cache) in CASES.items():
                    bar.update(task, advance=1, note=f"K = {k:g}, {dies} dies, {name}")
                    device = with_row_cache(config.with_page_window(window), cache, widest_row(config, spec))
                    run = simulate(device, tables_of(spec), commands, None, config.host.infer_depth)
                    us = int(run.completed.max()) / config.clock_mhz / lookups
                    reads = sum(v for c, v in run.counters.items() if c.endswith("reads_count"))
                    out.append({"locality_k": k, "dies_per_channel": dies, "case": name,
                                "queries_per_second": 1e6 / us / spec.lookups, "cell_reads_per_lookup": reads / lookups,
                                "distinct_share": once.distinct_share, "cache_hit_share": run.counters.get(
                                    "cache_hits_count", 0) / lookups, "ssd_s_ratio": once.ssd_s_us / us,
                                "bound_ratio": once.ratio, "bound_share": once.once_us / us})
    show_rows(f"cache of {CACHE_MIB:g} MiB, window of {WINDOW} reads; RMC1's lookups, 30 GB", (
        ("locality_k", "K", "g"), ("dies_per_channel", "dies", ""), ("case", "device", ""),
        ("queries_per_second", "queries/s", ",.0f"), ("cell_reads_per_lookup", "cell reads per lookup", ".3f"),
        ("distinct_share", "distinct rows per lookup", ".3f"), ("cache_hit_share", "cache hits", ".1%"),
        ("ssd_s_ratio", "over SSD-S", ".1f"), ("bound_ratio", "bound", ".1f"), ("bound_share", "of bound", ".1%")), out)
    return out
