"""A checker of AXI3 and AXI4 traffic that only looks, for any simulator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Address", "AxiBreach", "AxiMonitor"]

PAGE = 4096
FIXED, INCR, WRAP = range(3)


class AxiBreach(AssertionError):
    """A rule of AXI (Arm IHI 0022) was broken."""


class Address(NamedTuple):
    """What goes over an address channel (``len``: beats - 1)."""

    id: int
    addr: int
    len: int
    size: int
    burst: int

    def beats(self) -> Iterator[int]:
        """Addresses of the burst's transfers (A3.4.1)."""
        size = 1 << self.size
        low = self.addr // (size * (self.len + 1)) * (size * (self.len + 1))
        at = self.addr
        for _ in range(self.len + 1):
            yield at
            if self.burst != FIXED:
                at = at // size * size + size
                if self.burst == WRAP and at == low + size * (self.len + 1):
                    at = low


class AxiMonitor:
    """Look at a port once a cycle by :meth:`cycle`, before its clock edge; raises :class:`AxiBreach` at the first breach:

    * what is offered stays, as it is, until it's taken (A3.2.1);
    * bursts are of a legal length, size and kind, of AXI3 at most 16 beats, and stay within 4 KiB (A3.4.1);
    * write data come in the order of their addresses (with AXI3 by WID, as for a slave of interleaving depth 1, A5.4), WLAST
      with the last one, strobes within the transfer's bytes (A3.4.3);
    * answers belong to what was asked before (A3.3.1), in the order of an ID, RLAST with the last one;
    * every byte written lies where ``writable(address, bytes)`` says.

    ``bursts``: (channel, :class:`Address`) of all, as they were taken; ``beats``: of data, by channel.
    """

    def __init__(self, data_bytes: int, axi3: bool = False, name: str = "axi",
                 writable: Callable[[int, int], bool] = lambda address, n: True):
        self.data_bytes, self.axi3, self.name, self.writable = data_bytes, axi3, name, writable
        self.channels = {
            "b": ("id", "resp"), "r": ("id", "data", "resp", "last"), "ar": Address._fields, "aw": Address._fields,
            "w": ("data", "strb", "last", *(("id",) if axi3 else ()))}
        self._names = [(ch, f"{ch}valid", f"{ch}ready", tuple(ch + n for n in names))
                       for ch, names in self.channels.items()]  # a cycle is too short to put them together
        self.held: dict[str, tuple[int, ...]] = {}
        self.bursts: list[tuple[str, Address]] = []
        self.beats = {"r": 0, "w": 0}
        self.cycles = 0
        self._reads: dict[int, deque[list[int]]] = {}  # by ID: beats left of each burst
        self._answers: dict[int, int] = {}  # by ID: write bursts whole, and not yet answered
        self._data: deque[tuple[int, ...]] = deque()  # ahead of their address
        self._writes: deque[tuple[Address, Iterator[int]]] = deque()  # whose data are not whole
        self._left = 0  # beats of the first of these

    @property
    def idle(self) -> bool:
        """Nothing is offered, and nothing owed."""
        return not (self.held or self._data or self._writes or any(self._reads.values()) or any(self._answers.values()))

    def _breach(self, what: str) -> AxiBreach:
        return AxiBreach(f"{self.name}, cycle {self.cycles}: {what}")

    def cycle(self, sample: Callable[[str], int]) -> None:
        """One cycle; ``sample``: value of a member ("awvalid")."""
        self.cycles += 1
        moved = []
        # Answers first: they answer what was taken in cycles before.
        for ch, valid, ready, names in self._names:
            before = self.held.pop(ch, None) if self.held else None
            if not sample(valid):
                if before is not None:
                    raise self._breach(f"{ch.upper()}VALID fell before {ch.upper()}READY")
                continue
            now = tuple(map(sample, names))
            if before is None:
                self._offered(ch, now)
            elif before != now:
                raise self._breach(f"{ch.upper()} changed from {before} to {now} before it was taken")
            if sample(ready):
                moved.append((ch, now))
            else:
                self.held[ch] = now
        for ch, now in moved:
            self._moved(ch, now)

    def _offered(self, ch: str, now: tuple[int, ...]) -> None:
        if ch in ("aw", "ar"):
            self._legal(ch, Address(*now))
        elif ch == "b":
            if not self._answers.get(now[0], 0):
                raise self._breach(f"BID {now[0]}: no burst of this ID waits for an answer")
        elif ch == "r":
            bursts = self._reads.get(now[0])
            if not bursts:
                raise self._breach(f"RID {now[0]}: nothing of this ID was asked for")
            left = bursts[0][0]
            if now[3] != (left == 1):
                raise self._breach(f"RLAST is {now[3]} with {left} beats left")

    def _legal(self, ch: str, a: Address) -> None:
        name, beats, size = ch.upper(), a.len + 1, 1 << a.size
        if size > self.data_bytes:
            raise self._breach(f"{name}: {size} bytes a beat on a bus of {self.data_bytes}")
        if a.burst not in (FIXED, INCR, WRAP):
            raise self._breach(f"{name}BURST is {a.burst}")
        if beats > (16 if self.axi3 or a.burst == FIXED else 256):
            raise self._breach(f"{name}: {beats} beats")
        if a.burst == WRAP and (beats not in (2, 4, 8, 16) or a.addr % size):
            raise self._breach(f"{name}: wrapping burst of {beats} beats at {a.addr:#x}")
        if a.burst == INCR:
            first = a.addr // size * size
            last = first + beats * size - 1
            if first // PAGE != last // PAGE:
                raise self._breach(f"{name}: burst from {a.addr:#x} to {last:#x} crosses 4 KiB")

    def _moved(self, ch: str, now: tuple[int, ...]) -> None:
        if ch == "ar":
            a = Address(*now)
            self.bursts.append((ch, a))
            self._reads.setdefault(a.id, deque()).append([a.len + 1])
        elif ch == "aw":
            a = Address(*now)
            self.bursts.append((ch, a))
            self._writes.append((a, a.beats()))
            self._write_data()
        elif ch == "w":
            self._data.append(now)
            self._write_data()
        elif ch == "r":
            self.beats["r"] += 1
            bursts = self._reads[now[0]]
            bursts[0][0] -= 1
            if not bursts[0][0]:
                bursts.popleft()
        else:
            self._answers[now[0]] -= 1

    def _write_data(self) -> None:
        while self._data and self._writes:
            _, strb, last, *wid = self._data.popleft()
            address, transfers = self._writes[0]
            if wid not in ([], [address.id]):
                raise self._breach(f"WID is {wid}, the next burst is {address.id}'s")
            self._left = self._left or address.len + 1
            if last != (self._left == 1):
                raise self._breach(f"WLAST is {last} with {self._left} beats left")
            at, size = next(transfers), 1 << address.size
            base, first = at // self.data_bytes * self.data_bytes, at % self.data_bytes
            end = first // size * size + size
            if strb & ~((1 << end) - (1 << first)):
                raise self._breach(f"WSTRB {strb:#x} outside the {size} bytes at {at:#x}")
            if strb:
                low, high = (strb & -strb).bit_length() - 1, strb.bit_length()
                if not self.writable(base + low, high - low):
                    raise self._breach(f"{high - low} bytes written at {base + low:#x}")
            self.beats["w"] += 1
            self._left -= 1
            if not self._left:
                self._writes.popleft()
                self._answers[address.id] = self._answers.get(address.id, 0) + 1
