"""Takes inference commands and turns them into dense features and lookups, each command checked whole beforehand."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts
from ..primitives.register_slice import RegisterSlice
from .executor import Executor
from .layouts import LookupLayouts, Outcome
from .validator import Validator

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """:class:`Validator`, then :class:`Executor`, and the bound of host.infer_depth commands in flight. Further commands
    wait in their submission queues."""

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            "infer_cmd": In(stream.Signature(layouts.infer_command)),
            #: Pulses as a command's completion leaves the engine.
            "completed": In(1),
            #: No command is in flight.
            "idle": Out(1),
            #: As of :class:`Validator`.
            "cleared": Out(1),
            #: Tables that are opened and closed.
            "table_valid": In(1),
            "table": In(layouts.table_write),
            #: Queries are read here, each twice.
            "host_req": Out(stream.Signature(layouts.prp_request)),
            "host_data": In(stream.Signature(layouts.host_data)),
            #: To the MLP engine.
            "dense": Out(stream.Signature(layouts.dense_element)),
            #: To the scoreboard.
            "item": Out(stream.Signature(layouts.lookup_item)),
            #: To :class:`~.results.Results`.
            "pending": Out(stream.Signature(LookupLayouts.of(config).pending)),
            "executed": Out(stream.Signature(Outcome())),
        })

    def elaborate(self, platform):
        m = Module()
        c, depth = self.config, self.config.host.infer_depth
        m.submodules.validator = validator = Validator(c)
        m.submodules.executor = executor = Executor(c)
        m.submodules.dense = dense = RegisterSlice(Layouts.of(c).dense_element)

        in_flight = Signal(range(depth + 1))
        take = Signal()
        room = in_flight != depth
        m.d.comb += [
            take.eq(self.infer_cmd.valid & self.infer_cmd.ready),
            self.infer_cmd.ready.eq(room & validator.cmd.ready),
            validator.cmd.valid.eq(self.infer_cmd.valid & room),
            validator.cmd.payload.eq(self.infer_cmd.payload),
            self.idle.eq(in_flight == 0),
            self.cleared.eq(validator.cleared),
        ]
        with m.If(take & ~self.completed):
            m.d.sync += in_flight.eq(in_flight + 1)
        with m.Elif(self.completed & ~take):
            m.d.sync += in_flight.eq(in_flight - 1)

        connect(m, validator.o, executor.i)
        connect(m, executor.dense, dense.i)
        connect(m, dense.o, flipped(self.dense))
        for unit in (validator, executor):
            m.d.comb += [
                unit.table_valid.eq(self.table_valid),
                unit.table.eq(self.table),
            ]
        connect(m, flipped(self.host_data), executor.host_data)
        for name in ("host_req", "item", "pending", "executed"):
            connect(m, getattr(executor, name), flipped(getattr(self, name)))
        return m
