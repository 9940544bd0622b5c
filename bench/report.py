"""How the benches report: a rich table each, and rows of plain values with the unit in the key."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearflash.cli.output import console, write_json
from nearflash.contract import DeviceConfig, cores
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Rows", "console", "environment", "finish", "progress", "show_rows", "silent", "streamed_layers"]

Rows = list[dict[str, Any]]


def progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
                    TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def silent() -> Iterator[None]:
    """What a command prints is not printed."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def show_rows(title: str, columns: Sequence[tuple[str, str, str]], rows: Rows, notes: Sequence[str] = ()) -> None:
    """``columns``: (key, heading, format specification; "" for text)."""
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for _, heading, spec in columns:
        table.add_column(heading, justify="right" if spec else "left")
    for row in rows:
        table.add_row(*("-" if row.get(key) is None else format(row[key], spec) for key, _, spec in columns))
    console.print(table)
    for note in notes:
        console.print(f"[dim]{note}[/dim]")


def streamed_layers(config: DeviceConfig) -> list[str]:
    """The layers whose weights come from DRAM, by name."""
    return sorted({c.node for c in cores(config.mlp.graph) if c.weights == "dram"})


def environment() -> dict[str, Any]:
    """Where the figures come from."""
    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True,
                                cwd=Path(__file__).parent).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {"commit": commit, "python": platform.python_version(), "machine": platform.machine()}


def finish(path: Path | None, results: dict[str, Rows]) -> None:
    """Write ``{"environment": ..., bench: rows, ...}``."""
    write_json(path, {"environment": environment(), **results})
