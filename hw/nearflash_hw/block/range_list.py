"""The range list of a dataset management command: checked whole, then walked."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig

__all__ = ["MAX_RANGES", "RANGE_BYTES", "RangeList"]

MAX_RANGES = 256
RANGE_BYTES = 16

_RANGE = data.StructLayout({"attributes": 32, "blocks": 32, "slba": 64})


class RangeList(wiring.Component):
    """Takes ``count`` ranges of 16 bytes from ``beat`` after a ``start`` pulse (NVM Command Set Specification 1.0, section
    3.2.3.1: u32 attributes, u32 length in logical blocks, u64 starting LBA). ``stored``: all are in; ``bad``: one reaches
    beyond the device; ``long``: together they hold more blocks than it. ``walk`` (level, only when stored): their logical
    pages on ``lpn``, then ``walked``. A range of no blocks is legal. Beats beyond the count are taken and ignored."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        super().__init__({
            #: Pulses: ``count`` ranges come.
            "start": In(1),
            "count": In(range(MAX_RANGES + 1)),
            #: The ranges; beats beyond them are ignored.
            "beat": In(stream.Signature(config.beat_bytes * 8)),
            #: All are in.
            "stored": Out(1),
            #: One reaches beyond the device.
            "bad": Out(1),
            #: Together they hold more blocks than it.
            "long": Out(1),
            #: Level, only when stored: pages are wanted.
            "walk": In(1),
            #: The ranges' logical pages.
            "lpn": Out(stream.Signature(32)),
            #: Those were all.
            "walked": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        beat_bits = c.beat_bytes * 8
        stored_layout = data.StructLayout({"lpn": 32, "blocks": 32})
        m.submodules.ranges = ranges = Memory(shape=stored_layout, depth=MAX_RANGES, init=[])
        wr, rd = ranges.write_port(), ranges.read_port()

        # -- beats to ranges
        found = Signal(_RANGE, reset_less=True)
        has = Signal()
        index = Signal(range(MAX_RANGES + 1))
        m.d.sync += has.eq(0)
        taken = Signal()
        m.d.comb += taken.eq(self.beat.valid & self.beat.ready)
        if c.beat_bytes == 8:
            odd = Signal()
            m.d.comb += self.beat.ready.eq(1)
            with m.If(taken):
                m.d.sync += [
                    found.eq(data.View(_RANGE, found).as_value() >> 64 | self.beat.payload << 64),
                    odd.eq(~odd),
                    has.eq(odd),
                ]
            with m.If(self.start):
                m.d.sync += odd.eq(0)
        elif c.beat_bytes == 16:
            m.d.comb += self.beat.ready.eq(1)
            with m.If(taken):
                m.d.sync += [
                    found.eq(self.beat.payload),
                    has.eq(1),
                ]
        else:
            high, held = Signal(beat_bits // 2, reset_less=True), Signal()
            m.d.comb += self.beat.ready.eq(~held)
            m.d.sync += held.eq(taken)
            with m.If(taken):
                m.d.sync += [
                    found.eq(self.beat.payload[: beat_bits // 2]),
                    high.eq(self.beat.payload[beat_bits // 2 :]),
                    has.eq(1),
                ]
            with m.Elif(held):
                m.d.sync += [
                    found.eq(high),
                    has.eq(1),
                ]

        # -- check and store
        end, beyond, check = Signal(33), Signal(), Signal()
        total = Signal(33)  # blocks so far; what counts is that it once was too many
        storing = Signal()
        m.d.comb += [
            storing.eq(has & (index != self.count)),
            wr.en.eq(storing),
            wr.addr.eq(index),
            wr.data.lpn.eq(found.slba),
            wr.data.blocks.eq(found.blocks),
            self.stored.eq((index == self.count) & ~check),
        ]
        m.d.sync += [
            check.eq(storing),
            end.eq(found.slba[:32] + found.blocks),
            beyond.eq(found.slba[32:].any()),
        ]
        with m.If(storing):
            m.d.sync += [
                index.eq(index + 1),
                total.eq(total + found.blocks),
            ]
        with m.If(check & (total > c.lbas)):
            m.d.sync += self.long.eq(1)
        with m.If(check & (beyond | (end > c.lbas))):
            m.d.sync += self.bad.eq(1)

        # -- walk
        at = Signal(range(MAX_RANGES + 1))
        lpn, left = Signal(32), Signal(32)
        none = Signal()  # is left: in a register, because the map's port waits for it
        m.d.comb += [
            rd.addr.eq(at),
            self.lpn.payload.eq(lpn),
        ]
        with m.FSM():
            with m.State("READ"):
                with m.If(self.walk):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += [
                    lpn.eq(rd.data.lpn),
                    left.eq(rd.data.blocks),
                    none.eq(rd.data.blocks == 0),
                    at.eq(at + 1),
                ]
                m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += self.lpn.valid.eq(~none)
                with m.If(none):
                    m.next = "READ"
                    with m.If(at == self.count):
                        m.next = "END"
                with m.Elif(self.lpn.ready):
                    m.d.sync += [
                        lpn.eq(lpn + 1),
                        left.eq(left - 1),
                        none.eq(left == 1),
                    ]
            with m.State("END"):
                m.d.comb += self.walked.eq(1)
                with m.If(self.start):
                    m.next = "READ"
        with m.If(self.start):
            m.d.sync += [
                index.eq(0),
                self.bad.eq(0),
                self.long.eq(0),
                total.eq(0),
                has.eq(0),
                at.eq(0),
            ]
        return m
