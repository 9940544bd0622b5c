"""Block I/O: requests as the simulator of a device's time takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import DataError, DeviceConfig
from .block_traces import FLUSH, KINDS, READ, SECTOR, TRIM, WRITE, covered

__all__ = ["BlockLoad"]

MOST_PARTS = 1 << 24  # requests that a device is given: 1 GB


@dataclass(frozen=True)
class BlockLoad:
    """Block I/O beside a device's commands: ``count`` logical blocks from ``first`` on, int64 [requests], with at most
    ``depth`` of them in flight. ``times``: cycles, int64 [requests], before which the host doesn't have them, in order;
    None: it has all from the start. ``kind``: of each, READ to TRIM (:mod:`.block_traces`); None: all are READs. A FLUSH
    has 0 for both numbers.

    They are sent until the last command is complete, each once; where there is no command, until all are."""

    first: np.ndarray
    count: np.ndarray
    depth: int
    times: np.ndarray | None = None
    kind: np.ndarray | None = None

    @classmethod
    def none(cls) -> BlockLoad:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), 1)

    @classmethod
    def of_trace(cls, trace: np.ndarray, config: DeviceConfig, depth: int | None = None, scale: float = 1.0, kept: int = 0
                 ) -> BlockLoad:
        """The requests of a trace (:func:`read_block_trace`), at ``scale`` times their times, or, with a ``depth``, each as
        soon as fewer than that are in flight.

        Longer ones than host.mdts_pages are several. What lies beyond the device lies in it by its address modulo the
        device's size; of a trace that writes or trims, all lies behind the first ``kept`` logical blocks, modulo what is
        left of the device. Raises :class:`~nearflash.contract.DataError` for a trace without requests of whole blocks, and a
        device that has no blocks left.
        """
        kinds = trace["kind"].astype(np.int64)
        base = kept if np.isin(kinds, (WRITE, TRIM)).any() else 0
        room = config.lbas - base
        if room < 1:
            raise DataError("logical blocks", config.lbas, f"must be more than the {kept} of the tables, or there are none "
                                                           "to write to: flash.blocks is too small")
        begin, end = covered(trace["lba"], trace["lba"] + trace["sectors"], config.lba_bytes // SECTOR, kinds == TRIM)
        some = (end > begin) | (kinds == FLUSH)
        if not some.any():
            raise DataError("requests", 0, "must be at least one, of whole logical blocks where it's a TRIM")
        begin, blocks, kinds, at = begin[some], (end - begin)[some], kinds[some], trace["time_ns"][some]
        most = np.where(kinds == TRIM, room, min(config.host.mdts_pages, room))
        parts = np.maximum(1, (blocks + most - 1) // most)
        if int(parts.sum()) > MOST_PARTS:
            raise DataError("requests", int(parts.sum()),
                            f"must be at most {MOST_PARTS} of {config.host.mdts_pages} logical blocks or fewer")
        which = np.repeat(np.arange(len(parts)), parts)
        before = (np.arange(len(which)) - np.repeat(np.cumsum(parts) - parts, parts)) * most[which]
        count = np.minimum(most[which], blocks[which] - before)
        first = base + np.minimum((begin[which] + before) % room, room - count)
        times = None
        if depth is None:
            times = (at[which] * (scale * config.clock_mhz / 1000)).astype(np.int64)
        kinds = kinds[which]
        return cls(np.where(kinds == FLUSH, 0, first), count, depth or config.host.queue_entries - 1, times, kinds)

    @property
    def kinds(self) -> np.ndarray:
        """int64 [requests]."""
        return np.full(len(self.first), READ) if self.kind is None else self.kind

    @property
    def moves(self) -> np.ndarray:
        """bool [requests]: those that move data."""
        return self.kinds < FLUSH

    @property
    def changes(self) -> np.ndarray:
        """bool [requests]: those that change the map."""
        return np.isin(self.kinds, (WRITE, TRIM))

    def blocks_changed(self) -> int:
        """Logical blocks that WRITEs and TRIMs name, each once."""
        first, count = self.first[self.changes], self.count[self.changes]
        order = np.argsort(first, kind="stable")
        end = np.maximum.accumulate((first + count)[order])
        begin = np.maximum(first[order], np.concatenate([np.zeros(1, np.int64), end])[: len(end)])
        return int(np.maximum(0, end - begin).sum())

    def check(self, config: DeviceConfig, kept: int = 0) -> None:
        """Raises :class:`~nearflash.contract.DataError` for what the device would refuse, for a change of the first ``kept``
        logical blocks, the tables', and for what isn't simulated: WRITEs to dies of several planes or beside a row cache."""
        h, kinds = config.host, self.kinds
        if not 1 <= self.depth < h.queue_entries:
            raise DataError("block depth", self.depth,
                            f"must be from 1 to {h.queue_entries - 1}, host.queue_entries less one")
        wrong = {"block kind": (kinds, (kinds < READ) | (kinds > TRIM), f"must be one of {tuple(range(len(KINDS)))}"),
                 "block count": (self.count, self.moves & ((self.count < 1) | (self.count > h.mdts_pages)),
                                 f"must be from 1 to host.mdts_pages ({h.mdts_pages}) logical blocks"),
                 "trim count": (self.count, (kinds == TRIM) & (self.count < 1), "must be at least 1 logical block"),
                 "flush count": (self.count, (kinds == FLUSH) & (self.count != 0), "must be 0: a FLUSH has no blocks"),
                 "block": (self.first, (self.first < 0) | (self.first + self.count > config.lbas),
                           f"must lie, all of it, in the device's {config.lbas} logical blocks"),
                 "block written": (self.first, self.changes & (self.first < kept),
                                   f"must be at least {kept}: those before are the tables'")}
        if self.times is not None:
            wrong["times"] = self.times, np.diff(self.times, prepend=0) < 0, "must not go back"
        for name, (values, bad, limit) in wrong.items():
            if bad.any():
                raise DataError(name, int(values[bad][0]), limit)
        if (kinds == WRITE).any():
            for name, value, most in (("flash.planes", config.flash.planes, 1),
                                      ("row_cache.lines", config.row_cache.lines, 0)):
                if value != most:
                    raise DataError(name, value, f"must be {most} with WRITEs of block I/O: what a PROGRAM or an ERASE does "
                                                 "to it isn't simulated")

    @property
    def writes(self) -> bool:
        """It has requests of the writing half: any but READs."""
        return bool((self.kinds != READ).any())
