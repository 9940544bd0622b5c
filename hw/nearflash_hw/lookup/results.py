"""What a command gives back: logits or pooled vectors to host memory, then its completion."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status

from ..interfaces import Layouts
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemWriteSignature
from .beat_writer import BeatWriter
from .layouts import LookupLayouts, Outcome
from .logit_store import LogitStore

__all__ = ["Results"]


class Results(wiring.Component):
    """Completes commands in the order of ``pending``.

    INFER: pooled elements pass straight on to ``mlp_pooled``; the logits that come back are stored, and written only if no
    sample of the command was bad. LOOKUP: pooled elements are written as they come (NaN for a bad sample) once every
    earlier command is complete. The status is the first of: pass 1, pass 2 (``executed``), the first bad sample (``dw1`` =
    its table), weights that could not be read
    (UNRECOVERED_READ), the write to host memory.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        lo = Layouts.of(config)
        super().__init__({
            #: Commands, in order.
            "pending": In(stream.Signature(LookupLayouts.of(config).pending)),
            #: One for each that passed, when its whole stream was sent.
            "executed": In(stream.Signature(Outcome())),
            #: One per sample.
            "sample_status": In(stream.Signature(lo.sample_status)),
            #: Of all commands, in order.
            "pooled": In(stream.Signature(lo.pooled_element)),
            #: Those of INFER.
            "mlp_pooled": Out(stream.Signature(lo.pooled_element)),
            #: What comes of them.
            "logit": In(stream.Signature(lo.logit)),
            #: Results, in host memory.
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
            #: In the order of ``pending``.
            "completion": Out(stream.Signature(lo.completion)),
        })

    def elaborate(self, platform):
        m = Module()
        c, lo = self.config, Layouts.of(self.config)
        depth = c.host.infer_depth
        m.submodules.pending_fifo = pending = StreamFifo(LookupLayouts.of(self.config).pending, depth)
        m.submodules.executed_fifo = executed = StreamFifo(Outcome(), depth)
        m.submodules.writer = writer = BeatWriter(c)
        connect(m, writer.host_write, flipped(self.host_write))
        connect(m, flipped(self.executed), executed.i)

        # -- the samples' statuses, folded to one verdict per command, so that draining never waits for a slow command
        verdict_layout = data.StructLayout({"status": 11, "table": lo.table_bits})
        m.submodules.verdicts = verdicts = StreamFifo(verdict_layout, depth)
        so_far = Signal(verdict_layout)
        fold = Signal(verdict_layout)
        s = self.sample_status
        m.d.comb += [
            fold.status.eq(Mux(so_far.status != 0, so_far.status, s.payload.status)),
            fold.table.eq(Mux(so_far.status != 0, so_far.table, s.payload.table)),
            verdicts.i.payload.eq(fold),
            verdicts.i.valid.eq(s.valid & s.payload.sample.last),
            s.ready.eq(verdicts.i.ready | ~s.payload.sample.last),
        ]
        with m.If(s.valid & s.ready):
            m.d.sync += so_far.eq(Mux(s.payload.sample.last, 0, fold.as_value()))

        # -- pooled elements: to the MLP, or to host memory while their LOOKUP is the oldest command
        is_lookup = self.pooled.payload.sample.lookup
        take_lookup, take_word = Signal(), Signal()
        m.d.comb += [
            self.mlp_pooled.valid.eq(self.pooled.valid & ~is_lookup),
            self.mlp_pooled.payload.eq(self.pooled.payload),
            self.pooled.ready.eq(Mux(is_lookup, take_lookup & writer.word.ready, self.mlp_pooled.ready)),
        ]

        new = self.pending
        if c.mlp.graph:
            m.submodules.logits = logits = LogitStore(c)
            connect(m, flipped(self.logit), logits.logit)
            # INFER commands that passed also go to the logit store; both FIFOs hold infer_depth, neither ever fills up
            to_store = ~new.payload.lookup & (new.payload.outcome.status == 0)
            m.d.comb += [
                logits.command.valid.eq(new.valid & to_store & pending.i.ready),
                logits.command.payload.eq(new.payload.batch),
                pending.i.valid.eq(new.valid & (logits.command.ready | ~to_store)),
                new.ready.eq(pending.i.ready & (logits.command.ready | ~to_store)),
                logits.word.ready.eq(take_word & writer.word.ready),
            ]
            stored, weights_bad, send, drop, word = logits.full, logits.error, logits.send, logits.drop, logits.word
        else:
            m.d.comb += [
                pending.i.valid.eq(new.valid),
                new.ready.eq(pending.i.ready),
            ]
            stored, weights_bad, send, drop, word = Signal(), Signal(), Signal(), Signal(), None
        m.d.comb += pending.i.payload.eq(new.payload)

        with m.If(take_lookup):
            m.d.comb += [
                writer.word.valid.eq(self.pooled.valid & is_lookup),
                writer.word.payload.value.eq(self.pooled.payload.value),
                writer.word.payload.last.eq(self.pooled.payload.last_of_sample & self.pooled.payload.sample.last),
            ]
        if word is not None:
            with m.Elif(take_word):
                m.d.comb += [
                    writer.word.valid.eq(word.valid),
                    writer.word.payload.eq(word.payload),
                ]

        head = pending.o.payload
        done = self.completion
        outcome = Signal(Outcome(), reset_less=True)
        judged = executed.o.valid & verdicts.o.valid
        m.d.comb += [
            writer.start.payload.eq(head.out_addr),
            done.payload.qid.eq(head.qid),
            done.payload.cid.eq(head.cid),
            done.payload.status.eq(outcome.status),
            done.payload.dw0.eq(outcome.dw0),
            done.payload.dw1.eq(outcome.dw1),
        ]

        def judge():
            """Take the outcome of pass 2 and the samples' verdict."""
            m.d.comb += [
                executed.o.ready.eq(1),
                verdicts.o.ready.eq(1),
            ]
            with m.If(executed.o.payload.status != 0):
                m.d.sync += outcome.eq(executed.o.payload)
            with m.Else():
                m.d.sync += [
                    outcome.status.eq(verdicts.o.payload.status),
                    outcome.dw0.eq(0),
                    outcome.dw1.eq(verdicts.o.payload.table),
                ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += outcome.eq(head.outcome)
                with m.If(pending.o.valid):
                    with m.If(head.outcome.status != 0):
                        m.next = "COMPLETE"
                    with m.Elif(head.lookup):
                        m.d.comb += writer.start.valid.eq(1)
                        m.next = "LOOKUP"
                    with m.Else():
                        m.next = "INFER"
            with m.State("LOOKUP"):
                m.d.comb += take_lookup.eq(1)
                with m.If(writer.word.valid & writer.word.ready & writer.word.payload.last):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                with m.If(judged):
                    judge()
                    m.next = "WRITE"
            with m.State("INFER"):
                with m.If(stored & judged):
                    judge()
                    with m.If(weights_bad & (executed.o.payload.status == 0) & (verdicts.o.payload.status == 0)):
                        m.d.sync += outcome.status.eq(Status.UNRECOVERED_READ)
                    m.next = "VERDICT"
            with m.State("VERDICT"):
                with m.If(outcome.status != 0):
                    m.d.comb += drop.eq(1)
                    m.next = "COMPLETE"
                with m.Else():
                    m.d.comb += [
                        writer.start.valid.eq(1),
                        send.eq(1),
                    ]
                    m.next = "LOGITS"
            with m.State("LOGITS"):
                m.d.comb += take_word.eq(1)
                with m.If(writer.word.valid & writer.word.ready & writer.word.payload.last):
                    m.d.comb += drop.eq(1)
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += writer.done.ready.eq(1)
                with m.If(writer.done.valid):
                    with m.If(writer.done.payload.error & (outcome.status == 0)):
                        m.d.sync += [
                            outcome.status.eq(Status.DATA_TRANSFER_ERROR),
                            outcome.dw1.eq(0),
                        ]
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += done.valid.eq(1)
                with m.If(done.ready):
                    m.d.comb += pending.o.ready.eq(1)
                    m.next = "IDLE"
        return m
