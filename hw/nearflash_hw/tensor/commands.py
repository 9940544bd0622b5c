"""TENSOR_LOAD and TENSOR_RUN: what the host asks of the tensor engine."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.config import log2
from nearflash.contract.tensor import ALIGN

from ..host.host_dma import HostReader
from ..interfaces import Layouts
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .sequencer import STATUS_BITS, outcome_layout, run_layout, transfer_layout
from .span_dma import SpanReader, SpanWriter

__all__ = ["TensorCommands"]

WORDS_CDW, OFFSET_CDW = 10, 12  # of TENSOR_LOAD


class TensorCommands(wiring.Component):
    """Carries out ``cmd``, one at a time, each answered by a ``completion`` (:mod:`nearflash.contract.tensor`).

    TENSOR_LOAD copies host memory into the region. TENSOR_RUN has ``run`` run, copies input and output as the engine's
    ``transfer`` asks, and says what ``outcome`` says. An output address that is not beat-aligned fails with
    INVALID_PRP_OFFSET, one from which the region's size would leave the bus with DATA_TRANSFER_ERROR, both before anything
    is read. What a failed copy has written stays.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts, beat = Layouts.of(config), config.beat_bytes
        super().__init__({
            "cmd": In(stream.Signature(layouts.tensor_command)),
            "completion": Out(stream.Signature(layouts.completion)),
            #: The engine.
            "run": Out(stream.Signature(run_layout())),
            "outcome": In(stream.Signature(outcome_layout())),
            "transfer": In(stream.Signature(transfer_layout())),
            "transferred": Out(stream.Signature(STATUS_BITS)),
            #: Host memory.
            "list_read": Out(MemReadSignature(beat)),
            "data_read": Out(MemReadSignature(beat)),
            "host_write": Out(MemWriteSignature(beat)),
            #: Device DRAM.
            "dram_read": Out(MemReadSignature(beat)),
            "dram_write": Out(MemWriteSignature(beat)),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        region, size, reach = c.layout.tensor, c.tensor.dram_bytes, c.bus.address_bits
        m.submodules.host_reader = host_reader = HostReader(c)
        m.submodules.dram_reader = dram_reader = SpanReader(c.beat_bytes)
        m.submodules.host_writer = host_writer = SpanWriter(c.beat_bytes)
        m.submodules.dram_writer = dram_writer = SpanWriter(c.beat_bytes)
        connect(m, host_reader.list_read, flipped(self.list_read))
        connect(m, host_reader.data_read, flipped(self.data_read))
        connect(m, dram_reader.mem_read, flipped(self.dram_read))
        connect(m, host_writer.mem_write, flipped(self.host_write))
        connect(m, dram_writer.mem_write, flipped(self.dram_write))

        cmd, done = self.cmd.payload, self.completion.payload
        words = Signal(32)
        offset = Signal(32)  # of the copy, in the region
        length = Signal(32)  # of the copy, in bytes
        to_host, asked, begun = Signal(), Signal(), Signal()
        status = Signal(STATUS_BITS)
        beyond = Signal()
        m.d.comb += [
            words.eq(cmd.words),
            done.qid.eq(cmd.qid),
            done.cid.eq(cmd.cid),
            self.run.payload.program.eq(cmd.offset),
            # what is too long for 32 bits is no program's input either: its bytes are a multiple of ALIGN
            self.run.payload.input_bytes.eq(Mux(words[30:].any(), ~0, words << 2)),
            host_reader.req.payload.prp1.eq(cmd.prp1),
            host_reader.req.payload.prp2.eq(cmd.prp2),
            host_reader.req.payload.length.eq(length),
            dram_reader.start.payload.address.eq(region + offset),
            dram_reader.start.payload.beats.eq(length >> log2(c.beat_bytes)),
            host_writer.start.payload.eq(cmd.out_addr[:reach]),
            dram_writer.start.payload.eq(region + offset),
        ]
        m.d.sync += beyond.eq(cmd.out_addr[reach:].any() | (cmd.out_addr[:reach] > (1 << reach) - size))

        def answer(status, dw0=0, dw1=0) -> None:
            m.d.sync += [
                done.status.eq(status),
                done.dw0.eq(dw0),
                done.dw1.eq(dw1),
            ]
            m.next = "ANSWER"

        # -- data, whichever way
        given, read = host_reader.data, dram_reader.o
        m.d.comb += [
            dram_writer.i.valid.eq(given.valid),
            dram_writer.i.payload.data.eq(given.payload.data),
            dram_writer.i.payload.last.eq(given.payload.last),
            dram_writer.i.payload.drop.eq(given.payload.status != 0),
            given.ready.eq(dram_writer.i.ready),
            host_writer.i.valid.eq(read.valid),
            host_writer.i.payload.data.eq(read.payload.data),
            host_writer.i.payload.last.eq(read.payload.last),
            read.ready.eq(host_writer.i.ready),
        ]
        with m.If(given.valid & given.ready & (given.payload.status != 0)):
            m.d.sync += status.eq(given.payload.status)
        with m.If(read.valid & read.ready & read.payload.error):
            m.d.sync += status.eq(Status.UNRECOVERED_READ)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.cmd.valid):
                    m.next = "FIELDS"
            with m.State("FIELDS"):
                m.d.sync += [
                    offset.eq(cmd.offset),
                    length.eq(cmd.words << 2),
                    to_host.eq(0),
                    status.eq(0),
                ]
                with m.If(~cmd.load):
                    m.next = "RUN"
                    with m.If(beyond):
                        answer(Status.DATA_TRANSFER_ERROR)
                    with m.If(cmd.out_addr[: log2(c.beat_bytes)].any()):
                        answer(Status.INVALID_PRP_OFFSET)
                with m.Else():
                    m.next = "COPY"
                    with m.If((words == 0) | words[: log2(ALIGN // 4)].any() | (cmd.offset + (words << 2) > size)):
                        answer(Status.BAD_TENSOR_SPAN, WORDS_CDW)
                    with m.If(cmd.offset[: log2(ALIGN)].any()):
                        answer(Status.BAD_TENSOR_SPAN, OFFSET_CDW)
            with m.State("RUN"):
                m.d.comb += self.run.valid.eq(1)
                with m.If(self.run.ready):
                    m.next = "RUNNING"
            with m.State("RUNNING"):
                m.d.comb += [
                    self.outcome.ready.eq(1),
                    self.transfer.ready.eq(1),
                ]
                with m.If(self.outcome.valid):
                    answer(self.outcome.payload.status, self.outcome.payload.dw0, self.outcome.payload.dw1)
                with m.Elif(self.transfer.valid):
                    m.d.sync += [
                        offset.eq(self.transfer.payload.address),
                        length.eq(self.transfer.payload.bytes),
                        to_host.eq(self.transfer.payload.output),
                        status.eq(0),
                    ]
                    m.next = "COPY"
            with m.State("COPY"):
                for source, writer, mine in ((host_reader.req, dram_writer, ~to_host),
                                             (dram_reader.start, host_writer, to_host)):
                    m.d.comb += [
                        source.valid.eq(mine & ~asked),
                        writer.start.valid.eq(mine & ~begun),
                    ]
                    with m.If(source.valid & source.ready):
                        m.d.sync += asked.eq(1)
                    with m.If(writer.start.valid & writer.start.ready):
                        m.d.sync += begun.eq(1)
                with m.If(asked & begun):
                    m.d.sync += [
                        asked.eq(0),
                        begun.eq(0),
                    ]
                    m.next = "COPYING"
            with m.State("COPYING"):
                for writer, fault in ((dram_writer, Status.WRITE_FAULT), (host_writer, Status.DATA_TRANSFER_ERROR)):
                    m.d.comb += writer.done.ready.eq(1)
                    with m.If(writer.done.valid):
                        with m.If((status == 0) & writer.done.payload.error):
                            m.d.sync += status.eq(fault)
                        m.next = "COPIED"
            with m.State("COPIED"):
                with m.If(cmd.load):
                    answer(status)
                with m.Else():
                    m.d.comb += [
                        self.transferred.valid.eq(1),
                        self.transferred.payload.eq(status),
                    ]
                    with m.If(self.transferred.ready):
                        m.next = "RUNNING"
            with m.State("ANSWER"):
                m.d.comb += self.completion.valid.eq(1)
                with m.If(self.completion.ready):
                    m.d.comb += self.cmd.ready.eq(1)
                    m.next = "IDLE"
        return m
