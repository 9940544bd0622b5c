"""A program, descriptor by descriptor, without the host."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import Status
from nearflash.contract.config import log2
from nearflash.contract.tensor import ALIGN, DESCRIPTOR_BYTES, WORDS, Op, TensorConfig

from ..primitives.memport import MemReadSignature
from .checker import DescriptorChecker
from .descriptor_reader import DescriptorReader
from .plan import ADDRESS_BITS, SIZE_BITS
from .planner import descriptor_layout
from .table_reader import TableReader, table_layout

__all__ = ["STATUS_BITS", "TensorSequencer", "outcome_layout", "run_layout", "transfer_layout"]

STATUS_BITS = 11
PROGRAM_CDW, INPUT_CDW = 11, 10  # of TENSOR_RUN
STEADY = 4  # cycles from a descriptor to its unit's start


def run_layout() -> data.StructLayout:
    """A program to run: where its header lies, and how many bytes of input the host has for it."""
    return data.StructLayout({"program": ADDRESS_BITS, "input_bytes": ADDRESS_BITS})


def outcome_layout() -> data.StructLayout:
    """How it ended: ``status`` of contract.nvme.Status, ``dw0`` and ``dw1`` as TENSOR_RUN's completion has them."""
    return data.StructLayout({"status": STATUS_BITS, "dw0": SIZE_BITS, "dw1": range(WORDS)})


def transfer_layout() -> data.StructLayout:
    """The program's input, which the host has, or (``output``) its output, which lies in memory: ``bytes`` from ``address``
    on."""
    return data.StructLayout({"output": 1, "address": ADDRESS_BITS, "bytes": ADDRESS_BITS})


class TensorSequencer(wiring.Component):
    """``i``: programs to run, each taken when the last one's ``o`` was: how it ended, in the words of
    :meth:`nearflash.reference.tensor.TensorModel.run`, or UNRECOVERED_READ with the descriptor's number in dw0 if a read or
    write of device memory failed.

    Header: read, checked, its input fetched (``transfer``, answered by ``transferred`` with the status). Then each
    descriptor: read, checked, its table (``table``) loaded, its operator's bit of ``start`` pulsed, ``done`` awaited. At the
    end the output is sent (``transfer``). ``descriptor`` holds from four cycles before ``start`` until ``done``. Nothing of
    a program is kept for the next.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "i": In(stream.Signature(run_layout())),
            "o": Out(stream.Signature(outcome_layout())),
            "transfer": Out(stream.Signature(transfer_layout())),
            "transferred": In(stream.Signature(STATUS_BITS)),
            "descriptor": Out(descriptor_layout()),
            "table": Out(table_layout()),
            "start": Out(len(Op)),
            "done": In(stream.Signature(data.StructLayout({"error": 1}))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        d, outcome, transfer = self.descriptor, self.o.payload, self.transfer.payload
        given = Signal(run_layout())
        m.submodules.reader = reader = DescriptorReader(self.beat_bytes)
        m.submodules.checker = checker = DescriptorChecker(self.config, self.beat_bytes)
        m.submodules.tables = tables = TableReader(self.beat_bytes)
        address, number, count = Signal(ADDRESS_BITS), Signal(SIZE_BITS), Signal(SIZE_BITS)
        output = Signal(data.StructLayout({"address": ADDRESS_BITS, "bytes": ADDRESS_BITS}))
        wait = Signal(range(STEADY))
        is_header = Signal()
        self._share(m, reader.mem_read, tables.mem_read)
        m.d.comb += [
            d.eq(reader.descriptor),
            reader.address.eq(address),
            reader.number.eq(number),
            checker.put.eq(reader.put),
            checker.op.eq(d.op),
            checker.program.eq(given.program),
            tables.address.eq(d.table),
            self.table.eq(tables.o),
            is_header.eq(number == 0),
            transfer.output.eq(~is_header),
            transfer.address.eq(Mux(is_header, d.x, output.address)),
            transfer.bytes.eq(Mux(is_header, d.input_bytes, output.bytes)),
        ]

        def end(status, dw0=0, dw1=0) -> None:
            m.d.sync += [
                outcome.status.eq(status),
                outcome.dw0.eq(dw0),
                outcome.dw1.eq(dw1),
            ]
            m.next = "END"

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += given.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [
                    address.eq(given.program),
                    number.eq(0),
                ]
                m.next = "READ"
                with m.If(given.program[: log2(ALIGN)].any() | (given.program > self.config.dram_bytes - DESCRIPTOR_BYTES)):
                    end(Status.BAD_TENSOR_SPAN, PROGRAM_CDW)
            with m.State("READ"):
                m.d.comb += reader.start.eq(1)
                m.next = "READING"
            with m.State("READING"):
                with m.If(reader.done):
                    m.next = "CHECK"
                    with m.If(reader.error):
                        end(Status.UNRECOVERED_READ, number)
                    with m.Elif(reader.fault):
                        end(Status.BAD_DESCRIPTOR, number, reader.word)
            with m.State("CHECK"):
                m.d.comb += checker.start.eq(1)
                m.next = "CHECKING"
            with m.State("CHECKING"):
                with m.If(checker.done):
                    m.next = "TABLE"
                    with m.If(checker.fault):
                        end(Status.BAD_DESCRIPTOR, number, checker.word)
                    with m.Elif(is_header):
                        m.next = "HEADER"
            with m.State("HEADER"):
                m.d.sync += [
                    count.eq(d.count),
                    output.address.eq(d.y),
                    output.bytes.eq(d.output_bytes),
                ]
                m.next = "TRANSFER"
                with m.If(d.input_bytes != given.input_bytes):
                    end(Status.BAD_TENSOR_SPAN, INPUT_CDW)
            with m.State("TRANSFER"):
                m.d.comb += self.transfer.valid.eq(1)
                with m.If(self.transfer.ready):
                    m.next = "TRANSFERRED"
            with m.State("TRANSFERRED"):
                m.d.comb += self.transferred.ready.eq(1)
                with m.If(self.transferred.valid):
                    m.next = "NEXT"
                    with m.If(~is_header | (self.transferred.payload != 0)):
                        end(self.transferred.payload)
            with m.State("NEXT"):
                m.d.sync += [
                    number.eq(number + 1),
                    address.eq(address + DESCRIPTOR_BYTES),
                ]
                m.next = "READ"
                with m.If(number == count):
                    m.d.sync += number.eq(number)
                    m.next = "TRANSFER"
            with m.State("TABLE"):
                m.d.comb += tables.start.eq(d.lookup)
                m.d.sync += wait.eq(STEADY - 1)
                m.next = "START"
                with m.If(d.lookup):
                    m.next = "LOADING"
            with m.State("LOADING"):
                with m.If(tables.done):
                    m.next = "START"
                    with m.If(tables.error):
                        end(Status.UNRECOVERED_READ, number)
            with m.State("START"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.comb += self.start.eq(Cat((d.op == o) for o in Op))
                    m.next = "RUNNING"
            with m.State("RUNNING"):
                m.d.comb += self.done.ready.eq(1)
                with m.If(self.done.valid):
                    m.next = "NEXT"
                    with m.If(self.done.payload.error):
                        end(Status.UNRECOVERED_READ, number)
            with m.State("END"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m

    def _share(self, m: Module, first, second) -> None:
        """One memory port for two that never read at the same time: whoever asked last gets the answer."""
        port, owner = self.mem_read, Signal()
        turn = Signal()
        m.d.comb += [
            turn.eq(Mux(first.req.valid | second.req.valid, second.req.valid, owner)),
            port.req.valid.eq(first.req.valid | second.req.valid),
            port.req.payload.eq(Mux(turn, second.req.payload, first.req.payload)),
            first.req.ready.eq(port.req.ready),
            second.req.ready.eq(port.req.ready),
            port.rsp.ready.eq(Mux(owner, second.rsp.ready, first.rsp.ready)),
            first.rsp.payload.eq(port.rsp.payload),
            second.rsp.payload.eq(port.rsp.payload),
            first.rsp.valid.eq(port.rsp.valid & ~owner),
            second.rsp.valid.eq(port.rsp.valid & owner),
        ]
        m.d.sync += owner.eq(turn)
