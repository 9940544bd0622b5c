"""Keys and values of an attention head on chip, as the array's weights."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import TensorConfig

from ..engine.streams import clog2
from ..interfaces import index_bits
from ..primitives.credit_fifo import CreditFifo
from ..primitives.memport import MemReadSignature
from .groups import pieces
from .plan import ADDRESS_BITS, SIZE_BITS

__all__ = ["HeadStore", "HeadWeights", "SliceReader", "job_layout"]


def job_layout() -> data.StructLayout:
    """A tile of ``tokens`` of a head: ``values``: its product with the values, else with the keys. ``head_last``: the head's
    last of its kind."""
    return data.StructLayout({"values": 1, "tokens": SIZE_BITS, "head_last": 1})


def _words(config: TensorConfig, beat_bytes: int) -> int:
    return config.weight_bytes // 2 // beat_bytes


def _read_layout(config: TensorConfig, beat_bytes: int) -> data.StructLayout:
    return data.StructLayout({"en": 1, "address": index_bits(_words(config, beat_bytes))})


class SliceReader(wiring.Component):
    """For each ``job``: ``beats`` of each of its ``rows``, ``pitch`` bytes apart. ``arrives``: a beat is on ``data``,
    whenever it comes: a job is given when there is room for it. ``job.ready``: with its last beat. ``error``: pulses when
    a read fails. A row is a request."""

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "beats": In(SIZE_BITS),
            "pitch": In(SIZE_BITS),
            "job": In(stream.Signature(data.StructLayout({"address": ADDRESS_BITS, "rows": SIZE_BITS}))),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "arrives": Out(1),
            "row_end": Out(1),
            "data": Out(8 * beat_bytes),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        req, rsp = self.mem_read.req, self.mem_read.rsp
        active, to_ask, to_come = Signal(), Signal(SIZE_BITS), Signal(SIZE_BITS)
        m.d.comb += [
            req.payload.beats.eq(self.beats),
            req.valid.eq(active & (to_ask != 0)),
            rsp.ready.eq(1),
            self.arrives.eq(rsp.valid),
            self.row_end.eq(rsp.payload.last),
            self.data.eq(rsp.payload.data),
            self.error.eq(rsp.valid & rsp.payload.error),
            self.job.ready.eq(rsp.valid & rsp.payload.last & (to_come == 1)),
        ]
        with m.If(~active):
            m.d.sync += [
                active.eq(self.job.valid),
                req.payload.addr.eq(self.job.payload.address),
                to_ask.eq(self.job.payload.rows),
                to_come.eq(self.job.payload.rows),
            ]
        with m.If(req.valid & req.ready):
            m.d.sync += [
                req.payload.addr.eq(req.payload.addr + self.pitch),
                to_ask.eq(to_ask - 1),
            ]
        with m.If(rsp.valid & rsp.payload.last):
            m.d.sync += to_come.eq(to_come - 1)
        with m.If(self.job.ready):
            m.d.sync += active.eq(0)
        return m


class HeadStore(wiring.Component):
    """``start``: the ``keys`` rows of each of ``heads`` heads' ``beats``, head after head: ``full`` when one is here, until
    ``release``. ``read``: a cycle later ``data``.

    Word ``beats * row + beat`` is a beat of a row's channels; ``transposed``, word ``channels * (row // beat_bytes) +
    channel`` is that channel of beat_bytes rows. A head's bytes, its rows in whole groups of beat_bytes, are at most half
    the configuration's ``weight_bytes``.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int, *, transposed: bool):
        self.beat_bytes, self.transposed = beat_bytes, transposed
        self.words, read = _words(config, beat_bytes), _read_layout(config, beat_bytes)
        self.address_bits = read["address"].width
        super().__init__({
            "start": In(1),
            "at": In(ADDRESS_BITS),
            "heads": In(8),
            "keys": In(SIZE_BITS),
            "beats": In(SIZE_BITS),
            "pitch": In(SIZE_BITS),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "full": Out(1),
            "release": In(1),
            "read": In(read),
            "data": Out(8 * beat_bytes),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beat, bits = self.beat_bytes, clog2(self.beat_bytes)
        m.submodules.slices = slices = SliceReader(beat)
        connect(m, slices.mem_read, flipped(self.mem_read))
        job, left = slices.job, Signal(8)
        m.d.comb += [
            slices.beats.eq(self.beats),
            slices.pitch.eq(self.pitch),
            job.valid.eq((left != 0) & ~self.full),
            job.payload.rows.eq(self.keys),
            self.error.eq(slices.error),
        ]
        with m.If(self.release):
            m.d.sync += self.full.eq(0)
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.heads),
                job.payload.address.eq(self.at),
            ]
        with m.If(job.ready):
            m.d.sync += [
                self.full.eq(1),
                left.eq(left - 1),
                job.payload.address.eq(job.payload.address + (self.beats << bits)),
            ]

        if not self.transposed:
            m.submodules.memory = memory = Memory(shape=8 * beat, depth=self.words, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(slices.arrives),
                write.data.eq(slices.data),
                read.en.eq(self.read.en),
                read.addr.eq(self.read.address),
                self.data.eq(read.data),
            ]
            with m.If(slices.arrives):
                m.d.sync += write.addr.eq(write.addr + 1)
            with m.If(job.ready):
                m.d.sync += write.addr.eq(0)
            return m

        # Byte (row, channel) lies in bank row + channel: a row's neighbouring channels are in different ones, and so are a
        # channel's neighbouring rows.
        row, group, at = Signal(bits), Signal(self.address_bits), Signal(self.address_bits)
        turned = Signal(bits)  # of the word that was read
        banks = []
        for k in range(beat):
            m.submodules[f"bank{k}"] = bank = Memory(shape=8, depth=self.words, init=[])
            write, read = bank.write_port(), bank.read_port()
            channel = Signal(bits, name=f"channel{k}")
            m.d.comb += [
                channel.eq(k - row),
                write.addr.eq(Cat(channel, at)),
                write.data.eq(slices.data.word_select(channel, 8)),
                write.en.eq(slices.arrives),
                read.addr.eq(self.read.address),
                read.en.eq(self.read.en),
            ]
            banks.append(read.data)
        rows = Cat(banks)
        with m.If(self.read.en):
            m.d.sync += turned.eq(self.read.address)
        for k in range(beat):
            place = Signal(bits, name=f"place{k}")
            m.d.comb += [
                place.eq(turned + k),
                self.data[8 * k:8 * k + 8].eq(rows.word_select(place, 8)),
            ]
        with m.If(slices.arrives):
            m.d.sync += at.eq(at + 1)
            with m.If(slices.row_end):
                m.d.sync += [
                    row.eq(row + 1),
                    at.eq(group),
                ]
                with m.If(row == beat - 1):
                    m.d.sync += [
                        group.eq(group + self.beats),
                        at.eq(group + self.beats),
                    ]
        with m.If(job.ready):
            m.d.sync += [
                row.eq(0),
                group.eq(0),
                at.eq(0),
            ]
        return m


class HeadWeights(wiring.Component):
    """For each ``job``, the array's weight words in beats: keys [rows][channels of a step] in the order (block of keys, step
    of channels), channels beyond the head's 0; or values [channels of a block][keys of a step] in the order (block of
    channels, step of keys). Begins when the store is ``full``; ``release``: with the last job of a head. A beat a cycle."""

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "job": In(stream.Signature(job_layout())),
            "keys": In(SIZE_BITS),
            "channels": In(SIZE_BITS),
            "full": In(2),
            "release": Out(2),
            "read": Out(data.ArrayLayout(_read_layout(config, beat_bytes), 2)),
            "data": In(data.ArrayLayout(8 * beat_bytes, 2)),
            "o": Out(stream.Signature(8 * beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        c, job, beat = self.config, self.job.payload, self.beat_bytes
        row_beats = c.columns // beat
        beats = self.channels >> clog2(beat)  # of a key's channels
        m.submodules.out = out = CreditFifo(8 * beat, 8)
        connect(m, out.o, flipped(self.o))

        # -- addresses, from a beat to the next, a row, a step, a block
        bits = len(self.read[0].address)
        block, step, row, part = (Signal(SIZE_BITS, name=n) for n in ("block", "step", "row", "part"))
        at, row_at, step_at, block_at = (Signal(bits, name=n) for n in ("at", "row_at", "step_at", "block_at"))
        channel_beat = Signal(SIZE_BITS)  # of the step
        active, go = Signal(), Signal()
        row_end, step_end, block_end, job_end = (Signal(name=n) for n in ("row_end", "step_end", "block_end", "job_end"))
        last_block, last_step = Signal(SIZE_BITS), Signal(SIZE_BITS)
        m.d.sync += [  # steady a cycle after the job is there, which is when it begins at the earliest
            last_block.eq(Mux(job.values, pieces(self.channels, c.rows), pieces(self.keys, c.rows)) - 1),
            last_step.eq(Mux(job.values, pieces(self.keys, c.columns), pieces(self.channels, c.columns)) - 1),
        ]
        m.d.comb += [
            go.eq(active & out.credit),
            row_end.eq(part == row_beats - 1),
            step_end.eq(row_end & (row == c.rows - 1)),
            block_end.eq(step_end & (step == last_step)),
            job_end.eq(go & block_end & (block == last_block)),
            self.job.ready.eq(job_end),
            *(self.release[k].eq(job_end & job.head_last & (job.values == k)) for k in range(2)),
            *(self.read[k].en.eq(go & (job.values == k)) for k in range(2)),
            *(self.read[k].address.eq(at) for k in range(2)),
            out.spend.eq(go),
        ]
        per_part = Mux(job.values, self.channels, 1)
        per_row = Mux(job.values, 1, beats)
        per_step = Mux(job.values, self.channels << clog2(row_beats), row_beats)
        per_block = Mux(job.values, c.rows, beats << clog2(c.rows))
        with m.If(~active):
            m.d.sync += [
                active.eq(self.job.valid & self.full.bit_select(job.values, 1)),
                *(s.eq(0) for s in (block, step, row, part, at, row_at, step_at, block_at, channel_beat)),
            ]
        with m.Elif(go):
            m.d.sync += [
                part.eq(part + 1),
                at.eq(at + per_part),
            ]
            with m.If(row_end):
                m.d.sync += [
                    part.eq(0),
                    row.eq(row + 1),
                    *(s.eq(row_at + per_row) for s in (at, row_at)),
                ]
            with m.If(step_end):
                m.d.sync += [
                    row.eq(0),
                    step.eq(step + 1),
                    channel_beat.eq(channel_beat + row_beats),
                    *(s.eq(step_at + per_step) for s in (at, row_at, step_at)),
                ]
            with m.If(block_end):
                m.d.sync += [
                    step.eq(0),
                    block.eq(block + 1),
                    channel_beat.eq(0),
                    *(s.eq(block_at + per_block) for s in (at, row_at, step_at, block_at)),
                ]
            with m.If(job_end):
                m.d.sync += active.eq(0)

        came, values, beyond = Signal(), Signal(), Signal()
        m.d.sync += [
            came.eq(go),
            values.eq(job.values),
            beyond.eq(~job.values & (channel_beat + part >= beats)),
        ]
        m.d.comb += [
            out.push.eq(came),
            out.payload.eq(Mux(beyond, 0, Mux(values, self.data[1], self.data[0]))),
        ]
        return m
