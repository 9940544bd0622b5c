"""Throughput, latency and balance over the number of devices."""

from __future__ import annotations

import io
from typing import Any

__all__ = ["scaling_plot"]


def scaling_plot(result: dict[str, Any]) -> bytes:
    """A PNG of :func:`~nearflash.evaluate.scaling.evaluate_scaling`'s figures."""
    from matplotlib.figure import Figure

    rows = sorted(result["scaling"], key=lambda r: r["devices"])
    xs = [r["devices"] for r in rows]
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    speed, latency, even = figure.subplots(1, 3)
    first = rows[0]
    speed.plot(xs, [r["queries_per_second"] for r in rows], "o-", label="simulated")
    speed.plot(xs, [first["queries_per_second"] * x / xs[0] for x in xs], "--", color="grey", label="linear")
    speed.set_yscale("log")
    speed.set_title("queries per second")
    for key, name in (("latency_p50_us", "p50"), ("latency_p99_us", "p99")):
        latency.plot(xs, [r[key] for r in rows], "o-", label=name)
    latency.set_title("latency of a batch, us")
    latency.set_ylim(bottom=0)
    for key, name in (("lookup_balance", "lookups, mean / busiest"), ("flash_balance", "flash, mean / busiest"),
                      ("host_link_busy_share", "host link busy")):
        even.plot(xs, [r[key] for r in rows], "o-", label=name)
    even.set_title("balance")
    even.set_ylim(0, 1.05)
    for axes in (speed, latency, even):
        axes.set_xscale("log", base=2)
        axes.set_xticks(xs, [str(x) for x in xs])
        axes.set_xlabel("devices")
        axes.legend(fontsize=8, frameon=False)
        axes.grid(axis="y", linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['model']}, {result['table_bytes'] / 1e9:.3g} GB, batches of {result['batch']}; "
                    f"{result['source']}", fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
