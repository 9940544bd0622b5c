"""Who should stay in a row cache: the share of MovieTweetings' held-out lookups that each rule would answer.

Rows in order, each in the cache ``DELAY`` lookups after it was missed; 8 ways. The rule of the gateware
(:mod:`nearflash_hw.lookup.row_cache`), least recently used lines dropped for whatever comes, and TinyLFU (a count-min sketch
of four rows of four counters a line, halved after ten lookups a line).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from nearflash.contract import DeviceConfig
from nearflash.evaluate.device import tables_of
from nearflash.evaluate.workload import stored
from nearflash_sim.timing.workload import locate, place

from .locality import DATASET, held_out
from .report import Rows, console, progress, show_rows

__all__ = ["measure"]

WAYS, DELAY, MOST = 8, 60, 7
RULES = ("least recently used", "as built", "TinyLFU")
ODD = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D)


def rows_in_order() -> list[int]:
    """A number for each lookup's row, from its place on four channels of four dies."""
    model, test = held_out()
    config = DeviceConfig.preset("paper", dies=4)
    tables = place(config, tables_of(model))
    out: list[int] = []
    for bags in stored("", test).commands(1):
        for spec, (rows, _) in zip(tables, bags, strict=True):
            column = rows % spec.rows_per_page(config) * spec.stride_beats(config)
            out += (locate(config, spec, rows) | column << config.flash.ppn_bits).tolist()
    return out


def answered(rows: list[int], lines: int, rule: str) -> float:
    """The share of ``rows`` that a cache of ``lines`` answers."""
    bits = (lines // WAYS - 1).bit_length()
    sets: list[dict[int, list[int]]] = [{} for _ in range(lines // WAYS)]  # by row: [hits, last used]
    sketch = np.zeros((4, 4 * lines), np.int64)
    coming: deque[tuple[int, int]] = deque()
    hits = 0
    for now, row in enumerate(rows):
        while coming and coming[0][0] <= now:
            _keep(sets, sketch, coming.popleft()[1], now, rule, bits)
        if rule == "TinyLFU":
            for k, places in enumerate(_places(row, lines)):
                sketch[k, places] = min(15, sketch[k, places] + 1)
            if (now + 1) % (10 * lines) == 0:
                sketch >>= 1
        line = sets[_set_of(row, bits)].get(row)
        if line:
            hits += 1
            line[0], line[1] = min(MOST, line[0] + 1), now
        else:
            coming.append((now + DELAY, row))
    return hits / len(rows)


def _set_of(row: int, bits: int) -> int:
    at = 0
    while row:
        at, row = at ^ row & (1 << bits) - 1, row >> bits
    return at


def _places(row: int, lines: int) -> list[int]:
    return [(row * odd >> 24) & (4 * lines - 1) for odd in ODD]


def _keep(sets: list[dict[int, list[int]]], sketch: Any, row: int, now: int, rule: str, bits: int) -> None:
    mine = sets[_set_of(row, bits)]
    if row in mine:
        return
    if len(mine) == WAYS:
        if rule == "as built":
            gone = next((r for r, line in mine.items() if line[0] == 0), None)
            if gone is None:
                for line in mine.values():
                    line[0] -= 1
                return
        else:
            gone = min(mine, key=lambda r: mine[r][1])
            lines = WAYS << bits
            if rule == "TinyLFU" and _often(sketch, row, lines) <= _often(sketch, gone, lines):
                return
        del mine[gone]
    mine[row] = [1, now]


def _often(sketch: Any, row: int, lines: int) -> int:
    return min(int(sketch[k, place]) for k, place in enumerate(_places(row, lines)))


def measure(quick: bool = False) -> Rows:
    if not DATASET.is_dir():
        console.print(f"NOT measured: MovieTweetings' queries, which are not in {DATASET}")
        return []
    rows, out = rows_in_order(), []
    with progress() as bar:
        sizes = (1024,) if quick else (512, 1024, 2048, 4096, 8192)
        task = bar.add_task("admission", total=len(sizes) * len(RULES), note="")
        for lines in sizes:
            found: dict[str, Any] = {"lines": lines, "first_share": len(set(rows)) / len(rows)}
            for rule in RULES:
                bar.update(task, note=f"{lines} lines, {rule}")
                found[rule.replace(" ", "_") + "_share"] = answered(rows, lines, rule)
                bar.advance(task)
            out.append(found)
    show_rows(f"answered of {len(rows):,} lookups of MovieTweetings, {WAYS} ways", (
        ("lines", "lines", ","), *((rule.replace(" ", "_") + "_share", rule, ".1%") for rule in RULES),
        ("first_share", "rows asked for the first time", ".1%")), out)
    return out
