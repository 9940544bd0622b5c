"""What ``nearflash evaluate --devices`` prints."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from .output import console, geometry

__all__ = ["show_scaling"]


def show_scaling(r: dict[str, Any]) -> None:
    """A line for each number of devices, and what the links and the host cost."""
    console.print(f"{r['model']}: {r['table_bytes'] / 1e9:.3g} GB of tables, lookups alone; devices {r['device']}: "
                  f"{geometry(r['channels'], r['dies_per_channel'], r['planes_per_die'])}, {r['clock_mhz']:g} MHz; "
                  f"{r['source']}, placed by the first {r['learnt_queries']:,} queries, measured on those after them")
    if "modelled_not_in_rtl" in r:
        console.print("MODELLED, NOT IN RTL: a cache of pages in every device.")
    table = Table(title=f"{r['batch']} queries per command, {r['depth']} batches in flight", title_justify="left",
                  pad_edge=False)
    for heading in ("devices", "queries/s", "of linear", "p50 us", "p99 us", "lookups even", "flash even", "device link",
                    "host link", "adding", "tables in parts"):
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    for s in r["scaling"]:
        used = "" if s["devices_used"] == s["devices"] else f" ({s['devices_used']} used)"
        table.add_row(f"{s['devices']}{used}", f"{s['queries_per_second']:,.0f}",
                      *(f"{100 * s[k]:.0f} %" if k.endswith(("share", "balance")) else f"{s[k]:,.1f}" for k in (
                          "efficiency_share", "latency_p50_us", "latency_p99_us", "lookup_balance", "flash_balance",
                          "device_link_busy_share", "host_link_busy_share", "combine_busy_share")),
                      str(s["tables_in_parts_count"]))
    console.print(table)
    console.print("even: the mean over all devices, in shares of the busiest; links and adding: share of the time that the "
                  "busiest is busy (" + ", ".join(f"{k} {v:g}" for k, v in r["costs"].items()) + ")")
