"""One host reader for two clients that never read at the same time."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts
from ..primitives.memport import MemReadSignature
from .host_dma import HostReader

__all__ = ["SharedReader"]


class SharedReader(wiring.Component):
    """A :class:`HostReader` whose ``req`` and ``data`` belong to client ``owner``.

    ``owner`` may change only while no transfer is under way: what the client before it has asked for must all have been
    taken. So there is no arbiter, and neither client can wait for the other.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        super().__init__({
            #: The client whose turn it is; changes only while no transfer is under way.
            "owner": In(1),
            #: Of each client; answered only while it is the owner.
            "req": In(stream.Signature(Layouts.of(config).prp_request)).array(2),
            "data": Out(stream.Signature(Layouts.of(config).host_data)).array(2),
            #: As of :class:`HostReader`.
            "list_read": Out(MemReadSignature(config.beat_bytes)),
            "data_read": Out(MemReadSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = HostReader(self.config)
        connect(m, reader.list_read, flipped(self.list_read))
        connect(m, reader.data_read, flipped(self.data_read))
        for k in range(2):
            m.d.comb += self.data[k].payload.eq(reader.data.payload)
            with m.If(self.owner == k):
                m.d.comb += [
                    reader.req.valid.eq(self.req[k].valid),
                    reader.req.payload.eq(self.req[k].payload),
                    self.req[k].ready.eq(reader.req.ready),
                    self.data[k].valid.eq(reader.data.valid),
                    reader.data.ready.eq(self.data[k].ready),
                ]
        return m
