"""``nearflash evaluate``: how fast a device would be, simulated in time alone."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from ..contract import BOARDS, PRESETS, ConfigError
from ..whole import whole_file
from .evaluate_paper import compare_results, paper_report
from .evaluate_point import CONFLICTS, LOOKUP_BUDGET, NEEDS, Point, prepare
from .evaluate_scaling import show_scaling
from .evaluate_sweep import sweep
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, geometry, output_path, show, text_column, write_json

__all__ = ["evaluate"]


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
    planes: Annotated[int | None, typer.Option(help="Planes per die, each with reads of its own.", min=1)] = None,
    clock: Annotated[float | None, typer.Option(help="Device clock in MHz.")] = None,
    lookups_only: Annotated[bool, typer.Option("--lookups-only", help="The embedding stage alone: LOOKUP commands, on a "
                                               "device without an MLP.")] = False,
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
    block_trace: Annotated[Path | None, typer.Option(help="Block I/O meanwhile, from a trace: an fio iolog, MSR "
                                                     "Cambridge's CSV or MQSim's, at its times.")] = None,
    block_depth: Annotated[int | None, typer.Option(help="For --block-trace: so many requests in flight instead.", min=1)
                           ] = None,
    block_scale: Annotated[float, typer.Option(help="For --block-trace: its times, multiplied by this.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the queries.", min=0, max=2**64 - 1)] = 0,
    devices: Annotated[str | None, typer.Option(metavar="N[,N...]", help="With --lookups-only: the tables over so many "
                                                "devices (at most 64), by size and heat; several numbers are compared.")
                       ] = None,
    device_gb: Annotated[float | None, typer.Option(help="For --devices: GB of flash of each (default: the most that its "
                                                    "shape can have).", min=1e-6, max=4000)] = None,
    plot: Annotated[Path | None, typer.Option(parser=output_path, metavar="FILE", help="For --devices: throughput, latency "
                                              "and balance over the number of devices, as PNG.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="RM-SSD's evaluation instead: ten systems, five models, localities "
                                        "and batch sizes, and each published number against what comes out here.")] = False,
    sweep_file: Annotated[Path | None, typer.Option("--sweep", metavar="FILE", help="All combinations of a TOML file's "
                                                    "options (names as here, _ for -), each a value or a list of them.")
                          ] = None,
    workers: Annotated[int | None, typer.Option(help="For --sweep: processes (default: one a core).", min=1)] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="For --sweep: tasks of this Ray cluster (ray://..., or "
                                            "local) instead.")] = None,
    out: Annotated[Path | None, typer.Option(parser=Path, metavar="DIR", help="For --paper: the folder for report.html, "
                                             "paper.json and the plots. For --sweep: for sweep.json and the points, which "
                                             "aren't simulated again.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="For --paper: one locality, two batch sizes, no kernel search.")
                     ] = False,
    costs: Annotated[Path | None, typer.Option(help="For --paper and --devices: costs other than the stated ones (TOML).")
                     ] = None,
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

    Example: nearflash evaluate --sweep designs.toml --out designs/

    Example: nearflash evaluate --model rmc1 --table-gb 240 --lookups-only --batch 16 --devices 1,2,4,8 --plot scaling.png
    """
    needs(ctx, paper, "--paper", "quick", "host")
    needs(ctx, paper or sweep_file is not None, "--paper or --sweep", "out")
    needs(ctx, sweep_file is not None, "--sweep", "workers", "ray")
    excludes(ctx, "workers", "ray")
    needs(ctx, paper or devices is not None, "--paper or --devices", "costs")
    needs(ctx, devices is not None, "--devices", "plot")
    for mode in ("paper", "compare", "sweep_file"):
        excludes(ctx, mode, *(n for n in _ONE if mode != "paper" or n not in ("dies", "table_gb", "seed")))
    excludes(ctx, "compare", "paper", "sweep_file")
    excludes(ctx, "sweep_file", "paper", "costs")
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
    if sweep_file is not None:
        if out is None:
            raise ConfigError("--out", None, "must be given with --sweep: the folder that keeps the points")
        check_outputs(json_file=json_file, out=out / "sweep.json")
        sweep(sweep_file, out, workers, ray, json_file)
        return
    check_outputs(json_file=json_file, timeline=timeline, plot=plot)
    excludes(ctx, "devices", "timeline")
    for names in CONFLICTS:
        excludes(ctx, *names)
    for first, *others in NEEDS:
        needs(ctx, ctx.params[first] not in (None, 0), f"--{first.replace('_', '-')}", *others)
    given: dict[str, Any] = {f.name: ctx.params[f.name] for f in fields(Point)}
    given |= {k: str(v) for k, v in given.items() if isinstance(v, Path)}
    job = prepare(Point(**given), console.print)
    slices: list[Any] | None = None if timeline is None else []
    what = "queries" if devices is None else "numbers of devices"
    result = simulated(lambda advance: job.run(advance, slices), job.steps, what)
    if timeline is not None:
        from ..timeline import write_timeline

        result["timeline_slices_count"] = sum(write_timeline(timeline, slices or [], job.clock_mhz).values())
    if plot is not None:
        from ..evaluate.scaling_plot import scaling_plot

        with whole_file(plot) as part:
            part.write_bytes(scaling_plot(result))
    write_json(json_file, result)
    if devices is not None:
        show_scaling(result)
        return
    _show(result)
    if timeline is not None:
        console.print(f"timeline of {result['timeline_slices_count']:,} slices written to {timeline}")


#: Parameters of one device under one workload.
_ONE = ("model", "checkpoint", "rows", "table_gb", "preset", "config", "plan", "board", "channels", "dies", "planes",
        "clock", "mlp_share", "cache_mib", "cache_unit", "page_window", "placement", "lookups_only", "queries", "batch",
        "depth", "locality", "histogram", "trace", "dataset", "block_trace", "block_depth", "block_scale", "seed",
        "timeline", "devices", "device_gb", "plot")


def simulated(work: Any, queries: int, what: str = "queries") -> Any:
    """What ``work(advance)`` returns; a progress bar meanwhile, of so many ``queries`` or of ``what`` is counted."""
    columns = (text_column("simulating"), BarColumn(), MofNCompleteColumn(), text_column(what), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("evaluate", total=queries)
        return work(lambda n: progress.update(task, advance=n))


def _show(r: dict[str, Any]) -> None:
    """The tables of a result."""
    def us(name: str) -> str:
        return f"{r[name]:,.1f} us"

    def busy(shares: list[float]) -> str:
        return " ".join(f"{100 * s:.0f}" for s in shares[:32]) + (" ..." if len(shares) > 32 else "") + " %"

    console.print(f"{r['model']}: {r['table_bytes'] / 1e9:.3g} GB of tables; device {r['device']}: "
                  f"{geometry(r['channels'], r['dies_per_channel'], r['planes_per_die'])}, {r['clock_mhz']:g} MHz; "
                  f"{r['source']}")
    if r["page_window"]:
        console.print(f"a page is read once for all wanted from it among {r['page_window']} reads of a die's queue")
    if modelled := r.get("modelled_not_in_rtl"):
        _show_modelled(r, modelled)
    if cache := r.get("row_cache"):
        console.print(f"a row cache of {cache['dram_bytes'] / 2**20:g} MiB: {cache['lines']:,} lines of "
                      f"{cache['line_bytes']} bytes, {cache['ways']} to a set")
        _show_both("with the row cache and without", r, r["without_row_cache"])
    if block := r.get("block_io"):
        _show_block_io(block)
        _show_both("with block I/O and without", r, r["without_block_io"])
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


def _show_block_io(b: dict[str, Any]) -> None:
    times = "" if b["time_scale"] is None else f", the trace's times x {b['time_scale']:g}"
    show(f"block I/O: {b['source']}", [
        ("throughput", f"{b['iops']:,.0f} requests/s", f"{b['mb_per_second']:,.1f} MB/s; at most {b['depth']} "
         f"in flight{times}"),
        *((f"{name.upper()} latency mean / p50 / p99", " / ".join(
            f"{of[f'latency_{figure}_us']:,.1f}" for figure in ("mean", "p50", "p99")) + " us",
           f"{of['requests_count']:,} of them") for name, of in b["kinds"].items() if of["requests_count"]),
        ("sent while there were queries", f"{b['requests_count']:,}", f"{b['requests_left_count']:,} left")])


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
