"""NVMe queue pairs: fetching submission entries and posting completion entries."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.nvme import CQE_BYTES, SQE_BYTES

from ..interfaces import Layouts, bits_for, index_bits
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .registers import Doorbell

__all__ = ["QueueEntry", "Queues", "SubmissionEntry"]


class SubmissionEntry(data.StructLayout):
    """The 64-byte submission entry (NVM Express Base Specification 2.0, section 3.3.3.1)."""

    def __init__(self):
        super().__init__({
            "opcode": 8,
            "fuse": 2,
            "reserved": 4,
            "psdt": 2,
            "cid": 16,
            "nsid": 32,
            "cdw2": 32,
            "cdw3": 32,
            "mptr": 64,
            "prp1": 64,
            "prp2": 64,
            "cdw10": 32,
            "cdw11": 32,
            "cdw12": 32,
            "cdw13": 32,
            "cdw14": 32,
            "cdw15": 32,
        })


class QueueEntry(data.StructLayout):
    """An entry and the queue pair it came from."""

    def __init__(self):
        super().__init__({
            "qid": 3,
            "sqe": SubmissionEntry(),
        })


class Queues(wiring.Component):
    """The rings of every queue pair: pointers, phase bits, doorbells (NVM Express Base Specification 2.0, section 3.3).
    ``targets``: how many places there are that commands may go to; which, only the one who gives the verdicts knows.

    Fetch: round-robin over the queues that have an entry and room for its completion. The entry is offered on
    ``entry`` with ``entry_valid`` until one cycle of ``verdict``: its ``target``, and in ``acceptable`` whether that
    takes it now. ``take`` in that cycle says that the entry left its queue (the SQ head advances); otherwise it is
    deferred: it stays in its queue and is read again once ``target_free`` shows its target free, so one busy target
    never keeps another queue's commands waiting, and no entry is stored here. Deferred queues get their target in
    round-robin order ahead of newcomers: each waits for at most one command of every other queue.

    Room: an entry is fetched only while commands in flight and unseen completions together are fewer than the ring
    holds, so a completion always finds a free entry and never waits for the host.

    Completions: one at a time, written to host memory and counted in ``unseen`` (bit per queue) once the write is
    answered, when ``posted`` pulses. A doorbell value beyond the ring, or a CQ head beyond the completions posted, is
    ignored.

    Lifecycle: with ``enable`` and ``start`` the device becomes ``ready``. When ``enable`` falls, commands in flight
    finish, their completions are dropped, the pointers return to 0 and only then does ``ready`` fall. A failed read
    of an entry or write of a completion (or a ring address beyond the bus) sets ``fatal``: fetching stops until then.

    Latency: 5 cycles from a doorbell to the read request of its entry, which is offered the cycle after its last beat;
    2 cycles from a completion to its write request. One entry is read and one completion written at a time.
    """

    def __init__(self, config: DeviceConfig, targets: int):
        self.config, self.targets = config, targets
        n = config.host.queue_pairs
        super().__init__({
            #: Of every queue pair.
            "settings": In(data.ArrayLayout(Layouts.of(config).queue_settings, n)),
            #: CC.EN.
            "enable": In(1),
            #: What the device needs is ready.
            "start": In(1),
            #: CSTS.RDY.
            "ready": Out(1),
            #: A ring could not be reached; nothing more is fetched.
            "fatal": Out(1),
            #: Pulses with ``doorbell``.
            "doorbell_valid": In(1),
            "doorbell": In(Doorbell()),
            #: A bit per queue pair: completions that the host has not acknowledged.
            "unseen": Out(n),
            #: A bit per queue pair, pulses: a completion is in host memory.
            "posted": Out(n),
            #: ``entry`` waits for its ``verdict``.
            "entry_valid": Out(1),
            #: A submission entry and its queue pair.
            "entry": Out(QueueEntry()),
            #: For one cycle: ``target`` and ``acceptable`` count.
            "verdict": In(1),
            #: Where the entry belongs.
            "target": In(range(targets)),
            #: It is taken there now.
            "acceptable": In(1),
            #: In the cycle of ``verdict``: it left its queue. Otherwise it stays there and is read again.
            "take": Out(1),
            #: A bit per target.
            "target_free": In(targets),
            #: Of commands in flight, in any order.
            "completion": In(stream.Signature(Layouts.of(config).completion)),
            #: Submission queues.
            "sq_read": Out(MemReadSignature(config.beat_bytes)),
            #: Completion queues.
            "cq_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        n = self.config.host.queue_pairs
        bits = index_bits(self.config.host.queue_entries)
        self._bits = bits

        self._settings = Array(self.settings[q] for q in range(n))  # a mux a field, not a shifter of them all
        self._sq_head = [Signal(bits, name=f"sq_head{q}") for q in range(n)]
        self._sq_tail = [Signal(bits, name=f"sq_tail{q}") for q in range(n)]
        self._cq_head = [Signal(bits, name=f"cq_head{q}") for q in range(n)]
        self._cq_tail = [Signal(bits, name=f"cq_tail{q}") for q in range(n)]
        self._phase = [Signal(init=1, name=f"phase{q}") for q in range(n)]
        self._in_flight = [Signal(bits + 1, name=f"in_flight{q}") for q in range(n)]
        self._waits_for = [Signal(range(self.targets), name=f"waits_for{q}") for q in range(n)]
        self._deferred = Signal(n)
        self._last_to = [Signal(3, name=f"last_to{t}") for t in range(self.targets)]  # queue last served, per target
        self._line = [Signal(n, name=f"line{t}") for t in range(self.targets)]  # one-hot: the deferred queue served next
        self._pending = [Signal(bits, name=f"pending{q}") for q in range(n)]  # completions posted and not acknowledged
        self._started = Signal(n)  # one-hot: a command left its queue
        self._ended = Signal(n)  # one-hot: a completion entered its queue, or was dropped
        self._writing = Signal(n)  # one-hot: a completion write is not answered yet
        self._fetch_idle, self._post_idle = Signal(), Signal()
        self._fetch_failed, self._post_failed = Signal(), Signal()
        self._draining = Signal()
        self._running = Signal()
        clear = Signal()

        ended = Signal(n)
        m.d.sync += ended.eq(self._ended)
        for q in range(n):
            head, tail, size = self._cq_head[q], self._cq_tail[q], self.settings[q].size
            m.d.comb += self._pending[q].eq(Mux(tail >= head, tail - head, tail - head + size + 1))
            # A command that ends leaves ``in_flight`` when ``room`` has lost the entry of its completion, not before.
            m.d.sync += self._in_flight[q].eq(self._in_flight[q] + self._started[q] - ended[q])
            m.d.sync += self.unseen[q].eq(self._pending[q] > self._writing[q])

        self._doorbells(m)
        self._fetch(m)
        self._post(m)

        quiet = Signal()
        m.d.sync += quiet.eq(self._fetch_idle & self._post_idle & ~Cat(*self._in_flight).any())
        with m.FSM():
            with m.State("OFF"):
                m.d.comb += clear.eq(~self.enable)
                with m.If(self.enable & self.start):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [
                    self.ready.eq(1),
                    self._running.eq(~self.fatal & self.enable),
                ]
                with m.If(~self.enable):
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # ``quiet`` is a cycle old: let a fetch that began with the last cycle of RUN show
                m.d.comb += [
                    self.ready.eq(1),
                    self._draining.eq(1),
                ]
                m.next = "SETTLE2"
            with m.State("SETTLE2"):
                m.d.comb += [
                    self.ready.eq(1),
                    self._draining.eq(1),
                ]
                m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += [
                    self.ready.eq(1),
                    self._draining.eq(1),
                ]
                with m.If(quiet):
                    m.d.comb += clear.eq(1)
                    m.next = "OFF"

        with m.If(self._fetch_failed | self._post_failed):
            m.d.sync += self.fatal.eq(1)
        with m.If(clear):
            m.d.sync += [
                self.fatal.eq(0),
                self._deferred.eq(0),
                self.unseen.eq(0),
            ]
            for q in range(n):
                m.d.sync += [
                    self._sq_head[q].eq(0),
                    self._sq_tail[q].eq(0),
                    self._cq_head[q].eq(0),
                    self._cq_tail[q].eq(0),
                    self._phase[q].eq(1),
                ]
        return m

    def _doorbells(self, m: Module) -> None:
        """Check one cycle, apply in the next; a doorbell write takes longer than that on AXI4-Lite."""
        bits, bell = self._bits, self.doorbell
        size = self._settings[bell.qid].size
        head, value = Array(self._cq_head)[bell.qid], bell.value
        valid, completion, new = Signal(), Signal(), Signal(bits)
        qid = Signal(3)
        advance, pending = Signal(bits), Signal(bits)
        m.d.sync += valid.eq(self.doorbell_valid & (value <= size) & self.enable & ~self._draining)
        with m.If(self.doorbell_valid):
            low = value[:bits]
            m.d.sync += [
                qid.eq(bell.qid),
                completion.eq(bell.completion),
                new.eq(low),
                advance.eq(Mux(low >= head, low - head, low - head + size + 1)),
                pending.eq(Array(self._pending)[bell.qid]),
            ]
        with m.If(valid):
            with m.If(~completion):
                m.d.sync += Array(self._sq_tail)[qid].eq(new)
            with m.Elif(advance <= pending):
                m.d.sync += Array(self._cq_head)[qid].eq(new)

    def _fetch(self, m: Module) -> None:
        n, beat, rd = len(self._sq_head), self.config.beat_bytes, self.sq_read
        for t, line in enumerate(self._line):
            waiting = Signal(n, name=f"waiting{t}")
            m.d.comb += waiting.eq(self._deferred & Cat(w == t for w in self._waits_for))
            pick = self._next_after(m, self._last_to[t], waiting, f"line{t}")
            m.d.sync += line.eq(waiting & (1 << pick))

        runnable = Signal(n)
        for q in range(n):
            room = Signal(self._bits + 1, name=f"room{q}")  # entries that hold no unseen completion; a cycle old
            head, tail, size = self._cq_head[q], self._cq_tail[q], self.settings[q].size
            m.d.sync += room.eq(Mux(tail >= head, size - (tail - head), head - tail - 1))
            m.d.sync += runnable[q].eq(
                (self._sq_head[q] != self._sq_tail[q]) & (self._in_flight[q] < room)
                & (~self._deferred[q] | (self.target_free & Cat(line[q] for line in self._line)).any()))

        qid = Signal(3)  # the queue being served; between entries, the last one served
        pick = self._next_after(m, qid, runnable, "fetch")
        first_in_line = Signal()
        with m.Switch(self.target):
            for t in range(self.targets):
                with m.Case(t):
                    m.d.comb += first_in_line.eq(~self._line[t].any() | self._line[t].bit_select(qid, 1))
        m.d.comb += self.take.eq(self.verdict & self.acceptable & first_in_line)

        head = Array(self._sq_head)[qid]
        reach = self.config.bus.address_bits
        addr = Signal(reach)
        beyond, failed = Signal(), Signal()
        base = self._settings[qid].sq_base
        shift = SQE_BYTES.bit_length() - 1
        entry = base[shift:reach] + head  # of 64 bytes; with the carry, where a ring runs beyond the bus
        sqe = Signal(SQE_BYTES * 8, reset_less=True)
        m.d.comb += [
            self.entry.qid.eq(qid),
            self.entry.sqe.as_value().eq(sqe),
        ]
        m.d.comb += [
            rd.req.payload.addr.eq(addr),
            rd.req.payload.beats.eq(SQE_BYTES // beat),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self._fetch_idle.eq(1)
                with m.If(self._running & runnable.any()):
                    m.d.sync += qid.eq(pick)
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += [
                    addr.eq(Cat(Const(0, shift), entry)),
                    beyond.eq(base[reach:].any() | entry[reach - shift]),
                    failed.eq(0),
                ]
                m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += rd.req.valid.eq(~beyond)
                with m.If(beyond):
                    m.d.comb += self._fetch_failed.eq(1)
                    m.next = "SETTLE"
                with m.Elif(rd.req.ready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += rd.rsp.ready.eq(1)
                with m.If(rd.rsp.valid):
                    m.d.sync += [
                        sqe.eq(Cat(sqe[beat * 8 :], rd.rsp.payload.data)),
                        failed.eq(
failed | rd.rsp.payload.error),
                    ]
                    with m.If(rd.rsp.payload.last):
                        m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.entry_valid.eq(~failed)
                with m.If(failed):
                    m.d.comb += self._fetch_failed.eq(1)
                    m.next = "SETTLE"
                with m.Elif(self.verdict):
                    m.d.sync += [
                        self._deferred.bit_select(qid, 1).eq(~self.take),
                        Array(self._waits_for)[qid].eq(self.target),
                    ]
                    with m.If(self.take):
                        m.d.comb += self._started.bit_select(qid, 1).eq(1)
                        m.d.sync += [
                            head.eq(Mux(head == self._settings[qid].size, 0, head + 1)),
                            Array(self._last_to)[self.target].eq(qid),
                        ]
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # until ``runnable`` knows of this entry
                m.next = "IDLE"

    def _next_after(self, m: Module, last: Signal, wanting: Signal, name: str) -> Signal:
        """The queue of ``wanting`` that follows ``last``, round-robin."""
        n = len(wanting)
        pick, above = Signal(3, name=f"{name}_pick"), Signal(n, name=f"{name}_above")
        m.d.comb += above.eq(wanting & Cat(last < q for q in range(n)))
        for q in reversed(range(n)):
            with m.If(Mux(above.any(), above[q], wanting[q])):
                m.d.comb += pick.eq(q)
        return pick

    def _post(self, m: Module) -> None:
        beat, wr, item = self.config.beat_bytes, self.cq_write, self.completion
        held = Signal(Layouts.of(self.config).completion)
        qid = held.qid
        tail, phase, size = Array(self._cq_tail)[qid], Array(self._phase)[qid], self._settings[qid].size
        base = self._settings[qid].cq_base
        shift, reach = CQE_BYTES.bit_length() - 1, self.config.bus.address_bits
        entry = base[shift:reach] + tail  # of 16 bytes, with the carry
        addr, beyond = Signal(reach), Signal()
        cqe = Signal(CQE_BYTES * 8, reset_less=True)
        beats = max(1, CQE_BYTES // beat)
        asked = Signal()
        sent = Signal(bits_for(beats))
        low = beat.bit_length() - 1
        m.d.comb += [
            wr.req.payload.addr.eq(Cat(Const(0, low), addr[low:])),
            wr.req.payload.beats.eq(beats),
            wr.data.payload.strb.eq((1 << min(beat, CQE_BYTES)) - 1),
            wr.data.payload.data.eq(cqe),
        ]
        if beat > CQE_BYTES:  # the entry is one half of the beat
            with m.If(addr[shift]):
                m.d.comb += [
                    wr.data.payload.strb.eq(((1 << CQE_BYTES) - 1) << CQE_BYTES),
                    wr.data.payload.data.eq(Cat(Const(0, CQE_BYTES * 8), cqe)),
                ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    item.ready.eq(1),
                    self._post_idle.eq(1),
                ]
                with m.If(item.valid):
                    m.d.sync += held.eq(item.payload)
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self._ended.bit_select(qid, 1).eq(1)
                m.d.sync += [
                    addr.eq(Cat(Const(0, shift), entry)),
                    beyond.eq(base[reach:].any() | entry[reach - shift]),
                    asked.eq(0),
                    sent.eq(0),
                    cqe.eq(Cat(held.dw0, held.dw1, (Array(self._sq_head)[qid] | Const(0, 16))[:16],
                               Cat(qid, Const(0, 13)), held.cid, phase, held.status, Const(0, 4))),
                ]
                with m.If(self._draining):
                    m.next = "IDLE"
                with m.Else():
                    # The tail moves before the entry is in host memory: the host may acknowledge it before the write
                    # is answered here.
                    m.d.sync += [
                        tail.eq(Mux(tail == size, 0, tail + 1)),
                        self._writing.bit_select(qid, 1).eq(1),
                    ]
                    with m.If(tail == size):
                        m.d.sync += phase.eq(~phase)
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [
                    wr.req.valid.eq(~asked & ~beyond),
                    wr.data.valid.eq((sent != beats) & ~beyond),
                ]
                with m.If(wr.req.valid & wr.req.ready):
                    m.d.sync += asked.eq(1)
                with m.If(wr.data.valid & wr.data.ready):
                    m.d.sync += sent.eq(sent + 1)
                    if beats > 1:
                        m.d.sync += cqe.eq(cqe[beat * 8 :])
                with m.If(beyond):
                    m.d.comb += self._post_failed.eq(1)
                    m.d.sync += self._writing.eq(0)
                    m.next = "IDLE"
                with m.Elif(asked & (sent == beats)):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += wr.done.ready.eq(1)
                with m.If(wr.done.valid):
                    m.d.comb += [
                        self._post_failed.eq(wr.done.payload.error),
                        self.posted.eq(Mux(wr.done.payload.error, 0, self._writing)),
                    ]
                    m.d.sync += self._writing.eq(0)
                    m.next = "IDLE"
