"""The admin command set, one command at a time."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import AdminOpcode, DeviceConfig

from ..interfaces import Layouts
from ..primitives.memport import MemWriteSignature
from .identify import Identify
from .program_loader import ProgramLoader
from .tables import TableManager

__all__ = ["Admin"]


class Admin(wiring.Component):
    """Carries out ``cmd`` (IDENTIFY, TABLE_CREATE, TABLE_DELETE, PROGRAM_LOAD) and answers with ``completion``.

    Commands that change what inference works with raise ``hold_infer`` and wait for ``infer_quiet`` (no inference command
    in flight) before they begin. A device without an MLP has no program loader: ``program_loaded`` stays 0. One without a
    lookup engine has IDENTIFY alone.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        infer = {
            #: No inference command may be sent to the engine,
            "hold_infer": Out(1),
            #: and none is in flight.
            "infer_quiet": In(1),
            #: Pulses: a table is opened or closed.
            #: It, as ``table_valid`` pulses.
            "table_valid": Out(1),
            "table": Out(layouts.table_write),
            #: The MLP has all its parameters.
            "program_loaded": Out(1),
            #: To the MLP, beat by beat.
            "parameter": Out(stream.Signature(layouts.parameter)),
            #: Descriptors and parameter images in host memory,
            "host_req": Out(stream.Signature(layouts.prp_request)),
            #: beat by beat.
            "host_data": In(stream.Signature(layouts.host_data)),
            #: Weights that lie in DRAM.
            "dram_write": Out(MemWriteSignature(config.beat_bytes)),
        } if config.lookup.max_tables else {}
        super().__init__({
            #: Admin commands that passed their checks, one at a time.
            "cmd": In(stream.Signature(layouts.admin_command)),
            #: One for each.
            "completion": Out(stream.Signature(layouts.completion)),
            #: IDENTIFY's pages, to host memory.
            "identify_write": Out(MemWriteSignature(config.beat_bytes)),
            **infer,
        })

    def elaborate(self, platform):
        m = Module()
        cmd, done = self.cmd, self.completion
        p = cmd.payload
        m.submodules.identify = identify = Identify(self.config)
        tables = TableManager(self.config) if self.config.lookup.max_tables else None
        connect(m, identify.mem_write, flipped(self.identify_write))
        if tables:
            m.submodules.tables = tables
            m.d.comb += [
                self.table_valid.eq(tables.table_valid),
                self.table.eq(tables.table),
            ]
        m.d.comb += identify.req.payload.cns.eq(p.cdw10[:8])
        engines: dict[tuple[AdminOpcode, ...], Any] = {(AdminOpcode.IDENTIFY,): identify}
        readers = []
        if tables:
            m.d.comb += [
                tables.req.payload.table.eq(p.cdw10),
                tables.req.payload.delete.eq(p.opcode == AdminOpcode.TABLE_DELETE),
            ]
            engines[AdminOpcode.TABLE_CREATE, AdminOpcode.TABLE_DELETE] = tables
            readers.append(tables)
        if self.config.mlp.graph:
            m.submodules.loader = loader = ProgramLoader(self.config)
            engines[(AdminOpcode.PROGRAM_LOAD,)] = loader
            readers.append(loader)
            connect(m, loader.parameter, flipped(self.parameter))
            connect(m, loader.dram_write, flipped(self.dram_write))
            m.d.comb += [
                self.program_loaded.eq(loader.loaded),
                loader.req.payload.words.eq(p.cdw10),
            ]

        # Only one engine works at a time, and only one command's data is under way: whoever asks owns it.
        selected = {id(e): Cat(p.opcode == c for c in codes).any() for codes, e in engines.items()}
        for e in readers:
            with m.If(selected[id(e)]):
                m.d.comb += [
                    self.host_req.valid.eq(e.host_req.valid),
                    self.host_req.payload.eq(e.host_req.payload),
                    e.host_req.ready.eq(self.host_req.ready),
                    e.host_data.valid.eq(self.host_data.valid),
                    e.host_data.payload.eq(self.host_data.payload),
                    self.host_data.ready.eq(e.host_data.ready),
                ]

        working, answered = Signal(), Signal()
        for e in engines.values():
            m.d.comb += [
                e.req.payload.prp1.eq(p.prp1),
                e.req.payload.prp2.eq(p.prp2),
                e.req.valid.eq(working & selected[id(e)]),
                e.result.ready.eq(working),
            ]
            with m.If(e.result.valid):
                m.d.comb += answered.eq(1)
                m.d.sync += [
                    done.payload.status.eq(e.result.payload.status),
                    done.payload.dw0.eq(e.result.payload.dw0 if e is not identify else 0),
                ]

        if tables:
            m.d.comb += self.hold_infer.eq(cmd.valid & (p.opcode != AdminOpcode.IDENTIFY))
        m.d.comb += done.payload.cid.eq(p.cid)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(cmd.valid):
                    m.next = "QUIET"
            with m.State("QUIET"):
                with m.If(~self.hold_infer | self.infer_quiet if tables else 1):
                    m.next = "WORK"
            with m.State("WORK"):
                m.d.comb += working.eq(1)
                with m.If(answered):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [
                    done.valid.eq(1),
                    cmd.ready.eq(done.ready),
                ]
                with m.If(done.ready):
                    m.next = "IDLE"
        return m
