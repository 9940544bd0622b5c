"""The systems that RM-SSD is compared with, as small models of their cost: what a batch of queries waits for, one after the
other, and what of that overlaps with the next batch.

Each model is one function; its docstring says what it assumes. Constants are in :class:`~nearflash.evaluate.costs.Costs`,
flash in the :class:`~nearflash.contract.DeviceConfig`, the host's times in :class:`~nearflash.evaluate.host.HostTimes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..compiler import stage_cycles
from ..tools import load_tool
from .costs import Costs
from .device import tables_of
from .host import HostTimes
from .traffic import Traffic, direct_mapped_hits, first_touches, flash_us, lru_hits
from .workload import Workload

__all__ = ["SYSTEMS", "Answer", "nearflash"]


@dataclass(frozen=True)
class Answer:
    """A system under a load. ``stages``: us that a batch keeps each, mean over batches, in order. ``latency_us`` float64
    [batches]: of a batch alone. ``cell_reads``: pages read from flash per lookup. ``host_bytes``: over the host's link, both
    ways, per query. ``read_amplification``: bytes that leave the cells per byte of rows asked for."""

    system: str
    batch: int
    stages: dict[str, float]
    queries_per_second: float
    latency_us: np.ndarray
    cell_reads: float
    host_bytes: float
    read_amplification: float

    def to_dict(self) -> dict[str, Any]:
        p50, p99 = (float(np.percentile(self.latency_us, p)) for p in (50, 99))
        return {"system": self.system, "batch": self.batch, "queries_per_second": self.queries_per_second,
                "latency_mean_us": float(self.latency_us.mean()), "latency_p50_us": p50, "latency_p99_us": p99,
                "batches": len(self.latency_us), "stages_us": self.stages, "cell_reads_per_lookup": self.cell_reads,
                "host_bytes_per_query": self.host_bytes, "read_amplification": self.read_amplification}


@dataclass(frozen=True)
class Load:
    """What a system is asked: ``traffic`` in batches of ``batch``, and what things cost."""

    traffic: Traffic
    batch: int
    costs: Costs
    host: HostTimes

    @property
    def mlp(self) -> float:
        """Host's us for the dense part of a batch."""
        return self.host.mlp(self.traffic.spec.name, self.batch)

    def pooling(self, some: np.ndarray | None = None) -> np.ndarray:
        """Host's us for taking the vectors of each batch (``some`` of them) from DRAM and adding them."""
        t = self.traffic
        each = np.array([self.host.vector(s.dim) for s in t.spec.tables])[t.table]
        return t.per_batch(self.batch, each if some is None else each * some)

    @property
    def pooled_bytes(self) -> int:
        """Of a query's pooled vectors."""
        return sum(s.dim * 4 for s in self.traffic.spec.tables)

    def index_bytes(self, some: np.ndarray | None = None) -> float:
        """Of a query's indices, 4 each (``some`` of them)."""
        return 4 * (len(self.traffic.query) if some is None else int(some.sum())) / self.traffic.queries

    def link_us(self, nbytes: float) -> float:
        """Of a batch, for ``nbytes`` a query."""
        return nbytes * self.batch / (self.costs.link_gb_per_s * 1e3)

    def answer(self, system: str, stages: dict[str, np.ndarray | float], host_bytes: float, cell_reads: float = 0,
               overlapped: bool = False, after: float | None = None) -> Answer:
        """``stages``: us of each batch. One after the other; ``overlapped``: the next batch's run meanwhile, so the slowest
        sets the pace. ``after``: what the last stage adds to a batch's latency, where that is not all of it."""
        t = self.traffic
        n = t.batches(self.batch)[0]
        each = {k: np.broadcast_to(np.asarray(v, np.float64), n) for k, v in stages.items()}
        total = np.sum(list(each.values()), axis=0)
        mean = {k: float(v.mean()) for k, v in each.items()}
        pace = max(mean.values()) if overlapped else float(total.mean())
        latency = total if after is None else total - list(each.values())[-1] + after
        useful = t.nbytes.mean() if len(t.nbytes) else 1
        return Answer(system, self.batch, mean, self.batch / pace * 1e6, latency, cell_reads, host_bytes,
                      cell_reads * t.config.flash.page_bytes / float(useful))


def dram_only(load: Load) -> Answer:
    """All tables in the host's DRAM: a random vector each, added; then the MLP. No device, no limit on DRAM."""
    return load.answer("DRAM-only", {"pooling": load.pooling(), "host MLP": load.mlp}, 0)


def _ssd(load: Load, name: str, share: float) -> Answer:
    t, c = load.traffic, load.costs
    pages = max(1, int(share * t.pages))
    again = lru_hits(t.page, pages)
    warm = share if c.page_cache_warm else 0.0
    missed = np.where(again, 0.0, np.where(first_touches(t.page), 1 - warm, 1.0))
    reads = t.per_batch(load.batch, missed * c.read_miss_us + (1 - missed) * c.read_hit_us)
    misses = float(missed.mean()) if len(missed) else 0.0
    return load.answer(name, {"reads": reads, "pooling": load.pooling(), "host MLP": load.mlp},
                       float(missed.sum()) / t.queries * t.config.flash.page_bytes, misses)


def ssd_s(load: Load) -> Answer:
    """The host reads every vector through the file system, one read at a time, a page on a miss; a page cache for a quarter
    of the tables (least recently used) answers the rest. Then pooling and the MLP on the host."""
    return _ssd(load, "SSD-S", load.costs.ssd_s_dram_share)


def ssd_m(load: Load) -> Answer:
    """As SSD-S, with a page cache for half of the tables."""
    return _ssd(load, "SSD-M", load.costs.ssd_m_dram_share)


def emb_mmio(load: Load) -> Answer:
    """The host loads each vector's bytes from the device's address space, past the I/O stack and every cache: the flash
    reads a page into the device's buffer, one at a time, and the processor fetches the vector by loads that wait for each
    other. Pooling and MLP on the host."""
    t, c = load.traffic, load.costs
    page = t.config.read_cycles_per_vector(t.config.flash.page_bytes) / t.config.clock_mhz
    loads = -(-t.nbytes // c.mmio_read_bytes)
    return load.answer("EMB-MMIO", {"flash": t.per_batch(load.batch, page),
                                    "loads": t.per_batch(load.batch, loads * c.mmio_read_us), "pooling": load.pooling(),
                                    "host MLP": load.mlp}, float(t.nbytes.sum()) / t.queries, 1.0)


def _in_storage(load: Load, name: str, whole_pages: bool) -> Answer:
    t = load.traffic
    every = np.ones(len(t.query), bool)
    moved = load.index_bytes() + load.pooled_bytes
    return load.answer(name, {"command": load.costs.command_us, "link": load.link_us(moved),
                              "flash": flash_us(t, load.batch, every, whole_pages), "host MLP": load.mlp}, moved, 1.0)


def emb_page_sum(load: Load) -> Answer:
    """Pooling in the device, which reads whole pages over all channels and dies at once; one command a batch. The MLP on
    the host, after the batch's vectors came back."""
    return _in_storage(load, "EMB-PageSum", True)


def emb_vector_sum(load: Load) -> Answer:
    """As EMB-PageSum, but only a vector's bytes cross the channel bus: RM-SSD's lookup engine alone."""
    return _in_storage(load, "EMB-VectorSum", False)


def recssd(load: Load) -> Answer:
    """Pooling in the controller's firmware (ASPLOS 2021) on this flash: the host's LRU cache of rows, one for each table,
    serves what it holds; of the rest the device's direct-mapped cache saves the flash a page. The firmware touches every
    vector that reaches the device, while the flash reads. Both caches begin empty. The MLP on the host."""
    t, c = load.traffic, load.costs
    on_host = np.zeros(len(t.row), bool)
    for k in range(len(t.spec.tables)):
        of = t.table == k
        on_host[of] = lru_hits(t.row[of], c.recssd_host_rows)
    sent = ~on_host
    reads = sent.copy()
    reads[sent] = ~direct_mapped_hits(t.row[sent], c.recssd_device_rows)
    moved = load.index_bytes(sent) + load.pooled_bytes
    device = np.maximum(flash_us(t, load.batch, reads, True), t.per_batch(load.batch, sent * c.recssd_firmware_us))
    return load.answer("RecSSD", {"host cache": load.pooling(on_host), "command": c.command_us, "link": load.link_us(moved),
                                  "flash and firmware": device, "host MLP": load.mlp}, moved,
                       float(reads.mean()) if len(reads) else 0.0)


def _offloaded_bytes(load: Load) -> float:
    """Over the link: indices and features in, logits out."""
    spec = load.traffic.spec
    return load.index_bytes() + 4 * spec.dense + 4 * spec.outputs


def rm_ssd_naive(load: Load) -> Answer:
    """Everything in the device, batches overlapped, but layers as they come: one after the other, each by a kernel of
    16 x 16 fp32 multipliers, from DRAM where the weights don't fit on chip (a query at a time)."""
    t, c = load.traffic, load.costs
    every, moved = np.ones(len(t.query), bool), _offloaded_bytes(load)
    left, us = c.onchip_mb * 1e6, 0.0
    streamed = set()
    for name, nbytes in sorted(((n.name, 4 * n.width * k) for n, k in t.spec.layers()), key=lambda x: x[1]):
        left -= nbytes
        if left < 0:
            streamed.add(name)
    for node, columns in t.spec.layers():
        steps = -(-node.width // c.naive_kernel) * -(-columns // c.naive_kernel) * c.initiation_interval
        weights = 4 * node.width * columns / (c.fpga_dram_gb_per_s * 1e3) if node.name in streamed else 0.0
        us += max(steps / t.config.clock_mhz, weights)
    return load.answer("RM-SSD-Naive", {"command": c.command_us, "link": load.link_us(moved),
                                        "flash": flash_us(t, load.batch, every, False), "device MLP": us * load.batch},
                       moved, 1.0, overlapped=True)


def rm_ssd(load: Load) -> Answer:
    """The paper's device by its own rules: vectors over all channels and dies, kernels searched such that the bottom and the
    top MLP each take no longer than the lookups (the planner's, :func:`~nearflash.compiler.stage_cycles`), weights that are
    streamed shared by as many queries as hide them, batches overlapped. The bottom MLP runs beside the lookups; the last
    query's top MLP follows them."""
    t, c = load.traffic, load.costs
    every, moved = np.ones(len(t.query), bool), _offloaded_bytes(load)
    graph, us = t.config.mlp.graph, c.initiation_interval / t.config.clock_mhz
    bottom, top = (stage_cycles(graph, s) * us for s in ("bot", "top"))
    lookups = np.maximum(flash_us(t, load.batch, every, False), bottom * load.batch)
    return load.answer("RM-SSD (paper)", {"command": c.command_us, "link": load.link_us(moved),
                                          "flash and bottom MLP": lookups, "top MLP": top * load.batch}, moved, 1.0,
                       overlapped=True, after=top)


def nearflash(load: Load, workload: Workload) -> Answer:
    """This project's device, simulated cycle by cycle: throughput with as many commands in flight as it takes, latency with
    one. ``workload``: the one that the load's traffic was made of."""
    t = load.traffic
    config, spec, n = t.config, t.spec, t.batches(load.batch)[0]
    simulate, us = load_tool("simulator"), 1 / t.config.clock_mhz

    def run(depth: int) -> Any:
        return simulate(config, tables_of(spec), islice(workload.commands(load.batch), n), spec.dense, depth)

    full, alone = run(config.host.infer_depth), run(1)
    cycles = int(full.completed.max() - full.submitted.min())
    busy = max(v for k, v in full.counters.items() if k.endswith("_busy") and "die" in k)
    reads = sum(v for k, v in full.counters.items() if k.endswith("reads_count"))
    lookups = int(full.counters["lookups_count"])
    stages = {"busiest die": busy / n * us, **{f"{name} MLP": stage_cycles(config.mlp.graph, name[:3]) * us * load.batch
                                               for name in ("bottom", "top")}}
    words = spec.dense + len(spec.tables) + lookups / (n * load.batch)
    useful = float(t.nbytes.mean()) if lookups else 1.0
    return Answer("nearflash", load.batch, stages, n * load.batch / (cycles * us) * 1e6, (alone.latency * us),
                  reads / max(1, lookups), 4 * words + 4 * spec.outputs,
                  reads * config.flash.page_bytes / max(1, lookups) / useful)


#: The models of cost, in the order of the paper's figures; nearflash itself is simulated.
SYSTEMS: dict[str, Callable[[Load], Answer]] = {
    "DRAM-only": dram_only, "SSD-S": ssd_s, "SSD-M": ssd_m, "EMB-MMIO": emb_mmio, "EMB-PageSum": emb_page_sum,
    "EMB-VectorSum": emb_vector_sum, "RecSSD": recssd, "RM-SSD-Naive": rm_ssd_naive, "RM-SSD (paper)": rm_ssd}
