"""Holds a command's logits until it is known to be good."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, bits_for, index_bits
from ..primitives.fifo import StreamFifo
from ..primitives.register_slice import RegisterSlice

__all__ = ["LogitStore"]


class LogitStore(wiring.Component):
    """Two banks of max_batch x outputs words: one fills while the other is written out, a word per cycle."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        self.outputs = config.mlp.graph[-1].width
        super().__init__({
            #: Samples of each coming INFER command, in order.
            "command": In(stream.Signature(16)),
            #: Groups in order, any order within one.
            "logit": In(stream.Signature(Layouts.of(config).logit)),
            #: A whole command is stored.
            "full": Out(1),
            #: With ``full``: one of its logits had it.
            "error": Out(1),
            #: Pulses: its words are wanted.
            "send": In(1),
            #: Pulses: its bank is free.
            "drop": In(1),
            #: [sample][output], ``last`` with the final one.
            "word": Out(stream.Signature(data.StructLayout({"value": 32, "last": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        c, outputs = self.config, self.outputs
        size = c.host.max_batch * outputs
        address = index_bits(size)
        m.submodules.words = ram = Memory(shape=32, depth=2 << address, init=[])
        write, read = ram.write_port(), ram.read_port()
        m.submodules.commands = commands = StreamFifo(16, c.host.infer_depth)
        m.d.comb += [
            commands.i.valid.eq(self.command.valid),
            commands.i.payload.eq(self.command.payload),
            self.command.ready.eq(commands.i.ready),
        ]
        full = [Signal(name=f"full{k}") for k in range(2)]
        length = [Signal(bits_for(size), name=f"length{k}") for k in range(2)]
        errors = [Signal(name=f"error{k}") for k in range(2)]
        fill, out = Signal(), Signal()  # banks

        # -- fill
        base = Signal(bits_for(size))  # first word of the group
        arrived = Signal(bits_for(c.mlp.n_batch * outputs))  # logits of the group so far
        samples = Signal(16)  # samples of the command in groups before this one
        take = Signal()
        # What a logit says of its group is worked out as it comes in, and waits beside it.
        m.submodules.next = slice_ = RegisterSlice(self.logit.payload.shape(), "through")
        connect(m, flipped(self.logit), slice_.i)
        new, logit, p = slice_.i.payload, slice_.o, slice_.o.payload
        group_samples = Signal(bits_for(c.mlp.n_batch), reset_less=True)
        group, place = (Signal(bits_for(c.mlp.n_batch * outputs), reset_less=True) for _ in range(2))
        with m.If(slice_.i.ready):
            m.d.sync += [
                group_samples.eq(new.nb + 1),
                group.eq((new.nb + 1) * outputs),
                place.eq(new.n * outputs + new.o),
            ]
        m.d.comb += [
            logit.ready.eq(commands.o.valid & ~Cat(full).bit_select(fill, 1)),
            take.eq(logit.valid & logit.ready),
        ]
        m.d.sync += write.en.eq(take)
        with m.If(take):
            m.d.sync += [
                write.addr.eq(Cat((base + place)[:address], fill)),
                write.data.eq(p.value),
                arrived.eq(arrived + 1),
            ]
            for k in range(2):
                with m.If((fill == k) & p.error):
                    m.d.sync += errors[k].eq(1)
            with m.If(arrived + 1 == group):
                m.d.sync += [
                    arrived.eq(0),
                    base.eq(base + group),
                    samples.eq(samples + group_samples),
                ]
                with m.If(samples + group_samples == commands.o.payload):
                    m.d.comb += commands.o.ready.eq(1)
                    m.d.sync += [
                        base.eq(0),
                        samples.eq(0),
                        fill.eq(~fill),
                    ]
                    for k in range(2):
                        with m.If(fill == k):
                            m.d.sync += [
                                full[k].eq(1),
                                length[k].eq(base + group),
                            ]

        # -- send
        left = Signal(bits_for(size))
        next_word = Signal(address + 1)
        sending = Signal()
        step = Signal()
        m.d.comb += [
            self.full.eq(Cat(full).bit_select(out, 1)),
            self.error.eq(Cat(errors).bit_select(out, 1)),
            self.word.payload.value.eq(read.data),
            step.eq(~self.word.valid | self.word.ready),
            read.addr.eq(Cat(next_word[:address], out)),
            read.en.eq(step),
        ]
        with m.If(self.send):
            m.d.sync += [
                sending.eq(1),
                next_word.eq(0),
            ]
            for k in range(2):
                with m.If(out == k):
                    m.d.sync += left.eq(length[k])
        with m.Elif(step):
            m.d.sync += self.word.valid.eq(0)
            with m.If(sending):
                m.d.sync += [
                    self.word.valid.eq(1),
                    self.word.payload.last.eq(left == 1),
                    left.eq(left - 1),
                    next_word.eq(next_word + 1),
                    sending.eq(left != 1),
                ]
        with m.If(self.drop):
            m.d.sync += out.eq(~out)
            for k in range(2):
                with m.If(out == k):
                    m.d.sync += [
                        full[k].eq(0),
                        errors[k].eq(0),
                    ]
        return m
