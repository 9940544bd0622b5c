"""Block I/O: traces of the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import integer, read_lines, reading

__all__ = ["FLUSH", "KINDS", "READ", "SECTOR", "TRIM", "WRITE", "covered", "read_block_trace"]

SECTOR = 512
READ, WRITE, FLUSH, TRIM = range(4)  #: what a request is; TRIM: NVMe's dataset management, of one range
KINDS = ("read", "write", "flush", "trim")
BLOCK = np.dtype([("time_ns", "<i8"), ("lba", "<i8"), ("sectors", "<i8"), ("kind", "u1")])

_LARGEST = (1 << 62) - 1
_FIO = {"fio version 2 iolog": False, "fio version 3 iolog": True}  # whether each line begins with its time
_FIO_KINDS = {"read": READ, "write": WRITE, "sync": FLUSH, "datasync": FLUSH, "trim": TRIM}
_OF_FILE, _OF_RANGE = ("add", "open", "close"), (*_FIO_KINDS, "sync_file_range")

Request = tuple[int, int, int, int]  # ns, first byte, bytes, kind
Lines = Iterator[tuple[int, str]]


def read_block_trace(path: str | Path) -> np.ndarray:
    """A trace of block I/O, its format told by its first line: an fio iolog of version 2 or 3, MSR Cambridge's CSV, or
    MQSim's. Gzip is told by content.

    Returns a structured array (time_ns from the trace's own zero on, lba, sectors, kind) in order of time; lba and sectors
    are of 512 bytes, and cover the request's bytes, but of a TRIM those that lie in them, and of a FLUSH none. ``kind``:
    :data:`READ`, :data:`WRITE`, :data:`FLUSH` (fio's sync and datasync) or :data:`TRIM` (its trim). What a drive isn't told
    (fio's open, sync_file_range ...) isn't in it. Raises :class:`DataError` naming file and line.
    """
    with reading(path):
        lines = ((i, line) for i, line in read_lines(path) if line.strip())
        first = next(lines, None)
        if first is None:
            raise DataError("requests", 0, "must hold at least one request")
        rows = list(_requests(first, lines))
        if not rows:
            raise DataError("requests", 0, "must hold at least one request")
    out = np.empty(len(rows), BLOCK)
    begin, size = (np.array([r[k] for r in rows], np.int64) for k in (1, 2))
    out["time_ns"], out["kind"] = [r[0] for r in rows], [r[3] for r in rows]
    out["lba"], end = covered(begin, begin + size, SECTOR, out["kind"] == TRIM)
    out["sectors"] = end - out["lba"]
    return out[np.argsort(out["time_ns"], kind="stable")]


def covered(begin: np.ndarray, end: np.ndarray, unit: int, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, one behind the last) of the units that ``begin`` to ``end`` touches, or, where ``inside``, has whole."""
    first = np.where(inside, -(-begin // unit), begin // unit)
    return first, np.maximum(first, np.where(inside, end // unit, -(-end // unit)))


def _requests(first: tuple[int, str], lines: Lines) -> Iterator[Request]:
    head = first[1].strip()
    if head.startswith("fio version"):
        if head not in _FIO:
            raise DataError(f"line {first[0]}", head[:60], f"must be one of: {', '.join(_FIO)}")
        yield from _fio(lines, _FIO[head])
    elif "," in head:
        yield from _msr(first, lines)
    else:
        yield from _mqsim(first, lines)


def _number(line: int, name: str, text: str, low: int = 0, high: int = _LARGEST) -> int:
    return integer(text, f"line {line} {name}", low=low, high=high)


def _mqsim(first: tuple[int, str], lines: Lines) -> Iterator[Request]:
    """``arrival_ns device lba size type`` a line; lba and size in sectors, type 0 a write, 1 a read."""
    for i, line in (first, *lines):
        f = line.split()
        if len(f) != 5:
            raise DataError(f"line {i}", line[:60], "must be five integers: arrival device lba size type")
        at, _ = _number(i, "arrival", f[0]), _number(i, "device", f[1])
        lba, size = (_number(i, name, x, low, _LARGEST // SECTOR // 2) for name, x, low in
                     (("lba", f[2], 0), ("size", f[3], 1)))
        yield at, lba * SECTOR, size * SECTOR, (WRITE, READ)[_number(i, "type", f[4], high=1)]


def _msr(first: tuple[int, str], lines: Lines) -> Iterator[Request]:
    """``timestamp,host,disk,type,offset,size,response`` a line; times in 100 ns, the rest in bytes. The first request's is
    time 0."""
    start = None
    for i, line in (first, *lines):
        f = line.split(",")
        if len(f) != 7 or f[3] not in ("Read", "Write"):
            raise DataError(f"line {i}", line[:60], "must be timestamp,host,disk,Read or Write,offset,size,response time")
        _, _ = _number(i, "disk", f[2]), _number(i, "response time", f[6])
        low = 0 if start is None else start
        at = _number(i, "timestamp", f[0], low, _LARGEST if start is None else start + _LARGEST // 100)
        start = at if start is None else start
        yield ((at - start) * 100, _number(i, "offset", f[4], high=_LARGEST // 2),
               _number(i, "size", f[5], 1, _LARGEST // 2), READ if f[3] == "Read" else WRITE)


def _fio(lines: Lines, timed: bool) -> Iterator[Request]:
    """``[microseconds] file action [offset length]`` a line, in bytes; without times, ``wait`` says how long nothing is
    sent."""
    now = 0
    for i, line in lines:
        f = line.split()
        if timed:
            now = _number(i, "timestamp", f[0], high=_LARGEST // 1000)
        _, action, *numbers = [*f[timed:], "", ""][: max(2, len(f) - timed)]
        ranged = _OF_RANGE if timed else (*_OF_RANGE, "wait")
        if (action, len(numbers)) not in [*((a, 0) for a in _OF_FILE), *((a, 2) for a in ranged)]:
            raise DataError(f"line {i}", line[:60], f"must be {'timestamp ' * timed}file action, of {', '.join(_OF_FILE)}, "
                                                    f"or with offset and length, of {', '.join(ranged)}")
        if numbers:
            offset = _number(i, "offset", numbers[0], high=_LARGEST // 1000 - now if action == "wait" else _LARGEST // 2)
            length = _number(i, "length", numbers[1], int(action in ("read", "write")), _LARGEST // 2)
            if action in _FIO_KINDS:
                kind = _FIO_KINDS[action]
                yield (now * 1000, 0, 0, kind) if kind == FLUSH else (now * 1000, offset, length, kind)
            elif action == "wait":
                now += offset
