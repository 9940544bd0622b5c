"""The MLP engine: the model's graph as hardware."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import ConfigError, DeviceConfig, cores
from nearflash.contract.mlp import interaction_word, output_lanes
from nearflash.contract.program import DENSE_QUANT, EPILOGUE, INTERACTION, LOGIT_FORMAT, dram_weight_address
from nearflash.reference.mlp import LOGIT_BITS
from nearflash.reference.requantize import ACC_BITS, MULT_BITS

from ..engine.requantize import SHIFT_BITS
from ..interfaces import Layouts
from ..primitives.float32 import Fp32Quantizer, IntToFp32
from ..primitives.memport import MemReadSignature
from .buffer import plan_edges
from .core import FcCore
from .epilogue import Epilogue
from .interaction import Interaction
from .parameters import ParameterBus
from .router import DenseInput, Fork, LaneSplitter, PooledInput
from .weights import WeightReadArbiter

__all__ = ["MlpEngine"]

EXPONENT_BITS = 11  # of the logits; beyond +-1023 every int32 is 0 or infinity, so the compiler has no use for more


class MlpEngine(wiring.Component):
    """Runs ``config.mlp.graph`` on groups of samples; :func:`nearflash.reference.mlp.run_graph` is its bit-exact model.

    A ``tables`` node lists its tables in ascending order, and their dimensions add up to its width. NaN (bad samples) is
    processed as 0. A group's last logit has ``error`` if a read of streamed weights failed; its values are then arbitrary.

    Flow control: every stream may wait; groups are processed in order everywhere; every core and interaction buffers
    ``buffered`` whole groups, and a producer waits when one of its consumers' buffers is full of unfinished groups.
    No deadlock, as long as logits are taken and, within a group, no sample's dense features wait for a later sample's
    pooled vectors: consider the oldest group that has not left. Every older group has left every buffer, and a
    decomposed core can finish a group without its partner (its results have a place for a whole group), so each
    buffer has room for this group; each stream brings it before any later one; so its elements reach all of its
    consumers, and it leaves.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        if not config.mlp.graph:
            raise ConfigError("mlp.graph", (), "must not be empty")
        for n in config.mlp.graph:
            if n.kind == "tables" and list(n.tables) != sorted(n.tables):
                raise ConfigError(f"mlp.graph[{n.name}].tables", n.tables, "must be ascending")
        self.config = config
        self.layouts = layouts = Layouts.of(config)
        super().__init__({
            #: Features of each sample, in order, ahead of its pooled vectors.
            "dense": In(stream.Signature(layouts.dense_element)),
            #: Elements of each sample, tables in order.
            "pooled": In(stream.Signature(layouts.pooled_element)),
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(layouts.table_write),
            #: Records of contract.program, while nothing is inferred.
            "parameter": In(stream.Signature(layouts.parameter)),
            #: width x (nb + 1) per group, groups in order.
            "logit": Out(stream.Signature(layouts.logit)),
            #: Streamed weights.
            "mem_read": Out(MemReadSignature(config.beat_bytes)),
            #: A group is inside.
            "busy": Out(1),
            #: An FC core takes a kernel step.
            "mac_step": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, mlp, nb_bits = self.config, self.config.mlp, self.layouts.nb_bits
        graph = mlp.graph
        by_name = {n.name: n for n in graph}
        m.submodules.parameters = bus = ParameterBus(config)
        connect(m, flipped(self.parameter), bus.i)

        sources: dict[str, object] = {}  # node name -> output stream
        lanes: dict[str, int] = {}
        consumers: dict[str, list] = {n.name: [] for n in graph}  # node name -> (input stream, lanes)
        busy, steps, dram_cores = [], [], []

        def attach(unit, edges) -> None:
            for j, e in enumerate(edges):
                consumers[e.producer].append((getattr(unit, f"i{j}"), e.lanes))

        def inputs_of(names) -> list[tuple[str, int, int]]:
            return [(name, by_name[name].width, lanes[name]) for name in names]

        table_nodes = [n for n in graph if n.kind == "tables"]
        if table_nodes:
            m.submodules.pooled_input = pooled = PooledInput(config, table_nodes)
            connect(m, flipped(self.pooled), pooled.i)
            m.d.comb += [
                pooled.table_valid.eq(self.table_valid),
                pooled.table.eq(self.table),
            ]
        else:
            m.d.comb += self.pooled.ready.eq(1)
        if not any(n.kind == "dense" for n in graph):
            m.d.comb += self.dense.ready.eq(1)

        for position, node in enumerate(graph):
            last = position == len(graph) - 1
            lanes[node.name] = 1
            if node.kind == "tables":
                sources[node.name] = getattr(pooled, f"o{table_nodes.index(node)}")
            elif node.kind == "dense":
                m.submodules.dense_input = unit = DenseInput(config, node)
                connect(m, flipped(self.dense), unit.i)
                mult, shift = Signal(MULT_BITS), Signal(signed(8))
                with m.If(bus.entry_valid & (bus.target == DENSE_QUANT) & (bus.index == 0)):
                    m.d.sync += [
                        mult.eq(bus.entry[:MULT_BITS]),
                        shift.eq(bus.entry[32:40].as_signed()),
                    ]
                m.d.comb += [
                    unit.mult.eq(mult),
                    unit.shift.eq(shift),
                ]
                sources[node.name] = unit.o
            elif node.kind == "fc":
                node_cores = [c for c in cores(graph) if c.node == node.name]
                lanes[node.name] = output_lanes(node, node_cores, last)
                units = []
                for c in node_cores:
                    edges = plan_edges(inputs_of(c.inputs), c.kc)
                    address = dram_weight_address(config, c) if c.weights == "dram" else 0
                    unit = FcCore(c, mlp.act_bits, mlp.n_batch, mlp.buffered, config.beat_bytes,
                                  lanes=lanes[node.name], edges=edges, hold_results=node.decomposed, address=address,
                                  packed=mlp.packed, primitive=mlp.primitive)
                    m.submodules[f"core{c.index}"] = unit
                    attach(unit, edges)
                    if c.weights == "dram":
                        dram_cores.append(unit)
                    else:
                        m.d.comb += [
                            unit.weight_valid.eq(bus.beat_valid & (bus.target == c.index)),
                            unit.weight_first.eq(bus.beat_first),
                            unit.weight_data.eq(bus.beat_data),
                        ]
                    units.append(unit)
                    busy.append(unit.busy)
                    steps.append(unit.step)
                epilogue = Epilogue(node.width, lanes[node.name], tuple(u.acc_bits for u in units),
                                    LOGIT_BITS if last else mlp.act_bits, node.relu and not last, nb_bits)
                m.submodules[f"epilogue_{node.name}"] = epilogue
                for k, unit in enumerate(units):
                    connect(m, unit.o, getattr(epilogue, f"i{k}"))
                m.d.comb += [
                    epilogue.entry_valid.eq(bus.entry_valid & (bus.target == EPILOGUE + position)),
                    epilogue.entry_row.eq(bus.index),
                    epilogue.entry.bias.eq(bus.entry[:ACC_BITS]),
                    epilogue.entry.mult.eq(bus.entry[64:64 + MULT_BITS]),
                    epilogue.entry.shift.eq(bus.entry[96:96 + SHIFT_BITS]),
                ]
                busy.append(~epilogue.idle)
                sources[node.name] = epilogue.o
            else:
                edges = plan_edges(inputs_of(node.inputs), interaction_word(node))
                unit = Interaction(node, edges, mlp.act_bits, mlp.n_batch, mlp.buffered, mlp.primitive)
                m.submodules[f"{node.kind}_{node.name}"] = unit
                attach(unit, edges)
                mult, shift = Signal(MULT_BITS, name=f"{node.name}_mult"), Signal(SHIFT_BITS, name=f"{node.name}_shift")
                with m.If(bus.entry_valid & (bus.target == INTERACTION + position) & (bus.index == 0)):
                    m.d.sync += [
                        mult.eq(bus.entry[64:64 + MULT_BITS]),
                        shift.eq(bus.entry[96:96 + SHIFT_BITS]),
                    ]
                m.d.comb += [
                    unit.mult.eq(mult),
                    unit.shift.eq(shift),
                ]
                busy.append(unit.busy)
                sources[node.name] = unit.o

        for node in graph[:-1]:
            source = sources[node.name]
            m.submodules[f"fork_{node.name}"] = fork = Fork(source.payload.shape(), len(consumers[node.name]))
            connect(m, source, fork.i)
            for k, (sink, sink_lanes) in enumerate(consumers[node.name]):
                out = getattr(fork, f"o{k}")
                if sink_lanes != lanes[node.name]:
                    splitter = LaneSplitter(lanes[node.name], sink_lanes, mlp.act_bits, node.width, nb_bits)
                    m.submodules[f"split_{node.name}_{k}"] = splitter
                    connect(m, out, splitter.i)
                    out = splitter.o
                connect(m, out, sink)
        busy.append(self._logits(m, sources[graph[-1].name], bus, [unit.failed for unit in dram_cores]))

        if dram_cores:
            m.submodules.weight_reads = arbiter = WeightReadArbiter(len(dram_cores), config.beat_bytes)
            for k, unit in enumerate(dram_cores):
                connect(m, unit.mem_read, arbiter.clients[k])
            connect(m, arbiter.mem_read, flipped(self.mem_read))
        # elements on their way through the quantisers; one that waits there waits for a core that is busy
        arriving = Signal(Fp32Quantizer.LATENCY + 1)
        taken = (self.dense.valid & self.dense.ready) | (self.pooled.valid & self.pooled.ready)
        m.d.sync += [
            arriving.eq(Cat(taken, arriving[:-1])),
            self.busy.eq(Cat(busy, arriving, self.dense.valid, self.pooled.valid).any()),
            self.mac_step.eq(Cat(steps).any()),
        ]
        return m

    def _logits(self, m: Module, source, bus, failures: list):
        """int32 of the last node to fp32 logits; returns what is busy.

        Cores work on groups in order and stream their weights once per group, so the next answer of each of ``failures``
        belongs to the group that leaves: nothing has to travel with it. The answers are there before its last logit,
        which depends on all weights.
        """
        exponent = Signal(signed(EXPONENT_BITS))
        with m.If(bus.entry_valid & (bus.target == LOGIT_FORMAT) & (bus.index == 0)):
            m.d.sync += exponent.eq(bus.entry[:EXPONENT_BITS].as_signed())
        p = source.payload
        final, error, known = Signal(), Signal(), Signal(init=1)  # the group's last: an fc node sends its rows in order
        move = Signal()
        m.d.comb += [
            final.eq((p.pos == self.config.mlp.graph[-1].width - 1) & (p.n == p.nb)),
            known.eq(~final | Cat(f.valid for f in failures).all()),
            move.eq(source.valid & source.ready),
            error.eq(final & Cat(f.payload for f in failures).any()),
            *(f.ready.eq(move & final) for f in failures),
        ]
        tag_bits = len(p.pos) + len(p.n) + len(p.nb) + 1
        m.submodules.to_fp32 = convert = IntToFp32(LOGIT_BITS, tag=tag_bits, exp_bits=EXPONENT_BITS)
        o, nb_bits = self.logit.payload, len(p.n)
        m.d.comb += [
            convert.i.p.i.eq(p.data[0]),
            convert.i.p.e.eq(exponent),
            convert.i.p.tag.eq(Cat(p.n, p.nb, error, p.pos)),
            convert.i.valid.eq(source.valid & known),
            source.ready.eq(convert.i.ready & known),
            o.value.eq(convert.o.p.value),
            o.n.eq(convert.o.p.tag[:nb_bits]),
            o.nb.eq(convert.o.p.tag[nb_bits:2 * nb_bits]),
            o.error.eq(convert.o.p.tag[2 * nb_bits]),
            o.o.eq(convert.o.p.tag[2 * nb_bits + 1:]),
            self.logit.valid.eq(convert.o.valid),
            convert.o.ready.eq(self.logit.ready),
        ]
        inside = Signal(range(convert.LATENCY + 1))
        m.d.sync += inside.eq(inside + move - (self.logit.valid & self.logit.ready))
        return inside != 0
