"""One FC core: input buffer, weights, kernel, accumulators, and the way out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import Core

from ..engine.kernel import Kernel
from ..engine.streams import Beat, clog2
from ..interfaces import bits_for, index_bits
from ..model import observe
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature
from .buffer import Edge, InputBuffer
from .weights import DramWeights, OnChipWeights

__all__ = ["FcCore"]

RESULTS_MIN = 16  # result words that cover the pipeline's latency
GROUPS = 4  # groups between their first step and their last output
LUTRAM_WORDS = 64
BLOCK_RAM_REVISIT = 4  # an accumulator in block RAM may be used again after this many cycles (3 are needed)


class FcCore(wiring.Component):
    """``acc[r] = sum over c of W[r, c] * x[c]`` for groups of up to ``n_batch`` samples, one kernel step per cycle.

    Loop nest (paper: row scan, column scan): weight word outermost, in step order, then the group's samples, so a group
    takes steps x (nb + 1) cycles with weights on chip, and at least the beats of its weights when they come from DRAM.
    A row scan starts when the whole group is there and finishes kr outputs after each row of blocks; a column scan works
    on a column block as soon as all the group's samples have it, and finishes all outputs in its last column
    (inter-layer composition). Results wait in a buffer that the epilogue reads ``lanes`` rows at a time, so the next
    group's steps go on meanwhile; ``hold_results`` (and every column scan) sizes it for a whole group.
    ``packed``, ``primitive``: see :class:`~nearflash_hw.engine.products.Products`.

    Weights on chip come over the parameter bus; those in DRAM as :class:`~nearflash_hw.mlp.weights.DramWeights` reads them.
    Latency from the last input to a row scan's first output: (column_blocks - 1) x (nb + 1) + kernel latency + 6.
    """

    model_clock = "own"

    def __init__(self, core: Core, act_bits: int, n_batch: int, buffered: int, beat_bytes: int, *, lanes: int = 1,
                 edges: tuple[Edge, ...] = (), hold_results: bool = False, address: int = 0, packed: bool = False,
                 primitive: str = "inferred"):
        if core.kr % lanes:
            raise ValueError(f"lanes = {lanes}: must divide kr = {core.kr}")
        self.core, self.act_bits, self.n_batch, self.buffered = core, act_bits, n_batch, buffered
        self.beat_bytes, self.lanes, self.address = beat_bytes, lanes, address
        self.packed, self.primitive = packed, primitive
        self.edges = edges or (Edge("", 0, core.columns, 1),)
        self.hold_results = hold_results or core.scan == "column"
        self.acc_bits = act_bits + core.weight_bits - 1 + clog2(core.columns)
        self.nb_bits = bits_for(n_batch)
        dram = core.weights == "dram"
        super().__init__({
            #: Of each edge: beats of activations.
            **{f"i{j}": In(stream.Signature(Beat(e.lanes, act_bits, e.width, self.nb_bits)))
               for j, e in enumerate(self.edges)},
            #: Beats of accumulators, in order: ``lanes`` rows of each sample, then the next rows.
            "o": Out(stream.Signature(Beat(lanes, self.acc_bits, core.rows, self.nb_bits))),
            **({
                #: The weights' image in DRAM, from ``address`` on.
                "mem_read": Out(MemReadSignature(beat_bytes)),
                #: One per group: a weight of it could not be read.
                "failed": Out(stream.Signature(1)),
            } if dram else {
                #: A beat of the weights' parameter record.
                "weight_valid": In(1),
                #: It is the record's first.
                "weight_first": In(1),
                "weight_data": In(beat_bytes * 8),
            }),
            #: Pulses per kernel step.
            "step": Out(1),
            #: A group is under way.
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        core = self.core
        m.submodules.buffer = buffer = InputBuffer(self.edges, core.kc, self.act_bits, self.n_batch, self.buffered)
        for j in range(len(self.edges)):
            connect(m, flipped(getattr(self, f"i{j}")), getattr(buffer, f"i{j}"))
        if core.weights == "dram":
            m.submodules.weights = weights = DramWeights(core, self.beat_bytes, self.address, self.buffered)
            m.d.comb += weights.start.eq(buffer.started)
            connect(m, weights.mem_read, flipped(self.mem_read))
            connect(m, weights.failed, flipped(self.failed))
        else:
            m.submodules.weights = weights = OnChipWeights(core, self.beat_bytes)
            m.d.comb += [
                weights.write_valid.eq(self.weight_valid),
                weights.write_first.eq(self.weight_first),
                weights.write_data.eq(self.weight_data),
            ]
        m.submodules.groups = groups = StreamFifo(self.nb_bits, GROUPS)
        depth = max(RESULTS_MIN, 2 * self.n_batch)
        if self.hold_results:
            depth = max(depth, core.row_blocks * self.n_batch)
        depth = 1 << clog2(depth)
        credits = Signal(range(depth + 1), init=depth)
        freed = Signal(range(self.n_batch + 1))

        # -- issue: one kernel step per cycle
        cb, rb = Signal(index_bits(core.column_blocks)), Signal(index_bits(core.row_blocks))
        n = Signal(self.nb_bits)
        first, last = Signal(), Signal()
        begin, go, next_word = Signal(), Signal(), Signal()
        last_cb, last_rb = cb == core.column_blocks - 1, rb == core.row_blocks - 1
        need = Signal(bits_for(core.columns), init=core.columns if core.scan == "row" else min(core.kc, core.columns))
        m.d.comb += [
            first.eq(cb == 0),
            last.eq(last_cb),
            begin.eq(first & (rb == 0) & (n == 0)),
            go.eq((buffer.columns >= need) & (weights.available | (n != 0)) & (~last | (credits != 0))
                  & (groups.i.ready | ~begin)),
            next_word.eq(go & (n == buffer.nb)),
            weights.take.eq(go & (n == 0)),
            groups.i.valid.eq(go & begin),
            groups.i.payload.eq(buffer.nb),
            buffer.read0.en.eq(go),
            buffer.read0.n.eq(n),
            buffer.read0.block.eq(cb),
            buffer.release.eq(next_word & last_cb & last_rb),
            self.step.eq(go),
        ]
        observe(m, platform, "core", begin=go & begin, end=buffer.release)
        inner, inner_last, outer = (cb, last_cb, rb) if core.scan == "row" else (rb, last_rb, cb)
        with m.If(go):
            m.d.sync += n.eq(Mux(next_word, 0, n + 1))
        with m.If(next_word):
            m.d.sync += inner.eq(Mux(inner_last, 0, inner + 1))
            with m.If(inner_last):
                m.d.sync += outer.eq(Mux(buffer.release, 0, outer + 1))
                if core.scan == "column" and core.column_blocks > 1:
                    m.d.sync += need.eq(Mux(buffer.release, core.kc,
                                            Mux(cb >= core.column_blocks - 2, core.columns, need + core.kc)))
        m.d.sync += credits.eq(credits + freed - (go & last))

        # -- kernel and accumulators
        n_bits = clog2(self.n_batch)
        acc_address = n[:n_bits] if core.scan == "row" else Cat(n[:n_bits], rb)
        acc_depth = self.n_batch * (1 if core.scan == "row" else core.row_blocks)
        accumulate = (acc_depth == 1 and core.column_blocks > 1
                      and Kernel.accumulates(core.kr, core.kc, self.packed, self.primitive, core.lut_rows))
        m.submodules.kernel = kernel = Kernel(core.kr, core.kc, self.act_bits, core.weight_bits, packed=self.packed,
                                              primitive=self.primitive, acc_bits=self.acc_bits if accumulate else 0,
                                              lut_rows=core.lut_rows)
        tag = data.StructLayout({"valid": 1, "first": 1, "last": 1, "address": max(1, clog2(acc_depth))})
        tags = [Signal(tag, name=f"tag{s}") for s in range(kernel.latency + 1)]
        m.d.sync += [
            tags[0].valid.eq(go),
            tags[0].first.eq(first),
            tags[0].last.eq(last),
            tags[0].address.eq(acc_address),
        ]
        m.d.sync += [b.eq(a) for a, b in zip(tags, tags[1:], strict=False)]
        m.d.comb += [
            kernel.valid.eq(tags[0].valid),
            kernel.x.eq(buffer.data0),
            kernel.w.eq(weights.word),
        ]
        acc_layout = data.ArrayLayout(signed(self.acc_bits), core.kr)
        done = tags[-1]
        held_last, held_valid = Signal(), Signal()
        held_address = Signal.like(done.address)
        m.d.sync += [
            held_valid.eq(done.valid),
            held_last.eq(done.valid & done.last),
        ]
        old, total, held = Signal(acc_layout), Signal(acc_layout), Signal(acc_layout, reset_less=True)
        if accumulate:  # the slices hold the sum one cycle earlier, and only until the next step
            m.d.comb += kernel.restart.eq(tags[-2].first)
        else:
            for r in range(core.kr):
                m.d.comb += total[r].eq(kernel.sums[r] + Mux(done.first, 0, old[r]))
            with m.If(done.valid):
                m.d.sync += [
                    held.eq(total),
                    held_address.eq(done.address),
                ]
        if core.column_blocks > 1 and acc_depth == 1 and not accumulate:
            m.d.comb += old.eq(held)
        elif core.column_blocks > 1 and not accumulate:
            m.submodules.accumulators = memory = Memory(shape=acc_layout.size, depth=acc_depth, init=[])
            write = memory.write_port()
            if acc_depth > LUTRAM_WORDS and core.scan == "column" and core.row_blocks >= BLOCK_RAM_REVISIT:
                read = memory.read_port()
                m.d.comb += [
                    read.addr.eq(tags[-2].address),
                    read.en.eq(tags[-2].valid),
                    write.addr.eq(held_address),
                    write.data.eq(held),
                    write.en.eq(held_valid),
                ]
            else:
                read = memory.read_port(domain="comb")
                m.d.comb += [
                    read.addr.eq(done.address),
                    write.addr.eq(done.address),
                    write.data.eq(total),
                    write.en.eq(done.valid),
                ]
            m.d.comb += old.as_value().eq(read.data)

        # -- results: written in order (row block, sample), read in order (lanes rows, sample)
        m.submodules.results = results = Memory(shape=acc_layout.size, depth=depth, init=[])
        write, read = results.write_port(), results.read_port()
        end, base = Signal(range(depth)), Signal(range(depth))
        level = Signal(range(depth + 1))
        m.d.comb += [
            write.addr.eq(end),
            write.data.eq(kernel.sums if accumulate else held),
            write.en.eq((done.valid & done.last) if accumulate else held_last),
        ]
        m.d.sync += [
            end.eq(end + write.en),
            level.eq(level + held_last - freed),
        ]

        nb, sample = groups.o.payload, Signal(self.nb_bits)
        pos = Signal(index_bits(core.rows))
        take, advance = Signal(), Signal()
        subs = core.kr // self.lanes  # beats of a result word
        sub, out_sub = Signal(range(max(2, subs))), Signal(range(max(2, subs)))
        group_end = pos == (core.rows - 1) // self.lanes * self.lanes
        block_end = group_end | (sub == subs - 1)
        o = self.o.payload
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            take.eq(advance & groups.o.valid & (level > sample)),
            read.en.eq(take),
            read.addr.eq(base + sample),
            groups.o.ready.eq(take & (sample == nb) & group_end),
            freed.eq(Mux(take & (sample == nb) & block_end, nb + 1, 0)),
        ]
        with m.If(advance):
            m.d.sync += self.o.valid.eq(take)
        with m.If(take):
            m.d.sync += [
                o.pos.eq(pos),
                o.n.eq(sample),
                o.nb.eq(nb),
                out_sub.eq(sub),
                sample.eq(sample + 1),
                base.eq(base + freed),
            ]
            with m.If(sample == nb):
                m.d.sync += [
                    sample.eq(0),
                    pos.eq(Mux(group_end, 0, pos + self.lanes)),
                    sub.eq(Mux(block_end, 0, sub + 1)),
                ]
        m.d.comb += o.data.as_value().eq(read.data.word_select(out_sub, self.lanes * self.acc_bits) if subs > 1
                                         else read.data)
        m.d.comb += self.busy.eq(buffer.active | (credits != depth) | self.o.valid)
        return m
