"""Single-request writes of up to 16 bytes (or one beat) from several clients over one memory port."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..primitives.arbiter import StreamArbiter
from ..primitives.memport import ADDR_BITS, MemWriteSignature

__all__ = ["SmallWrite", "Write"]


class Write(data.StructLayout):
    """Up to 16 bytes, or one beat."""

    def __init__(self, beat_bytes: int):
        super().__init__({
            "addr": ADDR_BITS,
            #: Goes out low beat first.
            "data": max(128, beat_bytes * 8),
            #: Of every beat.
            "strb": beat_bytes,
            #: Two beats instead of one.
            "two": 1,
        })


class SmallWrite(wiring.Component):
    """Executes the writes of ``n`` clients one at a time, round-robin; ``done[k]`` answers ``i[k]`` once the memory has
    it. Latency: 2 cycles to the request, 0 from the memory's answer."""

    def __init__(self, beat_bytes: int, n: int):
        self.beat_bytes, self.n = beat_bytes, n
        error = data.StructLayout({"error": 1})
        super().__init__({
            #: Writes of each client.
            "i": In(stream.Signature(Write(beat_bytes))).array(n),
            #: Each gets the answers to its own, once the memory has it.
            "done": Out(stream.Signature(error)).array(n),
            #: The memory.
            "mem_write": Out(MemWriteSignature(beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        layout = Write(self.beat_bytes)
        bits = self.beat_bytes * 8
        m.submodules.arbiter = arbiter = StreamArbiter(layout, self.n)
        for k in range(self.n):
            m.d.comb += [
                arbiter.i[k].valid.eq(self.i[k].valid),
                arbiter.i[k].payload.eq(self.i[k].payload),
                self.i[k].ready.eq(arbiter.i[k].ready),
            ]
        job = Signal(layout, reset_less=True)
        client = Signal.like(arbiter.grant)
        req_left, beats_left = Signal(), Signal(2)
        port = self.mem_write
        m.d.comb += [
            port.req.valid.eq(req_left),
            port.req.payload.addr.eq(job.addr),
            port.req.payload.beats.eq(1 + job.two),
            port.data.valid.eq(beats_left != 0),
            port.data.payload.data.eq(job.data[:bits]),
            port.data.payload.strb.eq(job.strb),
        ]
        with m.If(port.req.valid & port.req.ready):
            m.d.sync += req_left.eq(0)
        with m.If(port.data.valid & port.data.ready):
            m.d.sync += [
                beats_left.eq(beats_left - 1),
                job.data.eq(job.data >> bits),
            ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += arbiter.o.ready.eq(1)
                with m.If(arbiter.o.valid):
                    m.d.sync += [
                        job.eq(arbiter.o.payload),
                        client.eq(arbiter.grant),
                        req_left.eq(1),
                        beats_left.eq(1 + arbiter.o.payload.two),
                    ]
                    m.next = "WAIT"
            with m.State("WAIT"):
                for k in range(self.n):
                    with m.If(client == k):
                        m.d.comb += [
                            self.done[k].valid.eq(port.done.valid),
                            self.done[k].payload.eq(port.done.payload),
                            port.done.ready.eq(self.done[k].ready),
                        ]
                with m.If(port.done.valid & port.done.ready):
                    m.next = "IDLE"
        return m
