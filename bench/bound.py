"""How near the RTL with everything on comes to a device that reads each distinct row once, dies evenly loaded.

RMC1's lookups alone at K = 0.3, tables of ``ROWS`` rows, so that rows seldom share a page; preset ``paper`` with a page
window, a row cache and ``TAGS`` lookups in flight for each die, as in :mod:`.modelled`, which has tables of 30 GB and the
simulator alone; and the largest device of :mod:`nearflash.evaluate.goals`, with several lines of the map on their way. The
answers of some commands are compared with the reference. Most of the CPU time is the compilation of the devices and the
making of the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import nearflash.runtime as runtime
from nearflash.contract import DeviceConfig
from nearflash.contract.row_cache import with_row_cache
from nearflash.evaluate.bound import EachRowOnce
from nearflash.evaluate.costs import Costs
from nearflash.evaluate.device import widest_row
from nearflash.evaluate.goals import CACHE_MIB, LARGE, WINDOW, everything_on
from nearflash.evaluate.traffic import Traffic
from nearflash.evaluate.workload import synthetic
from nearflash.models import ModelSpec, model_spec

from .locality import answered
from .modelled import BATCH, lookups_device
from .report import Rows, progress, show_rows

__all__ = ["measure"]

ROWS, K, DIES, QUERIES = 1_000_000, 0.3, (2, 4, 8), 480


def _devices(spec: ModelSpec, dies: tuple[int, ...]) -> Iterator[DeviceConfig]:
    """Of four channels, and the largest."""
    for d in dies:
        plain = lookups_device(spec, d)
        yield with_row_cache(plain.with_page_window(WINDOW), CACHE_MIB, widest_row(plain, spec))
    large = everything_on(spec, **LARGE)
    yield replace(large, mlp=replace(large.mlp, graph=()))


def measure(quick: bool = False) -> Rows:
    spec, out = model_spec("rmc1", ROWS // (10 if quick else 1)), []
    work = synthetic(spec, QUERIES // (6 if quick else 1), K)
    commands = list(work.commands(BATCH))
    devices = list(_devices(spec, DIES))[: 1 if quick else None]
    with progress() as bar:
        task = bar.add_task("bound", total=len(devices), note="")
        for config in devices:
            channels, d = config.flash.channels, config.flash.dies
            bar.update(task, note=f"{channels} x {d} dies: building the device")
            once = EachRowOnce.of(Traffic.of(spec, config, work), Costs())
            with runtime.open("sim", config=replace(config, name=f"bound-{channels}-{d}")) as device:
                bar.update(task, note=f"{channels} x {d} dies: tables and lookups")
                row = answered(device, [(t.rows, t.dim) for t in spec.tables], commands)
            lookups = work.queries * spec.lookups
            bound = once.once_us * config.clock_mhz * lookups
            out.append({"channels": channels, "dies_per_channel": d, "tags": config.lookup.tags, "bound_cycles": bound,
                        "bound_share": bound / row["cycles"], "simulated_bound_share": bound / row["simulated_cycles"],
                        "reads_per_distinct_row": row["cell_reads_per_lookup"] / once.distinct_share} | row)
            bar.advance(task)
    show_rows(f"RMC1's lookups, K = {K:g}: page window of {WINDOW} reads, row cache of {CACHE_MIB:g} MiB, RTL", (
        ("channels", "channels", ""), ("dies_per_channel", "dies", ""), ("tags", "tags", ","), ("queries", "queries", ","),
        ("cycles", "cycles", ","),
        ("bound_cycles", "bound", ",.0f"), ("bound_share", "of bound", ".1%"),
        ("reads_per_distinct_row", "reads per distinct row", ".3f"), ("cache_hits_share", "cache hits", ".1%"),
        ("simulated_cycles", "simulator's cycles", ","), ("simulated_bound_share", "of bound", ".1%"),
        ("wrong_elements", "wrong elements", "")), out)
    return out
