"""The figures of an evaluation."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.zoo import shown_name
from .paper import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plots"]

DPI = 110


def plots(e: Evaluation) -> dict[str, bytes]:
    """PNG files by name."""
    return {name: _png(figure) for name, figure in _figures(e).items()}


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def _figures(e: Evaluation) -> dict[str, Figure]:
    s = e.setting
    at = f"K = {s.reference_k:g}, batches of {s.reference_batch}, {s.dies} dies per channel"
    out = {
        "throughput": _bars(e, "queries_per_second", "inferences per second", f"Throughput; {at}"),
        "latency": _bars(e, "latency_mean_us", "us", f"Mean latency of a batch alone; {at}"),
        "bytes": _bars(e, "host_bytes_per_query", "bytes", f"Bytes between host and device per inference; {at}"),
        "cell_reads": _bars(e, "cell_reads_per_lookup", "pages", f"Cell reads per lookup; {at}", False),
        "stages": _stages(e, f"Time by stage of a batch; {at}"), "sensitivity": _sensitivity(e)}
    for key, what, unit, names in (
            ("queries_per_second", "Throughput", "inferences per second", ("locality", "batch")),
            ("latency_mean_us", "Mean latency of a batch alone", "us", ("latency_by_locality", "latency_by_batch"))):
        if len(s.localities) > 1:
            out[names[0]] = _lines(e, key, unit, s.localities, "K (larger: fewer repeats)", lambda m, k: e.cell(
                m, k, s.reference_batch), f"{what} by locality; batches of {s.reference_batch}")
        if len(s.batches) > 1:
            out[names[1]] = _lines(e, key, unit, s.batches, "queries per batch", lambda m, b: e.cell(m, s.reference_k, b),
                                   f"{what} by batch size; K = {s.reference_k:g}")
    return out


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _colours(names: list[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    return {n: colormaps["tab10"](i % 10) for i, n in enumerate(names)}


def _systems(e: Evaluation) -> list[str]:
    return list(dict.fromkeys(r["system"] for r in e.grid))


def _bars(e: Evaluation, key: str, unit: str, title: str, log: bool = True) -> Figure:
    """A group for each model, a bar for each system."""
    s, names = e.setting, _systems(e)
    figure = _figure(12, 4.5)
    axes = figure.subplots()
    width = 0.85 / len(names)
    for i, (name, colour) in enumerate(_colours(names).items()):
        values = [e.cell(m, s.reference_k, s.reference_batch)[name][key] for m in s.models]
        axes.bar(np.arange(len(s.models)) + (i - len(names) / 2 + 0.5) * width, values, width, label=name, color=colour)
    axes.set_xticks(range(len(s.models)), [shown_name(m) for m in s.models])
    if log:
        axes.set_yscale("log")
    _finish(axes, "", unit, title)
    axes.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False)
    return figure


def _lines(e: Evaluation, key: str, unit: str, xs: tuple[float, ...], label: str,
           cell: Callable[[str, Any], dict[str, dict[str, Any]]], title: str) -> Figure:
    """A panel for each model, a line for each system."""
    s, names = e.setting, _systems(e)
    figure = _figure(3 * len(s.models), 4.2)
    panels = np.atleast_1d(figure.subplots(1, len(s.models)))
    for axes, m in zip(panels, s.models, strict=True):
        for name, colour in _colours(names).items():
            axes.plot(range(len(xs)), [cell(m, x)[name][key] for x in xs], "o-", label=name, color=colour,
                      markersize=3)
        axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
        axes.set_yscale("log")
        _finish(axes, label, unit if m == s.models[0] else "", shown_name(m))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, fontsize=8, loc="outside lower center", frameon=False)
    figure.suptitle(title)
    return figure


def _stages(e: Evaluation, title: str) -> Figure:
    """A panel for each model, a bar for each system, its stages in shares of their sum: their lengths differ by decades."""
    s, names = e.setting, _systems(e)
    figure = _figure(3.2 * len(s.models), 4.5)
    panels = np.atleast_1d(figure.subplots(1, len(s.models), sharey=True))
    cells = {m: e.cell(m, s.reference_k, s.reference_batch) for m in s.models}
    kinds = list(dict.fromkeys(k for by in cells.values() for n in names for k in by[n]["stages_us"]))
    from matplotlib import colormaps

    for axes, m in zip(panels, s.models, strict=True):
        left = np.zeros(len(names))
        total = np.array([sum(cells[m][n]["stages_us"].values()) for n in names])
        for i, kind in enumerate(kinds):
            width = np.array([cells[m][n]["stages_us"].get(kind, 0.0) for n in names]) / total
            axes.barh(range(len(names)), width, left=left, label=kind, color=colormaps["tab20"](i % 20))
            left += width
        axes.set_yticks(range(len(names)), names, fontsize=8)
        if m == s.models[0]:  # the axis is shared
            axes.invert_yaxis()
        _finish(axes, "share of the stages' sum", "", shown_name(m))
        axes.grid(visible=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=7, fontsize=8, loc="outside lower center", frameon=False)
    figure.suptitle(title)
    return figure


def _sensitivity(e: Evaluation) -> Figure:
    """RM-SSD over SSD-S by the cost of a miss, a line for each number of dies."""
    figure = _figure(11, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cache in zip(panels, ("warm", "cold"), strict=True):
        for d in e.setting.sensitivity_dies:
            rows = [r for r in e.sensitivity if (r["dies_per_channel"], r["page_cache"]) == (d, cache)]
            axes.plot([r["read_miss_us"] for r in rows], [r["RM-SSD (paper) / SSD-S"] for r in rows], "o-", markersize=3,
                      label=f"{d} {'die' if d == 1 else 'dies'} per channel")
        axes.axhline(36, color="black", linewidth=0.8, linestyle="--", label="published, at most")
        for x, name in ((e.costs.read_miss_us, "stated"), (e.calibrated_miss_us, "fitted")):
            axes.axvline(x, color="grey", linewidth=0.8)
            axes.annotate(name, (x, 1), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, va="top", ha="right")
        axes.set_xscale("log")
        axes.set_yscale("log")
        _finish(axes, "SSD-S's cost of a miss, us", "RM-SSD (paper) over SSD-S", f"RMC1, {cache} page cache")
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _finish(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.3)
