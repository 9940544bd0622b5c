"""The state machine of one NAND die."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import FlashOp, Layouts, bits_for
from ..model import observe
from ..primitives.countdown import Countdown

__all__ = ["Die", "DieCommand"]


class DieCommand(data.StructLayout):
    """A flash command and the path its answer takes (the path buffer of RM-SSD, HPCA 2022)."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "command": lay.flash_command,
            #: 0 lookup, 1 block; with a lookup engine.
            **({"path": 1} if lay.config.lookup.max_tables else {}),
        })


class Die(wiring.Component):
    """One die: takes a command and leads it through its phases, as ONFI separates them.

    READ: command (bus), array tR, data-out (bus). PROGRAM: command, data-in (bus), array tPROG, done. ERASE: command,
    array tERASE, done. A bus phase is wanted (``want_*`` high) until the bus reports it done (``*_done`` pulse). The
    array time starts the cycle after the phase before it; it lasts exactly tR, tPROG or tERASE cycles, or until the
    emulated array (``job`` asked, ``job_done`` pulse with ``job_error``) has moved the bytes if that takes longer.

    A command is taken while idle, and during a data-out, so that its command phase can follow the data-out at once: on a
    saturated bus it would otherwise wait for another die's whole page, and the array stand idle.

    Change-read-column (ONFI: 05h-E0h): with a tCCS configured, a READ of the page that the die's register holds waits
    tCCS instead of tR. The register holds the last page read without an error, until a PROGRAM or ERASE.

    ``current``, ``path`` and ``error`` describe the operation under way until ``out_started``. ``busy``: from the cycle
    after the command is taken to the operation's end. ``read_started`` and ``program_started`` pulse in the first cycle
    of a tR and of a tPROG.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        super().__init__({
            #: Taken while the die is idle, and during a data-out.
            "command": In(stream.Signature(DieCommand(layouts))),
            #: The one under way.
            "current": Out(layouts.flash_command),
            #: Whose it is: lookup (0) or block I/O (1).
            "path": Out(1),
            #: Of a READ: unrecovered.
            "error": Out(1),
            #: Waits for a phase of the bus: command,
            "want_command": Out(1),
            #: data-in,
            "want_in": Out(1),
            #: and data-out.
            "want_out": Out(1),
            #: Pulses: the phase is over.
            "command_done": In(1),
            "in_done": In(1),
            #: Pulses: ``current``, ``path`` and ``error`` may change.
            "out_started": In(1),
            "out_done": In(1),
            #: To the array server.
            "job": Out(stream.Signature(layouts.flash_command)),
            #: Pulses: it is done.
            "job_done": In(1),
            #: With ``job_done``.
            "job_error": In(1),
            #: Result of a PROGRAM or ERASE.
            "done": Out(stream.Signature(layouts.flash_done)),
            #: Has a command.
            "busy": Out(1),
            #: Pulses per READ that takes array time.
            "read_started": Out(1),
            #: Pulses per PROGRAM.
            "program_started": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.timer = timer = Countdown(bits_for(max(c.t_read, c.t_program, c.t_erase, c.t_ccs)))
        asking, finished = Signal(), Signal()  # asking: in a register, because all dies' jobs meet behind it
        loaded, take = Signal(), Signal()
        first = Signal()
        op = self.current.op
        # the page register's owner
        row = Cat(self.current.block, self.current.page)
        held, holds = Signal(len(row)), Signal()
        hit = Signal()  # the current READ is a change-read-column
        m.d.comb += hit.eq(holds & (held == row) if c.t_ccs else 0)

        m.d.comb += [
            self.job.payload.eq(self.current),
            self.job.valid.eq(asking),
            take.eq(self.command.valid & self.command.ready),
            self.done.payload.tag.eq(self.current.tag),
            self.done.payload.error.eq(self.error),
        ]
        observe(m, platform, "die", array=timer.run, tag=self.current.tag, block=self.path)
        with m.If(take):
            m.d.sync += self.current.eq(self.command.payload.command)
            if c.lookup.max_tables:
                m.d.sync += self.path.eq(self.command.payload.path)
            m.d.sync += [
                self.error.eq(0),
                loaded.eq(1),
            ]
        if not c.lookup.max_tables:
            m.d.comb += self.path.eq(1)
        with m.FSM() as fsm:
            m.d.comb += [
                self.busy.eq(~fsm.ongoing("IDLE")),
                self.read_started.eq(fsm.ongoing("ARRAY") & first & (op == FlashOp.READ)),
                self.program_started.eq(fsm.ongoing("ARRAY") & first & (op == FlashOp.PROGRAM)),
            ]
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(take):
                    m.next = "COMMAND"
            with m.State("COMMAND"):
                m.d.comb += self.want_command.eq(1)
                m.d.sync += [
                    loaded.eq(0),
                    finished.eq(0),
                    first.eq(~hit),
                ]
                m.d.comb += timer.load.eq(self.command_done)
                with m.If(self.command_done):
                    with m.If(op == FlashOp.PROGRAM):
                        m.d.comb += timer.value.eq(c.t_program - 1)
                        m.next = "IN"
                    with m.Elif(op == FlashOp.ERASE):
                        m.d.comb += timer.value.eq(c.t_erase - 1)
                        m.d.sync += asking.eq(1)
                        m.next = "ARRAY"
                    with m.Else():
                        m.d.comb += timer.value.eq(Mux(hit, max(c.t_ccs, 1) - 1, c.t_read - 1))
                        m.d.sync += asking.eq(1)
                        m.next = "ARRAY"
            with m.State("IN"):
                m.d.comb += self.want_in.eq(1)
                with m.If(self.in_done):
                    m.d.sync += asking.eq(1)
                    m.next = "ARRAY"
            with m.State("ARRAY"):
                m.d.sync += first.eq(0)
                m.d.comb += timer.run.eq(1)
                with m.If(self.job.ready):
                    m.d.sync += asking.eq(0)
                with m.If(self.job_done):
                    m.d.sync += [
                        finished.eq(1),
                        self.error.eq(self.job_error),
                    ]
                with m.If(~timer.busy & finished):
                    if c.t_ccs:
                        m.d.sync += [
                            held.eq(row),
                            holds.eq((op == FlashOp.READ) & ~self.error),
                        ]
                    with m.If(op == FlashOp.READ):
                        m.next = "OUT"
                    with m.Else():
                        m.next = "REPORT"
            with m.State("OUT"):
                m.d.comb += self.want_out.eq(1)
                with m.If(self.out_started):
                    m.next = "STREAM"
            with m.State("STREAM"):
                m.d.comb += self.command.ready.eq(~loaded)
                with m.If(self.out_done):
                    m.next = "IDLE"
                    with m.If(loaded | take):
                        m.next = "COMMAND"
            with m.State("REPORT"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
        return m
