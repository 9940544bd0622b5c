"""The input buffer of a core: whole groups of vectors, filled by several producers, read word by word."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..engine.streams import Beat, clog2, low_bit
from ..interfaces import bits_for, index_bits

__all__ = ["Edge", "InputBuffer", "plan_edges"]


@dataclass(frozen=True)
class Edge:
    """One producer's part of a buffered vector: elements ``offset``..``offset + width - 1``, ``lanes`` a beat."""

    producer: str
    offset: int
    width: int
    lanes: int


def plan_edges(inputs: list[tuple[str, int, int]], k: int) -> tuple[Edge, ...]:
    """Edges of ``cat(inputs)``, inputs being (producer, width, its lanes), into a buffer of words of ``k`` elements.
    An edge takes as many lanes as its place in the words allows: a power of two that divides k and its offset."""
    edges, offset = [], 0
    for producer, width, lanes in inputs:
        edges.append(Edge(producer, offset, width, min(lanes, k, low_bit(offset) if offset else k)))
        offset += width
    return tuple(edges)


class InputBuffer(wiring.Component):
    """``buffered`` groups of up to ``n_batch`` vectors, the concatenation of ``edges``, in words of ``k`` elements.

    Write: streams ``i0``, ``i1``... of beats, one transfer per cycle each: every edge has its own memory, of the words it
    has a part in, so that no producer waits for another. An edge may run ahead of the others by ``buffered`` groups, then
    waits for ``release``.
    Read, of the oldest group: its first ``columns`` elements, in the order of the concatenation, are there for all its
    samples (two cycles after the transfer); ``nb`` its samples - 1, valid once ``columns`` is above 0. ``read{r}``
    {en, n, block} gives ``data{r}`` in the next cycle, held until the next ``en``. ``release`` ends the group (its reads
    were issued, the last may be in the same cycle); the next group's ``columns`` show two cycles later.
    ``started``: a group's first element arrives. ``active``: holds a started group.
    """

    def __init__(self, edges: tuple[Edge, ...], k: int, act_bits: int, n_batch: int, buffered: int, reads: int = 1):
        for e in edges:
            if k % e.lanes or e.offset % e.lanes:
                raise ValueError(f"edge {e}: lanes must divide its offset and the word of {k}")
        self.edges, self.k, self.act_bits = edges, k, act_bits
        self.n_batch, self.buffered, self.reads = n_batch, buffered, reads
        self.width = edges[-1].offset + edges[-1].width
        self.blocks = -(-self.width // k)
        self.nb_bits = bits_for(n_batch)
        read = data.StructLayout({"en": 1, "n": self.nb_bits, "block": index_bits(self.blocks)})
        super().__init__({
            #: Of each edge: its beats.
            **{f"i{j}": In(stream.Signature(Beat(e.lanes, act_bits, e.width, self.nb_bits)))
               for j, e in enumerate(edges)},
            #: Of the oldest group: as many elements of each sample are here, from the first on.
            "columns": Out(bits_for(self.width)),
            #: Its samples - 1, once ``columns`` is above 0.
            "nb": Out(self.nb_bits),
            #: Pulses: its reads were issued, and it makes room.
            "release": In(1),
            #: A word of its sample ``n``,
            **{f"read{r}": In(read) for r in range(reads)},
            #: in the next cycle, held until the next ``en``.
            **{f"data{r}": Out(data.ArrayLayout(signed(act_bits), k)) for r in range(reads)},
            #: Pulses: a group's first element is here.
            "started": Out(1),
            #: Holds a group, whole or in part.
            "active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        k, edges = self.k, self.edges
        n_bits, bank_bits = clog2(self.n_batch), clog2(self.buffered)
        read_bank = Signal(max(1, bank_bits))

        def address(bank: Value, n: Value, block: Value) -> Value:
            return Cat(bank[:bank_bits], n[:n_bits], block)

        # -- write: a register stage, then the edge's memory
        groups = Signal(bits_for(self.buffered))  # started and not released
        nbs = Array(Signal(self.nb_bits, name=f"nb{b}") for b in range(self.buffered))
        prefix = self.width
        moves, memories = [], []
        for j, e in reversed(list(enumerate(edges))):
            port, p = getattr(self, f"i{j}"), getattr(self, f"i{j}").payload
            first, blocks = e.offset // k, (e.offset + e.width - 1) // k - e.offset // k + 1
            memory = Memory(shape=k * self.act_bits, depth=max(2, blocks * self.n_batch * self.buffered), init=[])
            m.submodules[f"memory{j}"] = memory
            memories.insert(0, (memory, first, index_bits(blocks)))
            write = memory.write_port(granularity=e.lanes * self.act_bits)
            filled = Signal(bits_for(self.buffered), name=f"filled{j}")
            progress = Signal(bits_for(self.width), init=e.offset, name=f"progress{j}")
            bank = Signal(max(1, bank_bits), name=f"bank{j}")
            move, complete = Signal(name=f"move{j}"), Signal(name=f"complete{j}")
            column = Signal(bits_for(self.width), name=f"column{j}")
            place = Signal(bits_for(self.width), name=f"place{j}")  # counted from the edge's first word
            m.d.comb += [
                port.ready.eq(filled != self.buffered),
                move.eq(port.valid & port.ready),
                column.eq(p.pos + e.offset),
                place.eq(p.pos + e.offset % k),
                complete.eq(move & (p.n == p.nb) & (p.pos == (e.width - 1) // e.lanes * e.lanes)),
            ]
            m.d.sync += write.en.eq(0)
            with m.If(move):
                lane = place[clog2(e.lanes):clog2(k)]
                m.d.sync += [
                    write.en.eq(Cat(lane == i for i in range(k // e.lanes))),
                    write.addr.eq(address(bank, p.n, (place >> clog2(k))[:index_bits(blocks)])),
                    write.data.eq(Cat(*[p.data.as_value()] * (k // e.lanes))),
                ]
                m.d.sync += nbs[bank if bank_bits else 0].eq(p.nb)
            with m.If(complete):
                m.d.sync += progress.eq(e.offset)
                if bank_bits:
                    m.d.sync += bank.eq(~bank)
            with m.Elif(move & (p.n == p.nb)):
                m.d.sync += progress.eq(column + e.lanes)
            m.d.sync += filled.eq(filled + complete - self.release)
            moves.append(move & (filled == groups))
            prefix = Mux(filled != 0, prefix, progress)
        m.d.comb += [
            self.started.eq(Cat(moves).any()),
            self.active.eq(groups != 0),
            self.nb.eq(nbs[read_bank if bank_bits else 0]),
        ]
        m.d.sync += [
            groups.eq(groups + self.started - self.release),
            self.columns.eq(prefix),
        ]
        with m.If(self.release):
            m.d.sync += self.columns.eq(0)
            if bank_bits:
                m.d.sync += read_bank.eq(~read_bank)

        # -- read: every memory, then each lane from the edge that owns it
        for r in range(self.reads):
            read = getattr(self, f"read{r}")
            words = []
            for memory, first, bits in memories:
                port = memory.read_port()
                m.d.comb += [
                    port.en.eq(read.en),
                    port.addr.eq(address(read_bank, read.n, (read.block - first)[:bits])),
                ]
                words.append(port.data)
            begun: dict[int, Signal] = {}  # block number -> the word read is of that block or a later one

            def from_block(b: int, read=read, begun=begun, r=r) -> Signal:
                if b not in begun:
                    begun[b] = Signal(name=f"begun{r}_{b}")
                    with m.If(read.en):
                        m.d.sync += begun[b].eq(read.block >= b)
                return begun[b]

            for lane in range(k):
                v = words[0].word_select(lane, self.act_bits)
                for e, word in zip(edges[1:], words[1:], strict=True):
                    v = Mux(from_block(max(0, -(-(e.offset - lane) // k))), word.word_select(lane, self.act_bits), v)
                m.d.comb += getattr(self, f"data{r}")[lane].eq(v)
        return m
