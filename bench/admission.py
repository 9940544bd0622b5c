"""Who should stay in a row cache, and in which set: the share of lookups that it would answer.

Rows in order, each in the cache ``DELAY`` lookups after it was missed; 8 ways. MovieTweetings' held-out lookups by the rule
of the gateware (:mod:`nearflash_hw.lookup.row_cache`), with least recently used lines dropped for whatever comes, and by
TinyLFU (a count-min sketch of four rows of four counters a line, halved after ten lookups a line). Then several workloads by
the gateware's rule, with its sets (:func:`nearflash.contract.row_cache.line_key`) and with sets drawn at random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nearflash.contract import DeviceConfig, RowCacheConfig, TableSpec
from nearflash.contract.row_cache import line_key
from nearflash.evaluate.device import tables_of
from nearflash.evaluate.workload import stored, synthetic
from nearflash.models import model_spec
from nearflash_sim.timing.workload import locate, place

from .locality import DATASET, LINE_BYTES, K, held_out
from .report import Rows, console, progress, show_rows

__all__ = ["measure"]

WAYS, DELAY, MOST = 8, 60, 7
BUILT = "as built"
RULES = ("least recently used", BUILT, "TinyLFU")
ODD = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D)
REAL = "MovieTweetings"
RMC1_ROWS, ZIPF_ROWS, ZIPF_TABLES = 29_300_000, 100_000, 8  # RMC1's of 30 GB


def workloads(quick: bool) -> dict[str, tuple[list[TableSpec], list[Any]]]:
    """By name: tables, and commands as (rows, offsets) for each table."""
    rmc1, rng = model_spec("rmc1", RMC1_ROWS), np.random.default_rng(1)
    chance = 1 / np.arange(1, ZIPF_ROWS + 1)
    ranked = rng.choice(ZIPF_ROWS, (ZIPF_TABLES, 2_000 if quick else 20_000), p=chance / chance.sum())
    shuffled = np.stack([rng.permutation(ZIPF_ROWS)[rows] for rows in ranked])
    out: dict[str, tuple[list[TableSpec], list[Any]]] = {
        "RMC1, 30 GB, K = 0.3": (tables_of(rmc1), list(synthetic(rmc1, 30 if quick else 300, K).commands(1)))}
    for name, drawn in (("Zipf, hot rows together", ranked), ("Zipf, hot rows anywhere", shuffled)):
        queries = [[(row, None) for row in query] for query in drawn.T[..., None]]
        out[name] = [TableSpec(ZIPF_ROWS, 32)] * ZIPF_TABLES, queries
    if DATASET.is_dir():
        model, test = held_out()
        out[REAL] = tables_of(model), list(stored("", test).commands(1))
    else:
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
    return out


def keys_of(tables: Sequence[TableSpec], commands: Sequence[Any], lines: int) -> list[int]:
    """The key of each lookup's row in a cache of ``lines``, from its place on four channels of four dies."""
    config = replace(DeviceConfig.preset("paper", dies=4, blocks=8192), row_cache=RowCacheConfig(lines, WAYS, LINE_BYTES))
    out: list[int] = []
    placed = place(config, tables)
    for bags in commands:
        for spec, (rows, _) in zip(placed, bags, strict=True):
            column = rows % spec.rows_per_page(config) * spec.stride_beats(config)
            out += line_key(config, locate(config, spec, rows), column).tolist()
    return out


def spread(key: int) -> int:
    """Another number of its own for each key, below 2**64, all of whose bits look random."""
    for odd in ODD[:2]:
        key = key * odd % 2**64
        key ^= key >> 32
    return key


def answered(rows: list[int], lines: int, rule: str = BUILT) -> float:
    """The share of ``rows`` that a cache of ``lines`` answers, by their keys."""
    sets: list[dict[int, list[int]]] = [{} for _ in range(lines // WAYS)]  # by row: [hits, last used]
    sketch = np.zeros((4, 4 * lines), np.int64)
    coming: deque[tuple[int, int]] = deque()
    hits = 0
    for now, row in enumerate(rows):
        while coming and coming[0][0] <= now:
            _keep(sets, sketch, coming.popleft()[1], now, rule)
        if rule == "TinyLFU":
            for k, places in enumerate(_places(row, lines)):
                sketch[k, places] = min(15, sketch[k, places] + 1)
            if (now + 1) % (10 * lines) == 0:
                sketch >>= 1
        line = sets[row % len(sets)].get(row)
        if line:
            hits += 1
            line[0], line[1] = min(MOST, line[0] + 1), now
        else:
            coming.append((now + DELAY, row))
    return hits / len(rows)


def _places(row: int, lines: int) -> list[int]:
    return [(row * odd >> 24) & (4 * lines - 1) for odd in ODD]


def _keep(sets: list[dict[int, list[int]]], sketch: Any, row: int, now: int, rule: str) -> None:
    mine = sets[row % len(sets)]
    if row in mine:
        return
    if len(mine) == WAYS:
        if rule == BUILT:
            gone = next((r for r, line in mine.items() if line[0] == 0), None)
            if gone is None:
                for line in mine.values():
                    line[0] -= 1
                return
        else:
            gone = min(mine, key=lambda r: mine[r][1])
            lines = WAYS * len(sets)
            if rule == "TinyLFU" and _often(sketch, row, lines) <= _often(sketch, gone, lines):
                return
        del mine[gone]
    mine[row] = [1, now]


def _often(sketch: Any, row: int, lines: int) -> int:
    return min(int(sketch[k, place]) for k, place in enumerate(_places(row, lines)))


def measure(quick: bool = False) -> Rows:
    given = workloads(quick)
    sizes = (1024,) if quick else (512, 1024, 2048, 4096, 8192)
    larger = (1024,) if quick else (1024, 8192, 65_536)
    rules: Rows = []
    sets: Rows = []
    with progress() as bar:
        task = bar.add_task("admission", total=len(sizes) * len(RULES) + 2 * len(given) * len(larger), note="")

        def share(keys: list[int], lines: int, rule: str, note: str) -> float:
            bar.update(task, note=f"{lines} lines, {note}")
            out = answered(keys, lines, rule)
            bar.advance(task)
            return out

        for lines in sizes if REAL in given else ():
            keys = keys_of(*given[REAL], lines)
            rules.append({"lines": lines, "lookups": len(keys), "first_share": len(set(keys)) / len(keys)}
                         | {f"{rule.replace(' ', '_')}_share": share(keys, lines, rule, rule) for rule in RULES})
        for name, commands in given.items():
            for lines in larger:
                keys = keys_of(*commands, lines)
                sets.append({"workload": name, "lines": lines, "lookups": len(keys),
                             "as_built_share": share(keys, lines, BUILT, name),
                             "random_sets_share": share([spread(key) for key in keys], lines, BUILT, name)})
    if rules:
        show_rows(f"who is kept: answered of {REAL}' held-out lookups, {WAYS} ways", (
            ("lines", "lines", ","), *((rule.replace(" ", "_") + "_share", rule, ".1%") for rule in RULES),
            ("first_share", "rows asked for the first time", ".1%"), ("lookups", "lookups", ",")), rules)
    show_rows(f"which set: answered by the rule as built, {WAYS} ways", (
        ("workload", "workload", ""), ("lines", "lines", ","), ("as_built_share", "sets as built", ".2%"),
        ("random_sets_share", "at random", ".2%"), ("lookups", "lookups", ",")), sets)
    return rules + sets
