"""RM-SSD's evaluation again: every system, model, locality and batch size, and how each published number comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..compiler import PlanOptions, compile_device, embedding_cycles
from ..compiler.plan import composed, plain
from ..compiler.timing import inference_cycles
from ..contract import ConfigError, DeviceConfig, cores
from ..data import QueryBatch
from ..models import ZOO, ModelSpec, model_spec
from .bound import EachRowOnce
from .costs import Costs
from .host import HostTimes
from .systems import SYSTEMS, Load, nearflash
from .traffic import Traffic
from .workload import Workload, scaled, stored, synthetic

__all__ = ["Evaluation", "Rows", "Setting", "device_for", "draw", "evaluate_paper", "steps"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """What is run. ``dies``: per channel; two are the fewest that sustain the sequential rate which the paper reports.
    ``fewest_lookups``: of each table in a run, which must be many beside those that the locality generator takes until it
    repeats rows as often as it will.
    ``reference_k``, ``reference_batch``: where the published ratios are compared. ``goal_*``: of nearflash's own goals,
    which take enough queries that dies are as even as random rows make them in the long run.
    Raises :class:`~nearflash.contract.ConfigError`."""

    models: tuple[str, ...] = tuple(ZOO)
    localities: tuple[float, ...] = (0.0, 0.3, 1.0, 2.0)
    batches: tuple[int, ...] = (1, 4, 16, 64)
    dies: int = 2
    table_gb: float = 30.0
    seed: int = 0
    fewest_batches: int = 2
    fewest_queries: int = 32
    fewest_lookups: int = 512
    sensitivity_dies: tuple[int, ...] = (1, 2, 4, 8)
    sensitivity_miss_us: tuple[float, ...] = (10.0, 22.2, 50.0, 100.0, 200.0)
    reference_k: float = 0.3
    reference_batch: int = 16
    goal_localities: tuple[float, ...] = (0.3, 1.0, 2.0)
    goal_dies: tuple[int, ...] = (2, 4, 8)
    goal_queries: int = 1024
    goal_batch: int = 256

    def __post_init__(self) -> None:
        for name, some in (("models", self.models), ("localities", self.localities), ("batches", self.batches)):
            if not some:
                raise ConfigError(name, some, "must hold at least one")
        if self.reference_k not in self.localities or self.reference_batch not in self.batches:
            raise ConfigError("reference", (self.reference_k, self.reference_batch), "must be among localities and batches")
        if self.goal_queries < max(self.host_batches):
            raise ConfigError("goal_queries", self.goal_queries,
                              f"must be at least {max(self.host_batches)}, the largest batch")

    @property
    def host_batches(self) -> tuple[int, ...]:
        """Those of which the host's time is needed."""
        return tuple(sorted({*self.batches, self.goal_batch}))

    def queries(self, spec: ModelSpec, batch: int) -> int:
        """Of a cell of the grid: whole batches."""
        fewest = max(self.fewest_queries, -(-self.fewest_lookups // min(t.lookups for t in spec.tables)))
        return batch * max(self.fewest_batches, -(-fewest // batch))

    @classmethod
    def quick(cls, **changes: Any) -> Setting:
        """The reference locality and two batch sizes alone."""
        return cls(localities=(0.3,), batches=(1, 16), goal_localities=(0.3,), goal_queries=256, goal_batch=64, **changes)


@dataclass(frozen=True)
class Evaluation:
    """Plain data: ``grid`` of all systems; ``sensitivity`` of the ratios over SSD-S; ``bounds`` of a device that reads each
    row once; ``composition`` of the MLPs; ``calibrated_miss_us``: SSD-S's cost of a miss for which EMB-VectorSum's lookups
    are as much faster as published; ``lookup_ratio``: how much faster they are with the stated costs."""

    setting: Setting
    costs: Costs
    host: HostTimes
    grid: Rows
    sensitivity: Rows
    bounds: Rows
    composition: Rows
    calibrated_miss_us: float
    lookup_ratio: float

    def to_dict(self) -> dict[str, Any]:
        return {"setting": asdict(self.setting), "costs": self.costs.to_dict(), "host": self.host.to_dict(),
                "grid": self.grid, "sensitivity": self.sensitivity, "bounds": self.bounds, "composition": self.composition,
                "calibrated_miss_us": self.calibrated_miss_us, "lookup_ratio": self.lookup_ratio}

    def cell(self, model: str, k: float, batch: int) -> dict[str, dict[str, Any]]:
        """By system."""
        return {r["system"]: r for r in self.grid if (r["model"], r["locality_k"], r["batch"]) == (model, k, batch)}


PAPER_LOOKUP_RATIO = 16.0  # EMB-VectorSum over SSD-S, lookups alone
CALIBRATION_MODEL = "rmc1"  # the embedding-dominated one
BUDGETS = (1, 4, 16, 64)  # parts of the lookups' time that an inference with balanced kernels may take


def device_for(spec: ModelSpec, dies: int) -> DeviceConfig:
    """Preset ``paper``; the least kernels that hide both MLPs behind the lookups; all weights on chip."""
    return compile_device(spec, DeviceConfig.preset("paper", dies=dies), PlanOptions(share=1.0, onchip_bytes=1 << 40))


def evaluate_paper(setting: Setting, costs: Costs, host: HostTimes,
                   progress: Callable[[str], None] = lambda text: None) -> Evaluation:
    """Run ``setting``; ``progress(text)`` after each of :func:`steps`. Raises what the simulator and the models raise."""
    if CALIBRATION_MODEL not in setting.models:
        raise ConfigError("models", setting.models, f"must have {CALIBRATION_MODEL}, on which the ratios are calibrated")
    specs = {m: scaled(model_spec(m), setting.table_gb * 1e9) for m in setting.models}
    grid: Rows = []
    for name, spec in specs.items():
        config = device_for(spec, setting.dies)
        for k in setting.localities:
            held = draw(spec, max(setting.queries(spec, b) for b in setting.batches), k, setting.seed)
            for batch in setting.batches:
                grid += _cell(spec, config, _first(held, setting.queries(spec, batch)), batch, k, costs, host)
            progress(f"{name}, K = {k:g}")
    spec = specs[CALIBRATION_MODEL]
    reference = draw(spec, setting.queries(spec, setting.reference_batch), setting.reference_k, setting.seed)
    load = Load(Traffic.of(spec, device_for(spec, setting.dies), reference), setting.reference_batch, costs, host)
    miss = _calibrated(load)
    rows = _sensitivity(spec, reference, setting, costs, host, miss)
    progress("sensitivity")
    composition = [row for s in specs.values() for row in _composition(s, setting.dies)]
    progress("composition")
    return Evaluation(setting, costs, host, grid, rows, _bounds(spec, reference, costs), composition, miss,
                      _lookups_us(load, "SSD-S") / _lookups_us(load, "EMB-VectorSum"))


def steps(setting: Setting) -> int:
    """How often :func:`evaluate_paper` reports progress."""
    return len(setting.models) * len(setting.localities) + 2


def draw(spec: ModelSpec, queries: int, k: float, seed: int) -> Workload:
    """Queries drawn once, for all systems."""
    drawn = synthetic(spec, queries, k, seed)
    return stored(drawn.source, QueryBatch(np.zeros((queries, 0), np.float32), drawn.first(queries)))


def _first(held: Workload, queries: int) -> Workload:
    """The first ``queries`` of these."""
    return stored(held.source, QueryBatch(np.zeros((queries, 0), np.float32), held.first(queries)))


def _cell(spec: ModelSpec, config: DeviceConfig, work: Workload, batch: int, k: float, costs: Costs, host: HostTimes
          ) -> Rows:
    load = Load(Traffic.of(spec, config, work), batch, costs, host)
    answers = [*(system(load) for system in SYSTEMS.values()), nearflash(load, work)]
    return [{"model": spec.name, "locality_k": k, **a.to_dict()} for a in answers]


def _lookups_us(load: Load, system: str) -> float:
    """Of a batch, without the MLP."""
    return sum(v for name, v in SYSTEMS[system](load).stages.items() if "MLP" not in name)


def _calibrated(load: Load) -> float:
    """The cost of SSD-S's miss at which its lookups take :data:`PAPER_LOOKUP_RATIO` times EMB-VectorSum's: SSD-S is linear
    in it."""
    want = PAPER_LOOKUP_RATIO * _lookups_us(load, "EMB-VectorSum")
    here, more = (_lookups_us(replace(load, costs=replace(load.costs, read_miss_us=load.costs.read_miss_us + d)), "SSD-S")
                  for d in (0.0, 1.0))
    return load.costs.read_miss_us + (want - here) / (more - here)


def _sensitivity(spec: ModelSpec, work: Workload, setting: Setting, costs: Costs, host: HostTimes, calibrated: float
                 ) -> Rows:
    """Throughput over SSD-S by its cost of a miss, with a warm and a cold page cache, and by dies per channel."""
    out: Rows = []
    batch = setting.reference_batch
    for dies in setting.sensitivity_dies:
        config = device_for(spec, dies)
        traffic = Traffic.of(spec, config, work)
        load = Load(traffic, batch, costs, host)
        fast = {"RM-SSD (paper)": SYSTEMS["RM-SSD (paper)"](load), "nearflash": nearflash(load, work),
                "EMB-VectorSum": SYSTEMS["EMB-VectorSum"](load)}
        for warm in (True, False):
            for miss in sorted({*setting.sensitivity_miss_us, costs.read_miss_us, round(calibrated, 1)}):
                slow = SYSTEMS["SSD-S"](replace(load, costs=replace(costs, read_miss_us=miss, page_cache_warm=warm)))
                out.append({"model": spec.name, "dies_per_channel": dies, "page_cache": "warm" if warm else "cold",
                            "read_miss_us": miss, "ssd_s_us_per_lookup": slow.stages["reads"] / (batch * spec.lookups),
                            **{f"{name} / SSD-S": a.queries_per_second / slow.queries_per_second
                               for name, a in fast.items()}})
    return out


def _bounds(spec: ModelSpec, work: Workload, costs: Costs) -> Rows:
    """Lookups over SSD-S's with a page cache that holds the repeats alone, if flash read each distinct row once, evenly over
    all dies."""
    out: Rows = []
    for dies in (1, 2, 4, 8):
        once = EachRowOnce.of(Traffic.of(spec, device_for(spec, dies), work), costs)
        out.append({"model": spec.name, "dies_per_channel": dies, "distinct_share": once.distinct_share,
                    "ssd_s_us_per_lookup": once.ssd_s_us, "each_row_once_ratio": once.ratio,
                    "every_lookup_ratio": once.ssd_s_us / once.every_us})
    return out


def _composition(spec: ModelSpec, dies: int) -> Rows:
    """Cycles from the last input of a sample to its logit, with scan orders that alternate and without: of the grid's
    device, whose kernels are the least, and of the balanced kernels that save the most, among a few budgets of steps."""
    dims = [t.dim for t in spec.tables]
    least = device_for(spec, dies)
    budget = embedding_cycles(spec, least)
    balanced = [compile_device(spec, DeviceConfig.preset("paper", dies=dies),
                               PlanOptions(onchip_bytes=1 << 40, inference_steps=max(1, int(budget / part))))
                for part in BUDGETS]

    def row(kernels: str, config: DeviceConfig) -> dict[str, Any]:
        def after(graphs: Iterable[Any]) -> int:
            return min(inference_cycles(replace(config, mlp=replace(config.mlp, graph=g, n_batch=1)), dims).after_input
                       for g in graphs)

        off, on = after([plain(config.mlp.graph)]), after([*composed(config.mlp.graph), config.mlp.graph])
        return {"model": spec.name, "kernels": kernels, "multipliers": sum(c.kr * c.kc for c in cores(config.mlp.graph)),
                "plain_cycles": off, "composed_cycles": on, "saved_share": 1 - on / off}

    return [row("least", least), max((row("balanced", c) for c in balanced), key=lambda r: r["saved_share"])]
