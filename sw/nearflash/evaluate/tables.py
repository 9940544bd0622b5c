"""A table once, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from rich.table import Table as RichTable

from ..models.zoo import shown_name
from .paper import Evaluation, Rows

__all__ = ["Table", "tables"]

Column = tuple[str, str, str]  # key, heading, format of its values


@dataclass(frozen=True)
class Table:
    """``columns``: (key in a row, heading, format). ``brief``: shown on the terminal too. ``prose``: key of a column of
    sentences, which a terminal shows below the table."""

    title: str
    columns: tuple[Column, ...]
    rows: Rows
    note: str = ""
    brief: bool = False
    prose: str = ""

    def cell(self, row: dict[str, Any], column: Column) -> str:
        value = row.get(column[0])
        if value is None:
            return "-"
        return str(value) if isinstance(value, (str, bool)) else format(value, column[2])

    def right(self, column: Column) -> bool:
        """Whether a column holds numbers."""
        return bool(column[2])

    def rich(self) -> RichTable:
        """Without :attr:`prose`."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold", pad_edge=False)
        columns = [c for c in self.columns if c[0] != self.prose]
        for c in columns:
            table.add_column(c[1], justify="right" if self.right(c) else "left")
        for row in self.rows:
            table.add_row(*(self.cell(row, c) for c in columns))
        return table

    def below(self) -> str:
        """What follows the table on a terminal: a line per row of its :attr:`prose`, and the note."""
        lines = [f"{row[self.columns[0][0]]}: {row[self.prose]}" for row in self.rows] if self.prose else []
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def html(self) -> str:
        head = "".join(f'<th class="{"n" if self.right(c) else "t"}">{escape(c[1])}</th>' for c in self.columns)
        body = "".join("<tr>" + "".join(f'<td class="{"n" if self.right(c) else "t"}">{escape(self.cell(r, c))}</td>'
                                        for c in self.columns) + "</tr>\n" for r in self.rows)
        note = f"<p>{escape(self.note)}</p>\n" if self.note else ""
        return (f"<h2>{escape(self.title)}</h2>\n{note}<div><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>"
                "</table></div>\n")


def tables(e: Evaluation, lines: Rows, goals: Rows) -> list[Table]:
    """All tables of an evaluation, the published numbers (``lines``) and nearflash's own goals first."""
    s = e.setting
    names = list(dict.fromkeys(r["system"] for r in e.grid))
    at = f"K = {s.reference_k:g}, batches of {s.reference_batch}, D = {s.dies}"
    cells = {m: e.cell(m, s.reference_k, s.reference_batch) for m in s.models}

    def by_model(title: str, form: str, value: Callable[[dict[str, Any], dict[str, dict[str, Any]]], float], note: str = "",
                 brief: bool = False) -> Table:
        rows = [{"system": n, **{m: value(cells[m][n], cells[m]) for m in s.models}} for n in names]
        columns = (("system", "system", ""), *((m, shown_name(m), form) for m in s.models))
        return Table(f"{title} ({at})", columns, rows, note, brief)

    def key(name: str) -> Callable[[dict[str, Any], dict[str, dict[str, Any]]], float]:
        return lambda cell, _: cell[name]

    def over(cell: dict[str, Any], all_: dict[str, dict[str, Any]]) -> float:
        return cell["queries_per_second"] / all_["SSD-S"]["queries_per_second"]

    stages = [{"model": shown_name(m), "system": n, "stage": stage, "us": us} for m in s.models for n in names
              for stage, us in cells[m][n]["stages_us"].items()]
    ratios = [k for k in e.sensitivity[0] if k.endswith("SSD-S")]
    return [
        Table("The paper's numbers", (("what", "what", ""), ("paper", "paper", ""), ("here", "here", ""),
                                      ("here_calibrated", "with SSD-S fitted", ""), ("error", "error", ""),
                                      ("verdict", "verdict", ""), ("why", "why", "")), lines,
              f"Error: of the stated costs. Fitted: SSD-S's miss takes {e.calibrated_miss_us:.0f} us instead of "
              f"{e.costs.read_miss_us:g} us, so that EMB-VectorSum's lookups are 16 times as fast; the rest is as stated.",
              True, "why"),
        Table("What is asked of nearflash beyond the paper, RMC1", (
            ("what", "what", ""), ("asked", "asked", ""), ("here", "here", ""), ("verdict", "verdict", ""),
            ("why", "why", "")), goals, "With a page window, a row cache, and kernels that keep up; SSD-S's page cache "
              "holds the repeats.", True, "why"),
        by_model("Throughput, inferences per second", ",.0f", key("queries_per_second"), brief=True),
        by_model("Throughput over SSD-S", ".2f", over, brief=True),
        by_model("Mean latency of a batch, us", ",.0f", key("latency_mean_us"), "A batch alone.", True),
        by_model("99th percentile of latency, us", ",.0f", key("latency_p99_us"), "Over the batches of one run, of which "
                 "there are few."),
        by_model("Bytes moved between host and device per inference", ",.0f", key("host_bytes_per_query")),
        by_model("Cell reads per lookup", ".3f", key("cell_reads_per_lookup"), "Pages read from the cells."),
        by_model("Read amplification", ".1f", key("read_amplification"), "Bytes read from the cells per byte of rows asked "
                 "for."),
        Table(f"Time by stage, us per batch ({at})", (("model", "model", ""), ("system", "system", ""),
                                                     ("stage", "stage", ""), ("us", "us", ",.1f")), stages,
              "Stages of RM-SSD and of nearflash overlap with other batches'; those of the others follow each other."),
        Table("SSD-S's cost and the dies: throughput over SSD-S, RMC1", (
            ("dies_per_channel", "dies per channel", "d"), ("page_cache", "page cache", ""),
            ("read_miss_us", "miss, us", ".1f"),
            ("ssd_s_us_per_lookup", "SSD-S per lookup, us", ".2f"), *((r, r, ".1f") for r in ratios)), e.sensitivity,
            "Warm: a page that comes for the first time is cached as probably as any is. Cold: only repeats hit."),
        Table("What reading each row once would be worth, RMC1", (
            ("dies_per_channel", "dies per channel", "d"), ("distinct_share", "distinct rows, share of lookups", ".1%"),
            ("ssd_s_us_per_lookup", "SSD-S per lookup, us", ".2f"),
            ("every_lookup_ratio", "every lookup read, over SSD-S", ".1f"),
            ("each_row_once_ratio", "each row once, over SSD-S", ".1f")), e.bounds,
            "A bound: lookups alone, evenly over all dies, against an SSD-S whose page cache holds the repeats alone."),
        Table("MLP time and composition", (
            ("model", "model", ""), ("kernels", "kernels", ""), ("multipliers", "multipliers", ",d"),
            ("plain_cycles", "without, cycles", ",d"), ("composed_cycles", "with, cycles", ",d"),
            ("saved_share", "saved", ".1%")), e.composition, "From the last input to the logit of a sample alone in the "
            "engine. Least: hidden behind the lookups. Balanced: the best of a few budgets of steps."),
        Table("All systems, models, localities and batch sizes", (
            ("model", "model", ""), ("locality_k", "K", "g"), ("batch", "batch", "d"), ("system", "system", ""),
            ("queries_per_second", "inferences/s", ",.0f"), ("latency_mean_us", "latency, us", ",.0f"),
            ("latency_p50_us", "p50", ",.0f"), ("latency_p99_us", "p99", ",.0f"), ("batches", "batches", "d"),
            ("host_bytes_per_query", "bytes/inference", ",.0f"), ("cell_reads_per_lookup", "cell reads/lookup", ".3f"),
            ("read_amplification", "read amplification", ".1f")), e.grid),
        Table("Costs", (("cost", "cost", ""), ("value", "value", "g"), ("changed", "changed", ""), ("source", "source", "")),
              e.costs.rows()),
        Table("The host's times", (("what", "what", ""), ("us", "us", ",.3f")), [
            *({"what": f"MLP of {shown_name(m)}, batch of {n}", "us": us}
              for m, by in e.host.mlp_us.items() for n, us in by.items()),
            *({"what": f"vector of {d} elements from DRAM", "us": us} for d, us in e.host.vector_us.items())],
            e.host.source)]
