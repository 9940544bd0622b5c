"""Shares the map's update port."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..controller.map_cache import ERROR
from ..interfaces import Layouts
from ..primitives.arbiter import StreamArbiter
from ..primitives.register_slice import RegisterSlice

__all__ = ["UpdatePort"]


class UpdatePort(wiring.Component):
    """The changes of two clients, in turn: each gets the answer to its own (``done``) before the next begins. Latency
    1 cycle."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        update, done = stream.Signature(Layouts.of(config).map_update), stream.Signature(ERROR)
        super().__init__({
            #: Of two clients.
            "i": In(update).array(2),
            #: Each gets the answers to its own.
            "done": Out(done).array(2),
            #: One at a time.
            "update": Out(update),
            "update_done": In(done),
        })

    def elaborate(self, platform):
        m = Module()
        lay = Layouts.of(self.config)
        m.submodules.arbiter = arbiter = StreamArbiter(lay.map_update, 2)
        for k in range(2):
            connect(m, flipped(self.i[k]), arbiter.i[k])
        m.submodules.slice = slice_ = RegisterSlice(lay.map_update, "half")
        connect(m, slice_.o, flipped(self.update))
        busy, owner = Signal(), Signal()
        taken = Signal()
        answer = self.update_done
        m.d.comb += [
            slice_.i.valid.eq(arbiter.o.valid & ~busy),
            slice_.i.payload.eq(arbiter.o.payload),
            arbiter.o.ready.eq(slice_.i.ready & ~busy),
            taken.eq(slice_.i.valid & slice_.i.ready),
        ]
        for k, done in enumerate(self.done):
            m.d.comb += [
                done.valid.eq(answer.valid & (owner == k)),
                done.payload.eq(answer.payload),
            ]
            with m.If(owner == k):
                m.d.comb += answer.ready.eq(done.ready)
        with m.If(taken):
            m.d.sync += [
                busy.eq(1),
                owner.eq(arbiter.grant),
            ]
        with m.If(answer.valid & answer.ready):
            m.d.sync += busy.eq(0)
        return m
