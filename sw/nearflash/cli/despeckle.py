"""The ``nearflash despeckle`` command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contract.errors import ConfigError
from .fabric import DEVICE_HELP, FabricConfig, Overlay, Watch, check_fabric, loaded
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, text_column, write_json

if TYPE_CHECKING:
    from ..sar.files import FileResult, Job, Settings
    from ..sar.methods import Method
    from ..sar.scene import StreamReport

__all__ = ["despeckle"]


def despeckle(
    ctx: typer.Context,
    inputs: Annotated[list[str], typer.Argument(help="SAR images (.tif, .img, .cos, .npy, .png), products (Sentinel-1: "
                                                   ".SAFE or .zip; NISAR, ICEYE: .h5; .nc; SNAP: .dim), folders of them, "
                                                   "patterns.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Output file; a folder for several images. Default for "
                                             "products: here, named after the product.")] = None,
    method: Annotated[str, typer.Option(help="Network: base, tiny, paper, unet. Filter: lee, refined-lee, kuan, frost, "
                                             "gamma-map, bm3d, nlm. none copies.")] = "base",
    domain: Annotated[str | None, typer.Option(help="What the values are: amplitude, intensity, db or complex. Default: "
                                                    "what the file says, else what its statistics tell.")] = None,
    looks: Annotated[str, typer.Option(help="Number of looks, or auto: the product's, else estimated from the "
                                            "image.")] = "auto",
    out_domain: Annotated[str | None, typer.Option(help="amplitude, intensity or db. Default: as the input; amplitude for "
                                                        "complex input.")] = None,
    out_dtype: Annotated[str | None, typer.Option(help="float32, float64, uint8, uint16, int16 or int32. Default: float32; "
                                                       "the input's for PNG.")] = None,
    out_scale: Annotated[str | None, typer.Option(help="Divide values by this before whole numbers are made of them (auto: "
                                                       "fitting the type); a GeoTIFF's scale tag says so.")] = None,
    nodata: Annotated[float | None, typer.Option(help="Value of missing pixels (default: the file's).")] = None,
    borders: Annotated[str, typer.Option(help="auto masks borders of zeros, the noise beside them and undeclared fills such "
                                              "as -9999; keep keeps them.")] = "auto",
    negatives: Annotated[str, typer.Option(help="Negative intensity after noise removal: keep (as the noise it is), clip, "
                                                "mask or error.")] = "keep",
    db_scale: Annotated[float, typer.Option(help="Units per decibel of dB data (10 for dB x 10).")] = 1.0,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels, margins included.", min=1)] = 512,
    match_mean: Annotated[str, typer.Option(help="Correct the mean intensity: none (networks follow it as far as the looks "
                                                 "allow), local (a smooth gain of at most 10 %), or global (one gain; the "
                                                 "mean is kept).")] = "none",
    cycle_spin: Annotated[bool, typer.Option("--cycle-spin", help="Average a network over 8 shifts of the image, so that "
                                             "results don't depend on where a crop begins: 8 times the time.")] = False,
    temporal: Annotated[bool, typer.Option("--temporal", help="The inputs are co-registered dates of one place: each is "
                                           "despeckled as its ratio to their mean.")] = False,
    device: Annotated[str, typer.Option(help=f"Where networks run: {DEVICE_HELP}")] = "cpu",
    config: FabricConfig = None,
    overlay: Overlay = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the network instead of those that ship.")] = None,
    ratio: Annotated[Path | None, typer.Option(help="Write the ratio image too (intensity in / out); a folder for several "
                                                    "inputs.")] = None,
    polarisation: Annotated[str | None, typer.Option(help="Of a product, separated by commas: VV, VH ... (default: "
                                                          "all).")] = None,
    swath: Annotated[str | None, typer.Option(help="Of a product, separated by commas: IW1 ... (default: all).")] = None,
    variable: Annotated[str | None, typer.Option(help="Of an HDF5 or netCDF file, separated by commas: names of datasets "
                                                 "(default: all images).")] = None,
    calibration: Annotated[str, typer.Option(help="Of a product: sigma0, beta0, gamma0, or dn (none).")] = "sigma0",
    noise: Annotated[str, typer.Option(help="Thermal noise of a product: auto (subtracted where annotated), remove or "
                                            "keep.")] = "auto",
    bursts: Annotated[str, typer.Option(help="Bursts of an SLC product: merge, or each for itself.")] = "merge",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    cluster: Annotated[str | None, typer.Option(help="Spread files over a dask or ray cluster.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a running cluster (default: processes here).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of a cluster started here.", min=1)] = None,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Remove speckle from SAR images of any size; NaN, nodata, masks, CRS, transform and tags stay as they are.

    Exit code 1 when a file failed; the others are still done. No failed file leaves a partial output.

    Example: nearflash despeckle scene.tif -o clean.tif --domain amplitude --looks 4 --json clean.json

    Example: nearflash despeckle stack/*.tif --temporal -o clean/

    Example: nearflash despeckle NISAR_L2_GCOV.h5 --polarisation HH --out-domain db

    Example: nearflash despeckle S1A_IW_GRDH_1SDV_20230101T050000.SAFE --polarisation VV --calibration gamma0 --out-domain db
    """
    check_outputs(json_file=json_file)
    needs(ctx, cluster is not None, "--cluster", "scheduler", "workers")
    excludes(ctx, "scheduler", "workers")
    check_fabric(ctx, device)
    if device == "fabric" and cluster is not None:
        raise ConfigError("--cluster", cluster, "must be absent with --device fabric: a device serves one process")
    from ..sar.files import Settings, plan_jobs
    from ..sar.io import ProductOptions, is_container, is_sentinel1

    product = ProductOptions(calibration, noise, _names(polarisation), _names(swath), bursts, _names(variable))
    settings = Settings(method, looks, domain, out_domain, out_dtype, nodata, db_scale, tile, device, checkpoint, match_mean,
                        overwrite, out_scale, borders, negatives, product, cycle_spin, config, overlay)
    needs(ctx, "db" in (domain, out_domain), "--domain db or --out-domain db", "db_scale")
    jobs = plan_jobs(inputs, out, settings, ratio)
    sentinel1, container = (any(is_kind(job.source) for job in jobs) for is_kind in (is_sentinel1, is_container))
    needs(ctx, sentinel1, "a Sentinel-1 product", "swath", "calibration", "noise", "bursts")
    needs(ctx, container, "an HDF5 or netCDF file", "variable")
    needs(ctx, sentinel1 or container, "a product", "polarisation")
    if cycle_spin:
        console.print("cycle spinning: 8 passes, 8 times the time of one", style="yellow")
    if temporal:
        for name, value in (("ratio", ratio), ("cluster", cluster)):
            if value is not None:
                raise ConfigError(f"--{name}", str(value), "must be absent with --temporal")
        results, used = _alone(jobs, _stack)
    elif cluster is None:
        results, used = _alone(jobs, _here)
    else:
        results, used = list(_on_cluster(jobs, cluster, scheduler, workers)), {}
    order = {job.target: k for k, job in enumerate(jobs)}
    results.sort(key=lambda r: order[r.target])
    failed = sum(r.error is not None for r in results)
    write_json(json_file, {"method": method, "looks": looks, "tile_px": tile, "device": device, "match_mean": match_mean,
                           "temporal": temporal, "failed_files": failed, "files": [_record(r) for r in results]} | used)
    _show(results)
    if failed:
        raise typer.Exit(1)


def _names(text: str | None) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _progress() -> Any:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(text_column("{task.description}"), BarColumn(), TaskProgressColumn(markup=False), TimeElapsedColumn(),
                    text_column("left"), TimeRemainingColumn(), console=console)


def _alone(jobs: list[Job], work: Callable[[list[Job], Method, Watch], list[FileResult]]
           ) -> tuple[list[FileResult], dict[str, Any]]:
    """The results of ``work`` in this process, and what is to be said of the device."""
    settings = jobs[0].settings
    with closing(loaded(settings.load_method, settings.device)) as method:
        watch = Watch(method)
        return work(jobs, method, watch), watch.record()


def _opened(settings: Settings, method: Method, watch: Watch) -> Callable[[int, int, int], None]:
    """Hears how many images of how many rows and columns are to be done next."""
    from ..sar.tiles import tile_count

    return lambda images, rows, columns: watch.expect(images * tile_count(rows, columns, settings.tile, method.margin,
                                                                          method.multiple))


def _here(jobs: list[Job], method: Method, watch: Watch) -> list[FileResult]:
    from ..sar.files import attempt

    opened = _opened(jobs[0].settings, method, watch)
    results = []
    with _progress() as bar:
        for n, job in enumerate(jobs, 1):
            task = bar.add_task(f"{n}/{len(jobs)} {job.source.name}", total=1.0)

            def update(share: float, task: Any = task) -> None:
                bar.update(task, completed=share)

            watch.update = update
            results.append(attempt(job, method, update, opened))
            bar.remove_task(task)
    return results


def _stack(jobs: list[Job], method: Method, watch: Watch) -> list[FileResult]:
    """A stack is done in whole: what stops one date stops all that were still to come."""
    from ..sar.temporal import despeckle_dates

    with _progress() as bar:
        task = bar.add_task(f"{len(jobs)} dates", total=1.0)

        def update(share: float) -> None:
            bar.update(task, completed=share)

        watch.update = update
        return despeckle_dates(jobs, method, update, _opened(jobs[0].settings, method, watch))


def _on_cluster(jobs: list[Job], kind: str, address: str | None, workers: int | None) -> Iterator[FileResult]:
    from ..sar.cluster import run_jobs

    jobs[0].settings.load_method()  # an unknown method or bad checkpoint is an error of the command, not of each file
    with _progress() as bar:
        task = bar.add_task(f"{len(jobs)} files", total=len(jobs))
        for result in run_jobs(jobs, kind, address=address, workers=workers):
            bar.advance(task)
            yield result


def _record(r: FileResult) -> dict[str, Any]:
    import dataclasses

    from ..sar.files import mean_kept

    record: dict[str, Any] = {"input": str(r.source), "output": None if r.error else str(r.target), "error": r.error}
    if r.error is None:
        names = {"mean_in": "mean_in_intensity", "mean_out": "mean_out_intensity", "enl_in": "enl_in_looks",
                 "enl_out": "enl_out_looks"}
        bands = [{"name": name} | {names.get(k, k): v for k, v in dataclasses.asdict(b).items()}
                 for name, b in zip(r.names, r.bands, strict=True)]
        record |= {"domain": None if r.domain is None else dataclasses.asdict(r.domain), "notes": list(r.notes),
                   "height_px": r.shape[0], "width_px": r.shape[1], "seconds": r.seconds,
                   "megapixels_per_second": r.megapixels_per_second, "mean_kept_ratio": mean_kept(r), "bands": bands}
    return record


def _show(results: list[FileResult]) -> None:
    from rich.table import Table

    table = Table(title="despeckled", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("file", overflow="fold", min_width=20)
    table.add_column("domain")
    for name in ("size", "looks", "seconds", "Mpx/s", "mean\nkept", "ENL\nin", "ENL\nout"):
        table.add_column(name, justify="right", no_wrap=True)

    def text(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for r in (r for r in results if r.error is None):
        domain = f"{r.domain.domain}\n({r.domain.source})" if r.domain else "-"
        for number, (label, b) in enumerate(zip(r.names, r.bands, strict=True)):
            name = f"{r.source.name} {label}".rstrip()
            time = (f"{r.seconds:.1f}", f"{r.megapixels_per_second:.2f}") if number == 0 else ("", "")  # of all bands
            kept = b.mean_out / b.mean_in if b.mean_in and b.mean_out else None
            table.add_row(name, domain if number == 0 else "", f"{r.shape[0]}x{r.shape[1]}", _looks(b), *time,
                          text(kept, ".2%"), text(b.enl_in, ".1f"), text(b.enl_out, ".1f"))
    if table.row_count:
        console.print(table)
    for r in results:
        doubts = [f"{label}: {b.looks_doubt}".lstrip(": ") for label, b in zip(r.names, r.bands, strict=True)
                  if b.looks_doubt]
        for note in (*r.notes, *doubts):
            console.print(f"{r.source.name}: {note}", style="yellow", soft_wrap=True)
        if r.error is not None:
            console.print(f"failed: {r.source}: {r.error}", style="red", soft_wrap=True)


def _looks(b: StreamReport) -> str:
    """The looks used, and how sure an estimate is."""
    if b.looks_source == "estimated" and b.looks_low is not None and b.looks_high is not None:
        return f"{b.looks:.3g} est.\n{b.looks_low:.2g} to {b.looks_high:.2g}"
    return f"{b.looks:.3g}" + {"given": "", "product": " product", "estimated": " est.",
                               "assumed": " assumed"}[b.looks_source]
