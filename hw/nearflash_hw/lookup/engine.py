"""The embedding lookup engine, without pooling: only wiring."""

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..interfaces import Layouts, bits_for
from ..primitives.memport import MemReadSignature, MemWriteSignature
from ..primitives.register_slice import RegisterSlice
from .merge import Merge
from .results import Results
from .row_cache import RowCache
from .scoreboard import Scoreboard
from .sequencer import Sequencer
from .translator import Translator

__all__ = ["LookupEngine"]


class LookupEngine(wiring.Component):
    """Inference commands in, completions out. See :mod:`nearflash_hw.interfaces` for every payload.

    ``infer_cmd`` -> Sequencer -> Scoreboard -> Translator -> ``flash_cmd[channel]``; ``flash_data[channel]`` -> Merge ->
    ``vector`` (pooling) -> ``retire`` -> Scoreboard -> ``drain`` (pooling) -> ``pooled`` -> Results -> ``completion``.

    Why it can't deadlock. Every wait below is for something further down, and the last ones end on their own.

    1. host.infer_depth commands are in flight at most, and every FIFO that holds commands, outcomes or verdicts has that
       many entries: none of them ever pushes back. A command's pass 1 so waits for the pass 2 of the command before (7) and
       for host memory alone: it shares its reader with admin commands, but those read only while no command is in flight.
    2. A completion waits for the controller; a host write for memory: both answer on their own.
    3. Results takes sample statuses always, logits while it has a free bank (freed by a host write), elements of INFER
       samples when the MLP does, and elements of a LOOKUP when all earlier commands are complete. Elements come in sample
       order, so when a LOOKUP's is first in line all elements of the earlier commands are already with the MLP, which
       needs nothing more (their dense features went ahead of them) to give their logits and let those commands end.
    4. So pooling can always drain, in order, a slot whose vectors are all retired, and frees it.
    5. Merge waits for pooling alone, which takes vectors whatever its drain does; it frees a tag per vector, so a read
       command waits for the channels and for tags, which reads in flight give back. A channel's queue that is full holds
       up later lookups of others, but empties without them. Poison and retirements are taken always.
    6. So every lookup sent to the translator ends, and every sample sent whole is drained, which frees its slot; a sample
       not yet sent whole waits for the executor alone.
    7. The executor waits for a slot (6), for host data, and for the MLP's dense buffer. The buffer holds a whole group at
       least; when it is full, all samples of the oldest group in it have been sent or are being sent ahead of the dense
       feature that waits, so that group's pooled vectors come (4) and the buffer empties.
    8. Host data that the executor cannot take yet waits in its reader, which asks only for what it has room for: it never
       holds up the host bus for the others.
    9. With a row cache: a lookup waits there for the tags' turn, and while they are cleared; a hit for its reader, whose
       rows the merge takes (5). The cache's writer waits for hits that were found, which end so, and for memory; nobody
       waits for the writer but the emptying of the cache, and nobody for that.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        lo = Layouts.of(config)
        channels = config.flash.channels
        super().__init__({
            #: INFER and LOOKUP.
            "infer_cmd": In(stream.Signature(lo.infer_command)),
            #: In the same order.
            "completion": Out(stream.Signature(lo.completion)),
            #: No command is in flight: tables may change.
            "idle": Out(1),
            #: What a reset found in memories is gone; nothing may come before.
            "cleared": Out(1),
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(lo.table_write),
            #: A reader of host memory: queries.
            "host_req": Out(stream.Signature(lo.prp_request)),
            "host_data": In(stream.Signature(lo.host_data)),
            #: Results.
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
            #: Translations.
            "ftl_req": Out(stream.Signature(lo.translate_request)),
            "ftl_rsp": In(stream.Signature(lo.translate_response)),
            #: Of each channel: READs.
            "flash_cmd": Out(stream.Signature(lo.flash_command)).array(channels),
            #: Of each channel: their data.
            "flash_data": In(stream.Signature(lo.flash_data)).array(channels),
            #: To pooling: rows,
            "vector": Out(stream.Signature(lo.vector_beat)),
            #: the length of each bag,
            "bag": Out(stream.Signature(lo.bag)),
            #: and which slot to empty.
            "drain": Out(stream.Signature(lo.drain)),
            #: From pooling: a row is in its accumulators,
            "retire": In(stream.Signature(lo.retire)),
            #: a slot is empty.
            "drained": In(stream.Signature(data.StructLayout({"slot": lo.slot_bits}))),
            #: To the MLP.
            "dense": Out(stream.Signature(lo.dense_element)),
            #: From pooling.
            "pooled": In(stream.Signature(lo.pooled_element)),
            #: To the MLP.
            "mlp_pooled": Out(stream.Signature(lo.pooled_element)),
            #: From the MLP.
            "logit": In(stream.Signature(lo.logit)),
            #: Pulses per lookup.
            "lookups_issued": Out(1),
            #: Pulses per sample.
            "sample_done": Out(1),
            #: Flash reads in flight.
            "tags_used": Out(bits_for(config.lookup.tags)),
            **({
                #: Of the row cache: as there.
                "cache_enable": In(1),
                "erased": In(1),
                "cache_read": Out(MemReadSignature(config.beat_bytes)),
                "cache_write": Out(MemWriteSignature(config.beat_bytes)),
                "cache_hit": Out(1),
                "cache_kept": Out(1),
                "cache_dropped": Out(1),
            } if config.row_cache.lines else {}),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.sequencer = sequencer = Sequencer(c)
        # An item every other cycle is as fast as the map cache.
        m.submodules.items = items = RegisterSlice(Layouts.of(c).lookup_item, "half")
        m.submodules.scoreboard = scoreboard = Scoreboard(c)
        m.submodules.translator = translator = Translator(c)
        m.submodules.merge = merge = Merge(c)
        m.submodules.results = results = Results(c)

        for unit in (sequencer, translator):
            m.d.comb += [
                unit.table_valid.eq(self.table_valid),
                unit.table.eq(self.table),
            ]
        connect(m, flipped(self.infer_cmd), sequencer.infer_cmd)
        connect(m, sequencer.host_req, flipped(self.host_req))
        connect(m, flipped(self.host_data), sequencer.host_data)
        connect(m, sequencer.dense, flipped(self.dense))
        connect(m, sequencer.pending, results.pending)
        connect(m, sequencer.executed, results.executed)
        connect(m, sequencer.item, items.i)

        connect(m, items.o, scoreboard.item)
        connect(m, scoreboard.lookup, translator.lookup)
        connect(m, scoreboard.bag, flipped(self.bag))
        connect(m, scoreboard.drain, flipped(self.drain))
        connect(m, flipped(self.retire), scoreboard.retire)
        connect(m, flipped(self.drained), scoreboard.drained)
        connect(m, translator.poison, scoreboard.poison)
        connect(m, scoreboard.sample_status, results.sample_status)

        connect(m, translator.ftl_req, flipped(self.ftl_req))
        connect(m, flipped(self.ftl_rsp), translator.ftl_rsp)
        for k in range(c.flash.channels):
            connect(m, translator.flash_cmd[k], flipped(self.flash_cmd[k]))
            connect(m, flipped(self.flash_data[k]), merge.flash_data[k])
        connect(m, merge.tag_free, translator.tag_free)
        connect(m, merge.vector, flipped(self.vector))

        connect(m, flipped(self.pooled), results.pooled)
        connect(m, results.mlp_pooled, flipped(self.mlp_pooled))
        connect(m, flipped(self.logit), results.logit)
        connect(m, results.host_write, flipped(self.host_write))
        connect(m, results.completion, flipped(self.completion))
        m.d.comb += [
            merge.tag_write_valid.eq(translator.tag_write_valid),
            merge.tag_write.eq(translator.tag_write),
            sequencer.completed.eq(self.completion.valid & self.completion.ready),
            self.idle.eq(sequencer.idle),
            self.cleared.eq(sequencer.cleared),
            self.lookups_issued.eq(scoreboard.issued),
            self.sample_done.eq(scoreboard.sample_done),
            self.tags_used.eq(translator.tags_used),
        ]
        if c.row_cache.lines:
            m.submodules.row_cache = cache = RowCache(c)
            connect(m, translator.look, cache.look)
            connect(m, cache.found, translator.found)
            connect(m, translator.cached, cache.read)
            connect(m, cache.source, merge.flash_data[c.flash.channels])
            connect(m, cache.mem_read, flipped(self.cache_read))
            connect(m, cache.mem_write, flipped(self.cache_write))
            m.d.comb += [
                cache.enable.eq(self.cache_enable),
                cache.erased.eq(self.erased),
                cache.passes.eq(merge.vector.valid & merge.vector.ready),
                cache.beat.eq(merge.vector.payload),
                cache.entry.eq(merge.entry),
                self.cache_hit.eq(cache.hit),
                self.cache_kept.eq(cache.kept),
                self.cache_dropped.eq(cache.dropped),
            ]
        return m
