"""The one configuration object: every width, latency, register and report of a device derives from it.

>>> from nearflash.contract import DeviceConfig
>>> DeviceConfig.preset("paper", dies=4).read_cycles_per_vector(128)
2838
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .mlp import Node, cores, validate_graph
from .reading import parse_toml, read_text, reading
from .row_cache import RowCacheConfig
from .tensor import TensorConfig
from .typed import check_fields, check_table

__all__ = ["FORMATS", "MODES", "PRESETS", "PRIMITIVES", "REACH_BITS", "BusConfig", "DeviceConfig", "DramLayout",
           "FlashConfig", "HostConfig", "LookupConfig", "MlpConfig"]

PRIMITIVES = ("inferred", "dsp48e1", "dsp48e2")
FORMATS = ("fp32", "fp16", "int8")  # of a table's rows, by their number
MODES = ("sum", "mean")  # of pooling, by their number
LONGEST_NS = 1_000_000_000  # a second, in every clock less than 2**31 cycles
MOST_WORDS = 1 << 20  # of any memory or vector on chip
COLUMN_NS = 200  # tCCS of flash whose configuration has none
MOST_PLANES = 16  # of a channel
#: Of the numbers in flash, host, lookup and bus, those that may be 0.
MAY_BE_0 = ("t_command_ns", "t_ccs_ns", "max_tables", "page_window", "longest_queue_first")
MOST_MISSES = 8  # as many bursts as a client of the interconnect may have under way
LARGEST_WINDOW = 4096  # as many reads as there can be tags
REACH_BITS = 40  # of an address within the device: what it can reach at most


def _pow2(v: int) -> bool:
    return v > 0 and v & (v - 1) == 0


def log2(v: int) -> int:
    """Exact base-2 logarithm of a power of two."""
    return v.bit_length() - 1


def _check(ok: bool, name: str, value: Any, limit: str) -> None:
    if not ok:
        raise ConfigError(name, value, limit)


@dataclass(frozen=True)
class FlashConfig:
    """Geometry and ONFI-style timing of the flash array.

    A physical page number (PPN) is ``{block, page, die, channel}``, channel in the low bits, so consecutive PPNs
    stripe over channels, then dies, then planes. Each plane of a die reads on its own (independent plane reads), so
    wherever reads go a channel's planes are numbered like so many dies: ``die`` of a PPN or a command is {plane, die}.
    """

    channels: int = 4  #: each with a bus of its own
    dies: int = 1  #: per channel
    planes: int = 1  #: per die, each with a page register and reads of its own
    blocks: int = 64  #: per die, evenly over its planes
    pages: int = 64  #: per block
    page_bytes: int = 4096  #: also the logical block
    oob_bytes: int = 64  #: out-of-band area per page
    t_read_ns: int = 14_000  #: tR
    t_program_ns: int = 200_000  #: tPROG
    t_erase_ns: int = 2_000_000  #: tERASE
    t_command_ns: int = 0  #: command and address phase on the channel bus
    t_ccs_ns: int = 0  #: tCCS: change-read-column to data-out, for a READ of the page a die holds; 0: every READ pays tR
    bus_page_ns: int = 6_000  #: time to move one page (without OOB) over the channel bus

    @property
    def ppn_bits(self) -> int:
        """Width of a physical page number."""
        return log2(self.channels) + log2(self.dies) + log2(self.pages) + log2(self.blocks)

    @property
    def total_pages(self) -> int:
        """Physical pages of the device."""
        return self.channels * self.dies * self.blocks * self.pages

    @property
    def channel_planes(self) -> int:
        """Planes of a channel, of all its dies: what reads on its own."""
        return self.dies * self.planes

    @property
    def plane_blocks(self) -> int:
        """Blocks of a plane."""
        return self.blocks // self.planes

    @property
    def plane_names(self) -> tuple[str, ...]:
        """Of a channel's planes by their number {plane, die}, for counters and timelines: ``die1``, or ``die1_plane0``
        where a die has several."""
        return tuple(f"die{k % self.dies}" + (f"_plane{k // self.dies}" if self.planes > 1 else "")
                     for k in range(self.channel_planes))


@dataclass(frozen=True)
class HostConfig:
    """Host interface limits."""

    queue_pairs: int = 3  #: queue pair 0 is the admin queue
    queue_entries: int = 64  #: largest queue, power of two
    mdts_pages: int = 32  #: largest transfer of one read or write, in logical blocks
    block_reads: int = 32  #: READ commands in flight, and pages of theirs
    read_slots: int = 8  #: page buffers from flash to host
    page_slots: int = 4  #: page buffers from host to flash
    infer_depth: int = 4  #: inference commands accepted at once
    max_batch: int = 256  #: samples of one inference command


@dataclass(frozen=True)
class LookupConfig:
    """Embedding lookup engine (paper: EV translator, path buffer, EV Sum). No tables: no engine, and of what follows the map
    cache alone, which block I/O has too."""

    max_tables: int = 32  #: open at once; 0: no engine
    max_extents: int = 4  #: per table, all compared at once
    max_dim: int = 1024  #: elements of a vector
    max_bag: int = 4096  #: lookups of one bag
    tags: int = 256  #: lookups in flight (path tags)
    sample_slots: int = 4  #: samples being pooled at once
    map_cache_lines: int = 256  #: lines of the on-chip map cache
    map_misses: int = 1  #: of them, those that may be on their way from DRAM at once
    lanes: int = 4  #: fp32 elements pooled per cycle
    acc_bits: int = 48  #: fixed-point window of an accumulator (DSP48)
    accumulators: int = 1024  #: elements of one sample's pooled vectors (sum of dims over tables)
    formats: tuple[str, ...] = FORMATS  #: of tables' rows that pooling is generated for, in this order
    modes: tuple[str, ...] = MODES  #: of pooling; without "mean" there is no divider
    page_window: int = 0  #: reads of a die's queue looked at, for each page it reads, for more from that page; 0: off
    longest_queue_first: bool = False  #: a channel's bus goes to the die that most lookups wait for, not to each in turn

    def validate(self, beat_bytes: int, flash: FlashConfig) -> None:
        """Raises :class:`ConfigError`."""
        _check(_pow2(self.map_cache_lines) and self.map_cache_lines <= MOST_WORDS, "lookup.map_cache_lines",
               self.map_cache_lines, f"must be a power of two of at most {MOST_WORDS}")
        _check(_pow2(self.map_misses) and self.map_misses <= MOST_MISSES, "lookup.map_misses", self.map_misses,
               f"must be a power of two of at most {MOST_MISSES}")
        if not self.max_tables:
            return
        _check(self.max_tables <= 256, "lookup.max_tables", self.max_tables, "must be at most 256")
        _check(self.max_extents <= 16, "lookup.max_extents", self.max_extents, "must be at most 16")
        _check(_pow2(self.tags) and 4 <= self.tags <= 4096, "lookup.tags", self.tags, "must be a power of two, 4 to 4096")
        _check(_pow2(self.sample_slots) and 2 <= self.sample_slots <= 64, "lookup.sample_slots", self.sample_slots,
               "must be a power of two from 2 to 64")
        _check(self.lanes == beat_bytes // 4, "lookup.lanes", self.lanes,
               f"must be beat_bytes / 4 = {beat_bytes // 4}: one beat of fp32 per cycle")
        _check(40 <= self.acc_bits <= 64, "lookup.acc_bits", self.acc_bits, "must be from 40 to 64")
        _check(_pow2(self.accumulators) and self.lanes <= self.accumulators <= MOST_WORDS, "lookup.accumulators",
               self.accumulators, f"must be a power of two from lanes ({self.lanes}) to {MOST_WORDS}")
        _check(self.max_dim * 4 <= flash.page_bytes, "lookup.max_dim", self.max_dim,
               f"a vector must fit a page: at most {flash.page_bytes // 4}")
        for name, v, known in (("formats", self.formats, FORMATS), ("modes", self.modes, MODES)):
            _check(len(v) > 0 and v == tuple(k for k in known if k in v), f"lookup.{name}", v,
                   f"must be one or more of {known}, each once and in this order")
        _check(self.max_bag < 65536, "lookup.max_bag", self.max_bag, "must be below 65536")
        _check(self.page_window <= LARGEST_WINDOW, "lookup.page_window", self.page_window,
               f"must be from 0 (off) to {LARGEST_WINDOW} reads")
        _check(not self.page_window or flash.t_ccs_ns > 0, "lookup.page_window", self.page_window,
               "needs flash.t_ccs_ns of at least 1: without a change-read-column every READ pays tR")
        _check(not self.longest_queue_first or flash.channel_planes > 1, "lookup.longest_queue_first",
               self.longest_queue_first, "needs flash.dies of at least 2: a die alone has its channel's bus")


@dataclass(frozen=True)
class MlpConfig:
    """MLP engine: the graph it is generated for (empty: a lookup-only device)."""

    graph: tuple[Node, ...] = ()  #: nodes with their kernels, as the planner chose them
    act_bits: int = 8  #: activations between layers, 8 or 16
    n_batch: int = 1  #: samples that share one pass over the weights (paper: N_batch)
    buffered: int = 2  #: input buffers per core, in groups of n_batch samples
    packed: bool = False  #: two rows' products on one DSP slice; 8-bit activations and weights only
    primitive: str = "inferred"  #: multipliers: found by synthesis, or instances for the part: one of PRIMITIVES


@dataclass(frozen=True)
class BusConfig:
    """Both AXI4 masters: what a shell, or the processing system behind it, takes."""

    address_bits: int = 40  #: of the ports, and what host memory and DRAM can be reached in
    max_burst: int = 256  #: beats of a burst, a power of two (AXI4: 256, AXI3: 16)
    id_bits: int = 5  #: one ID a client
    cache: int = 0b0011  #: AxCACHE; 0b0011: normal, non-cacheable, bufferable
    silence_cycles: int = 1 << 20  #: without an answer until register bus_status says so

    def validate(self) -> None:
        """Raises :class:`ConfigError`."""
        _check(32 <= self.address_bits <= REACH_BITS, "bus.address_bits", self.address_bits,
               f"must be from 32 to {REACH_BITS}")
        _check(_pow2(self.max_burst) and 2 <= self.max_burst <= 256, "bus.max_burst", self.max_burst,
               "must be a power of two from 2 to 256")
        _check(1 <= self.id_bits <= 16, "bus.id_bits", self.id_bits, "must be from 1 to 16")
        _check(0 <= self.cache <= 15, "bus.cache", self.cache, "must be 4 bits")
        _check(1024 <= self.silence_cycles < 1 << 32, "bus.silence_cycles", self.silence_cycles,
               "must be from 1024 to 2**32 - 1")


@dataclass(frozen=True)
class DramLayout:
    """Byte addresses in the device's DRAM, each region 4 KiB-aligned."""

    flash: int  #: page contents
    oob: int  #: out-of-band areas
    block_state: int  #: next page, flags and erase count of each block
    map: int  #: logical to physical pages
    superblock: int  #: write cursor and sequence
    weights: int  #: of layers streamed from DRAM
    tensor: int  #: programs, weights and tensors of the tensor engine
    row_cache: int  #: lines of the row cache
    end: int  #: bytes the device needs


@dataclass(frozen=True)
class DeviceConfig:
    """A whole device. Frozen; validated once on construction; raises :class:`ConfigError`."""

    name: str = "custom"  #: for reports; part of :attr:`design_id`
    clock_mhz: float = 200.0  #: device clock; times in ns become whole cycles of it, rounded up
    beat_bytes: int = 16  #: width of both AXI4 masters and of every data stream
    flash: FlashConfig = field(default_factory=FlashConfig)  #: array and channels
    host: HostConfig = field(default_factory=HostConfig)  #: queues and block I/O
    lookup: LookupConfig = field(default_factory=LookupConfig)  #: embedding lookups and pooling
    mlp: MlpConfig = field(default_factory=MlpConfig)  #: the model's layers
    bus: BusConfig = field(default_factory=BusConfig)  #: AXI4 masters
    tensor: TensorConfig = field(default_factory=TensorConfig)  #: tensor engine
    row_cache: RowCacheConfig = field(default_factory=RowCacheConfig)  #: rows kept in the device's DRAM

    def __post_init__(self) -> None:
        c, f, h, lk, m = self, self.flash, self.host, self.lookup, self.mlp
        check_fields(DeviceConfig, vars(c), "", ConfigError)
        for group, kind in _GROUPS.items():
            v = getattr(c, group)
            _check(isinstance(v, kind), group, v, "must be a table of named values")
            check_fields(kind, vars(v), f"{group}.", ConfigError)
        object.__setattr__(c, "clock_mhz", float(c.clock_mhz))  # 200 and 200.0 are one device
        for group, obj in (("flash", f), ("host", h), ("lookup", lk)):
            for fl in fields(obj):
                v = getattr(obj, fl.name)
                if not isinstance(v, int):
                    continue
                low = 0 if fl.name in MAY_BE_0 else 1
                _check(v >= low, f"{group}.{fl.name}", v, f"must be an integer of at least {low}")
                if fl.name.endswith("_ns"):
                    _check(v <= LONGEST_NS, f"{group}.{fl.name}", v, f"must be at most {LONGEST_NS} (a second)")
        _check(0.001 <= c.clock_mhz <= 2000, "clock_mhz", c.clock_mhz, "must be from 0.001 to 2000")
        _check(c.beat_bytes in (8, 16, 32), "beat_bytes", c.beat_bytes, "must be 8, 16 or 32")
        for name, v, hi in (("channels", f.channels, 16), ("dies", f.dies, MOST_PLANES), ("planes", f.planes, 4),
                            ("blocks", f.blocks, 65536), ("pages", f.pages, 4096), ("page_bytes", f.page_bytes, 16384)):
            _check(_pow2(v) and v <= hi, f"flash.{name}", v, f"must be a power of two of at most {hi}")
        _check(f.planes <= f.blocks, "flash.planes", f.planes, f"must be at most flash.blocks ({f.blocks})")
        _check(f.channel_planes <= MOST_PLANES, "flash.planes", f.planes,
               f"must be at most {MOST_PLANES // f.dies} with {f.dies} dies: {MOST_PLANES} planes a channel")
        _check(f.page_bytes >= 512, "flash.page_bytes", f.page_bytes, "must be at least 512")
        _check(f.oob_bytes % c.beat_bytes == 0 and 32 <= f.oob_bytes <= f.page_bytes, "flash.oob_bytes", f.oob_bytes,
               f"must be a multiple of beat_bytes ({c.beat_bytes}), from 32 to page_bytes")
        _check(f.ppn_bits <= 30, "flash", f.total_pages, "channels x dies x blocks x pages must be at most 2**30 pages")
        _check(2 <= h.queue_pairs <= 8, "host.queue_pairs", h.queue_pairs, "must be from 2 (admin and one I/O) to 8")
        _check(_pow2(h.queue_entries) and 2 <= h.queue_entries <= 4096, "host.queue_entries", h.queue_entries,
               "must be a power of two from 2 (a queue of one entry is always empty) to 4096")
        _check(2 <= h.block_reads <= 64, "host.block_reads", h.block_reads, "must be from 2 to 64")
        _check(h.read_slots <= 16, "host.read_slots", h.read_slots, "must be at most 16")
        _check(h.page_slots <= 16, "host.page_slots", h.page_slots, "must be at most 16")
        _check(h.mdts_pages * f.page_bytes >= 8192, "host.mdts_pages", h.mdts_pages,
               f"must be at least {-(-8192 // f.page_bytes)} pages of {f.page_bytes} B: NVMe can state 8 KiB, but no less")
        _check(h.mdts_pages <= 512, "host.mdts_pages", h.mdts_pages, "must be at most 512 (one PRP list page)")
        _check(h.infer_depth <= 16, "host.infer_depth", h.infer_depth, "must be at most 16")
        _check(h.max_batch <= 65535, "host.max_batch", h.max_batch, "must be at most 65535")
        lk.validate(c.beat_bytes, f)
        _check(m.act_bits in (8, 16), "mlp.act_bits", m.act_bits, "must be 8 or 16")
        _check(_pow2(m.n_batch) and m.n_batch <= 64, "mlp.n_batch", m.n_batch, "must be a power of two, 1 to 64")
        _check(m.n_batch == 1 or m.n_batch <= lk.sample_slots, "mlp.n_batch", m.n_batch,
               f"must be at most lookup.sample_slots ({lk.sample_slots})")
        _check(m.buffered in (1, 2), "mlp.buffered", m.buffered, "must be 1 or 2")
        _check(m.primitive in PRIMITIVES, "mlp.primitive", m.primitive, f"must be one of {PRIMITIVES}")
        _check(not m.packed or m.act_bits == 8, "mlp.packed", m.packed, "needs act_bits = 8")
        _check(isinstance(m.graph, tuple), "mlp.graph", m.graph, "must be a list of nodes")
        for i, n in enumerate(m.graph):
            _check(isinstance(n, Node), f"mlp.graph[{i}]", n, "must be a table of named values")
            check_fields(Node, vars(n), f"mlp.graph[{i}].", ConfigError)
            _check(n.width <= MOST_WORDS, f"mlp.graph[{i}].width", n.width, f"must be at most {MOST_WORDS}")
        validate_graph(m.graph, c.beat_bytes)
        for core in cores(m.graph):
            _check(not m.packed or core.weight_bits == 8, "mlp.packed", m.packed,
                   f"needs weight_bits = 8, but node {core.node!r} has {core.weight_bits}")
        widths = sum(n.width for n in m.graph if n.kind == "tables")
        _check(widths <= lk.accumulators, "lookup.accumulators", lk.accumulators,
               f"must hold the model's pooled vectors ({widths} elements)")
        n_tables = sum(len(n.tables) for n in m.graph)
        _check(n_tables <= lk.max_tables, "lookup.max_tables", lk.max_tables, f"the model has {n_tables} tables")
        if not lk.max_tables:  # what is fed by the lookup engine
            _check(not m.graph, "mlp.graph", [n.name for n in m.graph], "must be empty with lookup.max_tables = 0")
            _check(not c.row_cache.lines, "row_cache.lines", c.row_cache.lines, "must be 0 with lookup.max_tables = 0")
            _check(not lk.page_window, "lookup.page_window", lk.page_window, "must be 0 with lookup.max_tables = 0")
            _check(not lk.longest_queue_first, "lookup.longest_queue_first", True, "must be off with lookup.max_tables = 0")
            _check(lk.map_misses == 1, "lookup.map_misses", lk.map_misses,
                   "must be 1 with lookup.max_tables = 0: block I/O asks for one page at a time")
        c.bus.validate()
        c.tensor.validate(c.beat_bytes)
        c.row_cache.validate(c.beat_bytes, f.page_bytes)
        _check(c.layout.end <= 1 << c.bus.address_bits, "flash", f"{f.total_pages} pages of {f.page_bytes} B",
               f"the device's DRAM would take {c.layout.end} bytes: its port reaches 2**{c.bus.address_bits}")

    # -- timing, in cycles of the device clock ------------------------------------------------------------------
    def cycles(self, ns: int) -> int:
        """Nanoseconds to cycles, rounded up, exactly."""
        return math.ceil(Fraction(ns) * Fraction(str(self.clock_mhz)) / 1000)

    @property
    def t_read(self) -> int:
        """tR in cycles."""
        return self.cycles(self.flash.t_read_ns)

    @property
    def t_program(self) -> int:
        """tPROG in cycles."""
        return self.cycles(self.flash.t_program_ns)

    @property
    def t_erase(self) -> int:
        """tERASE in cycles."""
        return self.cycles(self.flash.t_erase_ns)

    @property
    def t_command(self) -> int:
        """Command and address phase, in cycles."""
        return self.cycles(self.flash.t_command_ns)

    @property
    def t_ccs(self) -> int:
        """tCCS in cycles."""
        return self.cycles(self.flash.t_ccs_ns)

    def with_page_window(self, reads: int) -> DeviceConfig:
        """This device with a ``lookup.page_window`` of ``reads``; flash that has no change-read-column gets one of
        :data:`COLUMN_NS`. Raises :class:`ConfigError`."""
        c = self if self.flash.t_ccs_ns or not reads else replace(self, flash=replace(self.flash, t_ccs_ns=COLUMN_NS))
        return replace(c, lookup=replace(c.lookup, page_window=reads))

    @property
    def bus_beat_q16(self) -> int:
        """Cycles one beat occupies the channel bus, in 1/65536 cycle, rounded up."""
        ns = Fraction(self.flash.bus_page_ns * self.beat_bytes, self.flash.page_bytes)
        return math.ceil(ns * Fraction(str(self.clock_mhz)) / 1000 * 65536)

    def bus_cycles(self, nbytes: int) -> int:
        """Cycles the channel bus is busy moving ``nbytes`` (a multiple of a beat): ceil(beats x bus_beat_q16 / 2**16)."""
        return -(-(nbytes // self.beat_bytes) * self.bus_beat_q16 // 65536)

    def read_cycles_per_vector(self, vector_bytes: int) -> int:
        """C_EV of the paper: tR plus the transfer of one vector, on an otherwise idle die and channel."""
        return self.t_read + self.bus_cycles(vector_bytes)

    def ceiling_cycles_per_lookup(self, vector_bytes: int) -> float:
        """Flash-bound ceiling: device cycles per lookup with every plane and channel perfectly balanced.

        A plane serves one vector per C_EV; a channel's bus moves one vector per transfer time.
        """
        f, bus = self.flash, self.bus_cycles(vector_bytes)
        return max(self.read_cycles_per_vector(vector_bytes) / f.channel_planes, bus) / f.channels

    # -- derived sizes ------------------------------------------------------------------------------------------
    @property
    def page_beats(self) -> int:
        """Beats of a page without its out-of-band area."""
        return self.flash.page_bytes // self.beat_bytes

    @property
    def oob_beats(self) -> int:
        """Beats of an out-of-band area."""
        return self.flash.oob_bytes // self.beat_bytes

    @property
    def raw_page_beats(self) -> int:
        """Beats of a page with its out-of-band area."""
        return self.page_beats + self.oob_beats

    @property
    def lba_bytes(self) -> int:
        """Logical block size: one flash page."""
        return self.flash.page_bytes

    @property
    def lbas(self) -> int:
        """Exported logical blocks: raw pages less 1/8 over-provisioning, at least one block per plane."""
        f = self.flash
        spare = max(f.total_pages // 8, f.channels * f.channel_planes * f.pages)
        return f.total_pages - spare if f.total_pages > 2 * spare else f.total_pages // 2

    def require_lookup(self) -> None:
        """Raises :class:`ConfigError` for a device without a lookup engine."""
        _check(self.lookup.max_tables > 0, "lookup.max_tables", 0, "must be above 0: this device has no lookup engine")

    @property
    def tag_bits(self) -> int:
        """Width of a lookup's path tag."""
        return log2(self.lookup.tags)

    @property
    def layout(self) -> DramLayout:
        """Where each region begins in the device's DRAM."""

        def up(a: int) -> int:
            return -(-a // 4096) * 4096

        f = self.flash
        oob = up(f.total_pages * f.page_bytes)
        state = up(oob + f.total_pages * f.oob_bytes)
        mp = up(state + f.channels * f.dies * f.blocks * 8)
        sb = up(mp + self.lbas * 4)
        weights = sb + 4096
        streamed = [c for c in cores(self.mlp.graph) if c.weights == "dram"]
        total = sum(c.steps * max(c.word_bytes, self.beat_bytes) + 4096 for c in streamed)
        tensor = up(weights + total)
        row_cache = tensor + (self.tensor.dram_bytes if self.tensor.rows else 0)
        return DramLayout(0, oob, state, mp, sb, weights, tensor, row_cache, row_cache + self.row_cache.dram_bytes)

    @property
    def results_reach(self) -> int:
        """Where the results of a command may start, at most, in bytes: the host bus reaches all of any command's results
        from there. A power of two below the bus's end, so that it takes no adder to check."""
        outputs = self.mlp.graph[-1].width if self.mlp.graph else 0
        most = self.host.max_batch * max(self.lookup.accumulators, outputs) * 4
        return (1 << self.bus.address_bits) - (1 << (most - 1).bit_length())

    @property
    def design_id(self) -> int:
        """32-bit hash of the configuration, readable from the device. Not of ``name``, which is for people (two models of
        one shape share a device), nor of ``mlp.primitive`` and nodes' ``lut_rows``, which say what multipliers are made of
        and change neither results nor cycles: a simulated device stands for all of them."""
        d = self.to_dict()
        del d["name"], d["mlp"]["primitive"]
        for node in d["mlp"]["graph"]:
            del node["lut_rows"]
        # Without an engine, or the cache, its other values are no part of the design.
        if not self.lookup.max_tables:
            d["lookup"] = {name: d["lookup"][name] for name in ("max_tables", "map_cache_lines")}
            del d["mlp"], d["host"]["infer_depth"], d["host"]["max_batch"]
        if not self.tensor.rows:
            del d["tensor"]
        if not self.row_cache.lines:
            del d["row_cache"]
        return int.from_bytes(hashlib.sha256(json.dumps(d, sort_keys=True).encode()).digest()[:4], "big")

    # -- in and out -----------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries that :meth:`from_dict` reads back to an equal configuration. ``lookup.page_window``,
        ``lookup.longest_queue_first``, ``lookup.map_misses`` and ``flash.planes`` are left out where they are off, or 1: a
        design without them is what it was before there were any, and has the same :attr:`design_id`."""
        d = dataclasses.asdict(self)
        for name in ("page_window", "longest_queue_first"):
            if not d["lookup"][name]:
                del d["lookup"][name]
        for group, name in (("flash", "planes"), ("lookup", "map_misses")):
            if d[group][name] == 1:
                del d[group][name]
        return d

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> DeviceConfig:
        """Build from nested dictionaries; unknown keys and values of another type raise :class:`ConfigError`."""
        preset = d.get("preset") if isinstance(d, dict) else None
        if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
            raise ConfigError("preset", preset, f"must be one of {sorted(PRESETS)}")
        base = PRESETS[preset]() if preset is not None else None
        kw = check_table(cls, d, "", ConfigError, frozenset({"preset"}))
        kw.pop("preset", None)
        for group, kind in _GROUPS.items():
            if group not in kw or isinstance(kw[group], kind):
                continue
            v = check_table(kind, kw[group], group, ConfigError)
            if "graph" in v:
                _check(isinstance(v["graph"], tuple), "mlp.graph", v["graph"], "must be a list of nodes")
                v["graph"] = tuple(n if isinstance(n, Node) else Node(**check_table(Node, n, f"mlp.graph[{i}]", ConfigError))
                                   for i, n in enumerate(v["graph"]))
            kw[group] = replace(getattr(base, group), **v) if base else kind(**v)
        return replace(base, **kw) if base else cls(**kw)

    def to_toml(self) -> str:
        """TOML text that :meth:`from_toml` reads back to an equal configuration."""
        d = self.to_dict()
        graph = d["mlp"].pop("graph")
        lines = [f"{k} = {_toml(v)}" for k, v in d.items() if not isinstance(v, dict)]
        for k, v in d.items():
            if isinstance(v, dict):
                lines += ["", f"[{k}]", *(f"{kk} = {_toml(vv)}" for kk, vv in v.items())]
        for n in graph:
            lines += ["", "[[mlp.graph]]", *(f"{kk} = {_toml(vv)}" for kk, vv in n.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, source: str | Path) -> DeviceConfig:
        """Read TOML text, or a file when given a :class:`~pathlib.Path`. Raises :class:`ConfigError` naming file and
        field, and :class:`DataError` for a file that is not text."""
        if isinstance(source, str):
            return cls.from_dict(parse_toml(source, ConfigError))
        with reading(source):
            return cls.from_dict(parse_toml(read_text(source), ConfigError))

    @classmethod
    def preset(cls, preset: str, **flash: Any) -> DeviceConfig:
        """One of :data:`PRESETS`, with fields of :class:`FlashConfig` replaced by keyword."""
        _check(preset in PRESETS, "preset", preset, f"must be one of {sorted(PRESETS)}")
        c = PRESETS[preset]()
        known = {fl.name for fl in fields(FlashConfig)}
        for k, v in flash.items():
            _check(k in known, f"flash.{k}", v, f"unknown field; known: {sorted(known)}")
        return replace(c, flash=replace(c.flash, **flash))


_GROUPS: dict[str, Any] = {"flash": FlashConfig, "host": HostConfig, "lookup": LookupConfig, "mlp": MlpConfig,
                             "bus": BusConfig, "tensor": TensorConfig, "row_cache": RowCacheConfig}


def _toml(v: Any) -> str:
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (tuple, list)):
        return "[" + ", ".join(_toml(x) for x in v) + "]"
    return json.dumps(v, ensure_ascii=False)  # TOML has no surrogate pairs


def _paper() -> DeviceConfig:
    # RM-SSD: every vector pays tR, so no change-read-column.
    # 200 MHz, 4 channels, 4 KB pages, 20 us page read split 7 : 3 into array (2,800) and bus (1,200 cycles)
    # Tags: 64 reads in flight per die of a device with 4 dies a channel, or dies run dry while others have queues.
    return DeviceConfig("paper", flash=FlashConfig(blocks=64, pages=256), lookup=LookupConfig(tags=1024, sample_slots=16))


def _tlc() -> DeviceConfig:
    # SimpleSSD-like TLC: 16 KB pages, 400 MT/s x 8
    return DeviceConfig("tlc", flash=FlashConfig(
        channels=8, dies=4, blocks=64, pages=256, page_bytes=16384, oob_bytes=256, t_read_ns=65_000,
        t_program_ns=1_300_000, t_erase_ns=3_500_000, t_command_ns=100, t_ccs_ns=300, bus_page_ns=40_960))


def _ull() -> DeviceConfig:
    # ultra-low-latency flash: tR 3 us, tPROG 100 us, tERASE 1 ms
    return DeviceConfig("ull", flash=FlashConfig(
        channels=8, dies=4, t_read_ns=3_000, t_program_ns=100_000, t_erase_ns=1_000_000, t_command_ns=50,
        t_ccs_ns=200, bus_page_ns=3_414))


def _mqsim() -> DeviceConfig:
    # MQSim's defaults: 8 KB pages, tR 75 us, 333 MT/s x 8 bit
    return DeviceConfig("mqsim", flash=FlashConfig(
        channels=8, dies=4, page_bytes=8192, oob_bytes=128, t_read_ns=75_000, t_program_ns=750_000,
        t_erase_ns=3_800_000, t_command_ns=290, t_ccs_ns=300, bus_page_ns=24_576))


def _tiny() -> DeviceConfig:
    # small and fast, for tests and small boards
    return DeviceConfig(
        "tiny", clock_mhz=100.0, beat_bytes=8,
        flash=FlashConfig(channels=2, dies=2, blocks=8, pages=8, page_bytes=512, oob_bytes=32, t_read_ns=2_000,
                          t_program_ns=4_000, t_erase_ns=8_000, bus_page_ns=1_000),
        host=HostConfig(queue_pairs=2, queue_entries=16, mdts_pages=16, block_reads=8, read_slots=4, page_slots=2,
                        infer_depth=2, max_batch=64),
        lookup=LookupConfig(max_tables=8, max_extents=2, max_dim=64, max_bag=256, tags=16, sample_slots=2,
                            map_cache_lines=8, lanes=2, accumulators=128))


PRESETS = {"paper": _paper, "tlc": _tlc, "ull": _ull, "mqsim": _mqsim, "tiny": _tiny}
