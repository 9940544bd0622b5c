"""The device: only wiring. See :mod:`nearflash_hw.interfaces` for the path of a query through the rooms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.registers import ADDRESS_BITS, counters

from .block.block_io import BlockIo
from .controller.ftl import Ftl
from .controller.nvme import Nvme
from .flash.channel import Channel
from .flash.server import ArrayServer
from .host.prp import PrpWalker
from .host.shared_reader import SharedReader
from .lookup.engine import LookupEngine
from .lookup.pooling import Pooling
from .mlp.engine import MlpEngine
from .primitives.axi import AxiSignature
from .primitives.axi_lite import AxiLiteSignature
from .primitives.interconnect import MemInterconnect
from .tensor.commands import TensorCommands
from .tensor.engine import OUTSTANDING_READS, OUTSTANDING_WRITES, TensorEngine

__all__ = ["Device"]


@dataclass
class _Memory:
    """Clients of the two memories, in the order in which they are numbered. ``deep_reads``: of DRAM's with more reads under
    way than others, how many; ``dense_writes``: those that are granted a write every cycle."""

    host_reads: list[Any]
    host_writes: list[Any]
    dram_reads: list[Any]
    dram_writes: list[Any]
    deep_reads: dict[int, int] = field(default_factory=dict)
    dense_writes: list[int] = field(default_factory=list)


@dataclass
class _Queries:
    """What answers queries, but the MLP. ``reader``: of host memory, which it shares with admin commands."""

    lookup: LookupEngine
    pooling: Pooling
    reader: SharedReader


class Device(wiring.Component):
    """An SSD controller, with an embedding lookup engine, an MLP behind it and a tensor engine, as the configuration says.

    Ports: ``s_axi`` AXI4-Lite slave (registers and doorbells), ``m_axi_host`` AXI4 master to host memory,
    ``m_axi_dram`` AXI4 master to the board's DRAM (flash contents, map, streamed weights), ``irq`` level interrupt.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        axi = AxiSignature(config.bus.address_bits, config.beat_bytes * 8, config.bus.id_bits)
        super().__init__({
            #: Registers and doorbells.
            "s_axi": In(AxiLiteSignature(ADDRESS_BITS)),
            #: Host memory.
            "m_axi_host": Out(axi),
            #: Flash contents, map, weights that are streamed.
            "m_axi_dram": Out(axi),
            #: Level.
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        channels = c.flash.channels
        m.submodules.nvme = nvme = Nvme(c)
        m.submodules.ftl = ftl = Ftl(c)
        m.submodules.block_io = block_io = BlockIo(c)
        m.submodules.block_prp = block_prp = PrpWalker(c)
        queries = self._queries(m) if c.lookup.max_tables else None
        flash = [Channel(c) for _ in range(channels)]
        m.submodules.arrays = arrays = ArrayServer(c)
        for k, ch in enumerate(flash):
            m.submodules[f"channel{k}"] = ch

        # -- host interface
        connect(m, flipped(self.s_axi), nvme.axil)
        m.d.comb += [
            self.irq.eq(nvme.irq),
            ftl.enable.eq(nvme.enabled),
            nvme.ftl_ready.eq(ftl.ready & queries.lookup.cleared & queries.pooling.cleared if queries else ftl.ready),
        ]
        if queries:
            m.d.comb += nvme.infer_idle.eq(queries.lookup.idle)
        for command in ("read_cmd", "write_cmd", "trim_cmd"):
            connect(m, getattr(nvme, command), getattr(block_io, command))
        connect(m, block_io.completion, nvme.block_completion)
        if queries:
            self._connect_commands(m, nvme, queries)

        # -- block I/O, FTL, flash
        connect(m, block_io.prp_req, block_prp.req)
        connect(m, block_prp.run, block_io.prp_run)
        connect(m, block_io.ftl_req, ftl.block_req)
        connect(m, ftl.block_rsp, block_io.ftl_rsp)
        connect(m, block_io.update, ftl.update)
        connect(m, ftl.update_done, block_io.update_done)
        connect(m, ftl.allocate, block_io.allocate)
        connect(m, block_io.sync, ftl.sync)
        connect(m, ftl.sync_done, block_io.sync_done)
        m.d.comb += [
            block_io.full.eq(ftl.full),
            block_io.stalled.eq(ftl.stalled),
        ]
        if queries:
            connect(m, queries.lookup.ftl_req, ftl.lookup_req)
            connect(m, ftl.lookup_rsp, queries.lookup.ftl_rsp)
        for k, ch in enumerate(flash):
            connect(m, block_io.flash_cmd[k], ch.block_cmd)
            connect(m, block_io.flash_in[k], ch.block_in)
            connect(m, ch.block_data, block_io.flash_data[k])
            connect(m, ch.block_done, block_io.flash_done[k])
            m.d.comb += [
                block_io.flash_waits[k].eq(ch.block_waits),
                ch.block_hold.eq(~block_io.flash_room[k]),
            ]
            connect(m, ch.array, arrays.channel[k])
            if queries:
                connect(m, queries.lookup.flash_cmd[k], ch.lookup_cmd)
                connect(m, ch.lookup_data, queries.lookup.flash_data[k])

        # -- engines, what they have of the memories, and the performance counters
        events: dict[str, Any] = {"cycles": 1, "map_misses_count": ftl.map_miss}
        for k, ch in enumerate(flash):
            events[f"channel{k}_bus_busy"] = ch.bus_busy
            for d, plane in enumerate(c.flash.plane_names):
                events[f"channel{k}_{plane}_busy"] = ch.die_busy[d]
            events[f"channel{k}_reads_count"] = ch.read_started
            events[f"channel{k}_programs_count"] = ch.program_started
        memory = _Memory([nvme.sq_read, block_prp.mem_read, block_io.host_read],
                         [nvme.cq_write, nvme.identify_write, block_io.host_write],
                         [ftl.mem_read, arrays.mem_read], [ftl.mem_write, arrays.mem_write])
        if queries:
            memory.host_reads += [queries.reader.list_read, queries.reader.data_read]
            memory.host_writes.append(queries.lookup.host_write)
            memory.dram_writes.insert(1, nvme.dram_write)
            events |= self._pooling(m, nvme, queries, memory)
        if c.tensor.rows:
            self._tensor_engine(m, nvme, memory)
        if queries and c.row_cache.lines:
            events |= self._row_cache(m, nvme, queries.lookup, flash, memory)

        # -- memory
        m.submodules.host_interconnect = host = MemInterconnect(
            c.beat_bytes, len(memory.host_reads), len(memory.host_writes), c.bus)
        m.submodules.dram_interconnect = dram = MemInterconnect(
            c.beat_bytes, len(memory.dram_reads), len(memory.dram_writes), c.bus, reach_bits=(c.layout.end - 1).bit_length(),
            based=True, outstanding_writes=OUTSTANDING_WRITES if c.tensor.rows else None,
            outstanding_reads=memory.deep_reads, dense_writes=memory.dense_writes)
        m.d.comb += [
            dram.base.eq(nvme.dram_base),  # silent: in the order of register bus_status
            nvme.bus_silent.eq(Cat(host.silent_reads, host.silent_writes, dram.silent_reads, dram.silent_writes)),
        ]
        for ic, reads, writes, axi in ((host, memory.host_reads, memory.host_writes, self.m_axi_host),
                                       (dram, memory.dram_reads, memory.dram_writes, self.m_axi_dram)):
            for k, port in enumerate(reads):
                connect(m, port, ic.read[k])
            for k, port in enumerate(writes):
                connect(m, port, ic.write[k])
            connect(m, ic.axi, flipped(axi))

        for i, name in enumerate(counters(c)):
            m.d.comb += nvme.perf[i].eq(events[name])
        return m

    def _queries(self, m: Module) -> _Queries:
        m.submodules.lookup = lookup = LookupEngine(self.config)
        m.submodules.pooling = pooling = Pooling(self.config)
        m.submodules.host_reader = host_reader = SharedReader(self.config)
        return _Queries(lookup, pooling, host_reader)

    def _connect_commands(self, m: Module, nvme: Nvme, queries: _Queries) -> None:
        """Queries, tables, and what both read of host memory."""
        lookup, reader = queries.lookup, queries.reader
        connect(m, nvme.infer_cmd, lookup.infer_cmd)
        connect(m, lookup.completion, nvme.infer_completion)
        # Admin commands that read host memory wait until no inference command is in flight.
        m.d.comb += reader.owner.eq(~lookup.idle)
        connect(m, nvme.admin_req, reader.req[0])
        connect(m, reader.data[0], nvme.admin_data)
        connect(m, lookup.host_req, reader.req[1])
        connect(m, reader.data[1], lookup.host_data)
        for room in (lookup, queries.pooling):
            m.d.comb += [
                room.table_valid.eq(nvme.table_valid),
                room.table.eq(nvme.table),
            ]

    def _pooling(self, m: Module, nvme: Nvme, queries: _Queries, memory: _Memory) -> dict[str, Signal]:
        """From lookups over pooling to the MLP, if there is one, and back; the counters' events."""
        c, lookup, pooling = self.config, queries.lookup, queries.pooling
        connect(m, lookup.vector, pooling.vector)
        connect(m, lookup.bag, pooling.bag)
        connect(m, lookup.drain, pooling.drain)
        connect(m, pooling.retire, lookup.retire)
        connect(m, pooling.drained, lookup.drained)
        connect(m, pooling.pooled, lookup.pooled)
        busy, mac_step = Signal(), Signal()
        if c.mlp.graph:
            m.submodules.mlp = mlp = MlpEngine(c)
            connect(m, lookup.dense, mlp.dense)
            connect(m, lookup.mlp_pooled, mlp.pooled)
            connect(m, mlp.logit, lookup.logit)
            connect(m, nvme.parameter, mlp.parameter)
            m.d.comb += [
                mlp.table_valid.eq(nvme.table_valid),
                mlp.table.eq(nvme.table),
                busy.eq(mlp.busy),
                mac_step.eq(mlp.mac_step),
            ]
            memory.dram_reads.append(mlp.mem_read)
        else:  # a lookup-only device: INFER is refused before it gets here, so nothing ever waits on these
            m.d.comb += [
                lookup.dense.ready.eq(1),
                lookup.mlp_pooled.ready.eq(1),
                nvme.parameter.ready.eq(1),
            ]
        return {"lookups_count": lookup.lookups_issued, "samples_count": lookup.sample_done, "mlp_busy": busy,
                "mlp_mac_steps_count": mac_step}

    def _tensor_engine(self, m: Module, nvme: Nvme, memory: _Memory) -> None:
        c = self.config
        m.submodules.tensor = tensor = TensorEngine(c)
        m.submodules.tensor_commands = commands = TensorCommands(c)
        connect(m, nvme.tensor_cmd, commands.cmd)
        connect(m, commands.completion, nvme.tensor_completion)
        connect(m, commands.run, tensor.i)
        connect(m, tensor.o, commands.outcome)
        connect(m, tensor.transfer, commands.transfer)
        connect(m, commands.transferred, tensor.transferred)
        first, reads = len(memory.dram_reads), len(tensor.mem_read)
        memory.deep_reads |= {first + k: most for k, most in OUTSTANDING_READS.items() if k < reads}
        memory.dram_reads += [*tensor.mem_read, commands.dram_read]
        memory.host_reads += [commands.list_read, commands.data_read]
        memory.host_writes.append(commands.host_write)
        memory.dense_writes.append(len(memory.dram_writes))
        memory.dram_writes += [tensor.mem_write, commands.dram_write]

    def _row_cache(self, m: Module, nvme: Nvme, lookup: LookupEngine, flash: list[Channel], memory: _Memory
                   ) -> dict[str, Signal]:
        """The ports of ``lookup``'s row cache; its counters' events."""
        m.d.comb += [
            lookup.cache_enable.eq(nvme.enabled),
            # A block's ERASE has ended: bit 0 of block I/O's tags is that of a PROGRAM.
            lookup.erased.eq(Cat(ch.block_done.valid & ~ch.block_done.payload.tag[0] for ch in flash).any()),
        ]
        memory.dram_reads.append(lookup.cache_read)
        memory.dram_writes.append(lookup.cache_write)
        return {f"cache_{what}_count": getattr(lookup, f"cache_{event}") for what, event in
                (("hits", "hit"), ("kept", "kept"), ("dropped", "dropped"))}
