"""Methods side by side on one image: pictures, ratio images, a profile along one row, and a table of metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract.errors import ConfigError, DataError
from .api import despeckle
from .metrics import SSIM_SIZE, Window, despeckling_gain, homogeneous_windows, no_reference_report, psnr, ratio_image, ssim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .methods import Method

__all__ = ["Comparison", "brightest", "compare", "draw", "view"]

COLUMNS = 4  # methods beside each other
WINDOW = 32  # pixels, side of a homogeneous window


@dataclass(frozen=True)
class Comparison:
    """Intensities float32 [H, W] by method in the order asked for, the windows measured on, and each method's metrics."""

    noisy: np.ndarray
    outputs: dict[str, np.ndarray]
    looks: float
    windows: list[Window]
    clean: np.ndarray | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)


def compare(noisy: np.ndarray, methods: Sequence[str], looks: float, *, clean: np.ndarray | None = None, peak: float = 1.0,
            device: str = "cpu", checkpoint: Path | None = None, config: Path | None = None, overlay: Path | None = None,
            note: Callable[[int, int, str], None] = lambda done, total, name: None,
            ready: Callable[[Method], None] = lambda method: None) -> Comparison:
    """Despeckle ``noisy`` intensity [H, W] (NaN: no data) of ``looks`` looks by each of ``methods`` and measure.

    Args:
        clean: intensity [H, W] of the truth; adds PSNR, SSIM and DG on amplitude with ``peak`` as data range, the outputs
            clipped to [0, peak].
        device, config, overlay: where the networks among ``methods`` run, see :func:`.methods.load_method`; filters run on
            the CPU.
        checkpoint: weights of those networks.
        note: hears how many of the methods are done, and which is next.
        ready: gets each method before its work.

    Raises:
        ConfigError, DataError: no, unknown or repeated methods; shapes differ; what :func:`nearflash.sar.despeckle` raises.
    """
    from .methods import NETWORK_NAMES, load_method

    if not methods or len(set(methods)) != len(methods):
        raise ConfigError("methods", ",".join(methods), "must be at least one name, none of them twice")
    if clean is not None and clean.shape != noisy.shape:
        raise DataError("clean.shape", clean.shape, f"must be that of the scene, {noisy.shape}")
    windows = homogeneous_windows(noisy, WINDOW)
    result = Comparison(noisy, {}, looks, windows, clean)
    for k, name in enumerate(methods):
        note(k, len(methods), name)
        where: dict[str, Any] = {"device": device, "checkpoint": checkpoint, "config": config, "overlay": overlay}
        start = time.perf_counter()
        with closing(load_method(name, **(where if name in NETWORK_NAMES else {}))) as method:
            ready(method)
            out = despeckle(noisy, looks=looks, domain="intensity", borders="keep", method=method)
        seconds = time.perf_counter() - start
        result.outputs[name] = out
        result.metrics[name] = {"seconds": seconds, "megapixels_per_second": noisy.size / 1e6 / seconds,
                                **no_reference_report(noisy, out, looks, windows or None)}
        if clean is not None:
            result.metrics[name] |= _against(clean, noisy, out, peak)
    note(len(methods), len(methods), "")
    return result


def _against(clean: np.ndarray, noisy: np.ndarray, out: np.ndarray, peak: float) -> dict[str, float | None]:
    """Scores on amplitude / peak. SSIM is None where it isn't defined: with missing pixels, or below its window's size."""
    reference, before = np.sqrt(clean, dtype=np.float64) / peak, np.sqrt(noisy, dtype=np.float64) / peak
    after = np.clip(np.sqrt(out, dtype=np.float64) / peak, 0, 1)
    whole = min(clean.shape) >= SSIM_SIZE and bool(np.isfinite(reference + after).all())
    scores = {"psnr_db": psnr(reference, after), "ssim": ssim(reference, after) if whole else None,
              "dg_db": despeckling_gain(reference, before, after)}
    return {k: v if v is not None and math.isfinite(v) else None for k, v in scores.items()}


def view(text: str, shape: tuple[int, int], field: str) -> Window:
    """The part of an image of ``shape`` that "row,column,height,width" (pixels) names.

    Raises:
        ConfigError: not four whole numbers; not inside the image.
    """
    try:
        row, column, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(field, text, "must be row,column,height,width in pixels") from None
    if row < 0 or column < 0 or height < 1 or width < 1 or row + height > shape[0] or column + width > shape[1]:
        raise ConfigError(field, text, f"must be inside the image of {shape[0]} rows and {shape[1]} columns")
    return slice(row, row + height), slice(column, column + width)


def brightest(image: np.ndarray) -> float:
    """The amplitude that is shown white for an intensity image [H, W]: what few targets exceed doesn't count, so that none
    darkens the rest."""
    amplitude = np.sqrt(image[np.isfinite(image)])
    if not amplitude.size:
        return 1.0
    most, all_but_targets = np.percentile(amplitude, [95, 99.5])
    return 1.1 * min(float(all_but_targets), 2 * float(most)) or float(all_but_targets) or 1.0


def draw(result: Comparison, row: int | None = None, zoom: Window | None = None) -> Figure:
    """The figure of a comparison; ``zoom``: the part that its pictures show, default all.

    A column for the input (the windows measured on outlined; the truth, if there is one, below it) and one for each
    method, its ratio image below; all amplitudes on one gray scale. At the bottom, amplitude along ``row`` (default: the
    middle one), which the pictures mark, and the ratios' distribution against that of speckle alone, Gamma(L, 1/L).

    Raises:
        ConfigError: a row outside the image.
    """
    from matplotlib.figure import Figure

    height, width = result.noisy.shape
    zoom = zoom or (slice(0, height), slice(0, width))
    row = height // 2 if row is None else row
    if not 0 <= row < height:
        raise ConfigError("row", row, f"must be from 0 to {height - 1}")
    names = list(result.outputs)
    groups = [names[k : k + COLUMNS] for k in range(0, len(names), COLUMNS)]
    columns = 1 + len(groups[0])

    # Inches: pictures of one area whatever their shape, within reason
    height, width = (s.stop - s.start for s in zoom)
    aspect = min(max(width / height, 0.4), 3.0)
    wide, high = 3.0 * math.sqrt(aspect), 3.0 / math.sqrt(aspect) + 0.5
    heights = [high] * (2 * len(groups)) + [2.8]
    figure = Figure(figsize=(max(wide * columns, 9.0) + 0.9, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)

    # Of the calmest picture: speckle's tail would leave the rest dark
    calm = result.clean if result.clean is not None else result.outputs[names[0]]
    top = brightest(calm[zoom])

    def amplitude(place: Any, image: np.ndarray, title: str) -> Axes:
        axes = figure.add_subplot(place)
        _picture(axes, np.sqrt(image[zoom]), title, "gray", (0, top), zoom)
        if zoom[0].start <= row < zoom[0].stop:
            axes.axhline(row, color="tab:orange", linewidth=0.8)
        return axes

    first = amplitude(grid[0, 0], result.noisy, f"input, {result.looks:.3g} looks\n")
    _outline(first, result.windows)
    if result.clean is not None:
        amplitude(grid[1, 0], result.clean, "clean\n")
    spread = min(3 / math.sqrt(result.looks), 1.0)
    ratios = []
    for g, group in enumerate(groups):
        for k, name in enumerate(group, 1):
            m = result.metrics[name]
            amplitude(grid[2 * g, k], result.outputs[name], _title(name, m))
            axes = figure.add_subplot(grid[2 * g + 1, k])
            ratio = ratio_image(result.noisy, result.outputs[name])
            ratio[(result.noisy == 0) & (result.outputs[name] == 0)] = 1  # nothing removed
            _picture(axes, ratio[zoom], f"input / {name} in the windows:\nmean {_number(m['ratio_mean'])}, "
                     f"variance {_number(m['ratio_variance'])}", "RdBu_r", (1 - spread, 1 + spread), zoom)
            ratios.append(axes)
    figure.colorbar(ratios[0].images[0], ax=ratios[: len(groups[0])], location="right", shrink=0.8, label="ratio",
                    extend="max" if spread == 1 else "both")

    bottom = grid[-1, :].subgridspec(1, 2, width_ratios=[2.6, 1])
    _profile(figure.add_subplot(bottom[0, 0]), result, row, zoom[1])
    _distribution(figure.add_subplot(bottom[0, 1]), result)
    return figure


def _profile(axes: Axes, result: Comparison, row: int, columns: slice) -> None:
    axes.plot(np.sqrt(result.noisy[row]), color="0.8", linewidth=0.6, label="input")
    calm = dict(result.outputs)
    if result.clean is not None:
        axes.plot(np.sqrt(result.clean[row]), color="black", linewidth=1.2, label="clean")
        calm["clean"] = result.clean
    for name, image in result.outputs.items():
        axes.plot(np.sqrt(image[row]), linewidth=1, label=name)
    # Peaks of the input may leave the frame, and so may a target that would flatten everything else
    highest = max(brightest(i[row, columns]) for i in calm.values())
    axes.set(xlim=(columns.start, max(columns.stop - 1, columns.start + 1)), ylim=(0, 1.2 * highest),
             xlabel="column (pixels)", ylabel="amplitude")
    axes.set_title(f"profile along row {row}", fontsize=10, loc="left")
    axes.legend(ncols=6, fontsize=8, frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)


def _distribution(axes: Axes, result: Comparison) -> None:
    looks = result.looks
    end = 1 + 3 / math.sqrt(looks)
    bins = np.linspace(0, end, 61)
    for name, image in result.outputs.items():
        ratio = ratio_image(result.noisy, image)
        ratio = ratio[np.isfinite(ratio)]
        if ratio.size:
            counts = np.histogram(ratio, bins)[0] / ratio.size / np.diff(bins)
            axes.stairs(counts, bins, label=name)
    x = np.linspace(end / 1000, end, 400)
    density = np.exp(looks * np.log(looks * x) - looks * x - math.lgamma(looks)) / x
    axes.plot(x, density, color="black", linewidth=1, linestyle="--", label="speckle")
    # A filter that leaves many pixels as they are has a spike at 1, which may leave the frame
    axes.set(xlim=(0, end), ylim=(0, 2 * min(density.max(), 1 + math.sqrt(looks))), xlabel="input / output",
             ylabel="density")
    axes.set_title("ratios of the whole image", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _title(name: str, metrics: dict[str, Any]) -> str:
    parts = [f"{metrics['psnr_db']:.2f} dB"] if metrics.get("psnr_db") is not None else []
    if metrics.get("ssim") is not None:
        parts.append(f"SSIM {metrics['ssim']:.3f}")
    if metrics["enl_out"] is not None:
        parts.append(f"ENL {metrics['enl_out']:.0f}")
    return f"{name}\n{', '.join(parts)}"


def _picture(axes: Axes, image: np.ndarray, title: str, colours: str, limits: tuple[float, float], place: Window) -> None:
    import matplotlib

    # Missing pixels get a colour that the palette lacks. Shrunk as data, not as colours: else noise about 1 looks purple
    palette = matplotlib.colormaps[colours].with_extremes(bad="tab:olive")
    rows, columns = place
    axes.imshow(image, cmap=palette, vmin=limits[0], vmax=limits[1], interpolation="antialiased", interpolation_stage="data",
                extent=(columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5))
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Axes, windows: Sequence[Window]) -> None:
    from matplotlib.patches import Rectangle

    for rows, columns in windows:  # those outside the picture are cut off with it
        axes.add_patch(Rectangle((columns.start - 0.5, rows.start - 0.5), columns.stop - columns.start,
                                 rows.stop - rows.start, fill=False, edgecolor="tab:cyan", linewidth=0.9))
