"""The channel bus: command, data-in and data-out phases of all dies of a channel, one at a time."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, bits_for, index_bits
from ..model import observe
from ..primitives.register_slice import RegisterSlice
from .longest import LongestFirst
from .roundrobin import round_robin

__all__ = ["ChannelBus"]


class ChannelBus(wiring.Component):
    """Grants the bus to one phase of one die at a time and moves its beats at the bus rate.

    Dies are served round-robin; waiting command phases go before data phases, so that arrays get busy first (a READ's
    next command phase comes after its data-out, so this delays a data phase by at most one command per die). With
    ``lookup.longest_queue_first`` the die for which most lookups wait has the next data phase
    (:class:`~.longest.LongestFirst`).

    A command phase takes max(t_command, 1) cycles. Beat k (from 1) of a data phase moves in its cycle ceil(k x bus_beat_q16
    / 2**16), at most one beat per cycle; the bus clock stretches while the consumer does not take a beat or ``block_in``
    has none. A data-in is granted once its first beat waits on ``block_in``, a data-out once all earlier beats of its path
    were consumed, and on the block path not while ``block_hold``: a consumer that stopped between pages keeps only its own
    path waiting; inside a page or vector it stretches the bus. Overhead per phase: 1 cycle (command), 2 (data-in), 3
    (data-out).

    With a ``lookup.page_window`` the vector sent last goes to lookup again for each tag on ``repeat``, out of the page
    memory: a cycle, then a beat a cycle. Until there are no ``repeats`` no other data phase begins, for they share the
    memory's read port, while command phases go on; ``repeating``, a bit per die, says whose page register is read.

    The page memory of the channel is outside: die d's page register starts at address d x raw_page_beats. ``read_data``
    is valid the cycle after ``read_en`` only. ``command_done``, ``in_done``, ``out_started``, ``out_done``: pulses, a bit
    per die; the die's command, path and error may change after ``out_started``.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        dies = config.flash.channel_planes
        lookups = {"lookup_data": Out(stream.Signature(layouts.flash_data))} if config.lookup.max_tables else {}
        address_bits = index_bits(dies * config.raw_page_beats)
        repeats = {
            #: Tags of reads that want the vector that was sent last.
            "repeat": In(stream.Signature(layouts.tag_bits)),
            #: There are more of them.
            "repeats": In(1),
            #: A bit per die: its page register is read for them.
            "repeating": Out(dies),
        } if config.lookup.page_window else {}
        lk = config.lookup
        #: Lookups that wait for each die, where the longest queue goes first.
        counts = {"waiting": In(data.ArrayLayout(bits_for(lk.tags), dies))} if lk.longest_queue_first else {}
        super().__init__({
            **counts,
            #: Of each die.
            "commands": In(data.ArrayLayout(layouts.flash_command, dies)),
            #: A bit per die: its data go to lookup (0) or block I/O (1).
            "paths": In(dies),
            #: A bit per die: goes with its data.
            "errors": In(dies),
            #: A bit per die that waits for a phase: command,
            "want_command": In(dies),
            #: data-in,
            "want_in": In(dies),
            #: and data-out.
            "want_out": In(dies),
            #: Pulses, a bit per die: the phase is over.
            "command_done": Out(dies),
            "in_done": Out(dies),
            #: Pulses, a bit per die: its command, path and error may change.
            "out_started": Out(dies),
            "out_done": Out(dies),
            #: No data-out may begin on the block path.
            "block_hold": In(1),
            #: Data-in, of the dies in the order of their phases.
            "block_in": In(stream.Signature(layouts.data_bits)),
            #: Data-out.
            **lookups,
            "block_data": Out(stream.Signature(layouts.flash_data)),
            #: The page memory: a beat is wanted, and on ``read_data`` in the next cycle only.
            "read_en": Out(1),
            "read_addr": Out(address_bits),
            "read_data": In(layouts.data_bits),
            #: The page memory: a beat to store.
            "write_en": Out(1),
            "write_addr": Out(address_bits),
            "write_data": Out(layouts.data_bits),
            #: A phase is under way.
            "busy": Out(1),
            **repeats,
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts.of(c)
        dies = c.flash.channel_planes
        outs = []  # by path
        for name in ("lookup", "block") if c.lookup.max_tables else ("block",):
            m.submodules[f"{name}_out"] = out = RegisterSlice(layouts.flash_data, "through")
            wiring.connect(m, out.o, wiring.flipped(getattr(self, f"{name}_data")))
            outs.append(out)
        block_out = outs[-1]

        # -- who is next
        can_move = Signal(dies)
        held_up = Signal()  # by repeats
        out_free = Signal(len(outs))
        m.d.comb += out_free.eq(Cat(*(~out.o.valid for out in outs[:-1]), ~block_out.o.valid & ~self.block_hold))
        for d in range(dies):
            free = out_free.bit_select(self.paths[d], 1) if len(outs) > 1 else out_free
            m.d.comb += can_move[d].eq((self.want_in[d] & self.block_in.valid) | (self.want_out[d] & free))
        last_command = Signal(index_bits(dies), init=dies - 1)
        last_move = Signal(index_bits(dies), init=dies - 1)
        next_command = round_robin(m, self.want_command, last_command, "next_command")
        if c.lookup.longest_queue_first:
            m.submodules.longest = longest = LongestFirst(dies, c.lookup.tags)
            m.d.comb += [
                longest.want.eq(can_move),
                longest.waiting.eq(self.waiting),
            ]
            next_move, moved = longest.choice, longest.take.eq(1)
        else:
            next_move = round_robin(m, can_move, last_move, "next_move")
            moved = last_move.eq(next_move)

        # -- the phase under way
        die = Signal(index_bits(dies))
        path, tag, error = Signal(), Signal(layouts.tag_bits), Signal()
        base = Array(Const(d * c.raw_page_beats, index_bits(dies * c.raw_page_beats)) for d in range(dies))
        command = Signal(layouts.flash_command)
        m.d.comb += command.eq(Array(self.commands[d].as_value() for d in range(dies))[die])
        address = Signal(index_bits(dies * c.raw_page_beats))
        left = Signal(layouts.column_bits)
        command_left = Signal(bits_for(max(c.t_command, 1)))

        # ``wait`` + 1 is the time until the next beat is due, in 1/65536 cycle, after this cycle: below 0 it is due.
        beat_q16 = max(c.bus_beat_q16, 1 << 16)
        wait = Signal(range(-(1 << 17), beat_q16 + 1))
        due, move = Signal(), Signal()
        first_wait = beat_q16 - (1 << 16) - 1
        m.d.comb += due.eq(wait < 0)

        observe(m, platform, "bus", busy=self.busy, command=self.want_command.bit_select(die, 1), die=die, tag=command.tag,
                block=self.paths.bit_select(die, 1), moves_in=self.want_in.bit_select(die, 1))

        # -- read side: ``fresh`` data come from the memory, waiting data from ``held`` (others may read in between)
        fresh = Signal()
        held = Signal(layouts.data_bits, reset_less=True)
        beat = Signal(layouts.flash_data)
        m.d.sync += fresh.eq(self.read_en)
        with m.If(fresh):
            m.d.sync += held.eq(self.read_data)
            m.d.comb += beat.data.eq(self.read_data)
        with m.Else():
            m.d.comb += beat.data.eq(held)
        m.d.comb += [
            beat.tag.eq(tag),
            beat.last.eq(left == 1),
            beat.error.eq(error),
            *(out.i.payload.eq(beat) for out in outs),
            self.read_addr.eq(address),
        ]
        m.d.sync += self.write_en.eq(0)

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.want_command.any()):
                    m.d.sync += [
                        die.eq(next_command),
                        last_command.eq(next_command),
                        command_left.eq(max(c.t_command, 1)),
                    ]
                    m.next = "COMMAND"
                with m.Elif(can_move.any() & ~held_up if c.lookup.page_window else can_move.any()):
                    m.d.sync += die.eq(next_move)
                    m.d["comb" if c.lookup.longest_queue_first else "sync"] += moved
                    m.next = "SETUP"
            with m.State("COMMAND"):
                m.d.sync += command_left.eq(command_left - 1)
                with m.If(command_left == 1):
                    m.d.comb += self.command_done.bit_select(die, 1).eq(1)
                    m.next = "IDLE"
            with m.State("SETUP"):
                m.d.sync += [
                    wait.eq(first_wait),
                    tag.eq(command.tag),
                    path.eq(self.paths.bit_select(die, 1)),
                    error.eq(self.errors.bit_select(die, 1)),
                ]
                with m.If(self.want_in.bit_select(die, 1)):
                    m.d.sync += [
                        address.eq(base[die]),
                        left.eq(c.raw_page_beats),
                    ]
                    m.next = "IN"
                with m.Else():
                    m.d.comb += self.out_started.bit_select(die, 1).eq(1)
                    m.d.sync += [
                        address.eq(base[die] + command.column),
                        left.eq(command.beats),
                    ]
                    m.next = "FIRST"
            with m.State("FIRST"):
                m.d.comb += self.read_en.eq(1)
                m.d.sync += address.eq(address + 1)
                m.next = "OUT"
            with m.State("OUT"):
                with m.If(path if len(outs) > 1 else 1):
                    m.d.comb += [
                        block_out.i.valid.eq(due),
                        move.eq(due & block_out.i.ready),
                    ]
                if len(outs) > 1:
                    with m.Else():
                        m.d.comb += [
                            outs[0].i.valid.eq(due),
                            move.eq(due & outs[0].i.ready),
                        ]
                with m.If(move):
                    with m.If(left == 1):
                        m.d.comb += self.out_done.bit_select(die, 1).eq(1)
                        m.next = "IDLE"
                    with m.Else():
                        m.d.comb += self.read_en.eq(1)
            with m.State("IN"):
                m.d.comb += [
                    self.block_in.ready.eq(due),
                    move.eq(due & self.block_in.valid),
                ]
                with m.If(move):
                    m.d.sync += [
                        self.write_en.eq(1),
                        self.write_addr.eq(address),
                        self.write_data.eq(self.block_in.payload),
                    ]
                    with m.If(left == 1):
                        m.d.comb += self.in_done.bit_select(die, 1).eq(1)
                        m.next = "IDLE"
        with m.If(fsm.ongoing("IN") | fsm.ongoing("OUT")):
            with m.If(move):
                m.d.sync += [
                    wait.eq(wait + (beat_q16 - (1 << 16))),
                    address.eq(address + 1),
                    left.eq(left - 1),
                ]
            with m.Elif(~due):
                m.d.sync += wait.eq(wait - (1 << 16))
        if c.lookup.page_window:
            self._repeats(m, fsm, held_up, die, command.beats, base[die] + command.column, outs[0].i, tag, address, left)
        return m

    def _repeats(self, m: Module, fsm: Any, held_up: Signal, die: Signal, beats: Value, place: Value, out: Any, tag: Signal,
                 address: Signal, left: Signal) -> None:
        """Sends a vector of ``beats`` from ``place`` on again for each tag on ``repeat``. Data-outs leave their registers as
        they were at their first beat, and nobody else uses them or the read port meanwhile, since all are ``held_up``."""
        owner, first, length = Signal.like(die), Signal.like(address), Signal.like(left)
        data_out = Signal()
        m.d.comb += data_out.eq(fsm.ongoing("SETUP") | fsm.ongoing("FIRST") | fsm.ongoing("OUT"))
        with m.If(fsm.ongoing("SETUP")):
            m.d.sync += [
                owner.eq(die),
                first.eq(place),
                length.eq(beats),
            ]

        def rewind():
            m.d.sync += [
                address.eq(first),
                left.eq(length),
            ]

        with m.If(self.out_done.any()):
            rewind()
        with m.FSM() as again:
            m.d.comb += [
                held_up.eq(self.repeats | again.ongoing("SEND")),
                self.repeating.bit_select(owner, 1).eq(held_up),
            ]
            with m.State("WAIT"):
                m.d.comb += self.repeat.ready.eq(~data_out)
                with m.If(self.repeat.valid & self.repeat.ready):
                    m.d.comb += self.read_en.eq(1)
                    m.d.sync += [
                        tag.eq(self.repeat.payload),
                        address.eq(address + 1),
                    ]
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += out.valid.eq(1)
                with m.If(out.ready):
                    m.d.comb += self.read_en.eq(left != 1)
                    m.d.sync += [
                        address.eq(address + 1),
                        left.eq(left - 1),
                    ]
                    with m.If(left == 1):
                        rewind()
                        m.next = "WAIT"
