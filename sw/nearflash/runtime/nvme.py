"""NVMe driver: rings in host memory, doorbells, phase bits, PRP lists (NVM Express Base Specification 2.0)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..contract import CommandError, DeviceTimeout, NearflashError, Status
from ..contract.nvme import CQE, CQE_BYTES, HOST_PAGE, SQE_BYTES, sqe
from ..contract.registers import BUSES, OFFSETS, doorbell, queue_register
from .backend import Backend

__all__ = ["Buffer", "Command", "Completion", "NvmeDriver"]

_READY, _FATAL = 1, 2  # CSTS
_PRPS = HOST_PAGE // 8  # entries of one PRP list page
_TOLD = 100_000  # cycles from one word about a long wait to the next
_SETTLE = 8  # cycles between an acknowledged completion and a low interrupt, and then some


class Completion(NamedTuple):
    """A completion queue entry: ``status`` (:class:`Status`, or the bare number if unknown) and its result words."""

    status: Status | int
    dw0: int
    dw1: int


class Buffer:
    """A stretch of host memory that the device reads or writes; pages aligned, physically contiguous."""

    def __init__(self, backend: Backend, nbytes: int):
        self._backend, self.nbytes = backend, nbytes
        self.address = backend.host_alloc(max(nbytes, 1))
        self._held = True

    def write(self, content: bytes, offset: int = 0) -> None:
        self._backend.host_write(self.address + offset, content)

    def read(self, nbytes: int | None = None, offset: int = 0) -> bytes:
        return self._backend.host_read(self.address + offset, self.nbytes - offset if nbytes is None else nbytes)

    def release(self) -> None:
        """Give the memory back. Safe to call twice; not while a command may still use it."""
        if self._held:
            self._backend.host_free(self.address)
            self._held = False


@dataclass(eq=False)
class Command:
    """A submitted command. ``completion`` is None while the device works on it; ``buffers`` belong to it and are
    released by :meth:`release`."""

    what: str
    queue: int
    cid: int
    buffers: list[Buffer] = field(default_factory=list)
    completion: Completion | None = None

    def check(self) -> Completion:
        """The completion; raises :class:`CommandError` if it is not a success."""
        assert self.completion is not None, "the command is not finished"
        if self.completion.status != Status.SUCCESS:
            raise CommandError(self.what, *self.completion)
        return self.completion

    def release(self) -> None:
        for b in self.buffers:
            b.release()


class _Ring:
    """One queue pair's host side."""

    def __init__(self, backend: Backend, entries: int):
        self.entries = entries
        self.sq, self.cq = Buffer(backend, entries * SQE_BYTES), Buffer(backend, entries * CQE_BYTES)
        self.reset()

    def reset(self) -> None:
        self.tail = self.head = 0
        self.phase = 1
        self.free = list(range(self.entries - 1, 0, -1))  # one entry stays empty, so that full and empty differ
        self.live: dict[int, Command] = {}
        self.cq.write(bytes(self.cq.nbytes))


class NvmeDriver:
    """Queue pairs over a :class:`Backend`. Disabled when made; see :meth:`enable`.

    ``timeout``: cycles any wait takes at most unless told otherwise. After a :class:`DeviceTimeout` the device may still
    own the command's buffers: :meth:`disable` and :meth:`enable` to get them back.
    """

    def __init__(self, backend: Backend, timeout: int = 50_000_000):
        self.backend, self.timeout = backend, timeout
        h = backend.config.host
        self._rings = [_Ring(backend, h.queue_entries) for _ in range(h.queue_pairs)]
        self.enabled = False

    # -- life -----------------------------------------------------------------------------------------------------
    def enable(self) -> None:
        """Set up the rings and let the device fetch commands; returns when it is ready (its FTL has mounted)."""
        self.disable()
        for q, ring in enumerate(self._rings):
            ring.reset()
            for name, value in (("sq_base", ring.sq.address), ("cq_base", ring.cq.address)):
                self.backend.mmio_write32(queue_register(q, name + "_lo"), value & 0xFFFFFFFF)
                self.backend.mmio_write32(queue_register(q, name + "_hi"), value >> 32)
            self.backend.mmio_write32(queue_register(q, "size"), ring.entries - 1)
        base = self.backend.dram_base
        self.write_register("dram_base_lo", base & 0xFFFFFFFF)
        if self.backend.config.bus.address_bits > 32:
            self.write_register("dram_base_hi", base >> 32)
        self.write_register("intms", 0)
        self.write_register("cc", 1)
        self._wait_ready(1)
        self.enabled = True

    def disable(self) -> None:
        """Stop the device; commands under way end, unfinished ones of ours are forgotten and their memory released."""
        self.write_register("cc", 0)
        self._wait_ready(0)
        self.enabled = False
        for ring in self._rings:
            for c in ring.live.values():
                c.release()
            ring.live.clear()

    def close(self) -> None:
        """Stop the device and free the rings."""
        try:
            self.disable()
        finally:
            for ring in self._rings:
                ring.sq.release()
                ring.cq.release()

    def _wait_ready(self, ready: int) -> None:
        deadline = self.backend.cycles + self.timeout
        while self.read_register("csts") & _READY != ready:
            if self.backend.cycles >= deadline:
                raise DeviceTimeout(f"CSTS.RDY did not become {ready} within {self.timeout} cycles{self._state()}")
            self.backend.idle(64)

    # -- registers ------------------------------------------------------------------------------------------------
    def read_register(self, name: str) -> int:
        return self.backend.mmio_read32(OFFSETS[name])

    def write_register(self, name: str, value: int) -> None:
        self.backend.mmio_write32(OFFSETS[name], value)

    # -- commands -------------------------------------------------------------------------------------------------
    def buffer(self, content: bytes | int) -> Buffer:
        """A new buffer holding ``content``, or of that many bytes."""
        if isinstance(content, int):
            return Buffer(self.backend, content)
        b = Buffer(self.backend, len(content))
        b.write(content)
        return b

    def prp(self, b: Buffer, nbytes: int | None = None) -> tuple[int, int, list[Buffer]]:
        """(PRP1, PRP2, buffers of the PRP list) that describe the first ``nbytes`` of a buffer."""
        n = b.nbytes if nbytes is None else nbytes
        pages = [b.address + at for at in range(HOST_PAGE, n, HOST_PAGE)]
        if len(pages) < 2:
            return b.address, pages[0] if pages else 0, []
        n_lists = 1
        while n_lists * (_PRPS - 1) + 1 < len(pages):
            n_lists += 1
        lists = Buffer(self.backend, n_lists * HOST_PAGE)
        for i in range(n_lists):  # a list's last entry points to the next list, while there is one
            last = i + 1 == n_lists
            part = pages[i * (_PRPS - 1) :] if last else [
                *pages[i * (_PRPS - 1) : (i + 1) * (_PRPS - 1)], lists.address + (i + 1) * HOST_PAGE]
            lists.write(struct.pack(f"<{len(part)}Q", *part), i * HOST_PAGE)
        return b.address, lists.address, [lists]

    def submit(self, queue: int, opcode: int, what: str, buffers: list[Buffer] | None = None, **fields: int) -> Command:
        """Put one command into ``queue`` and ring its doorbell; waits for room if the ring is full. ``buffers`` pass to
        the command; ``fields`` as :func:`nearflash.contract.nvme.sqe`."""
        if not self.enabled:
            raise NearflashError(f"{what}: the device is disabled")
        ring = self._rings[queue]
        self._wait(lambda: bool(ring.free), f"room in queue {queue}", self.timeout)
        command = Command(what, queue, ring.free.pop(), buffers or [])
        ring.live[command.cid] = command
        entry = sqe(opcode, command.cid, **fields)
        self.backend.host_write(ring.sq.address + ring.tail * SQE_BYTES, entry)
        ring.tail = (ring.tail + 1) % ring.entries
        self.backend.mmio_write32(doorbell(queue, completion=False), ring.tail)
        return command

    def reap(self) -> int:
        """Take every completion that is there; returns how many."""
        count = 0
        for q, ring in enumerate(self._rings):
            if not ring.live:
                continue
            entries = np.frombuffer(ring.cq.read(), CQE)
            taken = 0
            while (entry := entries[ring.head])["sf"] & 1 == ring.phase and taken < ring.entries:
                command = ring.live.pop(int(entry["cid"]), None)
                if command is None:
                    raise NearflashError(f"queue {q}: completion of unknown command {int(entry['cid'])}")
                number = int(entry["sf"]) >> 1 & 0x7FF
                status = Status(number) if number in Status._value2member_map_ else number
                command.completion = Completion(status, int(entry["dw0"]), int(entry["dw1"]))
                ring.free.append(command.cid)
                ring.head = (ring.head + 1) % ring.entries
                ring.phase ^= ring.head == 0
                taken += 1
            if taken:
                self.backend.mmio_write32(doorbell(q, completion=True), ring.head)
            count += taken
        return count

    def wait(self, command: Command, timeout: int | None = None, told: Callable[[int], None] | None = None) -> Completion:
        """Until ``command`` is finished; ``told`` hears now and then how many cycles that has taken. Raises
        :class:`CommandError` for a bad status (its buffers are then released), :class:`DeviceTimeout` (they are not)."""
        self._wait(lambda: command.completion is not None, command.what, self.timeout if timeout is None else timeout, told)
        try:
            return command.check()
        except CommandError:
            command.release()
            raise

    def wait_any(self, commands: Collection[Command], timeout: int | None = None) -> list[Command]:
        """Until at least one of ``commands`` (at least one) is finished: those that are, whatever their status. Raises
        :class:`DeviceTimeout`."""
        if not commands:
            raise ValueError("commands: there must be at least one to wait for")

        def finished() -> list[Command]:
            return [c for c in commands if c.completion is not None]

        self._wait(lambda: bool(finished()), f"any of {len(commands)} commands",
                   self.timeout if timeout is None else timeout)
        return finished()

    def drain(self, commands: list[Command]) -> None:
        """Wait for commands whose results nobody wants any more, and release their buffers."""
        for command in commands:
            with contextlib.suppress(CommandError):
                self.wait(command)
            command.release()

    def call(self, queue: int, opcode: int, what: str, buffers: list[Buffer] | None = None, **fields: int) -> Completion:
        """Submit, wait, release the buffers."""
        command = self.submit(queue, opcode, what, buffers, **fields)
        completion = self.wait(command)
        command.release()
        return completion

    def _state(self) -> str:
        """What the device says it is doing, for the message of a wait that was given up."""
        csts = self.read_register("csts")
        said = [f"{sum(len(r.live) for r in self._rings)} commands under way", f"CSTS.RDY is {csts & _READY}"]
        if csts & _FATAL:
            status = self.read_register("bus_status")
            silent = [name for bit, name in enumerate(BUSES.values()) if status >> bit & 1]
            said.append(f"CSTS.CFS: no answer to {', '.join(silent)}; only a reset of the device helps" if silent else
                        "CSTS.CFS: the device could not reach its rings, or its DRAM would lie beyond its bus")
        if shell := self.backend.describe():
            said.append(shell)
        return f" ({'; '.join(said)})"

    async def wait_async(self, command: Command, timeout: int | None = None) -> Completion:
        """As :meth:`wait`; other tasks of the event loop run meanwhile."""
        cycles = self.timeout if timeout is None else timeout
        deadline = self.backend.cycles + cycles
        while command.completion is None:
            if self.reap():
                continue
            left = self._left(deadline, command.what, cycles)
            if await self.backend.wait_irq_async(left) and not self.reap():
                self.backend.idle(_SETTLE)
        return self.wait(command, 0)

    def _left(self, deadline: int, what: str, timeout: int) -> int:
        """Cycles until ``deadline``. Raises :class:`DeviceTimeout` when it is over."""
        left = deadline - self.backend.cycles
        if left <= 0:
            raise DeviceTimeout(f"{what}: no answer within {timeout} cycles{self._state()}")
        return left

    def _wait(self, done: Callable[[], bool], what: str, timeout: int, told: Callable[[int], None] | None = None) -> None:
        deadline = self.backend.cycles + timeout
        while not done():
            if self.reap():
                continue
            left = self._left(deadline, what, timeout)
            if told is not None:
                told(timeout - left)
                left = min(left, _TOLD)
            if self.backend.wait_irq(left) and not self.reap():
                self.backend.idle(_SETTLE)  # the interrupt has not fallen yet after the last acknowledgement
