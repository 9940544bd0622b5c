"""One emulated array for all channels."""

from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, index_bits
from ..primitives.arbiter import StreamArbiter
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .array import ArrayJob, ArrayReader, ArrayWriter

__all__ = ["ArrayServer", "ArraySignature"]


class ArraySignature(wiring.Signature):
    """A channel's way to its dies' arrays, as seen by the channel.

    ``read_job`` (READ) and ``write_job`` (PROGRAM, ERASE) are answered by a pulse of the die's bit in ``done``;
    ``read_error`` or ``write_error``, for a job of that kind, says in that cycle whether it failed. The page memory lies in
    the channel: ``load_en`` uses its write port, which waits while ``load_stall``; ``fetch_en`` its read port, had while
    ``fetch_grant``, with ``fetch_data`` the cycle after.
    """

    def __init__(self, config: DeviceConfig):
        layouts, dies = Layouts.of(config), config.flash.channel_planes
        address = index_bits(dies * config.raw_page_beats)
        super().__init__({
            #: READs,
            "read_job": Out(stream.Signature(layouts.flash_command)),
            #: PROGRAMs and ERASEs.
            "write_job": Out(stream.Signature(layouts.flash_command)),
            #: Pulses, a bit per die: its job is done,
            "done": In(dies),
            #: and failed, by the job's kind.
            "read_error": In(1),
            "write_error": In(1),
            #: A beat for the page memory.
            "load_en": In(1),
            "load_addr": In(address),
            "load_data": In(layouts.data_bits),
            #: It can't take it in this cycle.
            "load_stall": Out(1),
            #: A beat of the page memory is wanted;
            "fetch_en": In(1),
            "fetch_addr": In(address),
            #: it is read in this cycle,
            "fetch_grant": Out(1),
            #: and here in the next.
            "fetch_data": Out(layouts.data_bits),
        })


class ArrayServer(wiring.Component):
    """Carries out the array jobs of every ``channel``, over ``mem_read`` and ``mem_write``.

    One server is enough for all: it moves a beat a cycle, as the DRAM does, and while one job's beats come the next jobs'
    requests are under way. Jobs are taken round-robin over the channels.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        super().__init__({
            #: Jobs and page memories of each channel.
            "channel": In(ArraySignature(config)).array(config.flash.channels),
            #: The DRAM.
            "mem_read": Out(MemReadSignature(config.beat_bytes)),
            "mem_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        channels, dies = c.flash.channels, c.flash.channel_planes
        m.submodules.reads = reads = StreamArbiter(ArrayJob(Layouts.of(c)), channels + 1)
        m.submodules.writes = writes = StreamArbiter(ArrayJob(Layouts.of(c)), channels)
        m.submodules.reader = reader = ArrayReader(c)
        m.submodules.writer = writer = ArrayWriter(c)
        connect(m, reads.o, reader.job)
        connect(m, writes.o, writer.job)
        connect(m, writer.state_job, reads.i[channels])
        connect(m, reader.mem, flipped(self.mem_read))
        connect(m, writer.mem, flipped(self.mem_write))
        m.d.comb += [
            writer.state.eq(reader.state),
            writer.state_done.eq(reader.state_done),
            writer.state_error.eq(reader.error),
            reader.write_stall.eq(Cat(ch.load_stall for ch in self.channel)),
            writer.page_read_grant.eq(Cat(ch.fetch_grant for ch in self.channel)),
        ]
        done = reader.done | writer.done
        for k, ch in enumerate(self.channel):
            for given, taken in ((ch.read_job, reads.i[k]), (ch.write_job, writes.i[k])):
                m.d.comb += [
                    taken.payload.channel.eq(k),
                    taken.payload.command.eq(given.payload),
                    taken.valid.eq(given.valid),
                    given.ready.eq(taken.ready),
                ]
            m.d.comb += [
                ch.done.eq(done.word_select(k, dies)),
                ch.read_error.eq(reader.error),
                ch.write_error.eq(writer.error),
                ch.load_en.eq(reader.write_en[k]),
                ch.load_addr.eq(reader.write_addr),
                ch.load_data.eq(reader.write_data),
                ch.fetch_en.eq(writer.page_read_en[k]),
                ch.fetch_addr.eq(writer.page_read_addr),
                writer.page_read_data[k].eq(ch.fetch_data),
            ]
        return m
