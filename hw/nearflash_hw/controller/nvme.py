"""The host interface: registers, queue pairs, command checks and the admin engine, wired together."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.registers import ADDRESS_BITS, BUSES, counters

from ..host.queues import Queues
from ..host.registers import RegisterFile
from ..interfaces import Layouts, bits_for
from ..primitives.arbiter import StreamArbiter
from ..primitives.axi_lite import AxiLiteSignature
from ..primitives.memport import MemReadSignature, MemWriteSignature
from ..primitives.register_slice import RegisterSlice
from .admin import Admin
from .dispatch import Dispatcher, targets

__all__ = ["Nvme"]


class Nvme(wiring.Component):
    """NVMe-format host interface (:mod:`nearflash.contract.nvme` and :mod:`~nearflash.contract.registers`).

    ``axil``: registers and doorbells. ``irq``: level, some unmasked queue has completions the host has not acknowledged.
    ``enabled`` is CC.EN, and stays high until CSTS.RDY falls, so that the FTL serves what is still in flight; CSTS.RDY
    rises with ``ftl_ready``. Checked commands leave on ``read_cmd``, ``write_cmd``, ``trim_cmd`` (answered on
    ``block_completion``) and ``infer_cmd``, and come back on ``block_completion``, ``infer_completion``, in any order,
    exactly one each; both sides must always accept what is in flight, even after CC.EN fell (the completions are then
    dropped). Opened and closed tables, and the loaded program, outlive CC.EN = 0.

    What serves queries is there with a lookup engine alone, what serves programs with a tensor engine.

    Changes to tables and program wait until no inference command is in flight, by the count of commands sent and
    completed here and by ``infer_idle``. ``table`` is a pulse with ``table_valid``.

    ``bus_silent``: a bit per bus of register bus_status; any is fatal. ``dram_base``: what the DRAM's addresses begin at,
    in 4 KiB; fatal where the device's DRAM would not end within the bus's reach.

    ``perf``: one bit per counter of :func:`~nearflash.contract.registers.counters`, added every cycle (bit 0, ``cycles``,
    is counted internally).

    Host memory is reached through ``sq_read``, ``cq_write``, ``identify_write``, and ``admin_req`` / ``admin_data``
    (descriptors and parameter images, through a :class:`~.host_dma.HostReader`). ``dram_write``: weights kept in DRAM.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        beat = config.beat_bytes
        tensor = {
            "tensor_cmd": Out(stream.Signature(layouts.tensor_command)),
            "tensor_completion": In(stream.Signature(layouts.completion)),
        } if config.tensor.rows else {}
        infer = {
            #: Checked INFER and LOOKUP commands.
            "infer_cmd": Out(stream.Signature(layouts.infer_command)),
            #: Exactly one for each, in any order.
            "infer_completion": In(stream.Signature(layouts.completion)),
            #: The engine has no command.
            "infer_idle": In(1),
            #: Pulses: a table is opened or closed.
            #: It, as ``table_valid`` pulses.
            "table_valid": Out(1),
            "table": Out(layouts.table_write),
            #: The MLP has all its parameters.
            "program_loaded": Out(1),
            #: To the MLP, beat by beat.
            "parameter": Out(stream.Signature(layouts.parameter)),
            #: Descriptors and parameter images in host memory,
            "admin_req": Out(stream.Signature(layouts.prp_request)),
            #: beat by beat.
            "admin_data": In(stream.Signature(layouts.host_data)),
            #: Weights that lie in DRAM.
            "dram_write": Out(MemWriteSignature(beat)),
        } if config.lookup.max_tables else {}
        super().__init__({
            #: Registers and doorbells.
            "axil": In(AxiLiteSignature(ADDRESS_BITS)),
            #: Level: a queue that is not masked has completions the host has not acknowledged.
            "irq": Out(1),
            #: CC.EN, until CSTS.RDY falls.
            "enabled": Out(1),
            #: The device is mounted and cleared.
            "ftl_ready": In(1),
            #: Checked commands, by the room that carries them out.
            "read_cmd": Out(stream.Signature(layouts.block_command)),
            "write_cmd": Out(stream.Signature(layouts.block_command)),
            "trim_cmd": Out(stream.Signature(layouts.block_command)),
            #: Exactly one for each of the first three's, in any order.
            "block_completion": In(stream.Signature(layouts.completion)),
            #: A bit per bus of register bus_status; any is fatal.
            "bus_silent": In(len(BUSES)),
            #: What the DRAM's addresses begin at, in 4 KiB.
            "dram_base": Out(config.bus.address_bits - 12),
            #: Submission queues.
            "sq_read": Out(MemReadSignature(beat)),
            #: Completion queues.
            "cq_write": Out(MemWriteSignature(beat)),
            #: IDENTIFY's pages.
            "identify_write": Out(MemWriteSignature(beat)),
            #: A bit per counter, added every cycle.
            "perf": In(data.ArrayLayout(1, len(counters(config)))),
            #: Checked TENSOR_LOAD and TENSOR_RUN commands, and exactly one completion for each, in order.
            **tensor,
            **infer,
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.registers = registers = RegisterFile(config)
        m.submodules.queues = queues = Queues(config, len(targets(config)))
        m.submodules.dispatcher = dispatcher = Dispatcher(config)
        m.submodules.admin = admin = Admin(config)
        answers = [self.block_completion]
        if config.lookup.max_tables:
            answers.append(self.infer_completion)
        if config.tensor.rows:
            answers.append(self.tensor_completion)
        m.submodules.completions = completions = StreamArbiter(Layouts.of(config).completion, 2 + len(answers))

        connect(m, flipped(self.axil), registers.axil)
        wraps = Signal()
        room = (1 << config.bus.address_bits - 12) - (config.layout.end >> 12)  # for the base
        m.d.sync += wraps.eq(registers.dram_base > room)
        m.d.comb += [
            registers.ready.eq(queues.ready),
            registers.fatal.eq(queues.fatal | self.bus_silent.any() | wraps),
            self.dram_base.eq(registers.dram_base),
            registers.bus_silent.eq(self.bus_silent),
            registers.event.eq(self.perf.as_value()),
            self.enabled.eq(registers.enabled & ~wraps | queues.ready),
            queues.settings.eq(registers.settings),
            queues.enable.eq(registers.enabled),
            queues.start.eq(self.ftl_ready),
            queues.doorbell_valid.eq(registers.doorbell_valid),
            queues.doorbell.eq(registers.doorbell),
        ]
        m.d.comb += registers.posted.eq(queues.posted)
        m.d.sync += self.irq.eq((queues.unseen & ~registers.mask).any() | registers.irq)

        m.d.comb += [
            dispatcher.entry_valid.eq(queues.entry_valid),
            dispatcher.entry.eq(queues.entry),
            queues.verdict.eq(dispatcher.verdict),
            queues.target.eq(dispatcher.target),
            queues.acceptable.eq(dispatcher.acceptable),
            queues.target_free.eq(dispatcher.target_free),
            dispatcher.take.eq(queues.take),
        ]
        if config.lookup.max_tables:
            m.d.comb += [
                dispatcher.hold_infer.eq(admin.hold_infer),
                dispatcher.program_loaded.eq(admin.program_loaded),
            ]
        connect(m, queues.sq_read, flipped(self.sq_read))
        connect(m, queues.cq_write, flipped(self.cq_write))
        connect(m, dispatcher.read_cmd, flipped(self.read_cmd))
        connect(m, dispatcher.write_cmd, flipped(self.write_cmd))
        connect(m, dispatcher.trim_cmd, flipped(self.trim_cmd))
        if config.lookup.max_tables:
            connect(m, dispatcher.infer_cmd, flipped(self.infer_cmd))
        connect(m, dispatcher.admin_cmd, admin.cmd)

        if config.lookup.max_tables:
            connect(m, admin.host_req, flipped(self.admin_req))
            connect(m, flipped(self.admin_data), admin.host_data)
        connect(m, admin.identify_write, flipped(self.identify_write))
        if config.lookup.max_tables:
            self._connect_changes(m, admin)

        connect(m, dispatcher.reject, completions.i[0])
        connect(m, admin.completion, completions.i[1])
        if config.tensor.rows:
            connect(m, dispatcher.tensor_cmd, flipped(self.tensor_cmd))
        for k, port in enumerate(answers, 2):
            m.submodules[f"completion{k}"] = slice_ = RegisterSlice(Layouts.of(config).completion, "half")
            connect(m, flipped(port), slice_.i)
            connect(m, slice_.o, completions.i[k])
        connect(m, completions.o, queues.completion)
        return m

    def _connect_changes(self, m: Module, admin: Admin) -> None:
        """Of tables and program, while no inference command is in flight."""
        connect(m, admin.dram_write, flipped(self.dram_write))
        connect(m, admin.parameter, flipped(self.parameter))
        m.d.comb += [
            self.table_valid.eq(admin.table_valid),
            self.table.eq(admin.table),
            self.program_loaded.eq(admin.program_loaded),
        ]
        # The engine's own idle may lag a command it just took: count what is between here and its completion.
        inferring = Signal(bits_for(self.config.host.queue_pairs * self.config.host.queue_entries))
        begun = self.infer_cmd.valid & self.infer_cmd.ready
        ended = self.infer_completion.valid & self.infer_completion.ready
        m.d.sync += inferring.eq(inferring + begun - ended)
        m.d.comb += admin.infer_quiet.eq((inferring == 0) & ~self.infer_cmd.valid & self.infer_idle)
