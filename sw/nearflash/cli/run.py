"""``nearflash run``: a model's device, simulated, answering a stream of queries, every answer checked."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from .. import runtime
from ..compiler import PlanOptions, compile_device
from ..contract import DataError, DeviceConfig, cores
from ..contract.boards import Board, find_board
from ..contract.reading import integer
from ..contract.resources import Resources
from ..data import QueryBatch, read_dlrm_trace, read_histograms, synthetic_queries
from ..models import ModelSpec, RecModel, build
from ..quantize import CompiledModel, QuantizeOptions, compile_model
from ..reference.metrics import auc_or_none, why_no_auc
from ..reference.model import IntegerModel
from ..runtime.backend import backend_class
from ..runtime.placement import Placement
from ..timeline import MOST_SLICES, host_slices, write_timeline
from ..tools import load_tool
from ..training import SHIPPED, Recipe, is_trained, load_checkpoint, replay
from ..whole import is_stream, whole_file
from .fit import base_config, plan_for
from .output import console, show, text_column, working, write_json
from .placement import load_placement

__all__ = ["RunOptions", "run_queries"]

LOOKUP_BUDGET = 40_000  # lookups of a run when the number of queries is not given


@dataclass(frozen=True)
class RunOptions:
    """The options of ``nearflash run``, by their names; and ``gated``, which benches compare: whether the simulation passes
    over what rests (the same cycles either way)."""

    model: str | None = None
    checkpoint: Path | None = None
    rows: int = 2000
    lookups: str | None = None
    format: str = "fp32"
    preset: str = "paper"
    config: Path | None = None
    plan: Path | None = None
    board: str | None = None
    channels: int | None = None
    dies: int | None = None
    clock: float | None = None
    queries: int | None = None
    batch: int | None = None
    locality: float | None = None
    histogram: Path | None = None
    trace: Path | None = None
    dataset: Path | None = None
    block_io: int = 16
    act_bits: int = 8
    weight_bits: int = 8
    seed: int = 0
    waves: Path | None = None
    tables: str | None = None
    interaction: str | None = None
    round_to_fp32: bool = False
    placement: Path | None = None
    timeline: Path | None = None
    gated: bool = True


def _load_model(o: RunOptions) -> tuple[RecModel, dict[str, Any]]:
    """The model and, for a trained checkpoint, its recipe and scores."""
    if o.model is not None and o.checkpoint is not None:
        raise DataError("--model", o.model, "give either --model or --checkpoint")
    foreign = o.checkpoint is not None and not is_trained(o.checkpoint) and o.checkpoint.suffix != ".npz"
    for name, v in (("--lookups", o.lookups), ("--tables", o.tables), ("--interaction", o.interaction),
                    ("--round-to-fp32", o.round_to_fp32 or None)):
        if v is not None and not foreign:
            raise DataError(name, v, "is for a dlrm or torchrec --checkpoint")
    if o.model is not None and o.model.endswith(".toml"):
        return RecModel(ModelSpec.from_toml(Path(o.model)), seed=o.seed), {}
    if o.model is not None:
        return build(o.model, rows=o.rows, seed=o.seed, format=o.format), {}
    if foreign and o.checkpoint is not None:
        from ..models import load_checkpoint as load_state_dict

        model = load_state_dict(o.checkpoint, _lookups(o) or 1, tables=o.tables.split(",") if o.tables else None,
                                interaction=o.interaction, round_to_fp32=o.round_to_fp32)
        console.print(f"tables in the order of their features: {', '.join(model.table_names)}", markup=False)
        return model, {}
    return load_checkpoint(o.checkpoint or SHIPPED)


def _lookups(o: RunOptions) -> int | list[int] | None:
    """``--lookups``: of every table, or of each."""
    if o.lookups is None:
        return None
    numbers = [integer(n, "--lookups", 1, 65535) for n in o.lookups.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def _moved(q: QueryBatch, placement: Placement | None) -> QueryBatch:
    """Queries for the placed tables."""
    return q if placement is None else replace(q, bags=tuple((i, o) for i, o in placement.bags(q.bags)))


def _planned(o: RunOptions, spec: ModelSpec) -> DeviceConfig:
    """The device to build: a plan's, or the planner's for the options."""
    if o.plan is None:
        base = base_config(o.preset, o.config, o.channels, o.dies, o.clock)
        return compile_device(spec, base, PlanOptions(weight_bits=o.weight_bits, act_bits=o.act_bits))
    return plan_for(spec, o.plan)


def _queries(o: RunOptions, model: RecModel, about: dict[str, Any]) -> tuple[QueryBatch, QueryBatch, str]:
    """(calibration queries, queries to run, where the latter come from)."""
    spec = model.spec
    shapes = [(t.rows, t.lookups) for t in spec.tables]
    per_query = sum(n for _, n in shapes)
    if o.dataset is not None:
        recipe = about.get("recipe")
        if recipe is None and o.checkpoint is None:
            raise DataError("--dataset", str(o.dataset), "needs a --checkpoint")
        lookups = _lookups(o) if recipe is None else None
        history = None if lookups is None else lookups if isinstance(lookups, int) else lookups[-1]
        train, test = replay(o.dataset, spec, None if recipe is None else Recipe.from_dict(recipe), history)
        train, run = train[-4096:], test[: o.queries or len(test)]
        if recipe is None:
            model.spec = _with_lookups(spec, np.maximum(train.largest_bags, run.largest_bags).tolist(), lookups, o.dataset)
        return train, run, f"{len(test)} held-out queries of {o.dataset.name}"
    n = o.queries or max(2, min(256, LOOKUP_BUDGET // per_query))
    k = 0.3 if o.locality is None else o.locality
    given = [name for name, v in (("--locality", o.locality), ("--histogram", o.histogram), ("--trace", o.trace))
             if v is not None]
    if len(given) > 1:
        raise DataError(given[1], "given", f"can't be combined with {given[0]}")
    calibration = synthetic_queries(shapes, spec.dense, min(256, max(32, 200_000 // per_query)), seed=o.seed + 1)
    if o.trace is not None:
        run = synthetic_queries(shapes, spec.dense, n, trace=read_dlrm_trace(o.trace), seed=o.seed)
        return calibration, run, f"trace {o.trace.name}"
    if o.histogram is not None:
        run = synthetic_queries(shapes, spec.dense, n, histogram=read_histograms(o.histogram)[0], seed=o.seed)
        return calibration, run, f"histogram {o.histogram.name}"
    return calibration, synthetic_queries(shapes, spec.dense, n, k=k, seed=o.seed), f"locality generator, K = {k}"


def _with_lookups(spec: ModelSpec, bags: list[int], given: int | list[int] | None, source: Path) -> ModelSpec:
    """``spec`` with a data set's largest ``bags`` as its lookups, or as it is if lookups were ``given`` and hold them."""
    for t, (table, bag) in enumerate(zip(spec.tables, bags, strict=True)):
        if given is not None and bag > table.lookups:
            raise DataError(f"--lookups of table {t}", table.lookups, f"a query has {bag}", str(source))
    if given is not None:
        return spec
    return replace(spec, tables=tuple(replace(t, lookups=max(1, n)) for t, n in zip(spec.tables, bags, strict=True)))


class _BlockTraffic:
    """Random block writes and reads beside the queries, in blocks no table uses; every read is compared."""

    def __init__(self, device: runtime.Device, seed: int):
        self.device, self.rng = device, np.random.default_rng(seed)
        first = max((e.lba + e.pages for t in device.tables.values() for e in t.extents), default=0)
        self.blocks = range(first, device.config.lbas)
        self.content: dict[int, bytes] = {}
        self.checked = self.mismatches = 0

    def step(self) -> None:
        """One write, and one read of a block written before."""
        if not len(self.blocks):
            return
        lba = int(self.rng.choice(self.blocks[: 64]))
        self.content[lba] = self.rng.bytes(self.device.config.lba_bytes)
        self.device.write(lba, self.content[lba])
        lba = int(self.rng.choice(list(self.content)))
        self.checked += 1
        self.mismatches += self.device.read(lba) != self.content[lba]


def _teacher_labels(logits: np.ndarray, seed: int) -> np.ndarray:
    """Labels drawn from a fixed teacher: sigmoid of twice the standardised fp32 logit."""
    z = (logits - logits.mean()) / (logits.std() or 1)
    return np.random.default_rng(seed + 7).random(len(z)) < 1 / (1 + np.exp(-2 * z))


def _chunks(q: QueryBatch, size: int) -> Iterator[QueryBatch]:
    for i in range(0, len(q), size):
        yield q[i : i + size]


def _torch_logits(model: RecModel, q: QueryBatch) -> np.ndarray:
    model.eval()
    dense = torch.from_numpy(q.dense) if model.spec.dense else None
    with torch.no_grad():
        return model(dense, [(torch.from_numpy(i), torch.from_numpy(np.ascontiguousarray(o))) for i, o in q.bags]).numpy()


def run_queries(o: RunOptions, json_file: Path | None = None) -> dict[str, Any]:
    """Run, write the result to ``json_file`` and print it; returns it."""
    board = None if o.board is None else find_board(o.board)
    if o.waves is not None:
        _check_waves(o.waves)
    model, about = _load_model(o)
    calibration, queries, source = _queries(o, model, about)
    spec = model.spec
    placement = load_placement(o.placement, about.get("placement"), [t.rows for t in spec.tables])
    base = _planned(o, spec)
    if o.batch is not None and o.batch > base.host.max_batch:
        raise DataError("--batch", o.batch, f"must be at most {base.host.max_batch}, host.max_batch of device {base.name}")
    bag = max(*calibration.largest_bags, *queries.largest_bags, *(t.lookups for t in spec.tables))
    if bag > base.lookup.max_bag:
        base = replace(base, lookup=replace(base.lookup, max_bag=bag))
    dense = spec.dense > 0
    seen = [(c.dense if dense else None, c.bags) for c in _chunks(_moved(calibration, placement), 128)]
    compiled = compile_model(model, base, seen, QuantizeOptions(max_bag=bag))
    batch = o.batch or max(1, min(16, base.host.max_batch, len(queries) // 4, 4096 // max(1, spec.lookups)))
    config = compiled.config
    if board is not None:
        board.check_memory(config)
    console.print(Text.assemble(
        (spec.name, "bold"), f": {len(spec.tables)} tables, {spec.macs:,} MACs; device {config.name}: "
        f"{config.flash.channels} channels x {config.flash.dies} dies, {config.clock_mhz:g} MHz; {source}"))
    start = time.monotonic()
    with working("generating the device and compiling its simulation (cached after the first time)"):
        device = runtime.open("sim", config=config, gated=o.gated, **({"trace": True} if o.waves else {}),
                              **({"observed": True} if o.timeline else {}))
    build_seconds = time.monotonic() - start
    with device:
        device.load(compiled, placement=placement)
        with _recording(device, o.waves), _timeline(device, o.timeline) as host:
            measured = _stream(device, compiled, queries, batch, o.block_io, o.seed, placement, host)
    fp32 = np.concatenate([_torch_logits(model, c) for c in _chunks(_moved(queries, placement), 512)])
    result = _result(config, compiled, model, queries, fp32, measured, about, source, batch, build_seconds)
    total = None
    if board is not None:
        with working("estimating resources"):
            total = sum(load_tool("estimator")(board.part.family).device(config).values(), Resources())
        result |= _utilisation(total, board)
    write_json(json_file, result)
    _show(result, queries)
    if board is not None and total is not None:
        _show_utilisation(total, board)
    return result


def _check_waves(path: Path) -> None:
    """Raises :class:`DataError` unless ``path`` is named for the format that is written here."""
    kind = backend_class("sim").wave_format()
    if path.suffix != f".{kind}" and not is_stream(path):
        raise DataError("--waves", str(path), f"must end in .{kind}: what this machine can build a recorder for" + (
            "" if kind == "fst" else " (.fst takes the headers of zlib and lz4: apt install zlib1g-dev liblz4-dev)"))


@contextmanager
def _recording(device: runtime.Device, path: Path | None) -> Iterator[None]:
    """Record waveforms to ``path``, which appears when all is in it."""
    if path is None:
        yield
        return
    made: list[Path] = []
    try:
        with whole_file(path) as part:
            with device.backend.waves(str(part)) as written:
                made.append(written)
                yield
            written.replace(part)
    finally:
        for file in made:  # what an interrupted run recorded
            file.unlink(missing_ok=True)


@contextmanager
def _timeline(device: runtime.Device, path: Path | None) -> Iterator[list[tuple[int, int]]]:
    """Write the timeline of what the device does meanwhile to ``path``. Yields a list for each command's first cycle and the
    cycle after its last, in the order in which they are sent. Raises :class:`DataError` for more slices than browsers
    show."""
    host: list[tuple[int, int]] = []
    if path is None:
        yield host
        return
    start = device.backend.cycles
    with device.backend.timeline() as slices:
        yield host
        found = slices(start)
    submitted, completed = ([times[k] - start for times in host] for k in (0, 1))
    found += host_slices(submitted, completed, device.config.host.infer_depth)
    if len(found) > MOST_SLICES:
        raise DataError("--timeline", len(found), f"slices: must be at most {MOST_SLICES:,}; run fewer queries")
    write_timeline(path, found, device.config.clock_mhz)


def _utilisation(total: Resources, board: Board) -> dict[str, Any]:
    shares = total.shares(board.part)
    return {"part": board.part.name, **{f"estimated_{k}_count": getattr(total, k) for k in shares},
            **{f"estimated_{k}_share": share for k, share in shares.items()}}


def _show_utilisation(total: Resources, board: Board) -> None:
    show(f"utilisation of {board.part.name}", [
        ("BRAM36" if k == "bram18" else k.upper(), f"{total.bram36:g}" if k == "bram18" else f"{getattr(total, k):,.0f}",
         f"{share:.1%} of the part, estimated before synthesis") for k, share in total.shares(board.part).items()])


def _stream(device: runtime.Device, compiled: CompiledModel, queries: QueryBatch, batch: int, block_io: int, seed: int,
            placement: Placement | None, host: list[tuple[int, int]]) -> dict[str, Any]:
    """Latency of one query on the idle device, then all of ``queries`` with the queue kept full. ``host`` gets the cycles
    in which each command was sent and its answer was there."""
    reference = IntegerModel(compiled)
    dense = compiled.dense_features > 0

    def submit(q: QueryBatch) -> runtime.Ticket:
        return device.submit(q.dense, q.bags)

    before = device.backend.cycles
    device.result(submit(queries[:1]))
    latency = device.backend.cycles - before
    host.append((before, before + latency))

    traffic = _BlockTraffic(device, seed)
    parts = list(_chunks(queries, batch))
    steps = {int(i) for i in np.linspace(0, len(parts) - 1, block_io)} if block_io else set()
    answers: list[np.ndarray] = []
    mismatches = 0
    flying: deque[tuple[QueryBatch, runtime.Ticket, int]] = deque()
    counters = device.counters()
    first, wall = device.backend.cycles, time.monotonic()
    columns = (text_column("simulating"), BarColumn(), MofNCompleteColumn(), text_column("queries, {task.fields[rate]}"),
               TimeElapsedColumn(), TimeRemainingColumn())
    checked: list[tuple[QueryBatch, np.ndarray]] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("run", total=len(queries), rate="")

        def collect() -> None:
            q, ticket, sent = flying.popleft()
            checked.append((q, device.result(ticket)))
            host.append((sent, device.backend.cycles))
            rate = (device.backend.cycles - first) / max(1e-9, time.monotonic() - wall)
            progress.update(task, advance=len(q), rate=f"{rate / 1e3:.0f}k cycles/s")

        for i, q in enumerate(parts):
            if len(flying) == device.config.host.infer_depth:
                collect()
            sent = device.backend.cycles
            flying.append((q, submit(q), sent))
            if i in steps:
                traffic.step()
        while flying:
            collect()
    cycles, wall = device.backend.cycles - first, time.monotonic() - wall
    after = device.counters()
    for q, got in checked:
        want = reference.logits(q.dense if dense else None, _moved(q, placement).bags)[1]
        mismatches += int((got.view(np.uint32) != want.astype(np.float32).view(np.uint32)).any(axis=1).sum())
        answers.append(got)
    return {"latency": latency, "cycles": cycles, "wall": wall, "mismatches": mismatches,
            "logits": np.concatenate(answers), "counters": {k: after[k] - counters[k] for k in after},
            "block_checked": traffic.checked, "block_mismatches": traffic.mismatches}


def _result(config: DeviceConfig, compiled: CompiledModel, model: RecModel, queries: QueryBatch, fp32: np.ndarray,
            m: dict[str, Any], about: dict[str, Any], source: str, batch: int, build_seconds: float) -> dict[str, Any]:
    """What ``--json`` writes, as plain data."""
    f, n, cycles, count = config.flash, len(queries), m["cycles"], m["counters"]
    us = 1 / config.clock_mhz
    ceiling = sum(len(i) * config.ceiling_cycles_per_lookup(t.stride_beats(config) * config.beat_bytes)
                  for (i, _), t in zip(queries.bags, compiled.tables, strict=True))
    multipliers = sum(c.kr * c.kc for c in cores(config.mlp.graph))
    macs = model.spec.macs * n
    error = np.abs(fp32.astype(np.float64) - m["logits"])
    labels = queries.labels if queries.labels is not None else _teacher_labels(fp32[:, 0], 0)
    auc_fp32, auc_device = auc_or_none(labels, fp32[:, 0]), auc_or_none(labels, m["logits"][:, 0])
    channels = {f"channel{c}_bus_busy_share": count[f"channel{c}_bus_busy"] / cycles for c in range(f.channels)}
    dies = {f"channel{c}_die{d}_busy_share": count[f"channel{c}_die{d}_busy"] / cycles
            for c in range(f.channels) for d in range(f.dies)}
    result: dict[str, Any] = {
        "model": model.spec.name, "device": config.name, "design_id": f"{config.design_id:#010x}", "source": source,
        "queries": n, "mismatches": m["mismatches"], "batch": batch, "lookups": queries.lookups,
        "clock_mhz": config.clock_mhz, "cycles": cycles, "cycles_per_query": cycles / n,
        "latency_cycles": m["latency"], "latency_us": m["latency"] * us, "us_per_query": cycles * us / n,
        "queries_per_second": n / (cycles * us * 1e-6), "flash_ceiling_share": ceiling / cycles,
        **channels, **dies, "mlp_busy_share": count["mlp_busy"] / cycles, "multipliers": multipliers,
        "mlp_mac_share": macs / (cycles * multipliers), "block_reads_checked": m["block_checked"],
        "block_mismatches": m["block_mismatches"], "max_logit_error": float(error.max()),
        "mean_logit_error": float(error.mean()), "auc_fp32": auc_fp32, "auc_device": auc_device,
        "labels": "dataset" if queries.labels is not None else "synthetic teacher",
        "simulated_cycles_per_second": cycles / m["wall"], "build_seconds": build_seconds,
    }
    if model.table_names:
        result["table_order"] = list(model.table_names)
    if auc_fp32 is None or auc_device is None:
        result["auc_note"] = why_no_auc(labels)
    if about:
        result["checkpoint_scores"] = about["scores"]
    return result


def _show(r: dict[str, Any], queries: QueryBatch) -> None:
    """The tables of a result."""
    n = r["queries"]

    def busy(pattern: str) -> str:
        return " ".join(f"{100 * v:.0f}" for k, v in r.items() if re.fullmatch(pattern, k)) + " %"

    def score(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    labels = "real labels" if queries.labels is not None else "labels from a fixed synthetic teacher"
    show("answers", [
        ("queries checked", f"{n:,}", f"{queries.lookups:,} lookups, {r['batch']} queries per command"),
        ("mismatches", Text(str(r["mismatches"]), "red" if r["mismatches"] else "green"),
         "against the integer reference, bit by bit"),
        ("block reads checked", f"{r['block_reads_checked']}", f"{r['block_mismatches']} mismatches, while queries ran"),
        ("distance to fp32 PyTorch", f"{r['max_logit_error']:.4g} max, {r['mean_logit_error']:.4g} mean", "logits"),
        ("AUC fp32 / device", f"{score(r['auc_fp32'])} / {score(r['auc_device'])}", r.get("auc_note", labels)),
    ])
    show("speed (simulated RTL, cycles counted)", [
        ("cycles per query", f"{r['cycles_per_query']:,.0f}", f"{r['us_per_query']:,.2f} us at {r['clock_mhz']:g} MHz"),
        ("throughput", f"{r['queries_per_second']:,.0f} queries/s", f"{r['cycles']:,} cycles in all"),
        ("latency of one query", f"{r['latency_us']:,.1f} us", "on the idle device, doorbell to interrupt"),
        ("share of the flash ceiling", f"{100 * r['flash_ceiling_share']:.1f} %",
         f"ceiling {r['flash_ceiling_share'] * r['cycles'] / max(1, queries.lookups):,.1f} cycles per lookup"),
        ("channel buses busy", busy(r"channel\d+_bus_busy_share"), "one figure a channel"),
        ("dies busy", busy(r"channel\d+_die\d+_busy_share"), "channel by channel"),
        ("MLP engine busy", f"{100 * r['mlp_busy_share']:.1f} %",
         f"{r['multipliers']} multipliers, {100 * r['mlp_mac_share']:.2f} % of their capacity"),
        ("simulation", f"{r['simulated_cycles_per_second'] / 1e3:,.0f}k cycles/s", f"build {r['build_seconds']:.0f} s"),
    ])
