"""``nearflash sar``: train, evaluate and compare despecklers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..contract import ConfigError, DeviceConfig
from ..figures import figure_format, save_figure
from ..sar.methods import METHOD_NAMES, NETWORK_NAMES, Method
from .fabric import DEVICE_HELP, FabricConfig, Overlay, Watch, check_fabric, loaded
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, output_path, show, text_column, write_json
from .sar_calibrate import calibrate
from .sar_train import train

if TYPE_CHECKING:
    from ..sar.evaluate import CleanImage

sar = typer.Typer(no_args_is_help=True, rich_markup_mode="rich",
                  help="SAR despecklers: train, evaluate, compare, calibrate.")
sar.command()(train)
sar.command()(calibrate)

Json = Annotated[Path | None, JsonFile]
Device = Annotated[str, typer.Option(help=f"Where networks run: {DEVICE_HELP}")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights of the network instead of those that ship.")]


@contextmanager
def _progress(task: str) -> Iterator[Any]:
    """A bar that is gone when done; gives note(done, total, what)."""
    with Progress(text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), text_column("{task.fields[note]}"),
                  TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        number = bar.add_task(task, total=None, note="")
        yield lambda done, total, what: bar.update(number, completed=done, total=total, note=what)


@sar.command()
def evaluate(
    ctx: typer.Context,
    set_: Annotated[Path, typer.Option("--set", help="Folder of clean 8-bit images (PNG, JPEG), such as Set12.")],
    looks: Annotated[float, typer.Option(help="Looks of the simulated speckle.")] = 1.0,
    seeds: Annotated[int, typer.Option(help="Noise realisations per image.", min=1)] = 10,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHOD_NAMES)}.")] = "base",
    images: Annotated[int | None, typer.Option(help="Only the first so many images by name.", min=1)] = None,
    protocol: Annotated[str, typer.Option(help="project: amplitude g/255; published: (g+1)/256.")] = "project",
    correlated: Annotated[bool, typer.Option("--correlated", help="Spatially correlated speckle, as of a radar that samples "
                                             "1.25 times denser than its band.")] = False,
    self_ensemble: Annotated[bool, typer.Option("--self-ensemble", help="Average the results of 8 flips and "
                                                "rotations.")] = False,
    by_block: Annotated[bool, typer.Option("--by-block", help="With --device fabric-model: what int8 costs each of the "
                                           "network's blocks, alone and all but it; 2 runs a block.")] = False,
    device: Device = "cpu",
    config: FabricConfig = None,
    overlay: Overlay = None,
    checkpoint: Checkpoint = None,
    json_file: Json = None,
) -> None:
    """Score a despeckler on clean images with simulated speckle: PSNR and SSIM on amplitude, and speed.

    Example: nearflash sar evaluate --set Set12 --looks 1 --seeds 10 --json base_l1.json

    Example: nearflash sar evaluate --set Set12 --images 2 --seeds 1 --device fabric-model --by-block --json by_block.json
    """
    check_outputs(json_file=json_file)
    check_fabric(ctx, device)
    needs(ctx, device == "fabric-model", "--device fabric-model", "by_block")
    needs(ctx, method in NETWORK_NAMES, "a network as --method", "by_block")
    excludes(ctx, "by_block", "self_ensemble", "correlated")
    from ..sar import evaluate as evaluation
    from ..sar import methods
    from ..sar.scene import check_looks

    check_looks(looks)

    clean = evaluation.load_images(set_, images)

    if by_block:
        _by_block(clean, set_.name, method, looks, seeds, checkpoint, config, protocol, json_file)
        return

    def load() -> methods.Method:
        return methods.load_method(method, device=device, checkpoint=checkpoint, config=config, overlay=overlay)

    with closing(loaded(load, device)) as found, _progress(f"{method}, {looks:g} looks") as note:
        run = methods.self_ensemble(found) if self_ensemble else found
        watch = Watch(run)
        watch.expect(len(clean) * seeds)
        result = evaluation.evaluate(clean, run, looks, seeds, protocol=protocol, note=note,
                                     response=evaluation.CORRELATED if correlated else None)
        result |= {"set": set_.name, "device": device} | watch.record()
    write_json(json_file, result)
    show(f"{method} on {set_.name}: {result['images_count']} images x {seeds} seeds, {looks:g} looks, {result['speckle']} "
         "speckle", [
        ("PSNR", f"{result['psnr_db']:.2f} dB", f"noisy {result['noisy_psnr_db']:.2f} dB"),
        ("SSIM", f"{result['ssim']:.3f}", f"noisy {result['noisy_ssim']:.3f}"),
        ("gain", f"{result['dg_db']:.2f} dB", ""),
        *([("PSNR without 04", f"{result['psnr_db_without_04']:.2f} dB", "part of it is in BSDS500"),
           ("PSNR, first 10", f"{result['psnr_db_first_10']:.2f} dB", "")] if "psnr_db_without_04" in result else []),
        ("speed", f"{result['megapixels_per_second']:.3f} Mpx/s", f"on {device}"),
    ])


def _by_block(clean: list[CleanImage], name: str, method: str, looks: float, seeds: int, checkpoint: Path | None,
              config: Path | None, protocol: str, json_file: Path | None) -> None:
    from ..sar.by_block import loss_by_block

    settings = None if config is None else DeviceConfig.from_toml(config)
    with _progress(f"{method}, {looks:g} looks") as note:
        result = loss_by_block(clean, method, looks, seeds, checkpoint=checkpoint, config=settings, protocol=protocol,
                               note=note)
    result |= {"set": name, "device": "fabric-model"}
    write_json(json_file, result)
    table = Table(title=f"{method} on {name}: {result['images_count']} images x {seeds} seeds, {looks:g} looks; fp32 "
                  f"{result['fp32_psnr_db']:.3f} dB, int8 {result['psnr_db']:.3f} dB, lost {result['lost_db']:.3f} dB",
                  title_justify="left", pad_edge=False)
    for heading in ("block", "operators", "lost with only it in int8 (dB)", "lost with all but it (dB)"):
        table.add_column(heading, justify="left" if heading == "block" else "right")
    for row in result["blocks"]:
        table.add_row(row["block"], str(row["operators_count"]), f"{row['only_lost_db']:.4f}",
                      f"{row['without_lost_db']:.4f}")
    console.print(table)


@sar.command()
def compare(
    ctx: typer.Context,
    scene: Annotated[Path, typer.Argument(help="GeoTIFF, PNG or .npy; small enough to look at.")],
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "base,lee,nlm",
    looks: Annotated[str, typer.Option(help="Looks of the scene, or auto: estimated (1 with --simulate).")] = "auto",
    out: Annotated[Path, typer.Option("-o", "--out", parser=output_path, metavar="FILE", help="Figure to write (PNG, PDF, "
                                      "SVG).")] = Path("compare.png"),
    clean: Annotated[Path | None, typer.Option(help="The scene without speckle, in the same domain: adds PSNR, "
                                                "SSIM, DG.")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="The scene is clean: add speckle of that many looks to it "
                                           "first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of --simulate.", min=0)] = 0,
    domain: Annotated[str | None, typer.Option(help="amplitude, intensity, db or complex (default: what the file says, else "
                                               "what its statistics tell).")] = None,
    db_scale: Annotated[float, typer.Option(help="Units per decibel of dB data.")] = 1.0,
    band: Annotated[int, typer.Option(help="Band of the file, from 1.", min=1)] = 1,
    variable: Annotated[str | None, typer.Option(help="Of an HDF5 or netCDF file: the image's name.")] = None,
    nodata: Annotated[float | None, typer.Option(help="Value of missing pixels (default: the file's).")] = None,
    crop: Annotated[str | None, typer.Option(metavar="ROW,COLUMN,HEIGHT,WIDTH", help="Compare on this part alone.")] = None,
    zoom: Annotated[str | None, typer.Option(metavar="ROW,COLUMN,HEIGHT,WIDTH", help="Show this part alone (of the cropped "
                                             "image); numbers are of all.")] = None,
    row: Annotated[int | None, typer.Option(help="Row of the profile (default: the middle one).")] = None,
    device: Device = "cpu",
    config: FabricConfig = None,
    overlay: Overlay = None,
    checkpoint: Checkpoint = None,
    json_file: Json = None,
) -> None:
    """Despeckle one image by several methods: a figure of outputs, ratio images and a profile, and a table of metrics.

    Example: nearflash sar compare scene.tif --methods base,lee,bm3d --looks 1 -o compare.png --json compare.json
    """
    check_outputs(out=out, json_file=json_file)
    figure_format(out, "--out")
    needs(ctx, simulate, "--simulate", "seed")
    needs(ctx, domain == "db", "--domain db", "db_scale")
    from ..sar.io import ProductOptions, is_container

    needs(ctx, is_container(scene), "an HDF5 or netCDF file", "variable")
    product = ProductOptions(variables=(variable,) if variable else ())
    names = [m.strip() for m in methods.split(",") if m.strip()]
    for name in names:
        if name not in METHOD_NAMES:
            raise ConfigError("--methods", name, f"must be of {', '.join(METHOD_NAMES)}")
    needs(ctx, not set(names).isdisjoint(NETWORK_NAMES), "a network among --methods", "checkpoint", "device")
    check_fabric(ctx, device)
    if simulate and clean is not None:
        raise ConfigError("clean", str(clean), "must be absent with --simulate, which takes the scene itself as clean")
    import numpy as np

    from ..sar import compare as comparison
    from ..sar.io import read_array
    from ..sar.looks import estimate_looks
    from ..sar.scene import LOOKS_WHEN_UNKNOWN, check_looks
    from ..sar.speckle import speckled
    from ..sar.tiles import TILE, tile_count

    given = check_looks(looks)
    noisy, info = read_array(scene, domain, nodata=nodata, db_scale=db_scale, band=band - 1, product=product)
    # A truth has no speckle that could tell its domain
    truth = (read_array(clean, info.domain, nodata=nodata, db_scale=db_scale, band=band - 1)[0] if clean is not None
             else None)
    if crop is not None:
        part = comparison.view(crop, info.shape, "--crop")
        truth = truth[part] if truth is not None and truth.shape == noisy.shape else truth
        noisy = noisy[part]
    shown = comparison.view(zoom, (noisy.shape[0], noisy.shape[1]), "--zoom") if zoom is not None else None
    estimate = estimate_looks([noisy]) if given is None and info.looks is None and not simulate else None
    number = given or info.looks or (estimate.looks if estimate else LOOKS_WHEN_UNKNOWN)
    if row is not None and not 0 <= row < noisy.shape[0]:
        raise ConfigError("--row", row, f"must be from 0 to {noisy.shape[0] - 1}")
    if simulate:
        truth = noisy
        noisy = speckled(np.nan_to_num(truth), number, np.random.default_rng(seed))
        noisy[np.isnan(truth)] = np.nan
    peak = 1.0
    if truth is not None:  # the data range of PSNR: that of the file's integers, else the largest amplitude
        kind = np.dtype(info.dtype)
        integers = kind.kind == "u" and info.domain == "amplitude"
        peak = float(np.iinfo(kind).max) if integers else float(np.sqrt(np.nanmax(truth)))
    def ready(method: Method) -> None:
        rows, columns = noisy.shape
        Watch(method).expect(tile_count(rows, columns, TILE, method.margin, method.multiple))

    with _progress("compare") as note:
        result = comparison.compare(noisy, names, number, clean=truth, peak=peak, device=device, checkpoint=checkpoint,
                                    config=config, overlay=overlay, note=note, ready=ready)
    save_figure(comparison.draw(result, row, shown), out)
    write_json(json_file, {"scene": scene.name, "looks": number, "domain": info.domain, "figure": str(out),
                           "methods": result.metrics,
                           "windows": [[r.start, r.stop, c.start, c.stop] for r, c in result.windows]})
    for note in info.notes:
        console.print(f"{scene.name}: {note}", style="yellow", soft_wrap=True)
    source = "" if given or info.looks else " (assumed)"
    if estimate:
        source = f" (estimated: {estimate.low:.2g} to {estimate.high:.2g})"
    _show_metrics(f"{scene.name}, {info.domain}, {number:.3g} looks{source}, {len(result.windows)} homogeneous windows",
                  result.metrics)
    console.print(f"written to {out}")


def _show_metrics(title: str, metrics: dict[str, dict[str, Any]]) -> None:
    """Methods beside each other, a metric a line."""
    lines = (("psnr_db", "PSNR (dB)", ".2f"), ("ssim", "SSIM", ".3f"), ("dg_db", "DG (dB)", ".2f"),
             ("enl_in", "ENL in", ".1f"), ("enl_out", "ENL out", ".1f"), ("cx_out", "Cx out", ".3f"),
             ("ratio_mean", "ratio mean", ".3f"), ("ratio_variance", "ratio variance", ".3f"),
             ("ratio_variance_expected", "1 / looks", ".3f"), ("ratio_variance_over_input", "ratio / input variance", ".3f"),
             ("mean_kept", "mean out / in", ".3f"),
             ("epd_roa_side3_horizontal", "EPD-ROA of 3 x 5 pixels, horizontal", ".3f"),
             ("epd_roa_side3_vertical", "EPD-ROA of 3 x 5 pixels, vertical", ".3f"),
             ("megapixels_per_second", "speed (Mpx/s)", ".3f"))
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("")
    for name in metrics:
        table.add_column(name, justify="right")
    for key, heading, spec in lines:
        if any(key in m for m in metrics.values()):
            table.add_row(heading, *("-" if m.get(key) is None else format(m[key], spec) for m in metrics.values()))
    console.print(table)
