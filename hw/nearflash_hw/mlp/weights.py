"""Where a core's weight words come from: on-chip memory, or the device's DRAM, streamed once per group."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import Core
from nearflash.contract.program import weight_word_beats

from ..engine.streams import clog2
from ..interfaces import index_bits
from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from ..primitives.memport import BEATS_BITS, MemReadSignature, Request

__all__ = ["DramWeights", "OnChipWeights", "WeightReadArbiter"]

BURST_BEATS = 256
PASSES_OWED = 16  # groups between a core and the logits whose weights are read: more than the layers in between buffer


def _word_layout(core: Core) -> data.ArrayLayout:
    return data.ArrayLayout(signed(core.weight_bits), core.kr * core.kc)


class OnChipWeights(wiring.Component):
    """A core's weight words in block RAM, in step order (contract.program).

    ``take`` (with ``available``, always 1) gives the next word in the next cycle, held until the next ``take``; after the
    last word comes the first. ``write_valid`` {``write_first``, ``write_data``}: one beat of the core's parameter record.
    """

    def __init__(self, core: Core, beat_bytes: int):
        self.core, self.beat_bytes = core, beat_bytes
        super().__init__({
            #: Always.
            "available": Out(1),
            #: The next word is wanted.
            "take": In(1),
            #: From the next cycle on, until the next ``take``.
            "word": Out(_word_layout(core)),
            #: A beat of the core's parameter record.
            "write_valid": In(1),
            "write_first": In(1),
            "write_data": In(beat_bytes * 8),
        })

    def elaborate(self, platform):
        m = Module()
        core = self.core
        beats = weight_word_beats(core, self.beat_bytes)
        width = core.word_bytes * 8
        style = {"ram_style": "block"} if core.weights == "bram" else {}
        m.submodules.memory = memory = Memory(shape=width, depth=max(2, core.steps), init=[], attrs=style)
        read = memory.read_port()
        write = memory.write_port(granularity=width // beats)
        position = Signal(range(core.steps))
        m.d.comb += [
            self.available.eq(1),
            read.addr.eq(position),
            read.en.eq(self.take),
            self.word.as_value().eq(read.data),
        ]
        with m.If(self.take):
            m.d.sync += position.eq(Mux(position == core.steps - 1, 0, position + 1))
        # The record may be a beat longer than the words need (padding to 16 bytes): `full` keeps it out.
        fill, beat, full = Signal(range(core.steps)), Signal(range(beats)), Signal()
        here_fill, here_beat = Signal.like(fill), Signal.like(beat)
        m.d.comb += [
            here_fill.eq(Mux(self.write_first, 0, fill)),
            here_beat.eq(Mux(self.write_first, 0, beat)),
            write.addr.eq(here_fill),
            write.data.eq(Cat(*[self.write_data[:width // beats]] * beats)),
        ]
        with m.If(self.write_valid & (self.write_first | ~full)):
            for b in range(beats):
                m.d.comb += write.en[b].eq(here_beat == b)
            with m.If(here_beat == beats - 1):
                m.d.sync += [
                    beat.eq(0),
                    fill.eq(here_fill + 1),
                    full.eq(here_fill == core.steps - 1),
                ]
            with m.Else():
                m.d.sync += [
                    beat.eq(here_beat + 1),
                    fill.eq(here_fill),
                    full.eq(0),
                ]
        return m


class DramWeights(wiring.Component):
    """A core's weight words streamed from DRAM, once per ``start`` (one per group; up to ``passes`` may wait).

    ``take`` needs ``available``; the word comes in the next cycle and is held until the next ``take``. Reads the image at
    ``address`` in bursts of at most 256 beats into a FIFO of two bursts, so the next burst (and the next group's first)
    is on its way while one is used: double buffering. Sustains one word per :func:`weight_word_beats` cycles.
    ``failed``: for each pass, once all of it is here, whether any of its reads answered an error; at most PASSES_OWED
    answers wait there, then the next pass does.
    """

    def __init__(self, core: Core, beat_bytes: int, address: int, passes: int = 2):
        self.core, self.beat_bytes, self.address, self.passes = core, beat_bytes, address, passes
        super().__init__({
            #: ``take`` may be set.
            "available": Out(1),
            #: The next word is wanted.
            "take": In(1),
            #: From the next cycle on, until the next ``take``.
            "word": Out(_word_layout(core)),
            #: One more pass over the weights is wanted.
            "start": In(1),
            #: The image.
            "mem_read": Out(MemReadSignature(beat_bytes)),
            #: For each pass: a read of it failed.
            "failed": Out(stream.Signature(1)),
        })

    def elaborate(self, platform):
        m = Module()
        core = self.core
        bits = min(self.beat_bytes, core.word_bytes) * 8  # of a beat; the rest is padding
        word_beats = weight_word_beats(core, self.beat_bytes)
        total = core.steps * word_beats
        burst = min(BURST_BEATS, 1 << clog2(total))
        depth = max(4, 2 * burst)
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=bits, depth=depth)
        req, rsp = self.mem_read.req, self.mem_read.rsp

        waiting = Signal(range(self.passes + 1))
        space = Signal(range(depth + 1), init=depth)
        remaining = Signal(range(total + 1), init=total)
        address = Signal.like(req.payload.addr, init=self.address)
        beats = Signal(BEATS_BITS)
        sent, last = Signal(), Signal()
        m.submodules.failures = failures = StreamFifo(1, PASSES_OWED)
        owed = Signal(range(PASSES_OWED + 1))  # passes begun whose answer was not taken
        begin = Signal()
        m.d.comb += [
            begin.eq(remaining == total),
            beats.eq(Mux(remaining > burst, burst, remaining)),
            last.eq(remaining <= burst),
            req.valid.eq((waiting != 0) & (space >= beats) & (~begin | (owed != PASSES_OWED))),
            req.payload.addr.eq(address),
            req.payload.beats.eq(beats),
            sent.eq(req.valid & req.ready),
            fifo.w_data.eq(rsp.payload.data[:bits]),
            fifo.w_en.eq(rsp.valid),
            rsp.ready.eq(1),  # the space was reserved
        ]
        m.d.sync += [
            waiting.eq(waiting + self.start - (sent & last)),
            space.eq(space + (fifo.r_en & fifo.r_rdy) - Mux(sent, beats, 0)),
        ]
        with m.If(sent):
            m.d.sync += [
                remaining.eq(Mux(last, total, remaining - burst)),
                address.eq(Mux(last, Const(self.address, len(address)), address + burst * self.beat_bytes)),
            ]

        bursts = Signal(range(max(2, -(-total // burst))))  # of the pass that arrives, all of which is here
        bad = Signal()
        burst_here, pass_here = Signal(), Signal()
        m.d.comb += [
            burst_here.eq(rsp.valid & rsp.payload.last),
            pass_here.eq(burst_here & (bursts == -(-total // burst) - 1)),
            failures.i.valid.eq(pass_here),
            failures.i.payload.eq(bad | rsp.payload.error),
        ]
        connect(m, failures.o, flipped(self.failed))
        m.d.sync += owed.eq(owed + (sent & begin) - (self.failed.valid & self.failed.ready))
        with m.If(rsp.valid):
            m.d.sync += bad.eq((bad | rsp.payload.error) & ~pass_here)
        with m.If(burst_here):
            m.d.sync += bursts.eq(Mux(pass_here, 0, bursts + 1))

        gathered = Signal(bits * word_beats, reset_less=True)
        count = Signal(range(word_beats + 1))
        word = Signal(core.word_bytes * 8, reset_less=True)
        m.d.comb += [
            self.available.eq(count == word_beats),
            self.word.as_value().eq(word),
            fifo.r_en.eq(~self.available | self.take),
        ]
        with m.If(self.take):
            m.d.sync += [
                word.eq(gathered),
                count.eq(0),
            ]
        with m.If(fifo.r_en & fifo.r_rdy):
            m.d.sync += [
                gathered.eq(Cat(gathered, fifo.r_data)[bits:]),
                count.eq(Mux(self.take, 1, count + 1)),
            ]
        return m


class WeightReadArbiter(wiring.Component):
    """``n`` DRAM cores share one memory read port: requests round-robin, responses routed back in request order.

    No core can hold up another's data: each asks only for what it has room for.
    """

    def __init__(self, n: int, beat_bytes: int):
        self.n = n
        super().__init__({
            #: Cores, round-robin.
            "clients": In(MemReadSignature(beat_bytes)).array(n),
            "mem_read": Out(MemReadSignature(beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        if self.n == 1:
            connect(m, flipped(self.clients[0]), flipped(self.mem_read))
            return m
        m.submodules.requests = requests = StreamArbiter(Request(), self.n)
        m.submodules.routes = routes = StreamFifo(index_bits(self.n), 8)
        for k in range(self.n):
            client = self.clients[k].req
            m.d.comb += [
                requests.i[k].valid.eq(client.valid),
                requests.i[k].payload.eq(client.payload),
                client.ready.eq(requests.i[k].ready),
            ]
        req, rsp = self.mem_read.req, self.mem_read.rsp
        m.d.comb += [
            req.payload.eq(requests.o.payload),
            req.valid.eq(requests.o.valid & routes.i.ready),
            requests.o.ready.eq(req.ready & routes.i.ready),
            routes.i.valid.eq(req.valid & req.ready),
            routes.i.payload.eq(requests.grant),
            routes.o.ready.eq(rsp.valid & rsp.ready & rsp.payload.last),
        ]
        for k in range(self.n):
            client = self.clients[k].rsp
            mine = routes.o.valid & (routes.o.payload == k)
            m.d.comb += [
                client.payload.eq(rsp.payload),
                client.valid.eq(rsp.valid & mine),
            ]
            with m.If(mine):
                m.d.comb += rsp.ready.eq(client.ready)
        return m


