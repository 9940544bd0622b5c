"""Feature interactions: pairwise dot products (DLRM) and element-wise products (NCF)."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import Node
from nearflash.contract.mlp import interaction_word
from nearflash.reference.requantize import MULT_BITS

from ..engine.kernel import Kernel
from ..engine.requantize import SHIFT_BITS, Requantizer
from ..engine.streams import Beat, clog2
from ..interfaces import bits_for, index_bits
from ..model import observe
from ..primitives.credit_fifo import CreditFifo
from .buffer import Edge, InputBuffer

__all__ = ["Interaction"]


class Interaction(wiring.Component):
    """A ``dot`` or ``mul`` node: sums of products of two operands read from one buffer of the concatenated inputs.

    ``dot``: for each sample the pairs of features i > j, row-major, each dim / word cycles (word:
    :func:`~nearflash.contract.mlp.interaction_word`). ``mul``: element c of the first input times element c of the
    second, one per cycle. Starts when a whole group is there. ``i0``...: activation beats of ``edges``; ``o``: one
    activation a beat, sample after sample; ``mult``, ``shift``: the node's requantiser, static; ``busy``. Latency from a
    pair's last step to its output: kernel latency + Requantizer.LATENCY + 3.
    """

    model_clock = "own"

    def __init__(self, node: Node, edges: tuple[Edge, ...], act_bits: int, n_batch: int, buffered: int,
                 primitive: str = "inferred"):
        self.node, self.edges, self.act_bits, self.n_batch, self.buffered = node, edges, act_bits, n_batch, buffered
        self.primitive = primitive
        self.nb_bits = bits_for(n_batch)
        self._out = Beat(1, act_bits, node.width, self.nb_bits)
        super().__init__({
            **{f"i{j}": In(stream.Signature(Beat(e.lanes, act_bits, e.width, self.nb_bits)))
               for j, e in enumerate(edges)},
            #: One activation a beat, sample after sample.
            "o": Out(stream.Signature(self._out)),
            #: The node's requantiser; changes only while nothing is inside.
            "mult": In(MULT_BITS),
            "shift": In(SHIFT_BITS),
            #: A group is inside.
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        node, k = self.node, interaction_word(self.node)
        m.submodules.buffer = buffer = InputBuffer(self.edges, k, self.act_bits, self.n_batch, self.buffered, reads=2)
        for j in range(len(self.edges)):
            connect(m, flipped(getattr(self, f"i{j}")), getattr(buffer, f"i{j}"))
        m.submodules.kernel = kernel = Kernel(1, k, self.act_bits, self.act_bits, primitive=self.primitive)
        tag_layout = data.StructLayout({"pos": index_bits(node.width), "n": self.nb_bits, "nb": self.nb_bits})
        acc = Signal(signed(2 * self.act_bits - 1 + clog2(max(node.dim, 2))), reset_less=True)
        m.submodules.requantizer = rq = Requantizer(1, self.act_bits, node.relu, tag_layout.size, len(acc))
        m.submodules.out = out = CreditFifo(self._out, 32)

        # -- issue: one step of k products per cycle
        go, first, last, sample_end = Signal(), Signal(), Signal(), Signal()
        n, pos = Signal(self.nb_bits), Signal(index_bits(node.width))
        left, right = Signal(index_bits(buffer.blocks)), Signal(index_bits(buffer.blocks))
        m.d.comb += [
            go.eq((buffer.columns == buffer.width) & (out.credit | ~last)),
            out.spend.eq(go & last),
            sample_end.eq(go & last & (pos == node.width - 1)),
            buffer.release.eq(sample_end & (n == buffer.nb)),
        ]
        observe(m, platform, "interaction", begin=go & first & (pos == 0) & (n == 0), end=buffer.release)
        for port, block in ((buffer.read0, left), (buffer.read1, right)):
            m.d.comb += [
                port.en.eq(go),
                port.n.eq(n),
                port.block.eq(block),
            ]
        with m.If(go & last):
            m.d.sync += pos.eq(Mux(sample_end, 0, pos + 1))
        with m.If(sample_end):
            m.d.sync += n.eq(Mux(buffer.release, 0, n + 1))
        if node.kind == "dot":
            words = node.dim // k
            word = Signal(index_bits(words))
            base_i, base_j = Signal.like(left, init=words), Signal.like(right)
            m.d.comb += [
                left.eq(base_i + word),
                right.eq(base_j + word),
                first.eq(word == 0),
                last.eq(word == words - 1),
            ]
            with m.If(go):
                m.d.sync += word.eq(Mux(last, 0, word + 1))
            with m.If(go & last):
                m.d.sync += base_j.eq(base_j + words)
                with m.If(base_j + words == base_i):
                    m.d.sync += [
                        base_j.eq(0),
                        base_i.eq(base_i + words),
                    ]
                with m.If(sample_end):
                    m.d.sync += base_i.eq(words)
        else:
            m.d.comb += [
                left.eq(pos),
                right.eq(pos + node.width),
                first.eq(1),
                last.eq(1),
            ]

        # -- multiply, accumulate, requantise
        step = data.StructLayout({"valid": 1, "first": 1, "last": 1, "tag": tag_layout})
        steps = [Signal(step, name=f"step{s}") for s in range(kernel.latency + 1)]
        m.d.sync += [
            steps[0].valid.eq(go),
            steps[0].first.eq(first),
            steps[0].last.eq(last),
            steps[0].tag.pos.eq(pos),
            steps[0].tag.n.eq(n),
            steps[0].tag.nb.eq(buffer.nb),
        ]
        m.d.sync += [b.eq(a) for a, b in zip(steps, steps[1:], strict=False)]
        m.d.comb += [
            kernel.valid.eq(steps[0].valid),
            kernel.x.eq(buffer.data0),
            kernel.w.eq(buffer.data1),
        ]
        done = steps[-1]
        acc_valid, acc_tag = Signal(), Signal(tag_layout, reset_less=True)
        m.d.sync += acc_valid.eq(done.valid & done.last)
        with m.If(done.valid):
            m.d.sync += [
                acc.eq(kernel.sums[0] + Mux(done.first, 0, acc)),
                acc_tag.eq(done.tag),
            ]
        m.d.comb += [
            rq.valid.eq(acc_valid),
            rq.acc[0].eq(acc),
            rq.mult[0].eq(self.mult),
            rq.shift[0].eq(self.shift),
            rq.tag.eq(acc_tag),
            out.push.eq(rq.o_valid),
            out.payload.eq(Cat(rq.q.as_value(), rq.o_tag)),
            self.o.payload.eq(out.o.payload),
            self.o.valid.eq(out.o.valid),
            out.o.ready.eq(self.o.ready),
            self.busy.eq(buffer.active | ~out.idle),
        ]
        return m
