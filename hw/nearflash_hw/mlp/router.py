"""From producers to consumers: forks, lane splitters, and the two sources of the graph."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, Node
from nearflash.contract.program import MULT_BITS

from ..engine.streams import Beat, clog2
from ..interfaces import Layouts, index_bits
from ..primitives.float32 import Fp32Quantizer

__all__ = ["DenseInput", "Fork", "LaneSplitter", "PooledInput"]


class Fork(wiring.Component):
    """Copies stream ``i`` to all of ``o0``, ``o1``...; a payload leaves when every output took it. Latency 0."""

    def __init__(self, shape, n: int):
        self.n = n
        super().__init__({
            #: Payloads,
            "i": In(stream.Signature(shape)),
            #: each to all of these.
            **{f"o{k}": Out(stream.Signature(shape)) for k in range(n)},
        })

    def elaborate(self, platform):
        m = Module()
        outs = [getattr(self, f"o{k}") for k in range(self.n)]
        taken = Signal(self.n)
        m.d.comb += self.i.ready.eq(Cat(o.ready | taken[k] for k, o in enumerate(outs)).all() if outs else 1)
        for k, o in enumerate(outs):
            m.d.comb += [
                o.valid.eq(self.i.valid & ~taken[k]),
                o.payload.eq(self.i.payload),
            ]
            with m.If(self.i.valid):
                m.d.sync += taken[k].eq(~self.i.ready & (taken[k] | o.ready))
        return m


class LaneSplitter(wiring.Component):
    """Beats of ``lanes_in`` elements of a vector of ``width`` into beats of ``lanes_out``, leaving out beats that are all
    padding. Latency 0, one beat out per cycle."""

    def __init__(self, lanes_in: int, lanes_out: int, bits: int, width: int, nb_bits: int):
        self.lanes_in, self.lanes_out, self.width = lanes_in, lanes_out, width
        super().__init__({
            #: Of ``lanes_in`` elements.
            "i": In(stream.Signature(Beat(lanes_in, bits, width, nb_bits))),
            #: Of ``lanes_out``.
            "o": Out(stream.Signature(Beat(lanes_out, bits, width, nb_bits))),
        })

    def elaborate(self, platform):
        m = Module()
        i, o = self.i.payload, self.o.payload
        piece = Signal(clog2(self.lanes_in // self.lanes_out))
        start = Signal(len(o.pos) + 1)
        m.d.comb += [
            start.eq(i.pos + (piece << clog2(self.lanes_out))),
            o.data.as_value().eq(i.data.as_value().word_select(piece, len(o.data.as_value()))),
            o.pos.eq(start),
            o.n.eq(i.n),
            o.nb.eq(i.nb),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & (piece.all() | (start + self.lanes_out >= self.width))),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += piece.eq(Mux(self.i.ready, 0, piece + 1))
        return m


class DenseInput(wiring.Component):
    """The ``dense`` node: fp32 features, quantised with static ``mult`` and ``shift``, as beats of one activation.
    One element per cycle, latency Fp32Quantizer.LATENCY."""

    def __init__(self, config: DeviceConfig, node: Node):
        self.config, self.node = config, node
        layouts = Layouts.of(config)
        self._out = Beat(1, config.mlp.act_bits, node.width, layouts.nb_bits)
        super().__init__({
            #: Features.
            "i": In(stream.Signature(layouts.dense_element)),
            #: Activations.
            "o": Out(stream.Signature(self._out)),
            #: The node's quantiser.
            "mult": In(MULT_BITS),
            "shift": In(signed(8)),
        })

    def elaborate(self, platform):
        m = Module()
        i = self.i.payload
        pos = Signal(index_bits(self.node.width))
        m.submodules.quantizer = q = Fp32Quantizer(self.config.mlp.act_bits, tag=len(pos) + 2 * len(i.sample.n))
        m.d.comb += [
            q.i.p.value.eq(i.value),
            q.i.p.mult.eq(self.mult),
            q.i.p.shift.eq(self.shift),
            q.i.p.tag.eq(Cat(pos, i.sample.n, i.sample.nb)),
            q.i.valid.eq(self.i.valid),
            self.i.ready.eq(q.i.ready),
            self.o.payload.eq(Cat(q.o.p.q, q.o.p.tag)),
            self.o.valid.eq(q.o.valid),
            q.o.ready.eq(self.o.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += pos.eq(Mux(i.last, 0, pos + 1))
        return m


class PooledInput(wiring.Component):
    """The ``tables`` nodes: pooled fp32 elements, quantised with their table's parameters, to the node that owns the
    table (``o0``, ``o1``... in the order of ``nodes``), as beats of one activation.

    An element's place is counted as it arrives, so a node's tables are in ascending order, as they arrive. Elements of
    tables the graph does not have are dropped. One element per cycle, latency Fp32Quantizer.LATENCY + 1.
    """

    def __init__(self, config: DeviceConfig, nodes: list[Node]):
        self.config, self.nodes = config, nodes
        self.layouts = layouts = Layouts.of(config)
        super().__init__({
            #: Elements of every table.
            "i": In(stream.Signature(layouts.pooled_element)),
            #: Of each node: beats of one activation.
            **{f"o{k}": Out(stream.Signature(Beat(1, config.mlp.act_bits, n.width, layouts.nb_bits)))
               for k, n in enumerate(nodes)},
            #: Pulses: a table is opened or closed.
            "table_valid": In(1),
            #: It, as ``table_valid`` pulses.
            "table": In(layouts.table_write),
        })

    def elaborate(self, platform):
        m = Module()
        i, config = self.i.payload, self.config
        scale = data.StructLayout({"mult": MULT_BITS, "shift": signed(8)})
        m.submodules.scales = scales = Memory(shape=scale, depth=max(2, config.lookup.max_tables), init=[])
        write, read = scales.write_port(), scales.read_port()
        m.d.comb += [
            write.addr.eq(self.table.table),
            write.data.mult.eq(self.table.quant_mult),
            write.data.shift.eq(self.table.quant_shift),
            write.en.eq(self.table_valid),
        ]
        tag = data.StructLayout({"node": index_bits(len(self.nodes)),
                                 "pos": max(index_bits(n.width) for n in self.nodes),
                                 "n": self.layouts.nb_bits, "nb": self.layouts.nb_bits})
        m.submodules.quantizer = q = Fp32Quantizer(config.mlp.act_bits, tag=tag)
        moved, advance, known = Signal(), Signal(), Signal()
        held, here = Signal(tag, reset_less=True), Signal(tag)
        value, valid = Signal(32, reset_less=True), Signal()
        m.d.comb += [
            advance.eq(q.i.ready | ~valid),
            self.i.ready.eq(advance),
            moved.eq(self.i.valid & advance),
            read.addr.eq(i.table),
            read.en.eq(moved),
            here.n.eq(i.sample.n),
            here.nb.eq(i.sample.nb),
        ]
        places = [Signal(index_bits(node.width), name=f"place{k}") for k, node in enumerate(self.nodes)]
        with m.Switch(i.table):
            for k, node in enumerate(self.nodes):
                with m.Case(*node.tables):
                    m.d.comb += [
                        known.eq(1),
                        here.node.eq(k),
                        here.pos.eq(places[k]),
                    ]
                    with m.If(moved):
                        m.d.sync += places[k].eq(places[k] + 1)
        with m.If(moved & i.last_of_sample):
            m.d.sync += [p.eq(0) for p in places]
        with m.If(advance):
            m.d.sync += valid.eq(self.i.valid & known)
        with m.If(moved):
            m.d.sync += [
                value.eq(i.value),
                held.eq(here),
            ]
        m.d.comb += [
            q.i.valid.eq(valid),
            q.i.p.value.eq(value),
            q.i.p.mult.eq(read.data.mult),
            q.i.p.shift.eq(read.data.shift),
            q.i.p.tag.eq(held),
        ]
        out = q.o.p.tag
        for k in range(len(self.nodes)):
            o = getattr(self, f"o{k}")
            m.d.comb += [
                o.payload.data[0].eq(q.o.p.q),
                o.payload.pos.eq(out.pos),
                o.payload.n.eq(out.n),
                o.payload.nb.eq(out.nb),
                o.valid.eq(q.o.valid & (out.node == k)),
            ]
            with m.If(out.node == k):
                m.d.comb += q.o.ready.eq(o.ready)
        return m
