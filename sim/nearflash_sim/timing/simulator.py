"""The simulator: a device and its tables; commands in, the cycles they take out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from nearflash.contract import DataError, DeviceConfig, TableSpec
from nearflash.contract.modelled import Modelled
from nearflash.contract.row_cache import folded, line_key
from nearflash.data.block_load import BlockLoad
from nearflash.timeline import Slice

from .loops.compiled import first_call
from .loops.mlp import new_mlp
from .loops.query import run
from .loops.state import device_of, new_state
from .tracks import slices_of
from .workload import Batch, locate, rows_of, tables_end

__all__ = ["Simulator", "Timeline"]

CHUNK = 64  # commands at once: what bounds memory


@dataclass
class Timeline:
    """Of each command, the cycles in which the write to its doorbell began and the acknowledgement of its completion ended:
    int64 [commands]. ``counters``: as :meth:`nearflash.runtime.Device.counters`. ``slices``: what the device did when, in
    cycles, if that was asked for. ``block_submitted``, ``block_completed``: the same of each request of block I/O that was
    sent. ``block_pages``: pages that these read from the flash."""

    submitted: np.ndarray
    completed: np.ndarray
    counters: dict[str, int] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    block_submitted: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    block_completed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    block_pages: int = 0

    @property
    def latency(self) -> np.ndarray:
        """Cycles of each command, as the host sees it."""
        return self.completed - self.submitted


class Simulator:
    """The time of a device of ``config`` with ``tables`` (which have extents), from the moment it was enabled.

    A logical block lies in the page of its number, as when the tables were written to an empty device in order, until a
    WRITE of ``blocks`` gives it a page of the log, which goes on behind the tables. Those that were never written are read
    too, as if a host had written them.
    ``depth``: commands that the host keeps in flight, from 1 to host.infer_depth; it sends another when it sees one
    complete, as :func:`.rtl.measure` does. ``host_latency`` and ``dram_latency``: of the memories' reads, as of the "sim"
    back end. ``modelled``: what is simulated beyond the gateware. Memory grows by 16 bytes a command. Raises
    :class:`~nearflash.contract.DataError`, and :class:`~nearflash.contract.ConfigError` for a cache that holds no set.

    ``slices``: the most that a timeline may have (0: none is made); a run that makes more raises DataError, as does one that
    writes more pages than the log holds.
    """

    def __init__(self, config: DeviceConfig, tables: Sequence[TableSpec], depth: int = 1, host_latency: int = 100,
                 dram_latency: int = 30, modelled: Modelled | None = None, slices: int = 0, blocks: BlockLoad | None = None):
        if not 1 <= depth <= config.host.infer_depth:
            raise DataError("depth", depth, f"must be from 1 to host.infer_depth ({config.host.infer_depth})")
        for name, value in (("host_latency", host_latency), ("dram_latency", dram_latency)):
            if value < 1:
                raise DataError(name, value, "must be at least 1 cycle")
        for spec in tables:
            spec.validate(config)
        self.config, self.tables, self.depth = config, list(tables), depth
        self.modelled = modelled or Modelled()
        blocks = blocks or BlockLoad.none()
        blocks.check(config, tables_end(self.tables))
        self._device = device_of(config, host_latency, dram_latency, self.modelled, blocks)
        self._arrays = new_state(config, self.tables, self.modelled, blocks, slices)
        self._mlp = new_mlp(config, dram_latency, slices)._replace(dram=self._arrays.dram, dram_kept=self._arrays.dram_kept)

    def run(self, commands: Iterable[Batch]) -> Timeline:
        """All ``commands``, until the last is complete. Cycles count from the first call's first doorbell. Raises
        :class:`~nearflash.contract.DataError` for a command that the device would refuse."""
        given = iter(commands)
        done = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        chunk = list(islice(given, CHUNK))
        while chunk or len(done) == 1:
            following = list(islice(given, CHUNK))
            done.append(self._run(chunk, self.depth if following else 0, following=len(following) > 0))
            chunk = following
        submitted, completed = (np.concatenate([d[k] for d in done]) for k in (0, 1))
        block, load = self._arrays.block[0], self._arrays.load[: int(self._arrays.block[0]["sent"])]
        return Timeline(submitted, completed, self.counters(), self._slices(submitted, completed), load["submitted"],
                        load["completed"], int(block["landed"]))

    def _slices(self, submitted: np.ndarray, completed: np.ndarray) -> list[Slice]:
        room, made = len(self._arrays.trace), max(int(self._arrays.s[0]["traced"]), int(self._mlp.s[0]["traced"]))
        if made > room > 0:
            raise DataError("slices", room, f"must be at least {made}, what this run makes: simulate fewer queries")
        return slices_of(self.config, self._arrays, self._mlp, submitted, completed, self.depth) if room else []

    def send(self, command: Batch, after: int) -> None:
        """One more command, submitted in cycle ``after`` or as soon as the host is free; fewer than ``depth`` must be in
        flight (:meth:`wait`). Raises as :meth:`run`."""
        self._run([command], self.depth, after)

    def wait(self, left: int) -> tuple[np.ndarray, np.ndarray]:
        """Until at most ``left`` commands are in flight: (submitted, completed) of those that are complete now and were not
        at the last call, as in a :class:`Timeline`."""
        return self._run([], left)

    def _run(self, chunk: list[Batch], left: int, after: int = 0, following: bool = False) -> tuple[np.ndarray, np.ndarray]:
        for b in chunk:
            b.check(self.config, self.tables)
        none = np.zeros(0, np.int64)
        places = [self._places(t, rows_of(chunk, t, spec)) for t, spec in enumerate(self.tables)]
        blocks, keys = (np.concatenate(parts) for parts in zip((none, none), *places, strict=True))
        lookups, bags = self._each(len(at) for at, _ in places), self._each(b.lengths.size for b in chunk)
        out = np.zeros((2, len(chunk) + self.depth), np.int64)
        with first_call(run):
            n = run(self._device, self._arrays, self._mlp, self.depth, left, after, int(following),
                    self._each(b.infer for b in chunk), self._each(b.samples for b in chunk),
                    self._each(len(b.indices) for b in chunk), self._each(b.dense for b in chunk),
                    self._each(b.weighted for b in chunk),
                    self._each(b.words for b in chunk), np.cumsum(bags) - bags,
                    np.concatenate([none, *(b.lengths.T.reshape(-1) for b in chunk)]), np.cumsum(lookups) - lookups,
                    blocks, keys, out[0], out[1])
        if beyond := int(self._arrays.block[0]["beyond"]):
            raise DataError("pages written", int(self._arrays.block[0]["cursor"]),
                            f"must be at most {self.config.flash.total_pages} with the tables': the log isn't cleaned, and "
                            f"the device refuses {beyond} of them")
        return out[0, :n], out[1, :n]

    @staticmethod
    def _each(values: Iterable[int]) -> np.ndarray:
        return np.fromiter(values, np.int64)

    def _places(self, t: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each of table ``t``'s ``rows``: its logical block, and its key, what a cache knows it by."""
        config, spec = self.config, self.tables[t]
        blocks = locate(config, spec, rows)
        if not (config.row_cache.lines or config.lookup.page_window or self.modelled.any):
            return blocks, blocks  # nothing asks for a key
        in_page = spec.rows_per_page(config)
        column = (rows - rows // in_page * in_page) * spec.stride_beats(config)  # twice the speed of the remainder
        if config.row_cache.lines:
            return blocks, line_key(config, blocks, column)
        bits = config.flash.ppn_bits
        return blocks, folded(blocks, bits, self.modelled.sets(config)) | column << bits

    def counters(self) -> dict[str, int]:
        """As :meth:`nearflash.runtime.Device.counters`, of those that the simulator has."""
        a, planes = self._arrays, self.config.flash.plane_names
        s = a.s[0]
        out = {"lookups_count": int(s["lookups"]), "samples_count": int(s["next_drain"]),
               "map_misses_count": int(s["misses"])}
        if self.config.row_cache.lines or self.modelled.page_cache_mib:
            out |= {f"cache_{name}_count": int(s[f"cache_{name}"]) for name in ("hits", "kept", "dropped")}
        for c, channel in enumerate(a.channel[: self.config.flash.channels]):
            out[f"channel{c}_bus_busy"] = int(channel["bus_busy"])
            for k, plane in enumerate(planes):
                out[f"channel{c}_{plane}_busy"] = int(a.die[c * len(planes) + k]["busy"])
            out[f"channel{c}_reads_count"] = int(channel["reads"])
            out[f"channel{c}_programs_count"] = int(channel["programs"])
        return out
