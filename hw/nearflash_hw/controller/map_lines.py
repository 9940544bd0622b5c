"""The lines of the map's cache where several of them may be on their way from DRAM: what follows its tags."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import index_bits
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from .map_places import LINE_BEATS, MapPlaces

__all__ = ["MapLines", "Tagged"]


class Tagged(data.StructLayout):
    """A translation or an update that the tags have seen."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            #: Of the logical page in the cache.
            "place": MapPlaces(config).place_bits,
            "client": 1,
            #: There is such a page,
            "in_range": 1,
            #: and its line is to come, the oldest of those asked for that was not waited for yet.
            "miss": 1,
            #: No translation: the cached entry becomes ``entry``.
            "patch": 1,
            "entry": 32,
        })


class MapLines(wiring.Component):
    """Does in order what the tags have let pass: a hit reads its entry, a miss first writes the line that it waits for.

    A prefetching cache (Igehy et al., "Prefetching in a Texture Cache Architecture", 1998): tags are replaced and a line is
    asked for when its miss is found, a FIFO of ``depth`` long before it is written. So nothing is written over that an
    earlier hit has still to read, and an update finds the line it belongs to written, with or without it.

    A line that can't be read becomes words of all ones, which no entry is, so that whatever was let pass as a hit on it
    answers an error too; then ``forget`` takes it out of the tags, at once or after a while. Lines wait here until it is
    their misses' turn, and never hold up memory. Latency: a hit 3 cycles, one every cycle; a miss 4 from its line's last
    beat.
    """

    def __init__(self, config: DeviceConfig, depth: int):
        self.config, self.depth = config, depth
        super().__init__({
            #: At most ``depth`` at a time.
            "i": In(stream.Signature(Tagged(config))),
            #: Lines, in the order of their misses: lookup.map_misses at a time.
            "lines": MemReadSignature(config.beat_bytes).members["rsp"],
            #: Pulses: all but updates have an answer,
            "answered": Out(1),
            #: this one.
            "client": Out(1),
            "entry": Out(32),
            "failed": Out(1),
            #: Pulses: one line less is on its way.
            "filled": Out(1),
            #: A line of the cache that could not be read.
            "forget": Out(stream.Signature(index_bits(config.lookup.map_cache_lines))),
            #: Nothing waits.
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, places = self.config, MapPlaces(self.config)
        m.submodules.queue = queue = StreamFifo(Tagged(c), self.depth)
        m.submodules.beats = beats = StreamFifo(self.lines.payload.shape(), LINE_BEATS * c.lookup.map_misses)
        m.submodules.content = content = Memory(shape=c.beat_bytes * 8, depth=c.lookup.map_cache_lines * LINE_BEATS, init=[])
        read, write = content.read_port(), content.write_port(granularity=32)
        connect(m, flipped(self.i), queue.i)
        connect(m, flipped(self.lines), beats.i)
        head = queue.o.payload
        beat = Signal(range(LINE_BEATS))
        filled = Signal()  # the line that the oldest waited for is written
        failed = Signal()  # and could not be read as a whole
        last = Signal()
        reading = Signal()
        m.d.comb += [
            read.en.eq(reading),
            self.idle.eq(~queue.o.valid),
            last.eq(beat == LINE_BEATS - 1),
            read.addr.eq(places.row(head.place)),
            write.addr.eq(places.row(head.place)),
            write.data.eq(head.entry.replicate(places.words)),
            self.forget.payload.eq(places.index(head.place)),
        ]
        with m.If(queue.o.valid & head.miss & ~filled):
            m.d.comb += [
                beats.o.ready.eq(1),
                write.addr.eq(Cat(beat, places.index(head.place))),
                write.data.eq(beats.o.payload.data),
                write.en.eq(beats.o.valid.replicate(places.words)),
            ]
            with m.If(beats.o.valid):
                m.d.comb += self.filled.eq(last)
                m.d.sync += [
                    beat.eq(beat + 1),
                    failed.eq(failed | beats.o.payload.error),
                    filled.eq(self.filled),
                ]
        with m.Elif(failed):
            m.d.comb += [
                write.addr.eq(Cat(beat, places.index(head.place))),
                write.data.eq(-1),
                write.en.eq(-1),
                self.forget.valid.eq(last),
            ]
            with m.If(~last | self.forget.ready):
                m.d.sync += [
                    beat.eq(beat + 1),
                    failed.eq(~last),
                ]
        with m.Elif(queue.o.valid):
            m.d.comb += [
                queue.o.ready.eq(1),
                reading.eq(~head.patch),
                write.en.eq(Mux(head.patch, 1 << places.word(head.place), 0)),
            ]
            m.d.sync += filled.eq(0)

        was_read, client, word, in_range = Signal(), Signal(), Signal(places.word_bits), Signal()
        m.d.sync += [
            was_read.eq(reading),
            client.eq(head.client),
            word.eq(places.word(head.place)),
            in_range.eq(head.in_range),
            self.answered.eq(was_read),
            self.client.eq(client),
            self.entry.eq(Mux(in_range, read.data.word_select(word, 32), 0)),
        ]
        m.d.comb += self.failed.eq(self.entry.all())
        return m
