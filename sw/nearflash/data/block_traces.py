"""Block I/O: traces of the field, and requests as the simulator of a device's time takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import DataError, DeviceConfig
from ..contract.reading import integer, read_lines, reading

__all__ = ["SECTOR", "BlockLoad", "read_block_trace"]

SECTOR = 512
BLOCK = np.dtype([("time_ns", "<i8"), ("lba", "<i8"), ("sectors", "<i8"), ("read", "?")])

MOST_PARTS = 1 << 24  # requests that a device is given: 1 GB
_LARGEST = (1 << 62) - 1
_FIO = {"fio version 2 iolog": False, "fio version 3 iolog": True}  # whether each line begins with its time
_OF_FILE, _OF_RANGE = ("add", "open", "close"), ("sync", "datasync", "sync_file_range", "trim")  # move no data

Request = tuple[int, int, int, bool]  # ns, first byte, bytes, whether it's a READ
Lines = Iterator[tuple[int, str]]


def read_block_trace(path: str | Path) -> np.ndarray:
    """A trace of block I/O, its format told by its first line: an fio iolog of version 2 or 3, MSR Cambridge's CSV, or
    MQSim's. Gzip is told by content.

    Returns a structured array (time_ns from the trace's own zero on, lba, sectors, read) in order of time; lba and sectors
    are of 512 bytes, and cover the request's bytes. What moves no data (fio's open, sync, trim ...) isn't in it. Raises
    :class:`DataError` naming file and line.
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
    out["time_ns"], out["read"] = [r[0] for r in rows], [r[3] for r in rows]
    out["lba"] = begin // SECTOR
    out["sectors"] = -(-(begin + size) // SECTOR) - out["lba"]
    return out[np.argsort(out["time_ns"], kind="stable")]


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
        yield at, lba * SECTOR, size * SECTOR, _number(i, "type", f[4], high=1) == 1


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
               _number(i, "size", f[5], 1, _LARGEST // 2), f[3] == "Read")


def _fio(lines: Lines, timed: bool) -> Iterator[Request]:
    """``[microseconds] file action [offset length]`` a line, in bytes; without times, ``wait`` says how long nothing is
    sent."""
    now = 0
    for i, line in lines:
        f = line.split()
        if timed:
            now = _number(i, "timestamp", f[0], high=_LARGEST // 1000)
        _, action, *numbers = [*f[timed:], "", ""][: max(2, len(f) - timed)]
        ranged = ("read", "write", *_OF_RANGE) if timed else ("read", "write", "wait", *_OF_RANGE)
        if (action, len(numbers)) not in [*((a, 0) for a in _OF_FILE), *((a, 2) for a in ranged)]:
            raise DataError(f"line {i}", line[:60], f"must be {'timestamp ' * timed}file action, of {', '.join(_OF_FILE)}, "
                                                    f"or with offset and length, of {', '.join(ranged)}")
        if numbers:
            offset = _number(i, "offset", numbers[0], high=_LARGEST // 1000 - now if action == "wait" else _LARGEST // 2)
            moves = action in ("read", "write")
            length = _number(i, "length", numbers[1], int(moves), _LARGEST // 2)
            if moves:
                yield now * 1000, offset, length, action == "read"
            elif action == "wait":
                now += offset


@dataclass(frozen=True)
class BlockLoad:
    """READs of block I/O beside a device's commands: ``count`` logical blocks from ``first`` on, int64 [requests], with at
    most ``depth`` of them in flight. ``times``: cycles, int64 [requests], before which the host doesn't have them, in order;
    None: it has all from the start.

    They are sent until the last command is complete, each once; where there is no command, until all are."""

    first: np.ndarray
    count: np.ndarray
    depth: int
    times: np.ndarray | None = None

    @classmethod
    def none(cls) -> BlockLoad:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), 1)

    @classmethod
    def of_trace(cls, trace: np.ndarray, config: DeviceConfig, depth: int | None = None, scale: float = 1.0) -> BlockLoad:
        """The READs of a trace (:func:`read_block_trace`), at ``scale`` times their times, or, with a ``depth``, each as
        soon as fewer than that are in flight.

        Longer ones than host.mdts_pages are several. What lies beyond the device lies in it by its address modulo the
        device's size. Raises :class:`~nearflash.contract.DataError` for a trace without READs.
        """
        reads = trace[trace["read"]]
        if not len(reads):
            raise DataError("reads", 0, "must be at least one: WRITEs aren't simulated")
        size, most = config.lba_bytes // SECTOR, min(config.host.mdts_pages, config.lbas)
        begin = reads["lba"] // size
        blocks = (reads["lba"] + reads["sectors"] + size - 1) // size - begin
        parts = (blocks + most - 1) // most
        if int(parts.sum()) > MOST_PARTS:
            raise DataError("requests", int(parts.sum()), f"must be at most {MOST_PARTS} of {most} logical blocks or fewer")
        which = np.repeat(np.arange(len(reads)), parts)
        part = np.arange(len(which)) - np.repeat(np.cumsum(parts) - parts, parts)
        count = np.minimum(most, blocks[which] - part * most)
        first = (begin[which] + part * most) % config.lbas
        times = None
        if depth is None:
            times = (reads["time_ns"][which] * (scale * config.clock_mhz / 1000)).astype(np.int64)
        return cls(np.minimum(first, config.lbas - count), count, depth or config.host.queue_entries - 1, times)

    def check(self, config: DeviceConfig) -> None:
        """Raises :class:`~nearflash.contract.DataError` for what the device would refuse."""
        h = config.host
        if not 1 <= self.depth < h.queue_entries:
            raise DataError("block depth", self.depth,
                            f"must be from 1 to {h.queue_entries - 1}, host.queue_entries less one")
        wrong = {"block count": (self.count, (self.count < 1) | (self.count > h.mdts_pages),
                                 f"must be from 1 to host.mdts_pages ({h.mdts_pages}) logical blocks"),
                 "block": (self.first, (self.first < 0) | (self.first + self.count > config.lbas),
                           f"must lie, all of it, in the device's {config.lbas} logical blocks")}
        if self.times is not None:
            wrong["times"] = self.times, np.diff(self.times, prepend=0) < 0, "must not go back"
        for name, (values, bad, limit) in wrong.items():
            if bad.any():
                raise DataError(name, int(values[bad][0]), limit)
