"""One flash channel."""

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import FlashOp, Layouts, index_bits
from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from .bus import ChannelBus
from .die import Die, DieCommand
from .planes import PlaneGate
from .queue import DieQueue, DieQueues
from .roundrobin import round_robin
from .server import ArraySignature

__all__ = ["Channel", "DieScheduler"]

LOOKUP, BLOCK = 0, -1  # of the paths


def path_names(config: DeviceConfig) -> tuple[str, ...]:
    """The paths that commands come by, by number: that of lookups where there is a lookup engine, and block I/O's."""
    return ("lookup", "block") if config.lookup.max_tables else ("block",)


def popped_queues(config: DeviceConfig) -> bool:
    """Whether a channel's queues are :class:`~.queue.DieQueues`: it has several dies, or takes reads out of turn."""
    return config.flash.channel_planes > 1 or config.lookup.page_window > 0


class DieScheduler(wiring.Component):
    """Gives free dies (idle, or in their last data-out) their next command from the queues of the paths (lookup, block).

    A path has work for a die when the die's queue is not empty and, for the block path, its oldest command may start
    (``startable``). Where both have, they alternate, so a command waits for at most one of the other path. Dies are
    served round-robin; a command reaches its die 3 cycles after it became the choice (more while the queue moves a read
    forward), or 2 where the queues show it without a ``pop`` (:class:`~.queue.DieQueue`: see :func:`popped_queues`).
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        dies, paths = config.flash.channel_planes, len(path_names(config))
        pop = Out(stream.Signature(index_bits(dies)))
        command = In(stream.Signature(layouts.flash_command))
        super().__init__({
            #: A bit per die: it takes a command.
            "free": In(dies),
            #: A bit per die, of each path: a command waits for it.
            "pending": In(dies).array(paths),
            #: A bit per die: the block path's command may start.
            "startable": In(dies),
            #: Of each path: which die's command is wanted.
            "pop": pop.array(paths),
            #: Of each path: that command.
            "command": command.array(paths),
            #: Of each die.
            "o": Out(stream.Signature(DieCommand(layouts))).array(dies),
        })

    def elaborate(self, platform):
        m = Module()
        dies, names = self.config.flash.channel_planes, path_names(self.config)
        two = len(names) > 1
        work = [Signal(dies, name=f"{name}_work") for name in names]
        if two:
            m.d.comb += work[LOOKUP].eq(self.free & self.pending[LOOKUP])
        m.d.comb += work[BLOCK].eq(self.free & self.pending[BLOCK] & self.startable)
        any_work = Signal(dies)
        m.d.comb += any_work.eq(reduce(or_, work))
        last_die = Signal(index_bits(dies), init=dies - 1)
        last_path = Signal(dies)  # per die; 0: the first tie goes to the block path
        die = round_robin(m, any_work, last_die, "die")
        path = Signal()
        chosen = [path == k for k in range(2)] if two else [Const(1)]
        with m.FSM():
            with m.State("CHOOSE"):
                with m.If(any_work.any()):
                    m.d.sync += last_die.eq(die)
                    if two:
                        m.d.sync += path.eq((work[BLOCK] & ~(work[LOOKUP] & last_path)).bit_select(die, 1))
                    m.next = "POP" if popped_queues(self.config) else "GIVE"
            if popped_queues(self.config):
                with m.State("POP"):
                    for k, mine in enumerate(chosen):
                        with m.If(mine):
                            m.d.comb += [
                                self.pop[k].valid.eq(1),
                                self.pop[k].payload.eq(last_die),
                            ]
                            with m.If(self.pop[k].ready):
                                m.next = "GIVE"
            with m.State("GIVE"):
                if two:
                    m.d.sync += last_path.bit_select(last_die, 1).eq(path)
                for k, mine in enumerate(chosen):
                    with m.If(mine & self.command[k].valid):
                        m.d.comb += self.command[k].ready.eq(1)  # a free die stays free until it takes a command
                        m.next = "CHOOSE"
                first, last = self.command[0], self.command[-1]
                for d in range(dies):
                    m.d.comb += [
                        self.o[d].valid.eq((last_die == d) & (Mux(path, last.valid, first.valid) if two else last.valid)),
                        self.o[d].payload.command.eq(
                            Mux(path, last.payload.as_value(), first.payload.as_value()) if two else last.payload),
                    ]
                    if two:
                        m.d.comb += self.o[d].payload.path.eq(path)
        return m


class Channel(wiring.Component):
    """One channel: ``config.flash.dies`` dies on one bus, their ``array`` emulated in DRAM (:class:`~.server.ArrayServer`).
    Where dies have several planes, each plane is a die in all that follows, but that a PROGRAM or ERASE has all of them to
    itself (:class:`~.planes.PlaneGate`).

    ``lookup_cmd`` (with a lookup engine): READs, answered on ``lookup_data``. ``block_cmd``: READs, answered on
    ``block_data``, PROGRAMs and ERASEs, answered on ``block_done``, once each. Each answer has its command's tag;
    answers of different dies come in any order. A die takes the commands of one path in order, but lookups of the page
    that it reads before others where there is a ``lookup.page_window`` (:class:`~.queue.DieQueues` says which); where
    both paths wait for it, it takes them in turn. A READ has ``beats`` of at least 1 and ``column + beats`` of at most
    raw_page_beats.

    ``block_in``: the raw pages (page beats, then OOB beats) of the PROGRAMs, in the order their commands were accepted.
    A PROGRAM starts when those accepted before it have their data and its own first beat waits here; until then its die
    serves lookups. Whoever sends the first beat of a page must be able to send, and whoever asks for a page or vector to
    take, all of it without waiting for anything else on this channel: the bus stretches meanwhile. No page
    starts on ``block_data`` while ``block_hold``, which may rise again at a page's first beat there; ``block_waits``: a die
    has one to send.

    From the transfer of a READ on ``lookup_cmd`` or ``block_cmd`` to that of its last beat: tR plus the bus time of its
    beats (the paper's C_EV) plus READ_OVERHEAD cycles, on an idle channel, with a DRAM that loads the window within tR
    and a t_command of 0 cycles; with another t_command, t_command - 1 cycles more.

    The READ, PROGRAM and ERASE rules are those of :mod:`nearflash.reference.flash`. For counters: ``bus_busy``;
    ``die_busy`` (a bit per die, from command to end); ``read_started`` and ``program_started`` (pulses at the start of tR
    and tPROG).
    """

    READ_OVERHEAD = 9

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        lookups = {
            #: READs, in any order of dies.
            "lookup_cmd": In(stream.Signature(layouts.flash_command)),
            #: Their data, vector by vector.
            "lookup_data": Out(stream.Signature(layouts.flash_data)),
        } if config.lookup.max_tables else {}
        super().__init__({
            **lookups,
            #: READs, PROGRAMs and ERASEs.
            "block_cmd": In(stream.Signature(layouts.flash_command)),
            #: Raw pages, in the order in which their PROGRAMs came.
            "block_in": In(stream.Signature(layouts.data_bits)),
            #: Data of the block path's READs, page by page.
            "block_data": Out(stream.Signature(layouts.flash_data)),
            #: Results of PROGRAM and ERASE.
            "block_done": Out(stream.Signature(layouts.flash_done)),
            #: A die has a page for the block path.
            "block_waits": Out(1),
            #: No page of the block path may start.
            "block_hold": In(1),
            #: Of the array server.
            "array": Out(ArraySignature(config)),
            #: A phase is under way.
            "bus_busy": Out(1),
            #: A bit per die: it has a command.
            "die_busy": Out(config.flash.channel_planes),
            #: Pulses per READ that takes array time.
            "read_started": Out(1),
            #: Pulses per PROGRAM.
            "program_started": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts.of(c)
        n = c.flash.channel_planes
        popped = popped_queues(c)
        block_depth = max(c.host.block_reads, c.host.page_slots * 2)
        names, queues = path_names(c), []
        kinds = {"lookup": (c.lookup.tags, None, c.lookup.page_window, c.lookup.longest_queue_first),
                 "block": (block_depth, lambda command: command.op == FlashOp.PROGRAM, 0, False)}
        for name in names:
            depth, flag, window, counted = kinds[name]
            queue = (DieQueues(layouts.flash_command, n, depth, flag, window, counted) if popped
                     else DieQueue(layouts.flash_command, depth, flag))
            m.submodules[f"{name}_queue"] = queue
            queues.append(queue)
        block_queue = queues[BLOCK]
        m.submodules.scheduler = scheduler = DieScheduler(c)
        m.submodules.bus = bus = ChannelBus(c)
        dies = [Die(c) for _ in range(n)]
        for d, die in enumerate(dies):
            m.submodules[f"die{d}"] = die

        # -- commands to dies
        for name, queue in zip(names, queues, strict=True):
            connect(m, flipped(getattr(self, f"{name}_cmd")), queue.i)
        for k, queue in enumerate(queues):
            connect(m, queue.o, scheduler.command[k])
            if popped:
                connect(m, scheduler.pop[k], queue.pop)
            m.d.comb += scheduler.pending[k].eq(queue.pending)
        for d, die in enumerate(dies):
            connect(m, scheduler.o[d], die.command)
            m.d.comb += scheduler.free[d].eq(die.command.ready)

        # -- PROGRAM order: the die number of each PROGRAM, from its acceptance until its data are in. One deeper than the
        # queue, which the oldest PROGRAM may have left. One die has them in order already.
        turn = Signal(n)
        if n > 1:
            m.submodules.order = order = StreamFifo(layouts.die_bits, block_depth + 1)
            m.d.comb += [
                order.i.valid.eq(self.block_cmd.valid & self.block_cmd.ready
                                 & (self.block_cmd.payload.op == FlashOp.PROGRAM)),
                order.i.payload.eq(self.block_cmd.payload.die),
                order.o.ready.eq(bus.in_done.any()),
                turn.bit_select(order.o.payload, 1).eq(order.o.valid & self.block_in.valid),
            ]
        else:
            m.d.comb += turn.eq(self.block_in.valid)
        m.d.comb += scheduler.startable.eq(~block_queue.flagged | turn)

        # -- the bus
        connect(m, flipped(self.block_in), bus.block_in)
        for name in names:
            connect(m, getattr(bus, f"{name}_data"), flipped(getattr(self, f"{name}_data")))
        m.d.comb += [
            bus.paths.eq(Cat(die.path for die in dies)),
            bus.errors.eq(Cat(die.error for die in dies)),
            bus.want_command.eq(self._wanted_commands(m, dies)),
            bus.want_in.eq(Cat(die.want_in for die in dies)),
            bus.want_out.eq(Cat(die.want_out for die in dies)),
            bus.block_hold.eq(self.block_hold),
            self.block_waits.eq(Cat(die.want_out & die.path for die in dies).any()),
        ]
        if c.lookup.page_window:
            connect(m, queues[LOOKUP].repeat, bus.repeat)
            m.d.comb += [
                queues[LOOKUP].sent.eq(bus.out_started & ~bus.paths),
                bus.repeats.eq(queues[LOOKUP].repeats),
            ]
        if c.lookup.longest_queue_first:
            m.d.comb += bus.waiting.eq(queues[LOOKUP].waiting)
        for d, die in enumerate(dies):
            m.d.comb += [
                bus.commands[d].eq(die.current),
                die.command_done.eq(bus.command_done[d]),
                die.in_done.eq(bus.in_done[d]),
                die.out_started.eq(bus.out_started[d]),
                die.out_done.eq(bus.out_done[d]),
            ]

        # -- array jobs
        array = self.array
        m.submodules.reads = reads = StreamArbiter(layouts.flash_command, n)
        m.submodules.writes = writes = StreamArbiter(layouts.flash_command, n)
        m.submodules.dones = dones = StreamArbiter(layouts.flash_done, n)
        connect(m, reads.o, flipped(array.read_job))
        connect(m, writes.o, flipped(array.write_job))
        connect(m, dones.o, flipped(self.block_done))
        for d, die in enumerate(dies):
            is_read = Signal(name=f"is_read_{d}")
            asked, taken = die.job.valid & is_read, reads.i[d].ready
            if c.lookup.page_window:  # its page register is still read
                asked, taken = asked & ~bus.repeating[d], taken & ~bus.repeating[d]
            m.d.comb += [
                is_read.eq(die.current.op == FlashOp.READ),
                reads.i[d].payload.eq(die.job.payload),
                reads.i[d].valid.eq(asked),
                writes.i[d].payload.eq(die.job.payload),
                writes.i[d].valid.eq(die.job.valid & ~is_read),
                die.job.ready.eq(Mux(is_read, taken, writes.i[d].ready)),
                die.job_done.eq(array.done[d]),
                die.job_error.eq(Mux(is_read, array.read_error, array.write_error)),
            ]
            connect(m, die.done, dones.i[d])

        # -- page registers of all dies in one memory; the bus goes first on both ports
        m.submodules.page = page = Memory(shape=layouts.data_bits, depth=n * c.raw_page_beats, init=[])
        write, read = page.write_port(), page.read_port()
        m.d.comb += [
            write.en.eq(bus.write_en | array.load_en),
            write.addr.eq(Mux(bus.write_en, bus.write_addr, array.load_addr)),
            write.data.eq(Mux(bus.write_en, bus.write_data, array.load_data)),
            array.load_stall.eq(bus.write_en),
            read.en.eq(bus.read_en | array.fetch_en),
            read.addr.eq(Mux(bus.read_en, bus.read_addr, array.fetch_addr)),
            array.fetch_grant.eq(~bus.read_en),
            bus.read_data.eq(read.data),
            array.fetch_data.eq(read.data),
        ]

        m.d.comb += [
            self.bus_busy.eq(bus.busy),
            self.die_busy.eq(Cat(die.busy for die in dies)),
            self.read_started.eq(Cat(die.read_started for die in dies).any()),
            self.program_started.eq(Cat(die.program_started for die in dies).any()),
        ]
        return m

    def _wanted_commands(self, m: Module, dies: Sequence[Die]) -> Value:
        """A bit per die: its command phase may begin."""
        f = self.config.flash
        if f.planes == 1:
            return Cat(die.want_command for die in dies)
        may: list[Value | None] = [None] * f.channel_planes
        for d in range(f.dies):
            planes = dies[d :: f.dies]
            m.submodules[f"gate{d}"] = gate = PlaneGate(f.planes)
            m.d.comb += [
                gate.want.eq(Cat(die.want_command for die in planes)),
                gate.free.eq(Cat(die.command.ready for die in planes)),
                gate.alone.eq(Cat(die.current.op != FlashOp.READ for die in planes)),
            ]
            may[d :: f.dies] = list(gate.may)
        return Cat(may)
