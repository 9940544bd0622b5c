"""How commands report: one rich table for people, one JSON file for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..whole import whole_file

__all__ = ["console", "show", "write_json"]

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)  # logs get whole tables, not 80 columns


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write ``result`` to ``path`` (nothing if None), whole or not at all; folders are made."""
    if path is None:
        return
    with whole_file(path) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")


def show(title: str, rows: Iterable[tuple[str, str, str]]) -> None:
    """A table of (what, value, note)."""
    table = Table(title=title, title_justify="left", show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*row)
    console.print(table)
