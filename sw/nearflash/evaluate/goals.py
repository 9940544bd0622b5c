"""What nearflash with everything on is to reach beyond the paper, and what it does: against the paper's RM-SSD on the same
flash, against SSD-S on more of it, and against a device that reads each distinct row once.

All of RMC1. The device is simulated, with a page window, a row cache, and kernels that keep up with what those leave of the
lookups' time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..compiler import PlanOptions, compile_device
from ..contract import DeviceConfig
from ..contract.config import LARGEST_WINDOW
from ..contract.row_cache import with_row_cache
from ..models import ModelSpec, model_spec
from ..tools import load_tool
from .bound import EachRowOnce
from .costs import Costs
from .device import tables_of, widest_row
from .host import HostTimes
from .paper import CALIBRATION_MODEL, Rows, Setting, device_for, draw
from .systems import SYSTEMS, Answer, Load, nearflash
from .traffic import Traffic, first_touches
from .workload import Workload, scaled

__all__ = ["CACHE_MIB", "LARGE", "WINDOW", "everything_on", "goal_steps", "goals", "lookups_alone"]

CACHE_MIB, WINDOW = 16.0, 256
MLP_SHARE = 0.2  # of the time of lookups that are each read by themselves, of which a page read once leaves some 0.3
READS_PER_PLANE = 64  # in flight, so that none runs dry while others have queues
PLANES_PER_MAP_MISS = 16  # for each line of the map on its way: one takes some 42 cycles, in which 64 planes take three rows
ONCE_OVER_SSD_S = {2: 14.0, 4: 28.0, 8: 57.0}  # by dies a channel; K = BOUND_K
TOLERANCE = 0.03  # of those, which are whole numbers
OVER_RM_SSD = {0.3: 2.8, 2.0: 1.35}  # by K
BOUND_K, BOUND_SHARE = 0.3, 0.95
OVER_SSD_S, LATENCY_SAVED = 100.0, 0.99
LARGE = {"channels": 8, "dies": 8}
LARGE_PLANES = (1, 2)  # of each of its dies, that read on their own


def everything_on(spec: ModelSpec, **flash: int) -> DeviceConfig:
    """Preset ``paper`` with fields of its flash replaced, and all that makes its lookups faster."""
    base = DeviceConfig.preset("paper", **flash).with_page_window(WINDOW)
    planes, lk = base.flash.channels * base.flash.channel_planes, base.lookup
    base = replace(base, lookup=replace(lk, tags=max(lk.tags, min(READS_PER_PLANE * planes, LARGEST_WINDOW)),
                                        map_misses=max(1, planes // PLANES_PER_MAP_MISS)))
    config = compile_device(spec, base, PlanOptions(share=MLP_SHARE, onchip_bytes=1 << 40))
    return with_row_cache(config, CACHE_MIB, widest_row(config, spec))


def lookups_alone(t: Traffic, work: Workload, batch: int) -> dict[str, float]:
    """The embedding stage of ``t.config`` alone, with all commands in flight that it takes: ``us`` of a lookup, and the
    factors that lead there from :attr:`~.bound.EachRowOnce.once_us`, where dies and not buses are its bound: cell reads per
    distinct row (``reads``), a die's time for a cell read and all that it answers over tR and one transfer (``die``), and
    the run's time over that in which a die is busy, mean over dies (``idle``). A plane that reads on its own is a die."""
    config, lookups = replace(t.config, mlp=replace(t.config.mlp, graph=())), len(t.row)
    run = load_tool("simulator")(config, tables_of(t.spec), work.commands(batch), None, config.host.infer_depth)
    cycles = int(run.completed.max() - run.submitted.min())
    reads = sum(v for k, v in run.counters.items() if k.endswith("reads_count"))
    busy = sum(v for k, v in run.counters.items() if k.endswith("_busy") and "die" in k)
    dies = config.flash.channels * config.flash.channel_planes
    rows = np.bincount(t.page[first_touches(t.row)] % dies, minlength=dies)
    return {"us": cycles / config.clock_mhz / lookups, "reads": reads / len(np.unique(t.row)),
            "die": busy / (reads * config.read_cycles_per_vector(int(t.nbytes[0]))),
            "idle": cycles * dies / busy, "uneven": float(rows.max() / rows.mean())}


def goals(setting: Setting, costs: Costs, host: HostTimes, progress: Callable[[str], None] = lambda text: None) -> Rows:
    """A row per goal: ``what``, ``asked``, ``here``, ``verdict`` (met, missed, or "-" where nothing is asked) and ``why``,
    which says what limits it, in figures; ``asked_value``, ``here_value``. ``progress(text)`` after each of
    :func:`goal_steps`. Raises what the simulator raises."""
    spec = scaled(model_spec(CALIBRATION_MODEL), setting.table_gb * 1e9)
    out: Rows = []

    def loaded(work: Workload, **flash: int) -> Load:
        return Load(Traffic.of(spec, everything_on(spec, **flash), work), setting.reference_batch, costs, host)

    for k in setting.goal_localities:
        work = draw(spec, setting.goal_queries, k, setting.seed)
        for dies in setting.goal_dies:
            out += _same_flash(loaded(work, dies=dies), work, k)
        if k == BOUND_K:
            for planes in LARGE_PLANES:
                out += _large(loaded(work, **LARGE, planes=planes), work, (max(setting.batches), setting.goal_batch))
        progress(f"goals, K = {k:g}")
    return out


def goal_steps(setting: Setting) -> int:
    """How often :func:`goals` reports progress."""
    return len(setting.goal_localities)


def _same_flash(load: Load, work: Workload, k: float) -> Rows:
    """Against the paper's RM-SSD; and, at the bound's locality, how near it is."""
    t, dies = load.traffic, load.traffic.config.flash.dies
    where = f"K = {k:g}, 4 channels of {dies} dies"
    once = EachRowOnce.of(t, load.costs)
    theirs = SYSTEMS["RM-SSD (paper)"](replace(load, traffic=replace(t, config=device_for(t.spec, dies))))
    alone = lookups_alone(t, work, load.batch)
    rows = [_row(f"Inferences over RM-SSD (paper), {where}", OVER_RM_SSD.get(k),
                 nearflash(load, work).queries_per_second / theirs.queries_per_second, "{:.2f}",
                 f"{once.distinct_share:.1%} of the lookups ask for a row that is new. Reading each once on evenly loaded "
                 f"dies would be {_lookup_us(theirs, t) / once.once_us:.2f} times. {_factors(alone)}")]
    if k == BOUND_K and dies in ONCE_OVER_SSD_S:
        asked = ONCE_OVER_SSD_S[dies]
        rows.append(_row(f"Each row once over SSD-S, lookups, {where}", asked, once.ratio, "{:.1f}",
                         f"A bound by arithmetic: {once.ssd_s_us:.2f} us over {once.once_us:.3f} us a lookup.",
                         abs(once.ratio / asked - 1) <= TOLERANCE))
        rows.append(_row(f"Lookups, share of that bound, {where}", BOUND_SHARE, once.once_us / alone["us"], "{:.1%}",
                         _factors(alone)))
    return rows


def _large(load: Load, work: Workload, larger: tuple[int, ...]) -> Rows:
    """Against an SSD-S whose page cache holds the repeats, on more flash; the latency also of ``larger`` batches."""
    t, f = load.traffic, load.traffic.config.flash
    where = f"K = {BOUND_K:g}, {f.channels} channels of {f.dies} dies" + (f" of {f.planes} planes" if f.planes > 1 else "")
    once, out = EachRowOnce.of(t, load.costs), []
    for batch in dict.fromkeys((load.batch, *larger)):
        now = replace(load, batch=batch)
        ours, alone = nearflash(now, work), lookups_alone(t, work, batch)
        slow, warm = (SYSTEMS["SSD-S"](replace(now, costs=replace(load.costs, page_cache_warm=w))) for w in (False, True))
        rate, rate_warm = (ours.queries_per_second / other.queries_per_second for other in (slow, warm))
        saved, saved_warm = (1 - float(ours.latency_us.mean() / other.latency_us.mean()) for other in (slow, warm))
        if batch == load.batch:
            out.append(_row(f"Inferences over SSD-S, {where}", OVER_SSD_S, rate, "{:.1f}",
                            f"Reading each row once on evenly loaded dies would be {once.ratio:.1f} times. "
                            f"{_factors(alone)} Over an SSD-S whose cache is warm besides: {rate_warm:.1f}."))
        out.append(_row(f"Mean latency below SSD-S's, {where}, batches of {batch}", LATENCY_SAVED, saved, "{:.2%}",
                        f"Reading each row once on evenly loaded dies would be {1 - 1 / once.ratio:.2%}; a batch alone "
                        "waits for the die that has the most of it, and reads its queries first. Below an SSD-S whose cache "
                        f"is warm: {saved_warm:.2%}."))
    return out


def _lookup_us(answer: Answer, t: Traffic) -> float:
    """A lookup's share of the time that an inference takes."""
    return 1e6 / answer.queries_per_second * t.queries / len(t.row)


def _factors(alone: dict[str, float]) -> str:
    return (f"The device's lookups take {alone['reads'] * alone['die'] * alone['idle']:.3f} times as long: "
            f"{alone['reads']:.3f} (cell reads per distinct row) x {alone['die']:.3f} (a die's time for one, with the "
            f"repeats that it answers) x {alone['idle']:.3f} (dies that have nothing to do: the fullest has "
            f"{alone['uneven']:.3f} times the mean's rows).")


def _row(what: str, asked: float | None, here: float, form: str, why: str, met: bool | None = None) -> dict[str, Any]:
    row = {"what": what, "asked": "-", "here": form.format(here), "asked_value": asked, "here_value": here, "verdict": "-",
           "why": why}
    if asked is None:
        return row
    return row | {"asked": form.format(asked), "verdict": "met" if (here >= asked if met is None else met) else "missed"}
