"""Takes inference commands and turns them into dense features and lookups, each command checked whole beforehand."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..host.host_dma import host_data_layout
from ..interfaces import Layouts
from ..primitives.fifo import StreamFifo
from ..primitives.register_slice import RegisterSlice
from .executor import Executor, pending_layout
from .parser import outcome_layout
from .validator import Validator, checked_layout

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """At most host.infer_depth commands in flight: Validator -> FIFO -> :class:`Executor`, so pass 1 of the next command
    runs while pass 2 of this one is held up by the flash. Further commands wait in their submission queues.

    Ports: ``infer_cmd`` In; ``completed`` In pulses as a command's completion leaves the engine; ``idle`` Out: none in
    flight. ``host_req``/``host_data`` [0] belong to pass 1, [1] to pass 2. ``pending`` and ``executed`` go to
    :class:`~.results.Results`, ``dense`` to the MLP engine, ``item`` to the scoreboard.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts(config)
        super().__init__({
            "infer_cmd": In(stream.Signature(layouts.infer_command)),
            "completed": In(1),
            "idle": Out(1), "cleared": Out(1),
            "table_valid": In(1),
            "table": In(layouts.table_write),
            "host_req": Out(stream.Signature(layouts.prp_request)).array(2),
            "host_data": In(stream.Signature(host_data_layout(config.beat_bytes))).array(2),
            "dense": Out(stream.Signature(layouts.dense_element)),
            "item": Out(stream.Signature(layouts.lookup_item)),
            "pending": Out(stream.Signature(pending_layout(config))),
            "executed": Out(stream.Signature(outcome_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        c, depth = self.config, self.config.host.infer_depth
        m.submodules.validator = validator = Validator(c)
        m.submodules.checked = checked = StreamFifo(checked_layout(c), depth)
        m.submodules.next = next_checked = RegisterSlice(checked_layout(c), "through")
        m.submodules.executor = executor = Executor(c)
        m.submodules.dense = dense = RegisterSlice(Layouts(c).dense_element)

        in_flight = Signal(range(depth + 1))
        take = Signal()
        room = in_flight != depth
        m.d.comb += [
            take.eq(self.infer_cmd.valid & self.infer_cmd.ready), self.infer_cmd.ready.eq(room & validator.cmd.ready),
            validator.cmd.valid.eq(self.infer_cmd.valid & room), validator.cmd.payload.eq(self.infer_cmd.payload),
            self.idle.eq(in_flight == 0), self.cleared.eq(validator.cleared)]
        with m.If(take & ~self.completed):
            m.d.sync += in_flight.eq(in_flight + 1)
        with m.Elif(self.completed & ~take):
            m.d.sync += in_flight.eq(in_flight - 1)

        connect(m, validator.o, checked.i)
        connect(m, checked.o, next_checked.i)
        connect(m, next_checked.o, executor.i)
        connect(m, executor.dense, dense.i)
        connect(m, dense.o, flipped(self.dense))
        for k, unit in enumerate((validator, executor)):
            m.d.comb += [unit.table_valid.eq(self.table_valid), unit.table.eq(self.table)]
            connect(m, unit.host_req, flipped(self.host_req[k]))
            connect(m, flipped(self.host_data[k]), unit.host_data)
        for name in ("item", "pending", "executed"):
            connect(m, getattr(executor, name), flipped(getattr(self, name)))
        return m
