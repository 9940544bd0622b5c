"""One device, or several, under one workload: what the options of ``nearflash evaluate`` ask for, and a sweep's points."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import ConfigError, DataError, DeviceConfig
from ..contract.boards import find_board
from ..contract.modelled import Modelled, cached_pages
from ..contract.row_cache import with_row_cache
from .fit import base_config, device_of, plan_for
from .placement import load_placement

if TYPE_CHECKING:  # takes PyTorch, which --help shouldn't wait for
    from ..evaluate.workload import Workload
    from ..models import ModelSpec

__all__ = ["CONFLICTS", "NEEDS", "Job", "Point", "check_together", "prepare"]

LOOKUP_BUDGET = 200_000  # lookups of a run when the number of queries is not given: a second or so
MOST_QUERIES = 2000  # then

#: Options that can't be combined: each entry's first with any of the others.
CONFLICTS = (
    ("plan", "preset", "config", "channels", "dies", "planes", "clock", "page_window", "board", "mlp_share"),
    ("board", "preset", "config", "channels", "dies", "planes", "clock", "page_window", "mlp_share"),
    ("config", "preset"),
    ("dataset", "locality", "histogram", "trace", "rows", "table_gb"),
    ("trace", "locality", "histogram"),
    ("histogram", "locality"),
    ("table_gb", "rows"),
    ("checkpoint", "model", "rows", "table_gb"),
    ("devices", "plan", "board", "mlp_share", "block_trace"),
    ("block_depth", "block_scale"),
)
#: Options that have no effect without another one.
NEEDS = (("dataset", "checkpoint"), ("cache_mib", "cache_unit"), ("devices", "device_gb", "costs"),
         ("block_trace", "block_depth", "block_scale"))

_RANGES = {"rows": (1, 1 << 31), "table_gb": (1e-6, 4000.0), "channels": (1, 16), "dies": (1, 16), "planes": (1, 4),
           "queries": (1, 1 << 40), "batch": (1, 65535), "depth": (1, 16), "seed": (0, (1 << 64) - 1),
           "device_gb": (1e-6, 4000.0), "block_depth": (1, 65535), "block_scale": (1e-6, 1e6)}


@dataclass(frozen=True)
class Point:
    """Options of ``nearflash evaluate`` by their names, files by theirs. ``devices``: one number or several with commas."""

    model: str | None = None
    checkpoint: str | None = None
    rows: int | None = None
    table_gb: float | None = None
    preset: str = "paper"
    config: str | None = None
    plan: str | None = None
    board: str | None = None
    channels: int | None = None
    dies: int | None = None
    planes: int | None = None
    clock: float | None = None
    lookups_only: bool = False
    mlp_share: float = 0.5
    cache_mib: float = 0.0
    cache_unit: str = "row"
    page_window: int | None = None
    placement: str | None = None
    queries: int | None = None
    batch: int = 1
    depth: int | None = None
    locality: float | None = None
    histogram: str | None = None
    trace: str | None = None
    dataset: str | None = None
    seed: int = 0
    devices: str | None = None
    device_gb: float | None = None
    costs: str | None = None
    block_trace: str | None = None
    block_depth: int | None = None
    block_scale: float = 1.0

    def check_ranges(self) -> None:
        """Raises :class:`~nearflash.contract.ConfigError`; the command line's own parser has said the same before."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(_option(name), value, f"must be from {low} to {high}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_together(point: Point, given: Collection[str]) -> None:
    """Raises :class:`~nearflash.contract.ConfigError` for options of ``given`` that make no sense together."""
    for first, *others in CONFLICTS:
        for name in others:
            if first in given and name in given:
                raise ConfigError(_option(name), getattr(point, name), f"can't be combined with {_option(first)}")
    for first, *others in NEEDS:
        for name in others:
            if name in given and first not in given:
                raise ConfigError(_option(name), getattr(point, name), f"has no effect without {_option(first)}")


Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A point, ready: ``run(advance, slices)`` gives its figures (``advance(n)``: n more queries, or devices, are done;
    ``slices``: a list that gets the timeline). ``steps``: of what ``advance`` counts. ``clock_mhz``: of the device."""

    steps: int
    clock_mhz: float
    run: Callable[[Callable[[int], None], list[Any] | None], dict[str, Any]]


def prepare(o: Point, say: Say) -> Job:
    """Read what ``o`` names and choose the device; ``say`` gets what the user should know. Raises what a wrong option, file
    or geometry raises."""
    o.check_ranges()
    modelled = Modelled(cached_pages(o.cache_mib, o.cache_unit))
    from ..evaluate.block_io import BlockIo
    from ..evaluate.device import evaluate_device, tables_of
    from ..evaluate.workload import placed

    base = base_config(o.preset, _path(o.config), o.channels, o.dies, o.planes, o.clock)
    base = base if o.page_window is None else base.with_page_window(o.page_window)
    if o.dataset is not None:
        spec, workload, digest = _dataset(Path(o.dataset), _path(o.checkpoint), o.model, o.queries)
    else:
        spec, digest = _spec(o.model or "rmc1", o.rows, o.table_gb), None
        if o.rows is None and o.table_gb is None and o.plan is None and o.board is None and o.devices is None:
            spec = _fitting(spec, base, say)
        workload = _workload(spec, o)
    mapping = load_placement(_path(o.placement), digest, [t.rows for t in spec.tables], contents=False)
    if mapping is not None and o.placement is not None:
        workload = placed(workload, mapping, Path(o.placement).name)
    if o.devices is not None:
        return _scaled_out(o, _cached(base, spec, o), spec, workload, modelled)
    device = _cached(_device(spec, o, base), spec, o)
    _check_host(device, o)
    modelled.sets(device)  # a cache of less than a set is refused here
    depth = o.depth or device.host.infer_depth
    block_io = None
    if o.block_trace is not None:
        kept = sum(t.pages(device) for t in tables_of(spec))
        block_io = BlockIo.of_file(Path(o.block_trace), device, kept, o.block_depth, o.block_scale)
    return Job(workload.queries, device.clock_mhz,
               lambda advance, slices: evaluate_device(device, spec, workload, o.batch, depth, not o.lookups_only, advance,
                                                       modelled, slices, block_io))


def _scaled_out(o: Point, base: DeviceConfig, spec: ModelSpec, workload: Workload, modelled: Modelled) -> Job:
    from ..contract.reading import integer
    from ..evaluate.costs import ScaleCosts
    from ..evaluate.scaling import evaluate_scaling
    from ..evaluate.sharding import MOST_DEVICES

    numbers = [integer(n.strip(), "--devices", 1, MOST_DEVICES) for n in (o.devices or "").split(",")]
    if len(set(numbers)) < len(numbers):
        raise DataError("--devices", o.devices, "must not name a number twice")
    if not o.lookups_only:
        raise ConfigError("--devices", o.devices, "needs --lookups-only: a device's MLP takes the pooled vectors of all "
                          "tables, which no device has here")
    _check_host(base, o)
    costs = ScaleCosts() if o.costs is None else ScaleCosts.from_toml(Path(o.costs))
    return Job(len(numbers), base.clock_mhz, lambda advance, slices: evaluate_scaling(
        base, spec, workload, numbers, o.batch, o.depth or base.host.infer_depth, costs, o.device_gb, modelled,
        lambda n: advance(1)))


def _cached(device: DeviceConfig, spec: ModelSpec, o: Point) -> DeviceConfig:
    """``device``, with the row cache that was asked for."""
    from ..evaluate.device import widest_row

    return with_row_cache(device, o.cache_mib, widest_row(device, spec)) if o.cache_mib and o.cache_unit == "row" else device


def _check_host(device: DeviceConfig, o: Point) -> None:
    h = device.host
    for name, value, field, most in (("--batch", o.batch, "max_batch", h.max_batch),
                                     ("--depth", o.depth or 1, "infer_depth", h.infer_depth)):
        if value > most:
            raise DataError(name, value, f"must be at most {most}, host.{field} of device {device.name}")


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _spec(model: str, rows: int | None, table_gb: float | None) -> ModelSpec:
    """The model with its published rows, or as the options say."""
    from ..evaluate.workload import scaled
    from ..models import ModelSpec, model_spec

    spec = ModelSpec.from_toml(Path(model)) if model.endswith(".toml") else model_spec(model)
    if rows is not None:
        spec = replace(spec, tables=tuple(replace(t, rows=min(t.rows, rows)) for t in spec.tables))
    return spec if table_gb is None else scaled(spec, table_gb * 1e9)


def _fitting(spec: ModelSpec, base: DeviceConfig, say: Say) -> ModelSpec:
    """``spec`` with its rows, or with as many as the device can hold, which is said."""
    from ..evaluate.workload import fitting

    fits = fitting(spec, base)
    if fits is not spec:
        most, given = (max(t.rows for t in s.tables) for s in (fits, spec))
        say(f"rows cut to {most:,} per table at most ({spec.name} has {given:,}): the largest flash of device "
            f"{base.name} holds no more; --rows or --table-gb choose others")
    return fits


def _workload(spec: ModelSpec, o: Point) -> Workload:
    from ..evaluate import workload as w

    if o.trace is not None:
        stored = w.dataset_bags if o.trace.endswith((".pt.gz", ".pt")) else w.trace
        return stored(spec, o.queries, Path(o.trace))
    n = o.queries or max(1, min(MOST_QUERIES, LOOKUP_BUDGET // spec.lookups))
    if o.histogram is not None:
        return w.histogram(spec, n, Path(o.histogram), o.seed)
    return w.synthetic(spec, n, 0.3 if o.locality is None else o.locality, o.seed)


def _dataset(dataset: Path, checkpoint: Path | None, model: str | None, queries: int | None
             ) -> tuple[ModelSpec, Workload, str | None]:
    """(model, held-out queries, the mapping that its rows were placed by): a trained checkpoint's, or a --model's tables."""
    from ..evaluate.workload import stored
    from ..training import SHIPPED, Recipe, load_checkpoint, replay

    digest = None
    if model is None:
        trained, about = load_checkpoint(checkpoint or SHIPPED)
        spec, recipe = trained.spec, Recipe.from_dict(about["recipe"])
        digest = about.get("placement")
    else:
        spec, recipe = _spec(model, None, None), None
    _, test = replay(dataset, spec, recipe)
    return spec, stored(f"{len(test)} held-out queries of {dataset.name}", test[: queries or len(test)]), digest


def _device(spec: ModelSpec, o: Point, base: DeviceConfig) -> DeviceConfig:
    """The plan's device, or what the search chooses for the board, or the planner's from ``base`` with all weights on
    chip."""
    from ..compiler import PlanOptions, compile_device, with_room

    if o.plan is not None:
        return plan_for(spec, Path(o.plan))
    if o.board is not None:
        if o.model is None:
            raise ConfigError("--board", o.board, "needs a --model to fit to it, or --plan")
        return with_room(spec, device_of(find_board(o.board), o.model, None))
    device = compile_device(spec, base, PlanOptions(onchip_bytes=1 << 40, share=o.mlp_share))
    return replace(device, mlp=replace(device.mlp, graph=())) if o.lookups_only else device


