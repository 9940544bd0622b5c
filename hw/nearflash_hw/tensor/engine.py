"""The tensor engine: programs from DRAM to DRAM, one unit an operator, with one array and one epilogue for all."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.tensor import Op

from ..primitives.memport import MemReadSignature, MemWriteSignature
from .add import Addition
from .array import PixelArray
from .attention import Attention
from .conv import Convolution
from .depthwise import DepthwiseConvolution
from .epilogue import Epilogue
from .input_buffer import InputTiles
from .layer_norm import LayerNormalisation
from .planner import ConvPlanner
from .pool import Pooling
from .sequencer import STATUS_BITS, TensorSequencer, outcome_layout, run_layout, transfer_layout
from .switch import MemSwitch

__all__ = ["OUTSTANDING_READS", "OUTSTANDING_WRITES", "UNITS", "TensorEngine"]

#: What computes each operator: a component made of (TensorConfig, beat_bytes), with ``start`` and ``done`` as
#: :class:`.conv.Convolution`'s, any ``mem_read`` and one ``mem_write``; ``descriptor``, or ``plan`` as
#: :class:`.planner.ConvPlanner` makes it; and, where it uses them, the ports to the array, the epilogue and the input buffer
#: of :mod:`.unit`.
UNITS = {Op.CONV: Convolution, Op.DEPTHWISE: DepthwiseConvolution, Op.POOL: Pooling, Op.ADD: Addition,
         Op.LAYERNORM: LayerNormalisation, Op.ATTENTION: Attention}
#: Of ``mem_write``, many of which are single beats: what covers a memory's latency of 40 cycles.
OUTSTANDING_WRITES = 32
#: Of the ``mem_read`` that the residuals of a convolution come by: single beats too, one every few cycles.
OUTSTANDING_READS = {2: 16}
PLANNED = 3  # cycles from the plan to its unit's start


def _one_of(given: list[tuple[Value, Any]]) -> Value:
    """The value whose bit is set, of (bit, value) of which at most one has it set, else 0. A LUT6 takes three of them, where
    a chain of conditions takes two: 1,150 LUTs less for six units of 8 lanes."""
    return reduce(or_, (Value.cast(v) & bit.replicate(len(Value.cast(v))) for bit, v in given))


class TensorEngine(wiring.Component):
    """Runs programs of the tensor region, see :class:`.sequencer.TensorSequencer`; only ``config.tensor.operators`` are
    generated.

    ``mem_read``, ``mem_write``: of device DRAM; addresses are those of the region. One unit works at a time, so they share
    ports, planner, array, epilogue and input buffer (which has the last ``mem_read``) without an arbiter. ``busy``: a
    program runs.

    What happens, a cycle each: ``started``: a descriptor was read and checked, ``ended``: it is done; ``array_step``,
    ``array_unfed``, ``array_full``: see :class:`.array.PixelArray`.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig, *, base: int | None = None):
        t = config.tensor
        self.config, self.base = config, config.layout.tensor if base is None else base
        self.units = {Op[o.upper()]: UNITS[Op[o.upper()]](t, config.beat_bytes) for o in t.operators}
        self.tiled = any("x_tile" in u.signature.members for u in self.units.values())
        self.switch = MemSwitch(config.beat_bytes, [(1, 0), *((len(u.mem_read), 1) for u in self.units.values())], self.base)
        super().__init__({
            "i": In(stream.Signature(run_layout())),
            "o": Out(stream.Signature(outcome_layout())),
            "transfer": Out(stream.Signature(transfer_layout())),
            "transferred": In(stream.Signature(STATUS_BITS)),
            "mem_read": Out(MemReadSignature(config.beat_bytes)).array(self.switch.reads + self.tiled),
            "mem_write": Out(MemWriteSignature(config.beat_bytes)),
            "busy": Out(1),
            **dict.fromkeys(("started", "ended", "array_step", "array_unfed", "array_full"), Out(1)),
        })

    def elaborate(self, platform):
        m = Module()
        t, beat = self.config.tensor, self.config.beat_bytes
        m.submodules.sequencer = sequencer = TensorSequencer(t, beat)
        m.submodules.planner = planner = ConvPlanner(t, beat)
        m.submodules.epilogue = epilogue = Epilogue(t.lanes)
        m.submodules.switch = switch = self.switch
        connect(m, flipped(self.i), sequencer.i)
        connect(m, sequencer.o, flipped(self.o))
        connect(m, sequencer.transfer, flipped(self.transfer))
        connect(m, flipped(self.transferred), sequencer.transferred)
        if any("step" in u.signature.members for u in self.units.values()):
            m.submodules.array = array = PixelArray(t.rows, t.columns, t.pixels, t.lanes, beat, packed=t.packed,
                                                    primitive=self.config.mlp.primitive)
            m.d.comb += [
                self.array_step.eq(array.step),
                self.array_unfed.eq(array.unfed),
                self.array_full.eq(array.full),
            ]
        if self.tiled:
            m.submodules.input_tiles = tiles = InputTiles(t, beat)
            m.d.comb += tiles.plan.eq(planner.plan)
            connect(m, tiles.mem_read, flipped(self.mem_read[self.switch.reads]))
            m.d.comb += self.mem_read[self.switch.reads].req.payload.addr.eq(tiles.mem_read.req.payload.addr + self.base)
        connect(m, sequencer.mem_read, switch.read0[0])
        for k, port in enumerate(switch.mem_read):
            connect(m, port, flipped(self.mem_read[k]))
        connect(m, switch.mem_write, flipped(self.mem_write))

        # -- a start goes to its unit, after the planner where that is needed; until it is done the unit has the memory
        planned = [planner.done, *(Signal(name=f"planned{k}") for k in range(PLANNED))]
        working = Signal()
        m.d.comb += [
            self.busy.eq(sequencer.busy),
            planner.descriptor.eq(sequencer.descriptor),
            epilogue.control.eq(planner.plan.epilogue),
            epilogue.table.eq(sequencer.table),
            planner.start.eq((sequencer.start & sum(1 << o for o, u in self.units.items() if "plan" in u.signature.members)
                              ).any()),
        ]
        m.d.sync += [b.eq(a) for a, b in zip(planned, planned[1:], strict=False)]
        with m.If(self.started):
            m.d.sync += working.eq(1)
        m.d.comb += [
            self.started.eq(sequencer.start.any()),
            self.ended.eq(sequencer.done.valid & sequencer.done.ready),
        ]
        with m.If(self.ended):
            m.d.sync += working.eq(0)
        # whose turn it is, in registers: much of what a unit and a shared one say to each other waits for that
        op, going, owner = sequencer.descriptor.op, Signal(), Signal.like(switch.owner)
        m.d.comb += [
            going.eq(self.started | (working & ~self.ended)),
            switch.owner.eq(owner),
        ]
        m.d.sync += owner.eq(0)
        payloads: dict = defaultdict(list)  # of a shared unit's port: who gives it when
        for n, (o, unit) in enumerate(self.units.items(), 1):
            name = o.name.lower()
            m.submodules[name] = unit
            mine = Signal(name=f"{name}_works")
            m.d.sync += mine.eq(going & (op == o))
            with m.If(going & (op == o)):
                m.d.sync += owner.eq(n)
            if "plan" in unit.signature.members:
                m.d.comb += [
                    unit.plan.eq(planner.plan),
                    unit.start.eq(planned[-1] & mine),
                ]
            else:
                m.d.comb += [
                    unit.descriptor.eq(sequencer.descriptor),
                    unit.start.eq(sequencer.start.bit_select(o, 1)),
                ]
            for k, port in enumerate(unit.mem_read):
                connect(m, port, getattr(switch, f"read{n}")[k])
            connect(m, unit.mem_write, getattr(switch, f"write{n}"))
            to_shared, to_unit = [(unit.done, sequencer.done)], []
            if "step" in unit.signature.members:
                array = m.submodules.array
                to_shared += [(unit.step, array.i), (unit.weight, array.weight)]
                to_unit.append((array.o, unit.array_sums))
            if "sums" in unit.signature.members:
                to_shared += [(unit.sums, epilogue.i), (unit.entry, epilogue.entry)]
                to_unit.append((epilogue.o, unit.codes))
            if "residual" in unit.signature.members:
                to_shared.append((unit.residual, epilogue.r))
            if "x_tile" in unit.signature.members:
                tiles = m.submodules.input_tiles
                to_shared.append((unit.x_tile, tiles.tile))
                m.d.comb += [
                    unit.x_available.eq(tiles.available),
                    unit.x_data.eq(tiles.data),
                ]
                with m.If(mine):
                    m.d.comb += [
                        tiles.read.eq(unit.x_read),
                        tiles.release.eq(unit.x_release),
                        unit.x_error.eq(tiles.error),
                    ]
            for source, sink in to_shared:
                payloads[sink].append((mine, source.payload))
            m.d.comb += [sink.payload.eq(source.payload) for source, sink in to_unit]  # valid alone says whose
            with m.If(mine):
                for source, sink in (*to_shared, *to_unit):
                    m.d.comb += [
                        sink.valid.eq(source.valid),
                        source.ready.eq(sink.ready),
                    ]
        for sink, given in payloads.items():
            m.d.comb += Value.cast(sink.payload).eq(_one_of(given))
        return m
