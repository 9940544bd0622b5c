"""The emulated cell arrays: every channel's pages, out-of-band areas and block states in DRAM.

Formats and addresses: :mod:`nearflash.contract.onflash`. A real array senses a whole page into the page register; here
only the window that will be asked for is loaded, because sensing 4 KiB for each 128-byte vector would take 32 times
the DRAM bandwidth, which the emulation, not the modelled device, would be limited by.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, onflash
from nearflash.contract.config import log2

from ..interfaces import FlashOp, Layouts, index_bits
from ..primitives.fifo import StreamFifo
from ..primitives.memport import ADDR_BITS, MemReadSignature, MemWriteSignature

__all__ = ["ArrayJob", "ArrayReader", "ArrayWriter", "BlockState"]

STATE_BYTES = 8
TRIES = 4  # to read or write a block's state when programming and erasing: all its pages depend on it


class BlockState(data.StructLayout):
    """A block's state as it lies in DRAM."""

    def __init__(self):
        super().__init__({
            "next_page": 16,
            "flags": 16,
            "erase_count": 32,
        })


class ArrayJob(data.StructLayout):
    """A flash command and the channel that it is for."""

    def __init__(self, lay: Layouts):
        super().__init__({
            "channel": lay.channel_bits,
            "command": lay.flash_command,
        })


def die_number(config: DeviceConfig, channel, die):
    """Number {channel, die} of a die among all of the device."""
    return Cat(die[:log2(config.flash.channel_planes)], channel[:log2(config.flash.channels)])


def page_number(m: Module, config: DeviceConfig, job) -> Value:
    """PPN of an array job."""
    ppn = Signal(Layouts.of(config).ppn)
    m.d.comb += [
        ppn.channel.eq(job.channel),
        *(ppn[name].eq(job.command[name]) for name in ("die", "page", "block")),
    ]
    return ppn.as_value()


def state_number(config: DeviceConfig, job):
    """Place of the block's state in DRAM, in states."""
    f, command = config.flash, job.command
    return Cat(job.channel[:log2(f.channels)], command.die[:log2(f.channel_planes)], command.block[:log2(f.plane_blocks)])


def state_address(config: DeviceConfig, number):
    """(byte address of the beat that holds state ``number``, the state's lane in it)."""
    lane_bits = log2(config.beat_bytes // STATE_BYTES)
    return config.layout.block_state + (number[lane_bits:] << log2(config.beat_bytes)), number[:lane_bits]


class ArrayReader(wiring.Component):
    """Loads windows into page registers. Takes a READ ``job`` (column + beats within the raw page, beats at least 1):
    reads the block's state, then the window's beats of the page, then those of the OOB area, and pulses the die's bit
    {channel, die} of ``done``, with ``error`` for a DRAM error. Pages from the block's next page on load as FFh. A job with
    another op (from :class:`ArrayWriter`) reads the state only, into ``state``: ``state_done`` pulses with ``error``.

    Up to ROUTES requests are under way, so one job's DRAM latency overlaps the next one's. A channel's page memory takes a
    beat (its bit of ``write_en``) in any cycle in which its bit of ``write_stall`` is low.
    """

    ROUTES = 8

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        channels, dies = config.flash.channels, config.flash.channel_planes
        super().__init__({
            #: A READ to load, or another command whose block's state is wanted.
            "job": In(stream.Signature(ArrayJob(Layouts.of(config)))),
            #: A bit per die, pulses: its window is loaded.
            "done": Out(channels * dies),
            #: Pulses: ``state`` is there.
            "state_done": Out(1),
            #: Of the job's block.
            "state": Out(BlockState()),
            #: With ``done`` and ``state_done``: a DRAM error.
            "error": Out(1),
            #: The DRAM.
            "mem": Out(MemReadSignature(config.beat_bytes)),
            #: A bit per channel: its page memory takes nothing now.
            "write_stall": In(channels),
            #: A bit per channel: its page memory takes a beat.
            "write_en": Out(channels),
            #: In beats; a die's page register begins at its number x raw_page_beats.
            "write_addr": Out(index_bits(dies * config.raw_page_beats)),
            "write_data": Out(layouts.data_bits),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts.of(c)
        dies = c.flash.channel_planes
        address_bits = index_bits(dies * c.raw_page_beats)
        # One route per DRAM request: what to do with its answer.
        route = data.StructLayout({"channel": layouts.channel_bits, "die": layouts.die_bits, "state": 1, "read": 1,
                                   "last": 1, "page": layouts.page_bits, "lane": max(1, log2(c.beat_bytes // STATE_BYTES)),
                                   "start": address_bits})
        m.submodules.routes = routes = StreamFifo(route, self.ROUTES)
        base = Array(Const(d * c.raw_page_beats, address_bits) for d in range(dies))

        # -- requests
        held = Signal(ArrayJob(Layouts.of(c)), reset_less=True)
        job = held.command
        end = Signal(layouts.column_bits + 1)
        in_page, in_oob = Signal(), Signal()
        page_beats, oob_beats = Signal(layouts.column_bits), Signal(layouts.column_bits)
        page_addr, oob_addr = Signal(ADDR_BITS), Signal(ADDR_BITS)
        oob_column = Signal(layouts.column_bits)
        ppn = page_number(m, c, held)
        addr, lane = state_address(c, state_number(c, held))
        is_read = Signal()
        m.d.comb += [
            is_read.eq(job.op == FlashOp.READ),
            end.eq(job.column + job.beats),
        ]
        new = routes.i.payload
        send = Signal()
        # A request and its route leave together: the route waits in its FIFO before the request is shown.
        m.d.comb += [
            routes.i.valid.eq(send & self.mem.req.ready),
            self.mem.req.valid.eq(send & routes.i.ready),
            new.channel.eq(held.channel),
            new.die.eq(job.die),
            new.page.eq(job.page),
            new.lane.eq(lane),
            new.read.eq(is_read),
        ]
        sent = Signal()
        m.d.comb += sent.eq(self.mem.req.valid & self.mem.req.ready)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += held.eq(self.job.payload)
                with m.If(self.job.valid):
                    m.next = "STATE"
            with m.State("STATE"):
                m.d.comb += [
                    send.eq(1),
                    self.mem.req.payload.addr.eq(addr),
                    self.mem.req.payload.beats.eq(1),
                    new.state.eq(1),
                    new.last.eq(~is_read),
                ]
                m.d.sync += [
                    in_page.eq(job.column < c.page_beats),
                    in_oob.eq(end > c.page_beats),
                    page_beats.eq(Mux(end > c.page_beats, c.page_beats - job.column, job.beats)),
                    oob_column.eq(Mux(job.column < c.page_beats, 0, job.column - c.page_beats)),
                    oob_beats.eq(Mux(job.column < c.page_beats, end - c.page_beats, job.beats)),
                ]
                with m.If(sent):
                    m.next = "ADDRESS"
                    with m.If(~is_read):
                        m.next = "IDLE"
            with m.State("ADDRESS"):
                m.d.sync += [
                    page_addr.eq(c.layout.flash + ppn * c.flash.page_bytes + job.column * c.beat_bytes),
                    oob_addr.eq(c.layout.oob + ppn * c.flash.oob_bytes + oob_column * c.beat_bytes),
                ]
                m.next = "OOB"
                with m.If(in_page):
                    m.next = "PAGE"
            with m.State("PAGE"):
                m.d.comb += [
                    send.eq(1),
                    self.mem.req.payload.addr.eq(page_addr),
                    self.mem.req.payload.beats.eq(page_beats),
                    new.last.eq(~in_oob),
                    new.start.eq(base[job.die] + job.column),
                ]
                with m.If(sent):
                    m.next = "IDLE"
                    with m.If(in_oob):
                        m.next = "OOB"
            with m.State("OOB"):
                m.d.comb += [
                    send.eq(1),
                    self.mem.req.payload.addr.eq(oob_addr),
                    self.mem.req.payload.beats.eq(oob_beats),
                    new.last.eq(1),
                    new.start.eq(base[job.die] + c.page_beats + oob_column),
                ]
                with m.If(sent):
                    m.next = "IDLE"

        # -- answers
        expected = routes.o.payload
        rsp = self.mem.rsp
        blank = Signal()  # the page under way was never programmed
        offset = Signal(layouts.column_bits)
        bad = Signal()  # an earlier answer of this job had an error
        lanes = Array(rsp.payload.data.word_select(k, STATE_BYTES * 8) for k in range(c.beat_bytes // STATE_BYTES))
        m.d.comb += [
            self.write_addr.eq(expected.start + offset),
            self.write_data.eq(rsp.payload.data | blank.replicate(layouts.data_bits)),
        ]
        finish = Signal()
        m.d.sync += [
            self.done.eq(0),
            self.state_done.eq(0),
        ]
        with m.If(finish):
            m.d.comb += routes.o.ready.eq(1)
            with m.If(expected.last):
                m.d.sync += bad.eq(0)
                with m.If(expected.read):
                    m.d.sync += self.done.bit_select(die_number(c, expected.channel, expected.die), 1).eq(1)
                with m.Else():
                    m.d.sync += self.state_done.eq(1)
        with m.FSM():
            with m.State("ANSWER"):
                with m.If(rsp.valid & routes.o.valid):
                    with m.If(expected.state):
                        m.d.comb += rsp.ready.eq(1)
                        m.d.sync += [
                            self.state.eq(lanes[expected.lane]),
                            bad.eq(rsp.payload.error),
                            offset.eq(0),
                            self.error.eq(rsp.payload.error),
                        ]
                        m.next = "STATE"
                    with m.Elif(~self.write_stall.bit_select(expected.channel, 1)):
                        m.d.comb += [
                            rsp.ready.eq(1),
                            self.write_en.bit_select(expected.channel, 1).eq(1),
                            finish.eq(rsp.payload.last),
                        ]
                        m.d.sync += [
                            offset.eq(Mux(rsp.payload.last, 0, offset + 1)),
                            bad.eq(bad | rsp.payload.error),
                            self.error.eq(bad | rsp.payload.error),
                        ]
            with m.State("STATE"):  # the comparison gets a cycle of its own
                m.d.sync += blank.eq(expected.page >= self.state.next_page)
                m.d.comb += finish.eq(1)
                m.next = "ANSWER"
        return m


class ArrayWriter(wiring.Component):
    """Programs pages and erases blocks, one ``job`` (PROGRAM or ERASE) at a time; pulses the die's bit {channel, die} of
    ``done``.

    PROGRAM: page register to DRAM (page, then OOB), then the block's state with the next page counted up, so a power cut
    leaves the page unwritten as far as the state tells. ``error``, with nothing written: the block is not erased, the
    page is not the block's next one, or its state could not be read. A DRAM write of the page that fails costs that page
    alone: ``error``, but it counts as programmed, so that the block's next one may be; its OOB area gets no magic.
    ERASE: the state becomes next page 0, erased, erase count + 1; the page bytes stay, unreadable. A block's state is read
    and written up to TRIES times before it gives an ``error``: without it, the whole block is lost until it is erased.

    A channel's bit of ``page_read_en`` asks for its page memory's read port; it has it while the bit of ``page_read_grant``
    is high, and takes the data, from that channel's ``page_read_data``, the cycle after.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        channels, dies = config.flash.channels, config.flash.channel_planes
        super().__init__({
            #: A PROGRAM or ERASE.
            "job": In(stream.Signature(ArrayJob(Layouts.of(config)))),
            #: A bit per die, pulses: it is over.
            "done": Out(channels * dies),
            #: With ``done``.
            "error": Out(1),
            #: Asks :class:`ArrayReader` for the state of the job's block.
            "state_job": Out(stream.Signature(ArrayJob(Layouts.of(config)))),
            #: Pulses with ``state``.
            "state_done": In(1),
            "state": In(BlockState()),
            "state_error": In(1),
            #: The DRAM.
            "mem": Out(MemWriteSignature(config.beat_bytes)),
            #: A bit per channel: a beat of its page memory is wanted.
            "page_read_en": Out(channels),
            #: A bit per channel: its page memory is free.
            "page_read_grant": In(channels),
            #: As ArrayReader's ``write_addr``.
            "page_read_addr": Out(index_bits(dies * config.raw_page_beats)),
            #: Of each channel, a cycle after a grant.
            "page_read_data": In(layouts.data_bits).array(channels),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts.of(c)
        dies = c.flash.channel_planes
        m.submodules.beats = beats = StreamFifo(layouts.data_bits, 4)
        base = Array(Const(d * c.raw_page_beats, index_bits(dies * c.raw_page_beats)) for d in range(dies))
        held = Signal(ArrayJob(Layouts.of(c)), reset_less=True)
        job, channel = held.command, held.channel
        state = Signal(BlockState(), reset_less=True)
        legal, bad = Signal(), Signal()
        tries = Signal(range(TRIES))  # left of the access to the state
        ppn = page_number(m, c, held)
        number = state_number(c, held)
        addr, lane = state_address(c, number)
        req, wdata, done = self.mem.req, self.mem.data, self.mem.done

        # -- page register to write data: reads run ahead of the DRAM as far as the FIFO holds
        to_read, to_write = Signal(layouts.column_bits), Signal(layouts.column_bits)
        in_flight = Signal()
        wanted, taken = Signal(), Signal()
        address = Signal(index_bits(dies * c.raw_page_beats), reset_less=True)
        m.d.comb += [
            wanted.eq((to_read != 0) & (beats.level + in_flight < beats.depth)),
            self.page_read_en.bit_select(channel, 1).eq(wanted),
            self.page_read_addr.eq(address),
            taken.eq(wanted & self.page_read_grant.bit_select(channel, 1)),
            beats.i.valid.eq(in_flight),
            beats.i.payload.eq(Array(self.page_read_data)[channel]),
        ]
        m.d.sync += in_flight.eq(taken)
        with m.If(taken):
            m.d.sync += [
                to_read.eq(to_read - 1),
                address.eq(address + 1),
            ]

        page_addr, oob_addr = Signal(ADDR_BITS), Signal(ADDR_BITS)
        in_page = Signal()
        m.d.comb += self.state_job.payload.eq(held)
        m.d.sync += self.done.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += [
                    held.eq(self.job.payload),
                    bad.eq(0),
                    tries.eq(TRIES - 1),
                ]
                with m.If(self.job.valid):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.state_job.valid.eq(1)
                m.d.sync += [
                    page_addr.eq(c.layout.flash + ppn * c.flash.page_bytes),
                    oob_addr.eq(c.layout.oob + ppn * c.flash.oob_bytes),
                    address.eq(base[job.die]),
                ]
                with m.If(self.state_job.ready):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.sync += [
                    state.eq(self.state),
                    bad.eq(self.state_error),
                    legal.eq((self.state.flags & onflash.BLOCK_ERASED).any() & (self.state.next_page == job.page)),
                ]
                with m.If(self.state_done & self.state_error & (tries != 0)):
                    m.d.sync += tries.eq(tries - 1)
                    m.next = "ASK"
                with m.Elif(self.state_done):
                    m.d.sync += tries.eq(TRIES - 1)
                    m.next = "CHECK"
                    with m.If(job.op == FlashOp.ERASE):
                        m.next = "ERASE"
            with m.State("CHECK"):
                m.d.sync += [
                    to_read.eq(c.raw_page_beats),
                    to_write.eq(c.page_beats),
                    in_page.eq(1),
                ]
                m.next = "REQUEST"
                with m.If(bad | ~legal):
                    m.d.sync += [
                        bad.eq(1),
                        to_read.eq(0),
                    ]
                    m.next = "FINISH"
            with m.State("REQUEST"):
                m.d.comb += [
                    req.valid.eq(1),
                    req.payload.addr.eq(Mux(in_page, page_addr, oob_addr)),
                    req.payload.beats.eq(Mux(in_page, c.page_beats, c.oob_beats)),
                ]
                with m.If(req.ready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [
                    wdata.valid.eq(beats.o.valid),
                    beats.o.ready.eq(wdata.ready),
                    wdata.payload.data.eq(beats.o.payload & ~Const(0xFF, layouts.data_bits)
                                          | beats.o.payload[:8] & (in_page | ~bad).replicate(8)),
                    wdata.payload.strb.eq((1 << c.beat_bytes) - 1),
                ]
                with m.If(beats.o.valid & wdata.ready):
                    m.d.sync += to_write.eq(to_write - 1)
                    with m.If(to_write == 1):
                        m.next = "WRITTEN"
            with m.State("WRITTEN"):
                m.d.comb += done.ready.eq(1)
                with m.If(done.valid):
                    m.d.sync += [
                        in_page.eq(0),
                        to_write.eq(c.oob_beats),
                        bad.eq(bad | done.payload.error),
                    ]
                    with m.If(in_page):
                        m.next = "REQUEST"
                    with m.Else():
                        m.d.sync += state.next_page.eq(state.next_page + 1)
                        m.next = "STATE_REQUEST"
            with m.State("ERASE"):
                m.d.sync += [
                    state.next_page.eq(0),
                    state.flags.eq(state.flags | onflash.BLOCK_ERASED),
                    state.erase_count.eq(state.erase_count + 1),
                ]
                m.next = "STATE_REQUEST"
                with m.If(bad):
                    m.next = "FINISH"
            with m.State("STATE_REQUEST"):
                m.d.comb += [
                    req.valid.eq(1),
                    req.payload.addr.eq(addr),
                    req.payload.beats.eq(1),
                ]
                with m.If(req.ready):
                    m.next = "STATE_DATA"
            with m.State("STATE_DATA"):
                # Strobes: the neighbouring states in a wider beat belong to dies that may be writing theirs.
                m.d.comb += [
                    wdata.valid.eq(1),
                    wdata.payload.data.eq(state.as_value().replicate(c.beat_bytes // STATE_BYTES)),
                    wdata.payload.strb.eq(((1 << STATE_BYTES) - 1) << (lane * STATE_BYTES)),
                ]
                with m.If(wdata.ready):
                    m.next = "STATE_WRITTEN"
            with m.State("STATE_WRITTEN"):
                m.d.comb += done.ready.eq(1)
                with m.If(done.valid):
                    m.d.sync += [
                        bad.eq(bad | done.payload.error),
                        tries.eq(tries - 1),
                    ]
                    m.next = "FINISH"
                    with m.If(done.payload.error & (tries != 0)):
                        m.d.sync += bad.eq(bad)
                        m.next = "STATE_REQUEST"
            with m.State("FINISH"):
                m.d.sync += [
                    self.done.bit_select(die_number(c, channel, job.die), 1).eq(1),
                    self.error.eq(bad),
                ]
                m.next = "IDLE"
        return m
