"""``nearflash evaluate --sweep``: every combination of a file's options, in processes, each point kept when it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..cache import digest, sources_digest
from ..contract import ConfigError, DataError, NearflashError
from ..contract.reading import parse_toml, read_text, reading
from ..contract.typed import check_table
from ..pools import in_processes, on_ray
from .evaluate_point import Point, check_together, prepare
from .output import console, text_column, write_json

__all__ = ["sweep", "sweep_points"]

MOST_POINTS = 10_000
#: Options that name what a point reads, by whose content it is told.
_FILES = ("checkpoint", "config", "plan", "placement", "histogram", "trace", "dataset", "costs")
#: Figures of the table; a point over several devices has those of ``scaling``.
_SHOWN = (("queries_per_second", "queries/s", ",.0f"), ("latency_p50_us", "p50 us", ",.1f"),
          ("latency_p99_us", "p99 us", ",.1f"), ("flash_ceiling_share", "of ceiling", ".1%"),
          ("flash_reads_per_lookup", "reads/lookup", ".3f"))
MACHINE = "simulated_lookups_per_cpu_second"  # a figure of the machine, not of the design


@dataclass(frozen=True)
class _Task:
    """A point that a worker simulates, and the file that gets what it found."""

    point: Point
    target: str


def sweep_points(path: Path) -> tuple[list[str], list[Point]]:
    """(the options that vary, all combinations of their values in the file's order). An option is a value or a list of them.
    Raises :class:`~nearflash.contract.ConfigError` naming file and option."""
    with reading(path):
        given: Mapping[str, Any] = parse_toml(read_text(path), ConfigError)
        if not given:
            raise ConfigError("options", 0, "must name at least one option of nearflash evaluate")
        known = {f.name for f in fields(Point)}
        for name, value in given.items():
            if name not in known:
                raise ConfigError(name, value, f"unknown option; known: {sorted(known)}")
            if value == []:
                raise ConfigError(name, value, "must hold a value at least")
        varied = [name for name, value in given.items() if isinstance(value, list)]
        total = 1
        for name in varied:
            total *= len(given[name])
        if total > MOST_POINTS:
            raise ConfigError("points", total, f"must be at most {MOST_POINTS}")
        points = []
        for values in product(*(given[name] for name in varied)):
            one = {**given, **dict(zip(varied, values, strict=True))}
            if isinstance(one.get("devices"), int):  # on the command line it may be a list
                one["devices"] = str(one["devices"])
            point = Point(**check_table(Point, one, "", ConfigError))
            point.check_ranges()
            check_together(point, one)
            points.append(point)
        return varied, points


def sweep(path: Path, out: Path, workers: int | None, ray: str | None, json_file: Path | None) -> None:
    """Simulate what ``out`` doesn't hold yet, write ``out``/sweep.json (also to ``json_file``) and print a line a point.
    Exit code 1 if a point can't be simulated; the others are."""
    varied, points = sweep_points(path)
    sources = sources_digest("nearflash", "nearflash_sim")
    files = {(n, v): _content(Path(v)) for p in points for n in _FILES if (v := getattr(p, n)) is not None}
    targets = [out / "points" / f"{_name(p, sources, files)}.json" for p in points]
    todo = {str(t): _Task(p, str(t)) for p, t in zip(points, targets, strict=True) if not t.is_file()}
    held = len({*targets}) - len(todo)
    if held:
        console.print(f"{held} of {len(points)} points are in {out} already")
    errors: dict[str, str] = {}
    tasks = list(todo.values())
    if tasks:
        n = min(len(tasks), workers or os.cpu_count() or 1)
        found = in_processes(_run, tasks, n) if ray is None else on_ray(_run, tasks, ray)
        columns = (text_column("simulating"), BarColumn(), MofNCompleteColumn(), text_column("points"), TimeElapsedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("sweep", total=len(tasks))
            for task, result in found:
                if isinstance(result, Exception):
                    raise NearflashError(f"a worker ended with {type(result).__name__}: {result}; what is done is in {out}, "
                                         "and the same command goes on from there") from result
                if "error" in result:
                    errors[task.target] = result["error"]
                else:
                    write_json(Path(task.target), result)
                progress.update(bar, advance=1)
    rows = []
    for point, target in zip(points, targets, strict=True):
        given = {name: getattr(point, name) for name in varied}
        rows.append({**given, "error": errors[str(target)]} if str(target) in errors else {**given, **_read(target)})
    result = {"sweep": path.name, "varied": varied, "points_count": len(points), "failed_points_count": sum(
        "error" in r for r in rows), "points": rows}
    write_json(out / "sweep.json", result)
    write_json(json_file, result)
    _show(varied, rows)
    if errors:
        for text in dict.fromkeys(errors.values()):
            console.print(text)
        raise typer.Exit(1)


def _run(task: _Task) -> dict[str, Any]:
    """In a worker."""
    notes: list[str] = []
    try:
        result = prepare(task.point, notes.append).run(lambda n: None, None)
    except (NearflashError, OSError) as e:
        return {"error": f"{type(e).__name__}: {e}"}
    result.pop(MACHINE, None)
    return {"options": asdict(task.point), "notes": notes, "result": result}


def _content(path: Path) -> str:
    """Of a file its bytes; of a folder the names, sizes and times of what is in it."""
    if path.is_dir():
        return repr([(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.rglob("*"))])
    with reading(path), path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _name(point: Point, sources: str, files: Mapping[tuple[str, str], str]) -> str:
    """Everything that can change a point's figures."""
    content = [files[n, v] for n in _FILES if (v := getattr(point, n)) is not None]
    if point.model is not None and point.model.endswith(".toml"):
        content.append(_content(Path(point.model)))
    return digest(sources, json.dumps(asdict(point), sort_keys=True), *content)


def _read(target: Path) -> dict[str, Any]:
    with reading(target):
        text = read_text(target)
        with reading(target, "a point of a sweep"):
            held = json.loads(text)
        if not isinstance(held, dict) or not isinstance(held.get("result"), dict):
            raise DataError("result", None, "must be a table: remove the file to simulate the point again")
        return held


def _show(varied: list[str], rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{len(rows)} points", title_justify="left", pad_edge=False)
    for heading in (*varied, *(heading for _, heading, _ in _SHOWN)):
        table.add_column(heading, justify="right")
    for row in rows:
        result = row.get("result", {})
        for figures in result.get("scaling", [result]):
            table.add_row(*(str(row[name]) for name in varied),
                          *(format(figures[key], form) if key in figures else "-" for key, _, form in _SHOWN))
    console.print(table)
