"""A memory behind an AXI4 or AXI3 port (:mod:`nearflash_hw.primitives.axi`), for test benches of the Amaranth simulator."""

from __future__ import annotations

import random
from collections import deque

__all__ = ["AxiSlave"]

PAGE = 4096  # no burst crosses a boundary of so many bytes


def pattern(addr: int, beat_bytes: int) -> int:
    """The content of the memory at ``addr`` before any write."""
    return (addr // beat_bytes * 0x9E3779B97F4A7C15 ^ addr << 40) & ((1 << 8 * beat_bytes) - 1)


class AxiSlave:
    """An AXI4 or AXI3 memory that keeps nothing in order but what AXI asks for: read data of different IDs interleave, write
    answers of different IDs overtake each other. Checks every rule the initiator has to keep.

    ``shy``: takes an address of a write only while its data are offered, and data only after their address, as a memory may
    (Arm IHI 0022, A3.3.1). ``dead``: answers nothing more while it is set."""

    def __init__(self, axi, beat_bytes, *, latency=0, stall=0.0, seed=0, fail=lambda addr: False, shy=False):
        self.axi, self.beat_bytes, self.latency, self.stall, self.fail = axi, beat_bytes, latency, stall, fail
        self.rng = random.Random(seed)
        self.shy, self.dead, self.axi3 = shy, False, hasattr(axi, "wid")
        self.memory = {}
        self.reads, self.r_queues = [], {}  # bursts seen; per ID: deque of [due, addr, beat, beats]
        self.writes, self.w_order, self.b_queues = [], deque(), {}
        self.w_beat, self.w_error = 0, False
        self.w_busy, self.r_busy = [], []  # cycles in which a word moved
        self.early = deque()  # data taken ahead of its address
        self.cycle = 0

    @property
    def idle(self):
        return not (any(self.r_queues.values()) or self.w_order or any(self.b_queues.values()) or self.early)

    def _check_address(self, ch, addr, length, size, burst):
        assert addr % self.beat_bytes == 0, f"{ch} address {addr:#x} is not beat-aligned"
        assert 1 << size == self.beat_bytes
        assert burst == 1
        end = addr + (length + 1) * self.beat_bytes - 1
        assert addr // PAGE == end // PAGE, f"{ch} burst {addr:#x}..{end:#x} crosses 4 KiB"

    def _take_word(self, data, strb, last, *wid):
        addr, beats, burst_id = self.w_order[0]
        assert wid in ((), (burst_id,)), f"WID {wid}: the next burst is {burst_id}'s"
        a = addr + self.w_beat * self.beat_bytes
        self.w_beat += 1
        assert last == (self.w_beat == beats), f"WLAST wrong at beat {self.w_beat} of {beats}"
        old = self.memory.get(a, pattern(a, self.beat_bytes))
        mask = sum(0xFF << 8 * i for i in range(self.beat_bytes) if strb >> i & 1)
        self.memory[a] = old & ~mask | data & mask
        self.w_error |= self.fail(a)
        if last:
            self.w_order.popleft()
            due = self.cycle + self.rng.randint(0, self.latency)
            self.b_queues.setdefault(burst_id, deque()).append((due, self.w_error))
            self.w_beat, self.w_error = 0, False

    async def process(self, ctx):
        axi = self.axi
        r, b = None, None  # the queue whose head is on the channel now
        waiting = {}
        address = ("valid", "id", "addr", "len", "size", "burst")
        word = ("valid", "data", "strb", "last", *(("id",) if self.axi3 else ()))
        signals = [getattr(axi, ch + n) for ch, names in (("ar", address), ("aw", address), ("w", word)) for n in names]
        signals += [axi.rready, axi.bready]
        offered = False  # write data are
        while True:
            ready = {ch: self.rng.random() >= self.stall and not self.dead for ch in ("ar", "aw", "w")}
            if self.shy:
                ready["aw"] &= offered and not self.w_order
                ready["w"] &= bool(self.w_order)
            for ch, value in ready.items():
                ctx.set(getattr(axi, ch + "ready"), value)
            if r is None and self.rng.random() >= self.stall and not self.dead:
                r = self._pick(self.r_queues)
                if r is not None:
                    _, addr, beat, beats, burst_id = r[0]
                    a = addr + beat * self.beat_bytes
                    ctx.set(axi.rid, burst_id)
                    ctx.set(axi.rdata, self.memory.get(a, pattern(a, self.beat_bytes)))
                    ctx.set(axi.rresp, self._response(self.fail(a)))
                    ctx.set(axi.rlast, beat == beats - 1)
            if b is None and self.rng.random() >= self.stall and not self.dead:
                b = self._pick(self.b_queues)
                if b is not None:
                    burst_id = next(k for k, q in self.b_queues.items() if q is b)
                    ctx.set(axi.bid, burst_id)
                    ctx.set(axi.bresp, self._response(b[0][1]))
            ctx.set(axi.rvalid, r is not None)
            ctx.set(axi.bvalid, b is not None)
            _, _, *s = await ctx.tick().sample(*signals)
            self.cycle += 1
            ar, aw, w, (rready, bready) = s[0:6], s[6:12], s[12:-2], s[-2:]
            offered = w[0] and not ready["w"]
            for ch, fields in (("ar", ar), ("aw", aw), ("w", w)):
                if ch in waiting:
                    assert fields == waiting.pop(ch), f"{ch} changed while waiting"
                if fields[0] and not ready[ch]:
                    waiting[ch] = fields
            if ar[0] and ready["ar"]:
                _, burst_id, addr, length, size, burst = ar
                self._check_address("AR", addr, length, size, burst)
                self.reads.append((burst_id, addr, length + 1))
                due = self.cycle + self.rng.randint(0, self.latency)
                self.r_queues.setdefault(burst_id, deque()).append([due, addr, 0, length + 1, burst_id])
            if aw[0] and ready["aw"]:
                _, burst_id, addr, length, size, burst = aw
                self._check_address("AW", addr, length, size, burst)
                self.writes.append((burst_id, addr, length + 1))
                self.w_order.append((addr, length + 1, burst_id))
            if w[0] and ready["w"]:
                self.early.append(w[1:])
                self.w_busy.append(self.cycle)
            while self.early and self.w_order:
                self._take_word(*self.early.popleft())
            if r is not None and rready:
                self.r_busy.append(self.cycle)
                r[0][2] += 1
                if r[0][2] == r[0][3]:
                    r.popleft()
                r = None
            if b is not None and bready:
                b.popleft()
                b = None

    def _response(self, failed):
        """OKAY or, at random, SLVERR or DECERR (AMBA AXI and ACE protocol specification, table A3-4)."""
        return self.rng.choice((0b10, 0b11)) if failed else 0b00

    def _pick(self, queues):
        due = [q for q in queues.values() if q and q[0][0] <= self.cycle]
        return self.rng.choice(due) if due else None

