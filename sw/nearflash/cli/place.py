"""``nearflash place``: where a model's rows should lie on flash, learnt from its queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from ..contract import PRESETS, ConfigError, DataError
from ..contract.modelled import Modelled, cached_pages
from ..contract.row_cache import with_row_cache
from ..placement import METHODS
from ..whole import is_stream
from .fit import base_config
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, output_path, text_column, write_json

__all__ = ["place"]

HISTOGRAM_ROWS, HISTOGRAM_QUERIES = 200_000, 500  # of a --model's tables, and drawn from each histogram


def place(
    ctx: typer.Context,
    dataset: Annotated[Path | None, typer.Option(help="MovieTweetings folder or Criteo file: the first queries teach where "
                                                 "rows should lie, the later ones measure it.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint of `nearflash train` for --dataset (default: the one "
                                                    "that ships).")] = None,
    histogram: Annotated[tuple[Path, Path] | None, typer.Option(
        metavar="BEFORE AFTER", help="Instead of a --dataset: draw the queries to learn from, and those to measure on, from "
        "two dlrm_datasets locality_stats files. They hold no co-access.")] = None,
    model: Annotated[str, typer.Option(help="For --histogram: rmc1, rmc2, rmc3, ncf, wnd, or a TOML description "
                                       "(*.toml).")] = "rmc1",
    rows: Annotated[int, typer.Option(help="For --histogram: at most so many rows per table.", min=1)] = HISTOGRAM_ROWS,
    drift: Annotated[float, typer.Option(help="For --histogram: share of the second one's rows that the first never asks "
                                         "for (of MovieTweetings' movies: 0.29 of the lookups).")] = 0.3,
    method: Annotated[str, typer.Option(help=f"The order to write: {', '.join(METHODS)}.")] = "frequency",
    out: Annotated[Path | None, typer.Option("-o", "--out", parser=output_path, metavar="FILE", help="Write the checkpoint "
                                             "with its rows placed (.npz); needs --mapping.")] = None,
    mapping: Annotated[Path | None, typer.Option(parser=output_path, metavar="FILE", help="Write the index mapping (.npz) "
                                                 "for --placement of `nearflash run` and `evaluate`.")] = None,
    learn_share: Annotated[float, typer.Option(help="Part of the --dataset's queries, in order of time, to learn "
                                               "from.")] = 0.5,
    together: Annotated[int, typer.Option(help="Co-access: so many consecutive queries want their rows together.",
                                          min=1)] = 8,
    preset: Annotated[str, typer.Option(help=f"Device preset: {', '.join(sorted(PRESETS))}.")] = "paper",
    config: Annotated[Path | None, typer.Option(help="Device configuration (TOML) instead of a preset.")] = None,
    channels: Annotated[int | None, typer.Option(help="Flash channels.", min=1)] = None,
    dies: Annotated[int | None, typer.Option(help="Dies per channel.", min=1)] = None,
    cache_mib: Annotated[float, typer.Option(help="Compare at equal memory too: with a cache of so many MiB in the "
                                             "controller's DRAM (0: none).")] = 1.0,
    cache_unit: Annotated[str, typer.Option(help="What a line of it holds: page (MODELLED, NOT IN RTL), or row.")] = "page",
    page_window: Annotated[int, typer.Option(help="And with a lookup.page_window: a die reads a page once for all vectors "
                                             "wanted from it among so many reads in its queue (0: off).")] = 64,
    queries: Annotated[int | None, typer.Option(help="Queries to measure on (default: all that follow, or "
                                                f"{HISTOGRAM_QUERIES} of a --histogram).", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Queries per command.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of --histogram's draws.", min=0, max=2**32 - 1)] = 0,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Learn where rows should lie from the first queries, and measure it on the later ones: cell reads per lookup, how
    evenly the dies are busy, and queries per second of the simulated embedding stage, for RM-SSD's striping, the rows
    as they are, and the orders by frequency, by co-access, and by both.

    Writes the placed checkpoint and its index mapping, by which the host translates queries, so answers stay the same.

    Example: nearflash place --dataset movietweetings/ --dies 4 -o placed.npz --mapping mapping.npz
    """
    check_outputs(out=out, mapping=mapping, json_file=json_file)
    excludes(ctx, "dataset", "histogram", "model", "rows", "drift", "seed")
    excludes(ctx, "histogram", "checkpoint", "learn_share", "together", "out")
    excludes(ctx, "config", "preset")
    needs(ctx, cache_mib > 0, "--cache-mib", "cache_unit")
    if dataset is None and histogram is None:
        raise ConfigError("--dataset", None, "must be given, or --histogram: queries to learn from")
    methods = METHODS if dataset is not None else ("none", "frequency")
    if method not in methods:
        raise DataError("--method", method, f"must be one of {', '.join(methods)}" + (
            "" if dataset else ": a histogram holds no co-access"))
    for option, path in (("--out", out), ("--mapping", mapping)):
        if path is not None and path.suffix != ".npz" and not is_stream(path):
            raise DataError(option, str(path), "must end in .npz")
    if out is not None and mapping is None:
        raise ConfigError("--mapping", None, "must be given with --out: without it nobody can ask the placed checkpoint")
    modelled = Modelled(cached_pages(cache_mib, cache_unit))
    device = base_config(preset, config, channels, dies, None)
    if batch > device.host.max_batch:
        raise DataError("--batch", batch, f"must be at most {device.host.max_batch}, host.max_batch of device {device.name}")
    from ..compiler import PlanOptions, compile_device
    from ..evaluate.device import widest_row
    from ..evaluate.placement import compare_orders, drawn_years, halves
    from ..evaluate.workload import stored

    trained: Any = None
    if dataset is not None:
        trained, about, q = _trained(dataset, checkpoint)
        spec = trained.spec
        learnt, later = halves(q, learn_share)
        source = f"{dataset.name}, after its first {len(learnt):,} queries"
    else:
        from ..data import read_histograms

        assert histogram is not None
        spec, about = _spec(model, rows), {}
        first, second = (read_histograms(path)[0] for path in histogram)
        learnt, later = drawn_years(spec, first, second, queries or HISTOGRAM_QUERIES, drift, seed)
        source = f"{histogram[1].name}, learnt from {histogram[0].name}, drift {drift:g}"
    full = compile_device(spec, device, PlanOptions(onchip_bytes=1 << 40))
    full = replace(full, mlp=replace(full.mlp, graph=()))  # the embedding stage alone
    more = full.with_page_window(page_window)  # one that is too large is refused here
    if cache_mib and cache_unit == "row":
        more = with_row_cache(more, cache_mib, widest_row(full, spec))
    modelled.sets(more)  # a cache of less than a set is refused here
    columns = (text_column("placing"), BarColumn(), MofNCompleteColumn(), text_column("{task.fields[step]}"),
               TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        runs = (1 + len(methods)) * (2 if modelled.any or more != full else 1)
        task = progress.add_task("place", total=len(methods) + runs, step="")
        result, found = compare_orders(
            full, spec, learnt, stored(source, later[: queries or len(later)]), batch, full.host.infer_depth, modelled,
            together, methods, lambda text: progress.update(task, advance=1, step=text), more)
    chosen = replace(found[method], about={"method": method, "model": spec.name, "source": source})
    result |= {"method": method, "mapping_digest": chosen.digest}
    if mapping is not None:
        chosen.save(mapping)
    if out is not None:
        _write_placed(out, trained, about, chosen)
    write_json(json_file, result)
    _show(result)
    for what, path in (("placed checkpoint", out), ("index mapping", mapping)):
        if path is not None:
            console.print(f"{what} ({method}) written to {path}")


def _spec(model: str, rows: int) -> Any:
    from ..models import ModelSpec, model_spec

    spec = ModelSpec.from_toml(Path(model)) if model.endswith(".toml") else model_spec(model)
    return replace(spec, tables=tuple(replace(t, rows=min(t.rows, rows)) for t in spec.tables))


def _trained(dataset: Path, checkpoint: Path | None) -> tuple[Any, dict[str, Any], Any]:
    """(model, what its checkpoint says of it, all queries of the data set in order of time)."""
    from ..training import SHIPPED, Recipe, every_query, load_checkpoint

    path = checkpoint or SHIPPED
    trained, about = load_checkpoint(path)
    if "placement" in about:
        raise DataError("placement", about["placement"], "the checkpoint's rows were placed already: give the one that was "
                        "trained", str(path))
    return trained, about, every_query(dataset, trained.spec, Recipe.from_dict(about["recipe"]))


def _write_placed(out: Path, trained: Any, about: dict[str, Any], placement: Any) -> None:
    import torch

    from ..training import Recipe, save_checkpoint

    for t, table in enumerate(trained.embeddings):
        table.weight.data = torch.from_numpy(placement.table(t, table.weight.detach().numpy()))
    save_checkpoint(out, trained, Recipe.from_dict(about["recipe"]), about["scores"], placement.digest)


def _show(r: dict[str, Any]) -> None:
    m = r["modelled"]
    console.print(f"{r['model']}: learnt from {r['learnt_queries']:,} queries, measured on {r['measured_queries']:,}: "
                  f"{r['source']}; device {r['device']}: {r['channels']} channels x {r['dies_per_channel']} dies; embedding "
                  f"stage alone, {r['batch']} queries per command, {r['depth']} in flight")
    unseen = ", ".join(f"{100 * s:.0f}" for s in r["rows_never_seen_share_of_lookups"])
    console.print(f"share of each table's lookups that go to rows never seen while learning: {unseen} %")
    memory = f"a page window of {r['page_window']} reads"
    if m["cache_bytes"]:
        share = m["cache_bytes"] / r["table_bytes"]
        memory = f"{m['cache_bytes'] / 2**20:g} MiB of {m['cache_unit']}s, {100 * share:.2g} % of the tables, and {memory}"
    for key, title in (("as_generated", "the device as it is generated"),
                       ("with_additions", f"the device with {memory}"),
                       ("modelled_not_in_rtl", f"MODELLED, NOT IN RTL, equal memory: {memory}")):
        if key not in r["orders"][0]:
            continue
        table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
        for heading in ("order", "cell reads per lookup", "fewer", "die balance", "queries/s", "faster"):
            table.add_column(heading, justify="left" if heading == "order" else "right")
        for row in r["orders"]:
            f = row[key]
            table.add_row(row["order"], f"{f['cell_reads_per_lookup']:.3f}", f"{f['cell_reads_ratio']:.2f} x",
                          f"{f['die_balance']:.2f}", f"{f['queries_per_second']:,.0f}",
                          f"{f['queries_per_second_ratio']:.2f} x")
        console.print(table)
