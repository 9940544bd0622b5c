"""The device as a host program sees it: block storage, embedding tables, and models that answer queries."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import AdminOpcode, ConfigError, DataError, DeviceConfig, NearflashError, Opcode, TableSpec
from ..contract.arrays import as_array
from ..contract.identify import IDENTIFY_BYTES, limits
from ..contract.registers import counters
from ..contract.tensor import TENSOR_LOAD, TENSOR_RUN
from ..reference.ftl import FtlModel
from .backend import Backend, open_backend
from .layout import ExtentAllocator, table_pages
from .nvme import Buffer, Command, NvmeDriver
from .placement import Placement
from .queries import normalize_bags, pack_batch

if TYPE_CHECKING:
    from ..quantize.compiled import CompiledModel

__all__ = ["Device", "TensorTicket", "Ticket", "open"]

ADMIN, INFER = 0, 1
CHUNKS = 4  # block I/O commands of one read or write in flight
LOADED = 1 << 20  # bytes of tensors that one command loads


@dataclass(eq=False)
class Ticket:
    """A batch under way: pass it to :meth:`Device.result`, once."""

    command: Command
    out: Buffer
    shape: tuple[int, int]  # samples, fp32 values per sample


@dataclass(eq=False)
class TensorTicket:
    """A program of the tensor engine under way."""

    command: Command
    out: Buffer


class Device:
    """A device over a :class:`Backend`. Ready when made; a context manager.

    ``timeout``: cycles any single wait may take before :class:`~nearflash.contract.DeviceTimeout`. A failed command raises
    :class:`~nearflash.contract.CommandError` with its status. Not thread-safe.
    """

    def __init__(self, backend: Backend, timeout: int = 50_000_000):
        self.backend, self.config = backend, backend.config
        self.driver = NvmeDriver(backend, timeout)
        found = self.driver.read_register("design_id")
        if found != self.config.design_id:
            raise ConfigError("design_id", hex(found), f"the device was not generated from this configuration "
                              f"({self.config.design_id:#x})")
        self._block = min(2, self.config.host.queue_pairs - 1)
        self._extents = ExtentAllocator(self.config)
        self.tables: dict[int, TableSpec] = {}
        self.placement: Placement | None = None  #: translates the indices of queries, where a model's rows were placed
        self._closed = False
        self.driver.enable()

    # -- life -----------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Stop the device and free the back end. Safe to call twice."""
        if not self._closed:
            self._closed = True
            try:
                self.driver.close()
            finally:
                self.backend.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def reset(self) -> None:
        """Controller reset: commands under way are lost; tables, program and stored data stay."""
        self.driver.enable()

    def subsystem_reset(self) -> None:
        """Reset of the whole device, for when a controller reset does not help: commands under way, open tables and the
        program are lost too; stored data stay. Raises :class:`NotImplementedError` where the back end has no reset."""
        self.backend.reset()
        self.tables.clear()
        self._extents.reset({})
        self.driver.enable()

    # -- information ------------------------------------------------------------------------------------------------
    def identify(self) -> dict[str, int]:
        """The device's limits (IDENTIFY, CNS C0h), by name."""
        words = np.frombuffer(self.identify_page(0xC0), "<u4")
        return {name: int(words[i]) for i, name in enumerate(limits(self.config))}

    def identify_page(self, cns: int) -> bytes:
        """The 4096 bytes of IDENTIFY for ``cns``: 00h namespace, 01h controller, C0h limits."""
        b = self.driver.buffer(IDENTIFY_BYTES)
        command = self.driver.submit(ADMIN, AdminOpcode.IDENTIFY, f"identify {cns:#x}", [b], prp1=b.address, cdw10=cns)
        self.driver.wait(command)
        page = b.read()
        command.release()
        return page

    def counters(self) -> dict[str, int]:
        """Every performance counter by name (cycles unless the name ends in ``_count``)."""
        out = {}
        for i, name in enumerate(counters(self.config)):
            self.driver.write_register("perf_index", i)
            out[name] = self.driver.read_register("perf_lo") | self.driver.read_register("perf_hi") << 32
        return out

    # -- block I/O ------------------------------------------------------------------------------------------------
    def read(self, lba: int, count: int = 1) -> bytes:
        """``count`` logical blocks from ``lba``; blocks never written read as zeros."""
        self._check_range(lba, count)
        out: list[bytes] = []
        flying: list[tuple[Command, Buffer]] = []
        size = self.config.lba_bytes

        def land() -> None:
            command, b = flying.pop(0)
            self.driver.wait(command)
            out.append(b.read())
            command.release()

        try:
            for at, n in self._chunks(lba, count):
                if len(flying) == CHUNKS:
                    land()
                b = self.driver.buffer(n * size)
                flying.append((self._block_command(Opcode.READ, b, at, n), b))
            while flying:
                land()
        finally:
            self.driver.drain([command for command, _ in flying])
        return b"".join(out)

    def write(self, lba: int, content: bytes) -> None:
        """Write whole logical blocks from ``lba``; durable after :meth:`flush`."""
        size = self.config.lba_bytes
        if not content or len(content) % size:
            raise DataError("content", len(content), f"must be a positive multiple of the block size ({size})")
        self._check_range(lba, len(content) // size)
        flying: list[Command] = []

        def land() -> None:
            command = flying.pop(0)
            self.driver.wait(command)
            command.release()

        try:
            for at, n in self._chunks(lba, len(content) // size):
                if len(flying) == CHUNKS:
                    land()
                part = memoryview(content)[(at - lba) * size : (at - lba + n) * size]
                flying.append(self._block_command(Opcode.WRITE, self.driver.buffer(bytes(part)), at, n))
            while flying:
                land()
        finally:
            self.driver.drain(flying)

    def flush(self) -> None:
        """Everything written so far survives a power cut."""
        self.driver.call(self._block, Opcode.FLUSH, "flush", nsid=1)

    def trim(self, lba: int, count: int = 1) -> None:
        """Forget the contents of ``count`` blocks: they read as zeros."""
        self._check_range(lba, count)
        b = self.driver.buffer(struct.pack("<IIQ", 0, count, lba))
        self.driver.call(self._block, Opcode.DSM, f"trim of {count} blocks at {lba}", [b], nsid=1, prp1=b.address,
                         cdw10=0, cdw11=1 << 2)

    def _chunks(self, lba: int, count: int) -> Iterator[tuple[int, int]]:
        step = self.config.host.mdts_pages
        return ((at, min(step, lba + count - at)) for at in range(lba, lba + count, step))

    def _block_command(self, opcode: Opcode, b: Buffer, lba: int, count: int) -> Command:
        prp1, prp2, lists = self.driver.prp(b)
        return self.driver.submit(self._block, opcode, f"{opcode.name.lower()} of {count} blocks at {lba}", [b, *lists],
                                  nsid=1, prp1=prp1, prp2=prp2, cdw10=lba, cdw12=count - 1)

    def _check_range(self, lba: int, count: int) -> None:
        if lba < 0 or count < 1 or lba + count > self.config.lbas:
            raise DataError("lba", (lba, count), f"blocks must lie from 0 to {self.config.lbas - 1}")

    # -- tables and programs ----------------------------------------------------------------------------------------
    def create_table(self, table: int, spec: TableSpec, rows: np.ndarray | None, lba: int | None = None,
                     preload: bool = False) -> TableSpec:
        """Store a table's ``rows`` (uint8 [rows, row bytes]; None: already there) and open it as number ``table``.

        Extents are chosen (at ``lba`` if given) unless ``spec`` has them. ``preload`` writes the device's DRAM through the
        back door instead of block I/O: no cycles, but the device is disabled meanwhile. Returns the spec with extents.
        """
        return self.create_tables({table: (spec, rows)}, preload=preload, lba=lba)[table]

    def create_tables(self, tables: dict[int, tuple[TableSpec, np.ndarray | None]], *, preload: bool = False,
                      lba: int | None = None) -> dict[int, TableSpec]:
        """Several tables at once (one remount for all); ``lba``: where the first begins, the others follow."""
        placed: dict[int, TableSpec] = {}
        try:
            for t, (spec, _) in tables.items():
                self._extents.release(t)
                if not spec.extents:
                    spec = replace(spec, extents=self._extents.take(t, spec.pages(self.config), lba))
                    lba = lba if lba is None else lba + spec.pages(self.config)
                spec.validate(self.config)
                self._extents.hold(t, spec.extents)
                placed[t] = spec
            content = [(placed[t], rows) for t, (_, rows) in tables.items() if rows is not None]
            if preload:
                self._preload(content)
            else:
                for spec, rows in content:
                    for at, pages in self._table_chunks(spec, rows):
                        self.write(at, pages.tobytes())
                self.flush()
            for t, spec in placed.items():
                b = self.driver.buffer(spec.descriptor(self.config))
                self.driver.call(ADMIN, AdminOpcode.TABLE_CREATE, f"create table {t}", [b], prp1=b.address, cdw10=t)
                self.tables[t] = spec
        finally:  # blocks of tables that did not come to be are free again
            self._extents.reset({t: spec.extents for t, spec in self.tables.items()})
        return placed

    def delete_table(self, table: int) -> None:
        """Close a table; its blocks keep their contents."""
        self.driver.call(ADMIN, AdminOpcode.TABLE_DELETE, f"delete table {table}", cdw10=table)
        self.tables.pop(table, None)
        self._extents.release(table)

    def load_program(self, image: bytes) -> None:
        """Load the MLP's parameters (:attr:`~nearflash.quantize.compiled.CompiledModel.image`)."""
        b = self.driver.buffer(image)
        prp1, prp2, lists = self.driver.prp(b)
        self.driver.call(ADMIN, AdminOpcode.PROGRAM_LOAD, "load program", [b, *lists], prp1=prp1, prp2=prp2,
                         cdw10=len(image) // 4)

    # -- tensor engine ----------------------------------------------------------------------------------------------
    def load_tensors(self, offset: int, content: bytes) -> None:
        """Copy ``content`` to byte ``offset`` of the tensor region, both multiples of 64 (TENSOR_LOAD)."""
        for at in range(0, len(content), LOADED):
            b = self.driver.buffer(content[at : at + LOADED])
            prp1, prp2, lists = self.driver.prp(b)
            self.driver.call(ADMIN, TENSOR_LOAD, "load tensors", [b, *lists], prp1=prp1, prp2=prp2, cdw10=b.nbytes // 4,
                             cdw12=offset + at)

    def run_tensors(self, program: int, content: bytes, output_bytes: int, timeout: int | None = None,
                    told: Callable[[int], None] | None = None) -> bytes:
        """Run the program at byte ``program`` of the tensor region on the input ``content``; its header says that it has
        ``output_bytes`` of output (TENSOR_RUN). ``timeout``: cycles, if not the device's; ``told``: hears now and then how
        many have passed."""
        ticket = self.submit_tensors(program, content, output_bytes)
        self.driver.wait(ticket.command, timeout, told)
        return self.tensors(ticket)

    def submit_tensors(self, program: int, content: bytes, output_bytes: int, queue: int = INFER) -> TensorTicket:
        """As :meth:`run_tensors`, and returns at once; :meth:`tensors` has the output when ``ticket.command`` is finished.
        One program runs at a time: the next one waits at the head of its ``queue``, with whatever was submitted there behind
        it."""
        b, out = self.driver.buffer(content), self.driver.buffer(output_bytes)
        prp1, prp2, lists = self.driver.prp(b)
        command = self.driver.submit(queue, TENSOR_RUN, "run tensors", [b, out, *lists], prp1=prp1, prp2=prp2,
                                     cdw10=len(content) // 4, cdw11=program, cdw14=out.address & 0xFFFFFFFF,
                                     cdw15=out.address >> 32)
        return TensorTicket(command, out)

    @staticmethod
    def tensors(ticket: TensorTicket) -> bytes:
        """The output of a finished program, once. Raises :class:`~nearflash.contract.CommandError` if the device refused
        it."""
        ticket.command.check()
        answer = ticket.out.read()
        ticket.command.release()
        return answer

    def load(self, compiled: CompiledModel, preload: bool | None = None, placement: Placement | None = None) -> None:
        """Put a compiled model on the device: tables 0.. and program. ``preload`` defaults to the back door's presence.

        ``placement``: how the model's rows were placed (``nearflash place``). Queries then name rows as before that, and are
        translated on their way to the device; without it they name rows as they lie in the model's tables.
        """
        if placement is not None:
            placement.check([t.rows for t in compiled.tables])
        if compiled.config.design_id != self.config.design_id:
            raise ConfigError("compiled.config", compiled.config.name, "was compiled for another device configuration")
        use = self.backend.has_backdoor if preload is None else preload
        self.create_tables(dict(enumerate(zip(compiled.tables, compiled.rows, strict=True))), preload=use)
        if compiled.image:
            self.load_program(compiled.image)
        self.placement = placement

    def _table_chunks(self, spec: TableSpec, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(first logical block, pages) of a table, a bounded number of pages at a time."""
        last = spec.pages(self.config)
        for e in spec.extents:
            for at in range(0, min(e.pages, last - e.first_page), 1024):
                n = min(1024, e.pages - at, last - e.first_page - at)
                yield e.lba + at, table_pages(spec, rows, self.config, e.first_page + at, n)

    def _preload(self, content: Sequence[tuple[TableSpec, np.ndarray]]) -> None:
        if not self.backend.has_backdoor:
            raise NearflashError(f"{type(self.backend).__name__} cannot preload: it has no back door")
        self.flush()
        self.driver.disable()
        ftl = FtlModel(self.config, read=self.backend.dram_read)
        for spec, rows in content:
            for lba, pages in self._table_chunks(spec, rows):
                for i, page in enumerate(pages):
                    ftl.write(lba + i, page.tobytes())
        for address, piece in ftl.image():
            self.backend.dram_write(address, piece)
        self.driver.enable()

    # -- queries ----------------------------------------------------------------------------------------------------
    def submit(self, dense: Any, bags: Sequence[Any], weights: Sequence[Any] | None = None,
               include_last_offset: bool | None = None) -> Ticket:
        """Send a batch of queries; returns at once (or when the queue has room). ``dense`` float [B, features], finite, or
        None; ``bags[t]`` = (indices, offsets[, weights]) as EmbeddingBag takes them, NumPy or torch (bfloat16 too).

        ``include_last_offset`` as EmbeddingBag's; None: told by ``dense``, and without it (a [B, 0] array tells it too)
        offsets that could mean a last sample without any lookup are refused."""
        return self._query(Opcode.INFER, dense, bags, weights, include_last_offset)

    def result(self, ticket: Ticket, timeout: int | None = None) -> np.ndarray:
        """fp32 logits [B, outputs] of a submitted batch. Raises :class:`~nearflash.contract.CommandError` if the device
        refused it, and :class:`~nearflash.contract.DeviceTimeout` after ``timeout`` cycles (the ticket stays valid)."""
        self.driver.wait(ticket.command, timeout)
        return self._values(ticket)

    async def result_async(self, ticket: Ticket, timeout: int | None = None) -> np.ndarray:
        """As :meth:`result`; other tasks of the event loop run while the device works."""
        await self.driver.wait_async(ticket.command, timeout)
        return self._values(ticket)

    @staticmethod
    def _values(ticket: Ticket) -> np.ndarray:
        n, width = ticket.shape
        values = np.frombuffer(ticket.out.read(4 * n * width), "<f4").reshape(n, width).copy()
        ticket.command.release()
        return values

    def infer(self, dense: Any, bags: Sequence[Any], weights: Sequence[Any] | None = None, batch: int | None = None,
              include_last_offset: bool | None = None) -> np.ndarray:
        """fp32 logits [B, outputs] of any number of queries, cut into commands of ``batch`` and pipelined. Queries as for
        :meth:`submit`."""
        parts = self._split(*self._normal(dense, bags, weights, include_last_offset), batch or self.config.host.max_batch)
        flying: list[Ticket] = []
        out: list[np.ndarray] = []
        try:
            for d, b in parts:
                if len(flying) == self.config.host.infer_depth:
                    out.append(self.result(flying.pop(0)))
                flying.append(self._send(Opcode.INFER, d, b))
            while flying:
                out.append(self.result(flying.pop(0)))
        finally:
            self.driver.drain([t.command for t in flying])
        return np.concatenate(out) if out else np.zeros((0, self.config.mlp.graph[-1].width), np.float32)

    def lookup(self, bags: Sequence[Any], weights: Sequence[Any] | None = None, include_last_offset: bool = False
               ) -> list[np.ndarray]:
        """Pooled fp32 vectors [B, dim] of tables 0.. (as many as ``bags``); ``include_last_offset`` as EmbeddingBag's."""
        ticket = self._query(Opcode.LOOKUP, None, bags, weights, include_last_offset)
        values = self.result(ticket)
        ends = np.cumsum([self.tables[t].dim for t in range(len(bags))])
        return np.split(values, ends[:-1], axis=1)

    def _query(self, opcode: Opcode, dense: Any, bags: Sequence[Any], weights: Sequence[Any] | None,
               include_last_offset: bool | None = False) -> Ticket:
        return self._send(opcode, *self._normal(dense, bags, weights, include_last_offset))

    def _normal(self, dense: Any, bags: Sequence[Any], weights: Sequence[Any] | None, include_last_offset: bool | None
                ) -> tuple[np.ndarray | None, list[Any]]:
        d = None if dense is None else as_array(dense)
        normal: list[Any] = normalize_bags(bags, weights, include_last_offset, len(d) if d is not None and d.ndim else None)
        return d, normal if self.placement is None else self.placement.bags(normal)

    def _send(self, opcode: Opcode, dense: np.ndarray | None, bags: list[Any]) -> Ticket:
        self.config.require_lookup()
        words, batch, weighted = pack_batch(dense, bags)
        if not 1 <= batch <= self.config.host.max_batch:
            raise DataError("batch", batch, f"must be from 1 to host.max_batch ({self.config.host.max_batch})")
        missing = [t for t in range(len(bags)) if t not in self.tables]
        if opcode == Opcode.LOOKUP and missing:
            raise DataError("bags", len(bags), f"table {missing[0]} is not open")
        if opcode == Opcode.INFER and not self.config.mlp.graph:
            raise DataError("submit", self.config.name, "this device has no MLP: use lookup")
        width = (self.config.mlp.graph[-1].width if opcode == Opcode.INFER
                 else sum(self.tables[t].dim for t in range(len(bags))))
        features = 0 if dense is None else dense.shape[1]
        query = self.driver.buffer(words.tobytes())
        out = self.driver.buffer(-(-4 * batch * width // self.config.beat_bytes) * self.config.beat_bytes)
        prp1, prp2, lists = self.driver.prp(query)
        command = self.driver.submit(
            INFER, opcode, f"{opcode.name.lower()} of {batch} samples", [query, out, *lists], prp1=prp1, prp2=prp2,
            cdw10=words.size, cdw11=batch | int(weighted) << 16, cdw12=len(bags) | int(features) << 16,
            cdw14=out.address & 0xFFFFFFFF, cdw15=out.address >> 32)
        return Ticket(command, out, (batch, width))

    def _split(self, dense: np.ndarray | None, bags: list[Any], size: int) -> Iterator[tuple[Any, list[Any]]]:
        total = len(bags[0][1])
        ends = [np.concatenate([[0], np.cumsum(lengths)]) for _, lengths, _ in bags]
        for at in range(0, total, size):
            stop = min(at + size, total)
            part = [(i[e[at] : e[stop]], lengths[at:stop], None if w is None else w[e[at] : e[stop]])
                    for (i, lengths, w), e in zip(bags, ends, strict=True)]
            yield None if dense is None else dense[at:stop], part


def open(backend: str = "sim", config: DeviceConfig | None = None, timeout: int = 50_000_000, **kw: Any) -> Device:
    """Open a device: ``backend`` by entry-point name, built with ``config`` and ``kw``."""
    if config is not None:
        kw["config"] = config
    b = open_backend(backend, **kw)
    try:
        return Device(b, timeout)
    except BaseException:
        b.close()
        raise
