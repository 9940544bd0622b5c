"""The row cache: its parts, and when it is emptied."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ...interfaces import bits_for
from ...primitives.memport import MemReadSignature, MemWriteSignature
from ..layouts import LookupLayouts
from .line_reader import LineReader
from .line_writer import LineWriter
from .tag_store import TagStore

__all__ = ["RowCache"]


class RowCache(wiring.Component):
    """See :mod:`nearflash_hw.lookup.row_cache`.

    It is emptied before the first lookup after a reset, after ``enable`` was low, after an ``erased`` and after an error of
    its DRAM. From then on nothing is found and nothing new is to be kept; when the last row that was to be has passed and
    the writer rests, every tag is cleared (row_cache.sets cycles, in which lookups wait).
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = LookupLayouts.of(config)
        super().__init__({
            #: The controller is enabled: the flash's contents change by PROGRAM and ERASE alone.
            "enable": In(1),
            #: Blocks are erased: level or pulse, at the latest when the host can know.
            "erased": In(1),
            #: Lookups whose row can be read,
            "look": In(stream.Signature(lay.placed)),
            #: in the same order.
            "found": Out(stream.Signature(lay.found)),
            #: Of those that are here, which tag their row goes by,
            "read": In(stream.Signature(lay.cached_read)),
            #: and the rows.
            "source": Out(stream.Signature(lay.flash_data)),
            #: A beat of any row goes to pooling,
            "passes": In(1),
            "beat": In(lay.vector_beat),
            #: with what its tag stands for.
            "entry": In(lay.tag_entry),
            #: The DRAM.
            "mem_read": Out(MemReadSignature(config.beat_bytes)),
            "mem_write": Out(MemWriteSignature(config.beat_bytes)),
            #: Pulse: a lookup's row was here; a row is kept; there was no room to keep one.
            "hit": Out(1),
            "kept": Out(1),
            "dropped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.tags = tags = TagStore(c)
        m.submodules.reader = reader = LineReader(c)
        m.submodules.writer = writer = LineWriter(c)
        connect(m, flipped(self.look), tags.look)
        connect(m, tags.found, flipped(self.found))
        connect(m, flipped(self.read), reader.i)
        connect(m, reader.o, flipped(self.source))
        connect(m, reader.mem, flipped(self.mem_read))
        connect(m, writer.mem, flipped(self.mem_write))
        connect(m, writer.admit, tags.admit)
        connect(m, tags.verdict, writer.verdict)
        connect(m, writer.publish, tags.publish)

        in_flight = bits_for(c.lookup.tags + 1)  # a tag each, and one that waits for a tag
        hits, keeps = Signal(in_flight), Signal(in_flight)
        m.d.sync += [
            hits.eq(hits + tags.hit - reader.ended),
            keeps.eq(keeps + tags.keep - writer.passed),
        ]
        stale, closed = Signal(init=1), Signal()
        m.d.comb += [
            closed.eq(stale | tags.clear | ~self.enable),
            tags.closed.eq(closed),
            writer.closed.eq(closed),
            writer.valid.eq(self.passes),
            writer.beat.eq(self.beat),
            writer.entry.eq(self.entry),
            writer.hits.eq(hits),
            writer.hit_ended.eq(reader.ended),
            self.hit.eq(tags.hit),
            self.kept.eq(tags.publish.valid & tags.publish.ready),
            self.dropped.eq(writer.dropped),
        ]
        with m.FSM():
            with m.State("SERVE"):
                with m.If(stale & self.enable & (keeps == 0) & writer.idle):
                    m.d.sync += stale.eq(0)
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += tags.clear.eq(1)
                with m.If(tags.cleared):
                    m.next = "SERVE"
        with m.If(self.erased | reader.failed | ~self.enable):
            m.d.sync += stale.eq(1)
        return m
