"""Which READs are open and what became of their pages."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..primitives.arbiter import StreamArbiter
from ..primitives.pool import Pool
from ..primitives.register_slice import RegisterSlice
from .layouts import BlockLayouts

__all__ = ["ReadLedger"]


class ReadLedger(wiring.Component):
    """Hands out tags; counts the pages of each command from ``open`` on until all are ``retire``d, then sends its
    ``completion`` with the status of the first page that failed.

    A tag comes back with its page; that of a command's first page with the command. A retirement takes 3 cycles, one every
    2 cycles, and 1 more for a completion.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        super().__init__({
            #: A free one.
            "tag": Out(stream.Signature(lay.read_bits)),
            #: A command begins.
            "open": In(stream.Signature(lay.opened)),
            #: Pages of a command are done.
            "retire": In(stream.Signature(lay.retired)).array(2),
            #: All its pages are.
            "completion": Out(stream.Signature(lay.outcome)),
        })

    def elaborate(self, platform):
        m = Module()
        lay, depth = BlockLayouts.of(self.config), self.config.host.block_reads
        m.submodules.tags = tags = Pool(depth)
        connect(m, tags.o, flipped(self.tag))
        m.submodules.arbiter = arbiter = StreamArbiter(lay.retired, 2)
        for k in range(2):
            connect(m, flipped(self.retire[k]), arbiter.i[k])
        # Between the memory that the sender's come from and the accounts'.
        m.submodules.retired = retired = RegisterSlice(lay.retired, "half")
        connect(m, arbiter.o, retired.i)
        m.submodules.owners = owners = Memory(shape=data.StructLayout({"qid": 3, "cid": 16}), depth=depth, init=[])
        m.submodules.accounts = accounts = Memory(
            shape=data.StructLayout({"left": lay.count_bits, "status": 11}), depth=depth, init=[])
        put_owner, owner = owners.write_port(), owners.read_port(domain="comb")
        put, account = accounts.write_port(), accounts.read_port(domain="comb")

        opened, item = self.open.payload, retired.o.payload
        command, tag = Signal(lay.read_bits), Signal(lay.read_bits)
        status, last = Signal(11), Signal()
        m.d.comb += [
            put_owner.addr.eq(opened.command),
            put_owner.data.qid.eq(opened.qid),
            put_owner.data.cid.eq(opened.cid),
            account.addr.eq(item.command),
            owner.addr.eq(command),
            self.completion.payload.qid.eq(owner.data.qid),
            self.completion.payload.cid.eq(owner.data.cid),
            self.completion.payload.status.eq(status),
        ]
        with m.FSM():
            with m.State("COUNT"):
                m.d.comb += [
                    self.open.ready.eq(1),
                    retired.o.ready.eq(~self.open.valid),
                ]
                with m.If(self.open.valid):
                    m.d.comb += [
                        put_owner.en.eq(1),
                        put.en.eq(1),
                        put.addr.eq(opened.command),
                        put.data.left.eq(opened.count),
                        put.data.status.eq(0),
                    ]
                with m.Else():
                    m.d.comb += [
                        put.en.eq(retired.o.valid),
                        put.addr.eq(item.command),
                        put.data.left.eq(account.data.left - item.count),
                        put.data.status.eq(Mux(account.data.status != 0, account.data.status, item.status)),
                    ]
                    m.d.sync += [
                        command.eq(item.command),
                        tag.eq(item.tag),
                        status.eq(put.data.status),
                        last.eq(put.data.left == 0),
                    ]
                    with m.If(retired.o.valid):
                        m.next = "FREE"
            with m.State("FREE"):
                m.d.comb += [
                    tags.i.valid.eq(tag != command),
                    tags.i.payload.eq(tag),
                ]
                m.next = "COUNT"
                with m.If(last):
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += [
                    self.completion.valid.eq(1),
                    tags.i.valid.eq(self.completion.ready),
                    tags.i.payload.eq(command),
                ]
                with m.If(self.completion.ready):
                    m.next = "COUNT"
        return m
