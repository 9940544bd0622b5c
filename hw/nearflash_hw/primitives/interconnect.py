"""Many memory-port clients on one AXI4 initiator port."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import BusConfig

from ..interfaces import bits_for, index_bits
from .arbiter import StreamArbiter
from .axi import AxiSignature
from .bus_watch import BusWatch
from .fifo import StreamFifo
from .memport import ADDR_BITS, BEATS_BITS, MemReadSignature, MemWriteSignature
from .register_slice import RegisterSlice

__all__ = ["BurstSplitter", "MemInterconnect"]

PAGE_BITS = 12  # AXI4: no burst crosses a 4 KiB boundary
PAGE = 1 << PAGE_BITS
INCR = 1


class Burst(data.StructLayout):
    """An AXI burst of a client's request."""

    def __init__(self, address_bits: int, clients: int):
        super().__init__({
            "addr": address_bits,
            #: As on AXI: beats - 1.
            "len": 8,
            #: The last of ``client``'s request.
            "final": 1,
            "client": index_bits(clients),
        })


class OwnedRequest(data.StructLayout):
    """A request, of an address below 2**address_bits, and whose it is."""

    def __init__(self, address_bits: int, clients: int):
        super().__init__({
            "addr": address_bits,
            "beats": BEATS_BITS,
            "client": index_bits(clients),
        })


class BurstSplitter(wiring.Component):
    """Cuts requests ``i`` into AXI bursts ``o``.

    Cuts fall on multiples of min(``max_burst`` beats, 4 KiB), so the address after a cut needs no adder on its low bits and
    both limits hold by construction. Latency 1, then one burst a cycle, also for one-burst requests.
    """

    def __init__(self, beat_bytes: int, max_burst: int = 256, address_bits: int = ADDR_BITS, clients: int = 1):
        self.beat_bytes, self.max_burst, self.address_bits = beat_bytes, max_burst, address_bits
        super().__init__({
            #: Requests.
            "i": In(stream.Signature(OwnedRequest(address_bits, clients))),
            #: AXI bursts of them, in order.
            "o": Out(stream.Signature(Burst(address_bits, clients))),
        })

    def elaborate(self, platform):
        m = Module()
        beat_shift = (self.beat_bytes - 1).bit_length()
        limit = min(self.max_burst, PAGE // self.beat_bytes)
        limit_bits = (limit - 1).bit_length()
        window_shift = beat_shift + limit_bits

        active = Signal()
        addr = Signal(self.address_bits, reset_less=True)
        client = Signal.like(self.o.payload.client, reset_less=True)
        # Of the request, in beats from the last cut before ``addr``: so what is left of it needs no register of its own.
        end = Signal(BEATS_BITS + 1, reset_less=True)
        final, emit = Signal(), Signal()
        m.d.comb += [
            final.eq(~end[limit_bits:].any() | (end == limit)),
            self.o.valid.eq(active),
            self.o.payload.addr.eq(addr),
            self.o.payload.final.eq(final),
            self.o.payload.client.eq(client),
            # The burst's end, a cut or the request's, less its begin less 1; a cut is a multiple of what the sum keeps.
            self.o.payload.len.eq((Mux(final, end, 0) + ~addr[beat_shift:window_shift])[:limit_bits]),
            emit.eq(active & self.o.ready),
            self.i.ready.eq(~active | (emit & final)),
        ]

        with m.If(emit):
            m.d.sync += [
                addr.eq((addr[window_shift:] + 1) << window_shift),
                end.eq(end - limit),
            ]
            with m.If(final):
                m.d.sync += active.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                active.eq(1),
                addr.eq(self.i.payload.addr),
                client.eq(self.i.payload.client),
                end.eq(self.i.payload.addr[beat_shift:window_shift] + self.i.payload.beats),
            ]
        return m


class MemInterconnect(wiring.Component):
    """Connects ``n_read`` read clients and ``n_write`` write clients to one AXI4 port.

    Requests of different clients are granted round-robin, of one client every other cycle at most (a writer in
    ``dense_writes``: every cycle), and cut into AXI bursts (:class:`BurstSplitter`); a client that has ``outstanding``
    bursts under way (a writer: ``outstanding_writes``; reader k: ``outstanding_reads[k]``, if it is there) waits: one of
    single beats gets that many in a round trip. The AXI ID is the client's index, so a memory may interleave the
    clients' read data; each client's data and answers come in the order of its requests.
    ``rsp.last`` and ``done`` come once for a client's request, whatever it was cut into; ``done.error`` is set if any of
    its bursts failed, ``rsp.error`` marks each failed beat. R and W run at one beat per cycle, also across bursts and
    clients.

    Latency: request to ARVALID or AWVALID 4 cycles, RVALID to ``rsp.valid`` 1 cycle, ``data`` to WVALID 2 cycles (a burst's
    first word not before the cycle after AWVALID rises), BVALID to ``done.valid`` 1 cycle.

    What clients must keep:

    * every address is below 2**reach_bits (the bus's address_bits, or fewer): the bits above are dropped;
    * the R channel is shared: a client whose ``rsp`` is not ready holds up every reader behind it, so ask only for what
      there is room to take without help from another reader;
    * write data go out in the order the requests were granted: once a request's first data word is offered (the request
      is not granted before), the rest must follow without help from another writer;
    * ``done`` is queued 2 deep per client, then it holds up the B channel.

    ``base`` (``based`` alone): added to every address, in 4 KiB. It changes only while nothing is under way.

    ``silent_reads`` and ``silent_writes``: the memory owed an answer for bus.silence_cycles in which nothing moved (AR and
    R; AW, W and B). Until reset, which alone recovers from it: whoever waits for the answer waits for ever.
    """

    model_clock = "own"

    def __init__(self, beat_bytes: int, n_read: int, n_write: int, bus: BusConfig | None = None, outstanding: int = 8,
                 reach_bits: int | None = None, based: bool = False, outstanding_writes: int | None = None,
                 outstanding_reads: Mapping[int, int] | None = None, dense_writes: Collection[int] = ()):
        self.bus = bus = bus or BusConfig()
        reach_bits = bus.address_bits if reach_bits is None else reach_bits
        if max(n_read, n_write) > 1 << bus.id_bits:
            raise ValueError(f"n_read = {n_read}, n_write = {n_write}: must be at most {1 << bus.id_bits} "
                             f"(id_bits = {bus.id_bits})")
        if n_read < 0 or n_write < 0:
            raise ValueError(f"n_read = {n_read}, n_write = {n_write}: must not be negative")
        outstanding_writes = outstanding if outstanding_writes is None else outstanding_writes
        reads = [(outstanding_reads or {}).get(k, outstanding) for k in range(n_read)]
        if min(outstanding, outstanding_writes, *reads) < 1:
            raise ValueError(f"outstanding = {outstanding}, outstanding_writes = {outstanding_writes}, outstanding_reads = "
                             f"{outstanding_reads}: must be at least 1")
        if not 13 <= reach_bits <= bus.address_bits:
            raise ValueError(f"reach_bits = {reach_bits}: must be from 13 (two pages) to {bus.address_bits}")
        self.beat_bytes, self.n_read, self.n_write = beat_bytes, n_read, n_write
        self.outstanding_reads, self.outstanding_writes, self.dense_writes = reads, outstanding_writes, dense_writes
        self.reach_bits, self.based = reach_bits, based
        super().__init__({
            #: Clients; the AXI ID is the index.
            "read": In(MemReadSignature(beat_bytes)).array(n_read),
            "write": In(MemWriteSignature(beat_bytes)).array(n_write),
            #: The memory.
            "axi": Out(AxiSignature(bus.address_bits, beat_bytes * 8, bus.id_bits)),
            #: Of all addresses, in 4 KiB; changes only while nothing is under way.
            **({"base": In(bus.address_bits - PAGE_BITS)} if based else {}),
            #: The memory owed an answer for bus.silence_cycles in which nothing moved. Until reset.
            "silent_reads": Out(1),
            "silent_writes": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        size = (self.beat_bytes - 1).bit_length()
        for ch in ("ar", "aw"):
            m.d.comb += [
                getattr(self.axi, ch + "size").eq(size),
                getattr(self.axi, ch + "burst").eq(INCR),
                getattr(self.axi, ch + "cache").eq(self.bus.cache),
            ]
        if self.n_read:
            self._elaborate_read(m)
        if self.n_write:
            self._elaborate_write(m)
        return m

    def _address_channel(self, m: Module, ch: str, clients: list, gates: list, room, outstanding: list[int],
                         dense: Collection[int] = ()) -> tuple[StreamArbiter, BurstSplitter, list[StreamFifo]]:
        """Arbiter, splitter and address register of one direction; ``room``: the address register may be loaded. Returns the
        first two (the splitter's output transfers as a burst enters the address register) and, per client, the queue of
        ``final`` flags of the bursts under way. ``gates[k]``, once high, must stay high until client k's request is
        granted."""
        axi, n, bits = self.axi, len(clients), self.reach_bits
        m.submodules[f"{ch}_arbiter"] = arbiter = StreamArbiter(OwnedRequest(bits, n), n)
        m.submodules[f"{ch}_split"] = split = BurstSplitter(self.beat_bytes, self.bus.max_burst, bits, n)
        connect(m, arbiter.o, split.i)
        queues = []
        taken = Signal(n, name=f"{ch}_taken")  # the queue of the burst's client has a place
        m.d.comb += split.o.ready.eq(room & taken.any())
        burst = split.o.payload
        for k, (client, gate) in enumerate(zip(clients, gates, strict=True)):
            m.submodules[f"{ch}_flags{k}"] = flags = StreamFifo(1, outstanding[k])
            m.submodules[f"{ch}_slice{k}"] = slice_ = RegisterSlice(
                data.StructLayout({"addr": bits, "beats": BEATS_BITS}), "through" if k in dense else "half")
            given, i = slice_.o.payload, arbiter.i[k]
            # The queue has a place, in a register: grants and the splitter wait for it. One that comes free is seen late.
            place = Signal(init=1, name=f"{ch}_place{k}")
            most = outstanding[k] - 1
            m.d.sync += place.eq((flags.level < most) | ((flags.level == most) & ~flags.i.valid))
            m.d.comb += [
                slice_.i.payload.addr.eq(client.req.payload.addr),
                slice_.i.payload.beats.eq(client.req.payload.beats),
                slice_.i.valid.eq(client.req.valid),
                client.req.ready.eq(slice_.i.ready),
                i.payload.addr.eq(given.addr),
                i.payload.beats.eq(given.beats),
                i.payload.client.eq(k),
                # Without it here a client that has many bursts under way would hold up all others.
                i.valid.eq(slice_.o.valid & gate & place),
                slice_.o.ready.eq(i.ready & gate & place),
                taken[k].eq((burst.client == k) & place),
                flags.i.payload.eq(burst.final),
                flags.i.valid.eq(split.o.valid & room & taken[k]),
            ]
            queues.append(flags)
        valid, ready = getattr(axi, ch + "valid"), getattr(axi, ch + "ready")
        with m.If(ready):
            m.d.sync += valid.eq(0)
        with m.If(split.o.valid & split.o.ready):
            m.d.sync += [
                valid.eq(1),
                getattr(axi, ch + "id").eq(burst.client),
                getattr(axi, ch + "addr").eq(
                    Cat(burst.addr[:PAGE_BITS], burst.addr[PAGE_BITS:] + self.base) if self.based else burst.addr),
                getattr(axi, ch + "len").eq(burst.len),
            ]
        return arbiter, split, queues

    def _elaborate_read(self, m: Module) -> None:
        axi = self.axi
        *_, queues = self._address_channel(m, "ar", list(self.read), [1] * self.n_read, ~axi.arvalid | axi.arready,
                                          self.outstanding_reads)

        # Two entries cut the path from the clients' ready to RREADY at full rate.
        beat = data.StructLayout({"data": self.beat_bytes * 8, "last": 1, "error": 1, "id": index_bits(self.n_read)})
        m.submodules.r_buffer = buffer = StreamFifo(beat, 2)
        m.d.comb += [
            buffer.i.payload.data.eq(axi.rdata),
            buffer.i.payload.last.eq(axi.rlast),
            buffer.i.payload.error.eq(axi.rresp[1]),
            buffer.i.payload.id.eq(axi.rid),
            buffer.i.valid.eq(axi.rvalid),
            axi.rready.eq(buffer.i.ready),
        ]
        head = buffer.o.payload
        ready = Signal(self.n_read)
        for k, (client, flags) in enumerate(zip(self.read, queues, strict=True)):
            hit = Signal(name=f"r_hit{k}")
            m.d.comb += [
                hit.eq(buffer.o.valid & (head.id == k)),
                client.rsp.valid.eq(hit),
                client.rsp.payload.data.eq(head.data),
                client.rsp.payload.last.eq(head.last & flags.o.payload),
                client.rsp.payload.error.eq(head.error),
                ready[k].eq(hit & client.rsp.ready),
                flags.o.ready.eq(ready[k] & head.last),
            ]
        m.d.comb += buffer.o.ready.eq(ready.any())

        # What came and waits for its client is no debt of the bus.
        m.submodules.read_watch = watch = BusWatch(self.bus.silence_cycles)
        m.d.comb += [
            watch.owed.eq(Cat(flags.o.valid for flags in queues).any() & ~axi.rvalid & ~buffer.o.valid),
            watch.progress.eq(axi.arvalid & axi.arready),
            self.silent_reads.eq(watch.silent),
        ]

    def _elaborate_write(self, m: Module) -> None:
        axi = self.axi
        # A request is granted only once its client offers data; the flag keeps it up if that data word then leaves with an
        # earlier request.
        offered = Signal(self.n_write)
        words = []
        for k, client in enumerate(self.write):
            m.submodules[f"w_slice{k}"] = word = RegisterSlice(client.data.payload.shape(), "through")
            connect(m, flipped(client.data), word.i)
            words.append(word.o)
        # Order in which W data must go out. A burst enters it from the address register, a cycle after it entered that, and
        # whether there is room is known a cycle late: a place is kept for each.
        order_layout = data.StructLayout({"client": index_bits(self.n_write), "len": 8})
        m.submodules.w_order = order = StreamFifo(order_layout, self.outstanding_writes + 2)
        spare = Signal(init=1)
        m.d.sync += spare.eq(order.level < self.outstanding_writes)
        gates = [offered[k] | word.valid for k, word in enumerate(words)]
        arbiter, split, queues = self._address_channel(
            m, "aw", list(self.write), gates, (~axi.awvalid | axi.awready) & spare,
            [self.outstanding_writes] * self.n_write, self.dense_writes)
        m.d.comb += [
            order.i.payload.client.eq(axi.awid),
            order.i.payload.len.eq(axi.awlen),
        ]
        m.d.sync += order.i.valid.eq(split.o.valid & split.o.ready)
        for k, request in enumerate(arbiter.i):
            with m.If(request.valid):
                m.d.sync += offered[k].eq(~request.ready)
        w_layout = data.StructLayout({"data": self.beat_bytes * 8, "strb": self.beat_bytes, "last": 1})
        m.submodules.w_buffer = buffer = StreamFifo(w_layout, 2)
        count = Signal(8)
        last = Signal()
        m.d.comb += last.eq(count == order.o.payload.len)
        with m.Switch(order.o.payload.client):
            for k, word in enumerate(words):
                with m.Case(k):
                    m.d.comb += [
                        buffer.i.payload.data.eq(word.payload.data),
                        buffer.i.payload.strb.eq(word.payload.strb),
                        buffer.i.valid.eq(word.valid & order.o.valid),
                        word.ready.eq(buffer.i.ready & order.o.valid),
                    ]
        m.d.comb += buffer.i.payload.last.eq(last)
        with m.If(buffer.i.valid & buffer.i.ready):
            m.d.sync += count.eq(Mux(last, 0, count + 1))
            m.d.comb += order.o.ready.eq(last)
        m.d.comb += [
            axi.wdata.eq(buffer.o.payload.data),
            axi.wstrb.eq(buffer.o.payload.strb),
            axi.wlast.eq(buffer.o.payload.last),
            axi.wvalid.eq(buffer.o.valid),
            buffer.o.ready.eq(axi.wready),
        ]

        b_ready = Signal(self.n_write)
        for k, (client, flags) in enumerate(zip(self.write, queues, strict=True)):
            m.submodules[f"b_done{k}"] = done = StreamFifo(data.StructLayout({"error": 1}), 2)
            failed = Signal(name=f"b_failed{k}")
            hit = Signal(name=f"b_hit{k}")
            m.d.comb += [
                hit.eq(axi.bvalid & (axi.bid == k)),
                b_ready[k].eq(hit & done.i.ready),
                flags.o.ready.eq(b_ready[k]),
                done.i.valid.eq(hit & flags.o.payload),
                done.i.payload.error.eq(failed | axi.bresp[1]),
                client.done.valid.eq(done.o.valid),
                client.done.payload.eq(done.o.payload),
                done.o.ready.eq(client.done.ready),
            ]
            with m.If(b_ready[k]):
                m.d.sync += failed.eq((failed | axi.bresp[1]) & ~flags.o.payload)
        m.d.comb += axi.bready.eq(b_ready.any())

        unanswered = Signal(bits_for(self.n_write * self.outstanding_writes))  # bursts sent whole
        moves = {ch: getattr(axi, f"{ch}valid") & getattr(axi, f"{ch}ready") for ch in ("aw", "w", "b")}
        m.d.sync += unanswered.eq(unanswered + (moves["w"] & axi.wlast) - moves["b"])
        m.submodules.write_watch = watch = BusWatch(self.bus.silence_cycles)
        m.d.comb += [
            watch.owed.eq(axi.awvalid | axi.wvalid | ((unanswered != 0) & ~axi.bvalid)),
            watch.progress.eq(Cat(moves.values()).any()),
            self.silent_writes.eq(watch.silent),
        ]
