"""``nearflash evaluate``: how fast a device would be, simulated in time alone."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from ..contract import BOARDS, PRESETS, ConfigError, DataError, DeviceConfig
from ..contract.boards import find_board
from ..contract.modelled import Modelled, cached_pages
from ..contract.row_cache import with_row_cache
from .evaluate_paper import compare_results, paper_report
from .fit import base_config, device_of, plan_for
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, output_path, show, text_column, write_json

if TYPE_CHECKING:  # both take PyTorch, which --help shouldn't wait for
    from ..evaluate.workload import Workload
    from ..models import ModelSpec

__all__ = ["evaluate"]

LOOKUP_BUDGET = 200_000  # lookups of a run when the number of queries is not given: a second or so
MOST_QUERIES = 2000  # then


def evaluate(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="rmc1, rmc2, rmc3, ncf, wnd with its published rows, or a TOML "
                                              "description (*.toml); default: rmc1.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="For --dataset: a checkpoint of `nearflash train` (default: the "
                                                    "one that ships).")] = None,
    rows: Annotated[int | None, typer.Option(help="At most so many rows per table of a --model.", min=1)] = None,
    table_gb: Annotated[float | None, typer.Option(help="Scale a --model's tables to so many GB in all (the paper: 30).",
                                                   min=1e-6, max=4000)] = None,
    preset: Annotated[str, typer.Option(help=f"Device preset: {', '.join(sorted(PRESETS))}.")] = "paper",
    config: Annotated[Path | None, typer.Option(help="Device configuration (TOML) instead of a preset.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of `nearflash fit -o`: that device, as it is.")] = None,
    board: Annotated[str | None, typer.Option(help="The device that `nearflash fit` chooses for the model on this board or "
                                              f"part: {', '.join(BOARDS)}, XC7Z020 ...")] = None,
    channels: Annotated[int | None, typer.Option(help="Flash channels.", min=1)] = None,
    dies: Annotated[int | None, typer.Option(help="Dies per channel.", min=1)] = None,
    clock: Annotated[float | None, typer.Option(help="Device clock in MHz.")] = None,
    lookups_only: Annotated[bool, typer.Option("--lookups-only", help="The embedding stage alone: LOOKUP commands, also on "
                                               "devices whose MLP is not simulated.")] = False,
    mlp_share: Annotated[float, typer.Option(help="Part of the lookups' time, each read by itself, that the bottom and the "
                                             "top MLP of the planner's device may each take: less, where a cache or a "
                                             "window makes lookups faster.")] = 0.5,
    cache_mib: Annotated[float, typer.Option(help="A row cache in the controller's DRAM, of so many MiB (the "
                                             "configuration's row_cache).")] = 0.0,
    cache_unit: Annotated[str, typer.Option(help="What a line of --cache-mib holds: row, or page (all of it crosses the "
                                            "channel bus): MODELLED, NOT IN RTL.")] = "row",
    page_window: Annotated[int | None, typer.Option(help="lookup.page_window: a die reads a page once for all vectors that "
                                                    "so many reads in its queue want from it (0: off). Flash without a "
                                                    "change-read-column gets one of 200 ns.")] = None,
    placement: Annotated[Path | None, typer.Option(help="The tables' rows lie as `nearflash place` put them: its index "
                                                   "mapping.")] = None,
    queries: Annotated[int | None, typer.Option(help=f"Queries to simulate (default: {LOOKUP_BUDGET:,} lookups' worth, or "
                                                "all that a --trace or --dataset holds).", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Queries per command.", min=1)] = 1,
    depth: Annotated[int | None, typer.Option(help="Commands in flight (default: as many as the device takes).",
                                              min=1)] = None,
    locality: Annotated[float | None, typer.Option(help="K of the locality generator (default 0.3).")] = None,
    histogram: Annotated[Path | None, typer.Option(help="Draw indices from a dlrm_datasets locality_stats file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Take indices from a DLRM trace log, or a dlrm_datasets file (*.pt.gz, "
                                               "*.pt).")] = None,
    dataset: Annotated[Path | None, typer.Option(help="MovieTweetings folder or Criteo file: its held-out queries.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the queries.", min=0, max=2**64 - 1)] = 0,
    paper: Annotated[bool, typer.Option("--paper", help="RM-SSD's evaluation instead: ten systems, five models, localities "
                                        "and batch sizes, and each published number against what comes out here.")] = False,
    out: Annotated[Path | None, typer.Option(parser=Path, metavar="DIR", help="For --paper: the folder for report.html, "
                                             "paper.json and the plots.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="For --paper: one locality, two batch sizes, no kernel search.")
                     ] = False,
    costs: Annotated[Path | None, typer.Option(help="For --paper: costs other than the stated ones (TOML).")] = None,
    host: Annotated[Path | None, typer.Option(help="For --paper: the host's times from this JSON (an earlier paper.json "
                                              "will do) instead of measuring them with PyTorch.")] = None,
    compare: Annotated[tuple[Path, Path] | None, typer.Option(metavar="A B", help="Print what differs between two results' "
                                                              "JSON, and do nothing else.")] = None,
    timeline: Annotated[Path | None, typer.Option(parser=output_path, metavar="FILE", help="Write what the device does when "
                                                  "(channels, dies, pooling, layers, host) for https://ui.perfetto.dev, "
                                                  "as .pftrace; `nearflash timeline diff` compares two.")] = None,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Simulate a device's time under a workload: queries per second, latency, where the time goes, what is busy.

    No logit is computed and no table allocated, so tables may have their full size. The simulator follows the generated
    hardware cycle by cycle; the documentation says how closely, and what the models of other systems assume.

    Example: nearflash evaluate --model rmc1 --table-gb 30 --dies 4 --locality 0.3 --json rmc1.json

    Example: nearflash evaluate --paper --out paper/
    """
    needs(ctx, paper, "--paper", "out", "quick", "costs", "host")
    for mode in ("paper", "compare"):
        excludes(ctx, mode, *(n for n in _ONE if mode == "compare" or n not in ("dies", "table_gb", "seed")))
    excludes(ctx, "compare", "paper")
    if compare is not None:
        check_outputs(json_file=json_file)
        compare_results(*compare, json_file)
        return
    if paper:
        if out is None:
            raise ConfigError("--out", None, "must be given with --paper: a folder")
        check_outputs(json_file=json_file, out=out / "paper.json")
        paper_report(out, dies, table_gb, seed, quick, costs, host, json_file)
        return
    check_outputs(json_file=json_file, timeline=timeline)
    excludes(ctx, "plan", "preset", "config", "channels", "dies", "clock", "page_window", "board")
    excludes(ctx, "board", "preset", "config", "channels", "dies", "clock", "page_window")
    excludes(ctx, "config", "preset")
    excludes(ctx, "dataset", "locality", "histogram", "trace", "rows", "table_gb")
    excludes(ctx, "trace", "locality", "histogram")
    excludes(ctx, "histogram", "locality")
    excludes(ctx, "table_gb", "rows")
    excludes(ctx, "checkpoint", "model", "rows", "table_gb")
    excludes(ctx, "plan", "mlp_share")
    excludes(ctx, "board", "mlp_share")
    needs(ctx, dataset is not None, "--dataset", "checkpoint")
    needs(ctx, cache_mib > 0, "--cache-mib", "cache_unit")
    modelled = Modelled(cached_pages(cache_mib, cache_unit))
    from ..evaluate.device import evaluate_device, widest_row
    from ..evaluate.workload import placed
    from .placement import load_placement

    base = base_config(preset, config, channels, dies, clock)
    base = base if page_window is None else base.with_page_window(page_window)
    if dataset is not None:
        spec, workload, digest = _dataset(dataset, checkpoint, model, queries)
    else:
        spec, digest = _spec(model or "rmc1", rows, table_gb), None
        if rows is None and table_gb is None and plan is None and board is None:
            spec = _fitting(spec, base)
        workload = _workload(spec, queries, locality, histogram, trace, seed)
    mapping = load_placement(placement, digest, [t.rows for t in spec.tables], contents=False)
    if mapping is not None and placement is not None:
        workload = placed(workload, mapping, placement.name)
    device = _device(spec, model, plan, board, base, lookups_only, mlp_share)
    if cache_mib and cache_unit == "row":
        device = with_row_cache(device, cache_mib, widest_row(device, spec))
    h = device.host
    for option, value, name, most in (("--batch", batch, "max_batch", h.max_batch), ("--depth", depth or 1, "infer_depth",
                                                                                     h.infer_depth)):
        if value > most:
            raise DataError(option, value, f"must be at most {most}, host.{name} of device {device.name}")
    modelled.sets(device)  # a cache of less than a set is refused here
    slices: list[Any] | None = None if timeline is None else []
    result = simulated(lambda advance: evaluate_device(device, spec, workload, batch, depth or h.infer_depth,
                                                       not lookups_only, advance, modelled, slices), workload.queries)
    if timeline is not None:
        from ..timeline import write_timeline

        result["timeline_slices_count"] = sum(write_timeline(timeline, slices or [], device.clock_mhz).values())
    write_json(json_file, result)
    _show(result)
    if timeline is not None:
        console.print(f"timeline of {result['timeline_slices_count']:,} slices written to {timeline}")


#: Parameters of one device under one workload.
_ONE = ("model", "checkpoint", "rows", "table_gb", "preset", "config", "plan", "board", "channels", "dies", "clock",
        "mlp_share", "cache_mib", "cache_unit", "page_window", "placement", "lookups_only", "queries", "batch",
        "depth", "locality", "histogram", "trace", "dataset", "seed", "timeline")


def simulated(work: Any, queries: int) -> Any:
    """What ``work(advance)`` returns; a progress bar meanwhile, of ``queries``."""
    columns = (text_column("simulating"), BarColumn(), MofNCompleteColumn(), text_column("queries"), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("evaluate", total=queries)
        return work(lambda n: progress.update(task, advance=n))


def _spec(model: str, rows: int | None, table_gb: float | None) -> ModelSpec:
    """The model with its published rows, or as the options say."""
    from ..evaluate.workload import scaled
    from ..models import ModelSpec, model_spec

    spec = ModelSpec.from_toml(Path(model)) if model.endswith(".toml") else model_spec(model)
    if rows is not None:
        spec = replace(spec, tables=tuple(replace(t, rows=min(t.rows, rows)) for t in spec.tables))
    return spec if table_gb is None else scaled(spec, table_gb * 1e9)


def _fitting(spec: ModelSpec, base: DeviceConfig) -> ModelSpec:
    """``spec`` with its rows, or with as many as the device can hold, which is said."""
    from ..evaluate.workload import fitting

    fits = fitting(spec, base)
    if fits is not spec:
        most, given = (max(t.rows for t in s.tables) for s in (fits, spec))
        console.print(f"rows cut to {most:,} per table at most ({spec.name} has {given:,}): the largest flash of device "
                      f"{base.name} holds no more; --rows or --table-gb choose others")
    return fits


def _workload(spec: ModelSpec, queries: int | None, locality: float | None, histogram: Path | None, trace: Path | None,
              seed: int) -> Workload:
    from ..evaluate import workload as w

    if trace is not None:
        stored = w.dataset_bags if trace.name.endswith((".pt.gz", ".pt")) else w.trace
        return stored(spec, queries, trace)
    n = queries or max(1, min(MOST_QUERIES, LOOKUP_BUDGET // spec.lookups))
    if histogram is not None:
        return w.histogram(spec, n, histogram, seed)
    return w.synthetic(spec, n, 0.3 if locality is None else locality, seed)


def _dataset(dataset: Path, checkpoint: Path | None, model: str | None, queries: int | None
             ) -> tuple[ModelSpec, Workload, str | None]:
    """(model, held-out queries, the mapping that its rows were placed by): a trained checkpoint's, or a --model's tables."""
    from ..evaluate.workload import stored
    from ..training import Recipe, load_checkpoint, replay

    digest = None
    if model is None:
        trained, about = load_checkpoint(checkpoint or Path(str(files("nearflash") / "weights" / "movietweetings.npz")))
        spec, recipe = trained.spec, Recipe.from_dict(about["recipe"])
        digest = about.get("placement")
    else:
        spec, recipe = _spec(model, None, None), None
    _, test = replay(dataset, spec, recipe)
    return spec, stored(f"{len(test)} held-out queries of {dataset.name}", test[: queries or len(test)]), digest


def _device(spec: ModelSpec, model: str | None, plan: Path | None, board: str | None, base: DeviceConfig,
            lookups_only: bool, share: float) -> DeviceConfig:
    """The plan's device, or what the search chooses for the board, or the planner's from ``base`` with all weights on chip,
    the only place that is simulated."""
    from ..compiler import PlanOptions, compile_device, with_room

    if plan is not None:
        return plan_for(spec, plan)
    if board is not None:
        if model is None:
            raise ConfigError("--board", board, "needs a --model to fit to it, or --plan")
        return with_room(spec, device_of(find_board(board), model, None))
    device = compile_device(spec, base, PlanOptions(onchip_bytes=1 << 40, share=share))
    return replace(device, mlp=replace(device.mlp, graph=())) if lookups_only else device


def _show(r: dict[str, Any]) -> None:
    """The tables of a result."""
    def us(name: str) -> str:
        return f"{r[name]:,.1f} us"

    def busy(shares: list[float]) -> str:
        return " ".join(f"{100 * s:.0f}" for s in shares[:32]) + (" ..." if len(shares) > 32 else "") + " %"

    console.print(f"{r['model']}: {r['table_bytes'] / 1e9:.3g} GB of tables; device {r['device']}: {r['channels']} channels "
                  f"x {r['dies_per_channel']} dies, {r['clock_mhz']:g} MHz; {r['source']}")
    if r["page_window"]:
        console.print(f"a page is read once for all wanted from it among {r['page_window']} reads of a die's queue")
    if modelled := r.get("modelled_not_in_rtl"):
        _show_modelled(r, modelled)
    if cache := r.get("row_cache"):
        console.print(f"a row cache of {cache['dram_bytes'] / 2**20:g} MiB: {cache['lines']:,} lines of "
                      f"{cache['line_bytes']} bytes, {cache['ways']} to a set")
        _show_both("with the row cache and without", r, r["without_row_cache"])
    ceiling = r["flash_ceiling_queries_per_second"]
    show("speed (simulated time)", [
        ("throughput", f"{r['queries_per_second']:,.0f} queries/s", f"{r['queries']:,} queries, {r['batch']} per command, "
         f"{r['depth']} commands in flight"),
        ("latency p50 / p99", f"{r['latency_p50_us']:,.1f} / {r['latency_p99_us']:,.1f} us", "doorbell to acknowledgement"),
        ("share of the flash ceiling", f"{100 * r['flash_ceiling_share']:.1f} %",
         "no lookups" if ceiling is None else f"{ceiling:,.0f} queries/s with all dies and buses evenly loaded")])
    alone = r["query_alone"]
    show("a query alone on the idle device", [
        ("latency", f"{alone['latency_us']:,.1f} us", ""),
        ("lookups", f"{alone['lookups_us']:,.1f} us", "what they add to an inference with empty bags"),
        ("MLP", f"{alone['mlp_us']:,.1f} us", "first feature to last logit, with inputs that never wait"),
        ("host interface", f"{alone['host_us']:,.1f} us", "what is left")])
    show("time of each stage per query, in steady state (stages overlap)", [
        (name.removesuffix("_us").replace("_", " "), f"{v:,.2f} us", "") for name, v in r["stages_per_query"].items()])
    show("flash and caches", [
        ("flash reads", f"{r['flash_reads_count']:,}", f"{r['flash_reads_per_lookup']:.3f} per lookup"),
        ("read amplification", f"{r['read_amplification_cells']:,.1f} / {r['read_amplification_bus']:,.2f}",
         "bytes from cells / over channel buses, per byte asked for"),
        ("map cache hits", f"{100 * r['map_hit_share']:.1f} %", ""),
        ("repeats within a command", f"{100 * r['repeats_in_command_share']:.1f} %", "read again all the same"),
        ("channel buses busy", busy(r["channel_busy_share"]), "one figure a channel"),
        ("dies busy", busy(r["die_busy_share"]), "channel by channel"),
        ("host bytes in / out", f"{r['host_bytes_in_per_query']:,.0f} / {r['host_bytes_out_per_query']:,.0f} B",
         "per query"),
        ("simulation", f"{r['simulated_lookups_per_cpu_second']:,.0f} lookups/s", "of CPU time")])


def _show_modelled(r: dict[str, Any], modelled: dict[str, Any]) -> None:
    """What is on that no gateware has, and what it is worth."""
    on = []
    if modelled["cache_bytes"]:
        on.append(f"a cache of {modelled['cache_bytes'] / 2**20:g} MiB of pages")
    console.print(f"MODELLED, NOT IN RTL: {'; '.join(on)}. `nearflash run` and `build` know nothing of it.")
    _show_both("with it and without", r, r["without_modelled"])


def _show_both(title: str, r: dict[str, Any], without: dict[str, Any]) -> None:
    """A result beside that of a device which has less."""
    show(title, [
        ("throughput", f"{r['queries_per_second']:,.0f} / {without['queries_per_second']:,.0f} queries/s",
         f"{r['queries_per_second'] / without['queries_per_second']:.2f} times"),
        ("latency p50", f"{r['latency_p50_us']:,.1f} / {without['latency_p50_us']:,.1f} us", ""),
        ("latency p99", f"{r['latency_p99_us']:,.1f} / {without['latency_p99_us']:,.1f} us", ""),
        ("cell reads per lookup", f"{r['flash_reads_per_lookup']:.3f} / {without['flash_reads_per_lookup']:.3f}", ""),
        *([("answered by the cache", f"{100 * r['cache_hit_share']:.1f} %", "of the lookups")]
          if "cache_hit_share" in r else [])])
