"""ATTENTION: softmax(q k^T) v, head by head, both products on the array."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract.tensor import HEAD_CHANNELS, TensorConfig

from ..engine.requantize import Requantizer
from ..engine.streams import clog2
from ..interfaces import index_bits
from ..primitives.credit_fifo import CreditFifo
from .epilogue import ACCUMULATOR_BITS
from .groups import pieces, pixel_beats
from .head_operands import HeadStore, HeadWeights, SliceReader, job_layout
from .places import Places
from .plan import ADDRESS_BITS, SIZE_BITS, every_ready, unit_queue
from .planner import descriptor_layout
from .softmax import BASE, Softmax, tile_keys, tile_tokens
from .unit import array_ports, unit_ports
from .writer import CodeWriter

__all__ = ["Attention"]

HALVES = 2
CODE = 8  # bits of an output
BASE_BITS = BASE.bit_length()  # all of them set
SUM_BITS = ACCUMULATOR_BITS + 1  # 1024 exponentials of 15 bits times values


def item_layout() -> data.StructLayout:
    """A tile of ``tokens``: where its queries and outputs lie. ``head_last``: its head's last; ``end``: the last of all."""
    return data.StructLayout({"q": ADDRESS_BITS, "y": ADDRESS_BITS, "tokens": SIZE_BITS, "head_last": 1, "end": 1})


class TokenTiles(wiring.Component):
    """``start``: the tiles of a descriptor, head by head, as many tokens each as the scores of its keys leave room for."""

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "descriptor": In(descriptor_layout()),
            "pitch": In(SIZE_BITS),
            "start": In(1),
            "o": Out(stream.Signature(item_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        d, o = self.descriptor, self.o.payload
        most, keys = tile_tokens(self.config), tile_keys(self.config)
        tokens, left = Signal(2 * SIZE_BITS), Signal(2 * SIZE_BITS)
        fewer, size, step = Signal(range(3)), Signal(SIZE_BITS), Signal(ADDRESS_BITS)
        heads, head_q, head_y = Signal(8), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        last = Signal()
        m.d.sync += [
            tokens.eq(d.in_height * d.in_width),
            fewer.eq((d["keys"] > keys) + (d["keys"] > 2 * keys)),
            size.eq(most >> fewer),
            step.eq((self.pitch << clog2(most)) >> fewer),
        ]
        m.d.comb += [
            last.eq(left <= size),
            o.tokens.eq(Mux(last, left, size)),
            o.head_last.eq(last),
            o.end.eq(last & (heads == 1)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    heads.eq(d.heads),
                    head_q.eq(d.x),
                    head_y.eq(d.y),
                ]
                with m.If(self.start):
                    m.next = "HEAD"
            with m.State("HEAD"):
                m.d.sync += [
                    left.eq(tokens),
                    o.q.eq(head_q),
                    o.y.eq(head_y),
                    head_q.eq(head_q + d.head_dim),
                    head_y.eq(head_y + d.head_dim),
                ]
                m.next = "TILE"
            with m.State("TILE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [
                        left.eq(left - size),
                        o.q.eq(o.q + step),
                        o.y.eq(o.y + step),
                    ]
                    with m.If(last):
                        m.d.sync += heads.eq(heads - 1)
                        m.next = "HEAD"
                    with m.If(o.end):
                        m.next = "IDLE"
        return m


class Schedule(wiring.Component):
    """The array's jobs for tiles ``i``: a tile's product with the keys, then that of the tile before with the values: so
    exponentials are made while the array works."""

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(item_layout())),
            "o": Out(stream.Signature(job_layout())),
        })

    def elaborate(self, platform):
        m = Module()
        item, o = self.i.payload, self.o
        kept = data.StructLayout({"tokens": SIZE_BITS, "head_last": 1, "end": 1})
        older, newer = Signal(kept), Signal(kept)
        have = Signal()  # ``older``, whose exponentials wait

        def old_job() -> list:
            return [o.valid.eq(1), o.payload.values.eq(1), o.payload.tokens.eq(older.tokens),
                    o.payload.head_last.eq(older.head_last)]

        with m.FSM():
            with m.State("KEYS"):
                m.d.comb += [
                    o.valid.eq(self.i.valid),
                    o.payload.tokens.eq(item.tokens),
                    o.payload.head_last.eq(item.head_last),
                    self.i.ready.eq(o.ready),
                ]
                with m.If(o.valid & o.ready):
                    now = Cat(item.tokens, item.head_last, item.end)
                    m.d.sync += [
                        newer.eq(now),
                        have.eq(1),
                    ]
                    with m.If(have):
                        m.next = "VALUES"
                    with m.Else():
                        m.d.sync += older.eq(now)
                        with m.If(item.end):
                            m.next = "LAST"
            with m.State("VALUES"):
                m.d.comb += old_job()
                with m.If(o.ready):
                    m.d.sync += older.eq(newer)
                    m.next = "KEYS"
                    with m.If(newer.end):
                        m.next = "LAST"
            with m.State("LAST"):
                m.d.comb += old_job()
                with m.If(o.ready):
                    m.d.sync += have.eq(0)
                    m.next = "KEYS"
        return m


class Attention(wiring.Component):
    """``start``: does what a checked ATTENTION ``descriptor`` says; ``done``: its output lies in memory, or a read or write
    failed on the way (docs/offload.md, "What every operator computes").

    Takes ``start`` only when idle, with ``descriptor`` steady from three cycles before it until ``done``. ``mem_read``: 0 q,
    1 keys, 2 values. ``step``, ``weight``, ``array_sums``: a :class:`~nearflash_hw.tensor.array.PixelArray` of ``config``,
    which nobody else uses meanwhile.

    Keys and values of a head are held on chip and are its weights. For a tile of tokens (``pixels`` / 2; half of them beyond
    max_keys / 4 keys, a quarter beyond max_keys / 2) the array multiplies queries with keys, the :class:`.Softmax` makes
    exponentials, and the array multiplies those with the values, while the next tile's are made. An exponential is two
    digits to base 255, two neighbouring pixels under the same weights, which are put together again here.

    Limits: ``head_dim`` a multiple of beat_bytes, at most HEAD_CHANNELS; times ``keys``, in whole multiples of beat_bytes,
    at most weight_bytes / 2. A tile of T tokens takes the array
    T (ceil(keys / rows) ceil(head_dim / columns) + 2 ceil(head_dim / rows) ceil(keys / columns)) cycles. What else there is
    is hidden, but a descriptor's first keys and its last tile, as long as a weight word comes within T cycles, a block's
    sums leave while the next block's are made (rows / lanes cycles a pixel), and exponentials (keys / lanes) and reciprocals
    (24 to 30 cycles a token) are made while values are multiplied.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        if config.columns % beat_bytes:
            raise ValueError(f"columns = {config.columns}: must be a multiple of beat_bytes ({beat_bytes})")
        self.config, self.beat_bytes = config, beat_bytes
        super().__init__({
            "descriptor": In(descriptor_layout()),
            **unit_ports(beat_bytes, 3),
            **array_ports(config, beat_bytes),
        })

    def elaborate(self, platform):
        m = Module()
        c, d, beat = self.config, self.descriptor, self.beat_bytes
        pitch, beats = Signal(SIZE_BITS), Signal(SIZE_BITS)
        m.d.sync += [
            pitch.eq(pixel_beats(d.in_channels, 0, beat) << clog2(beat)),
            beats.eq(d.head_dim >> clog2(beat)),
        ]

        # -- tiles, and the array's jobs
        m.submodules.tiles = tiles = TokenTiles(c, beat)
        m.submodules.schedule = schedule = Schedule()
        m.submodules.query_items = query_items = unit_queue(item_layout())
        m.submodules.job_items = job_items = unit_queue(item_layout())
        m.submodules.place_items = place_items = unit_queue(item_layout())
        m.submodules.step_jobs = step_jobs = unit_queue(job_layout())
        m.submodules.weight_jobs = weight_jobs = unit_queue(job_layout())
        m.submodules.sum_jobs = sum_jobs = unit_queue(job_layout())
        m.d.comb += [
            tiles.descriptor.eq(d),
            tiles.pitch.eq(pitch),
            tiles.start.eq(self.start),
        ]
        every_ready(m, tiles.o, [query_items.i, job_items.i, place_items.i])
        connect(m, job_items.o, schedule.i)
        every_ready(m, schedule.o, [step_jobs.i, weight_jobs.i, sum_jobs.i])

        # -- keys and values
        m.submodules.keys = keys = HeadStore(c, beat, transposed=False)
        m.submodules.values = values = HeadStore(c, beat, transposed=True)
        m.submodules.weights = weights = HeadWeights(c, beat)
        for k, (store, at) in enumerate(((keys, d.r), (values, d.v))):
            m.d.comb += [
                store.start.eq(self.start),
                store.at.eq(at),
                store.heads.eq(d.heads),
                store.keys.eq(d["keys"]),
                store.beats.eq(beats),
                store.pitch.eq(pitch),
                store.release.eq(weights.release[k]),
                store.read.eq(weights.read[k]),
                weights.full[k].eq(store.full),
                weights.data[k].eq(store.data),
            ]
            connect(m, store.mem_read, flipped(self.mem_read[1 + k]))
        m.d.comb += [
            weights.keys.eq(d["keys"]),
            weights.channels.eq(d.head_dim),
        ]
        connect(m, weight_jobs.o, weights.job)
        connect(m, weights.o, flipped(self.weight))

        # -- queries, in words of columns, into the half that is free
        most = tile_tokens(c)
        half_words = most * max(1, HEAD_CHANNELS // c.columns)
        word_bits, per_word = index_bits(half_words), c.columns // beat
        m.submodules.slices = slices = SliceReader(beat)
        m.submodules.queries = queries = Memory(shape=8 * c.columns, depth=HALVES << word_bits, init=[])
        write, query = queries.write_port(granularity=8 * beat), queries.read_port()
        fill, lane, fill_half = Signal(word_bits), Signal(range(max(2, per_word))), Signal()
        free, filled, reading = Signal(range(HALVES + 1), init=HALVES), Signal(range(HALVES + 1)), Signal()
        asked, came, released = Signal(), Signal(), Signal()
        connect(m, slices.mem_read, flipped(self.mem_read[0]))
        m.d.comb += [
            slices.beats.eq(beats),
            slices.pitch.eq(pitch),
            slices.job.payload.address.eq(query_items.o.payload.q),
            slices.job.payload.rows.eq(query_items.o.payload.tokens),
            slices.job.valid.eq(query_items.o.valid & (reading | (free != 0))),
            asked.eq(slices.job.valid & ~reading),
            came.eq(slices.job.ready),
            query_items.o.ready.eq(came),
            write.addr.eq(Cat(fill, fill_half)),
            write.data.eq(Cat(*[slices.data] * per_word)),
            *(write.en[k].eq(slices.arrives & (lane == k)) for k in range(per_word)),
        ]
        m.d.sync += [
            free.eq(free - asked + released),
            filled.eq(filled + came - released),
            reading.eq((reading | asked) & ~came),
            fill_half.eq(fill_half ^ came),
        ]
        with m.If(slices.arrives):
            m.d.sync += lane.eq(lane + 1)
            with m.If(slices.row_end | (lane == per_word - 1)):
                m.d.sync += [
                    lane.eq(0),
                    fill.eq(fill + 1),
                ]
        with m.If(came):
            m.d.sync += fill.eq(0)

        # -- steps of a job: block, step, token, digit
        m.submodules.softmax = softmax = Softmax(c)
        m.submodules.steps = steps = CreditFifo(self.step.payload.shape(), 8)
        connect(m, steps.o, flipped(self.step))

        job = step_jobs.o.payload
        active, start_keys, start_values = Signal(), Signal(), Signal()
        in_block = Signal(SIZE_BITS)
        last_block, last_step, last_token = (Signal(SIZE_BITS, name=n) for n in ("last_block", "last_step", "last_token"))
        block, step, token, digit = Signal(SIZE_BITS), Signal(SIZE_BITS), Signal(SIZE_BITS), Signal()
        address, query_half = Signal(SIZE_BITS), Signal()
        go, token_end, step_end, block_end, job_end = (
            Signal(name=n) for n in ("go", "token_end", "step_end", "block_end", "job_end"))
        m.d.sync += [  # steady a cycle after the job is there, which is when it begins at the earliest
            last_block.eq(Mux(job.values, pieces(d.head_dim, c.rows), pieces(d["keys"], c.rows)) - 1),
            last_step.eq(Mux(job.values, pieces(d["keys"], c.columns), pieces(d.head_dim, c.columns)) - 1),
            last_token.eq(job.tokens - 1),
            in_block.eq(Mux(job.values, pieces(d["keys"], c.columns), pieces(d.head_dim, c.columns))),
        ]
        m.d.comb += [
            start_keys.eq(~active & step_jobs.o.valid & ~job.values & (filled != 0) & softmax.free),
            start_values.eq(~active & step_jobs.o.valid & job.values & softmax.ready),
            softmax.reserve.eq(start_keys),
            softmax.begin.eq(start_values),
            go.eq(active & steps.credit),
            steps.spend.eq(go),
            token_end.eq(digit | ~job.values),
            step_end.eq(token_end & (token == last_token)),
            block_end.eq(step_end & (step == last_step)),
            job_end.eq(go & block_end & (block == last_block)),
            step_jobs.o.ready.eq(job_end),
            released.eq(job_end & ~job.values),
            query.addr.eq(Cat(address[:word_bits], query_half)),
            query.en.eq(go),
            softmax.read.address.eq(address),
            softmax.read.en.eq(go & ~digit),
        ]
        with m.If(start_keys | start_values):
            m.d.sync += [
                active.eq(1),
                *(s.eq(0) for s in (block, step, token, digit, address)),
            ]
        with m.If(go):
            m.d.sync += digit.eq(~token_end)
            with m.If(token_end):
                m.d.sync += [
                    token.eq(token + 1),
                    address.eq(address + in_block),
                ]
            with m.If(step_end):
                m.d.sync += [
                    token.eq(0),
                    step.eq(step + 1),
                    address.eq(step + 1),
                ]
            with m.If(block_end):
                m.d.sync += [
                    step.eq(0),
                    block.eq(block + 1),
                    address.eq(0),
                ]
            with m.If(job_end):
                m.d.sync += [
                    active.eq(0),
                    query_half.eq(query_half ^ ~job.values),
                ]
        mark = Signal(self.step.payload.shape(), reset_less=True)
        read, put, exponentials, low = Signal(), Signal(), Signal(), Signal()
        digits = [Mux(low, e.low, e.high) for e in softmax.data]
        m.d.sync += [
            read.eq(go),
            put.eq(read),
            exponentials.eq(job.values),
            low.eq(digit),
            mark.pixel.eq(Mux(job.values, Cat(digit, token), token)),
            mark.begin.eq((token == 0) & ~digit),
            mark.first.eq(step == 0),
            mark.last.eq(step == last_step),
            mark.end.eq(step_end),
            steps.payload.eq(mark),
            steps.payload.x.as_value().eq(Mux(exponentials, Cat(digits), query.data)),
        ]
        m.d.comb += steps.push.eq(put)

        # -- sums: scores to the softmax, both digits' of outputs together
        kind, parts = sum_jobs.o.payload, clog2(c.rows // c.lanes)
        pixel, sets = Signal(SIZE_BITS), Signal(SIZE_BITS)  # a digit each; sets of lanes
        taken, scale_half, out_end, set_end = Signal(), Signal(), Signal(), Signal()
        m.submodules.out = out = CreditFifo(data.ArrayLayout(signed(CODE), c.lanes), 16)
        outputs, last_set, last_pixel = sum_jobs.o.valid & kind.values, Signal(SIZE_BITS), Signal(SIZE_BITS)
        m.d.sync += [
            last_set.eq((pieces(d.head_dim, c.rows) << parts) - 1),
            last_pixel.eq((kind.tokens << 1) - 1),  # of the job before in a job's first cycle, and not 0
        ]
        m.d.comb += [
            softmax.keys.eq(d["keys"]),
            softmax.score_mult.eq(d.score_mult),
            softmax.score_shift.eq(d.score_shift),
            softmax.value_mult.eq(d.value_mult),
            softmax.value_shift.eq(d.value_shift),
            softmax.tokens.eq(kind.tokens),
            softmax.i.payload.eq(self.array_sums.payload),
            softmax.i.valid.eq(self.array_sums.valid & sum_jobs.o.valid & ~kind.values),
            self.array_sums.ready.eq(Mux(kind.values, out.credit, 1) & sum_jobs.o.valid),
            taken.eq(outputs & self.array_sums.valid & out.credit),
            set_end.eq(pixel == last_pixel),
            out_end.eq(taken & set_end & (sets == last_set)),
            sum_jobs.o.ready.eq(out_end | softmax.tile_end),
            softmax.release.eq(out_end),
            softmax.scale_read.en.eq(taken),
            softmax.scale_read.half.eq(scale_half),
            softmax.scale_read.token.eq(pixel[1:]),
            out.spend.eq(taken & pixel[0]),
        ]
        with m.If(taken):
            m.d.sync += pixel.eq(Mux(set_end, 0, pixel + 1))
            with m.If(set_end):
                m.d.sync += sets.eq(Mux(out_end, 0, sets + 1))
        m.d.sync += scale_half.eq(scale_half ^ out_end)
        m.submodules.requantizer = requantizer = Requantizer(c.lanes, CODE, False, 0, acc_bits=SUM_BITS)
        whole = Signal()
        m.d.sync += whole.eq(taken & pixel[0])
        m.d.comb += requantizer.valid.eq(whole)
        for k in range(c.lanes):
            high = Signal(signed(SUM_BITS), name=f"high{k}", reset_less=True)
            total = Signal(signed(SUM_BITS), name=f"total{k}", reset_less=True)
            code = Signal(signed(CODE), name=f"code{k}", reset_less=True)
            v, q = self.array_sums.payload.data[k], requantizer.q[k]
            with m.If(taken & ~pixel[0]):
                m.d.sync += high.eq((v << BASE_BITS) - v)  # times the digits' base
            m.d.sync += [
                total.eq(high + v),
                code.eq(Mux(q < d.low, d.low, Mux(q > d.high, d.high, q))),
            ]
            m.d.comb += [
                requantizer.acc[k].eq(total),
                requantizer.mult[k].eq(softmax.scale.mult),
                requantizer.shift[k].eq(softmax.scale.shift),
                out.payload[k].eq(code),
            ]
        pushed = Signal()
        m.d.sync += pushed.eq(requantizer.o_valid)
        m.d.comb += out.push.eq(pushed)

        # -- codes to memory
        m.submodules.places = places = Places(c, "y")
        m.submodules.writer = writer = CodeWriter(c.lanes, beat)
        item = place_items.o.payload
        m.d.comb += [
            places.plan.channels.eq(d.head_dim),
            places.plan.shuffle.eq(1),
            places.plan.y.right.eq(pitch),
            places.tile.valid.eq(place_items.o.valid),
            place_items.o.ready.eq(places.tile.ready),
            places.tile.payload.rows.eq(1),
            places.tile.payload.columns.eq(item.tokens),
            places.tile.payload.y.eq(item.y),
            places.tile.payload.blocks.eq(pieces(d.head_dim, c.rows)),
            places.tile.payload.first.eq(1),
            places.tile.payload.group_end.eq(1),
            places.tile.payload.end.eq(item.end),
            writer.codes.valid.eq(out.o.valid),
            out.o.ready.eq(writer.codes.ready),
            *(a.eq(b) for a, b in zip(writer.codes.payload, out.o.payload, strict=True)),
        ]
        connect(m, places.o, writer.place)
        connect(m, writer.mem_write, flipped(self.mem_write))
        m.d.comb += writer.failed.eq(Cat(u.error for u in (slices, keys, values)).any())
        connect(m, writer.done, flipped(self.done))
        return m
