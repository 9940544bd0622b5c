"""``nearflash evaluate --paper`` and ``--compare``: RM-SSD's evaluation again, and two results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from ..whole import whole_file
from .output import console, text_column, working, write_json

if TYPE_CHECKING:  # takes PyTorch, which --help shouldn't wait for
    from ..evaluate.paper import Setting

__all__ = ["compare_results", "paper_report"]

SHOWN = 40  # differences on the terminal


def paper_report(out: Path, dies: int | None, table_gb: float | None, seed: int, quick: bool, costs_file: Path | None,
                 host_file: Path | None, json_file: Path | None) -> None:
    """Run the evaluation and write ``out``: report.html, paper.json (also to ``json_file``), a PNG for each plot."""
    from ..evaluate.costs import Costs
    from ..evaluate.goals import goal_steps, goals
    from ..evaluate.host import HostTimes, measure_host
    from ..evaluate.paper import Setting, evaluate_paper, steps
    from ..evaluate.plots import plots
    from ..evaluate.published import RESOURCE_MODELS, published, resource_savings
    from ..evaluate.report import command_line, html_report, versions
    from ..evaluate.tables import tables
    from ..models import model_spec

    changes: dict[str, Any] = {"seed": seed}
    changes |= {} if dies is None else {"dies": dies}
    changes |= {} if table_gb is None else {"table_gb": table_gb}
    setting: Setting = Setting.quick(**changes) if quick else Setting(**changes)
    costs = Costs() if costs_file is None else Costs.from_toml(costs_file)
    if host_file is not None:
        host = HostTimes.from_json(host_file)
    else:
        with working("timing the host's MLPs"):
            host = measure_host([model_spec(m) for m in setting.models], setting.host_batches)
    columns = (text_column("evaluating"), BarColumn(), MofNCompleteColumn(), text_column("{task.fields[last]}"),
               TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = steps(setting) + goal_steps(setting) + (0 if quick else len(RESOURCE_MODELS))
        task = progress.add_task("paper", total=total, last="")

        def done(text: str) -> None:
            progress.update(task, advance=1, last=text)

        found = evaluate_paper(setting, costs, host, done)
        asked = goals(setting, costs, host, done)
        savings = [] if quick else resource_savings(costs.naive_kernel, done)
    lines = published(found, savings)
    shown, pngs = tables(found, lines, asked), plots(found)
    result = {"command": command_line(), "versions": versions(), "published": lines, "goals": asked,
              "kernel_search": savings, **found.to_dict()}
    for name, png in pngs.items():
        with whole_file(out / f"{name}.png") as part:
            part.write_bytes(png)
    with whole_file(out / "report.html") as part:
        part.write_text(html_report("nearflash: the evaluation of RM-SSD again", command_line(), versions(), shown, pngs))
    write_json(out / "paper.json", result)
    write_json(json_file, result)
    for table in shown:
        if table.brief:
            console.print(table.rich())
            if table.below():
                console.print(table.below())
    console.print(f"report.html, paper.json and {len(pngs)} plots written to {out}")


def compare_results(before: Path, after: Path, json_file: Path | None) -> None:
    """Print what differs, the largest changes first."""
    from ..evaluate.compare import differences, read_result

    rows = differences(read_result(before), read_result(after))
    write_json(json_file, {"before": str(before), "after": str(after), "differences": rows})
    if not rows:
        console.print("no figure differs")
        return
    differ = "1 figure differs" if len(rows) == 1 else f"{len(rows)} figures differ"
    table = Table(title=f"{before} against {after}: {differ}", title_justify="left", title_style="bold",
                  pad_edge=False)
    for heading in ("figure", "before", "after", "change"):
        table.add_column(heading, justify="left" if heading == "figure" else "right", overflow="fold")
    for r in rows[:SHOWN]:
        table.add_row(r["figure"], *("-" if r[k] is None else f"{r[k]:,.6g}" if isinstance(r[k], float) else str(r[k])
                                     for k in ("before", "after")),
                      "-" if r["change"] is None else f"{100 * r['change']:+.2f} %")
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN} smaller ones (--json FILE has all)")
