"""TABLE_CREATE and TABLE_DELETE: descriptors are checked here, once, so that the lookup engine can trust them."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, RowFormat, Status
from nearflash.contract.table import DESCRIPTOR_WORDS, EXTENT_WORD, MAX_ROW_BITS, PoolMode

from ..interfaces import Layouts, bits_for

__all__ = ["TableManager"]

LSB_EXP = (-250, 127)
QUANT_SHIFT = (-128, 127)
HEADROOM_MAX = 16


class TableManager(wiring.Component):
    """Carries out ``req`` {delete, table, prp1, prp2} and answers each with ``result`` {status, dw0}.

    A good descriptor (:mod:`nearflash.contract.table`) is broadcast on ``table`` for one cycle of ``table_valid``.
    Checked: every word's range, the stride, that rows fit their pages and pages their extents, that ``magic`` and
    ``shift`` divide by the rows per page exactly (Granlund and Montgomery, PLDI 1994, theorem 4.2), and that the extents
    overlap neither each other nor those of any other open table. A table that is open is replaced; after an error it
    stays as it was. BAD_TABLE's dw0 is the descriptor word at fault, OVERLAPPING_EXTENTS' the other table.

    Sequential, to be small: some 2 cycles per descriptor word, 50 to 70 for the products, then up to 3 cycles per pair of a
    new extent and another one.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        address = layouts.host_address_bits
        super().__init__({
            #: A descriptor to read, or a table to close.
            "req": In(stream.Signature(data.StructLayout({"delete": 1, "table": 32, "prp1": address, "prp2": address}))),
            #: One for each.
            "result": Out(stream.Signature(data.StructLayout({"status": 11, "dw0": 32}))),
            #: The descriptor in host memory,
            "host_req": Out(stream.Signature(layouts.prp_request)),
            #: beat by beat.
            "host_data": In(stream.Signature(layouts.host_data)),
            #: Pulses: a table is opened or closed.
            #: It, as ``table_valid`` pulses.
            "table_valid": Out(1),
            "table": Out(layouts.table_write),
        })

    def elaborate(self, platform):
        m = Module()
        config, req, table, src = self.config, self.req, self.table, self.host_data
        max_tables, max_extents = config.lookup.max_tables, config.lookup.max_extents
        words_per_beat = config.beat_bytes // 4
        status, dw0 = self.result.payload.status, self.result.payload.dw0

        is_open = Signal(max_tables)
        beat = Signal(config.beat_bytes * 8, reset_less=True)
        last = Signal()
        place = Signal(range(max(2, words_per_beat)))  # word within the beat
        index = Signal(range(DESCRIPTOR_WORDS + 1))
        word = beat[:32]
        bad = Signal()  # the word taken last
        fault, fault_word = Signal(), Signal(range(DESCRIPTOR_WORDS))
        total = Signal(34)  # table pages of the extents so far
        m.d.comb += [
            self.host_req.payload.prp1.eq(req.payload.prp1),
            self.host_req.payload.prp2.eq(req.payload.prp2),
            self.host_req.payload.length.eq(DESCRIPTOR_WORDS * 4),
        ]

        # Registered, so valid one cycle after ``dim`` and ``format``: the stride comes later than that.
        stride = Signal(17)
        row_bytes = Signal(18)
        m.d.comb += row_bytes.eq(Mux(table.format == RowFormat.FP32, table.dim << 2,
                                     Mux(table.format == RowFormat.FP16, table.dim << 1, table.dim + 8)))
        m.d.sync += stride.eq((row_bytes + config.beat_bytes - 1) >> (config.beat_bytes.bit_length() - 1))

        # product = a * rows_per_page, a bit per cycle from the lowest on: each goes where the factor's was. It is shifted on
        # from there, and ``lost`` says whether bits fell out.
        a, product = Signal(34), Signal(50)
        bits_left, multiplying, lost = Signal(5), Signal(), Signal()
        which = Signal(2)
        over_page, under_rows, not_one = Signal(), Signal(), Signal()  # of the product a cycle before
        m.d.sync += [
            over_page.eq(product > config.page_beats),
            under_rows.eq(product < table.rows),
            # 2**31, or 1 more if nothing fell out
            not_one.eq(product[32:].any() | ~product[31] | product[1:31].any() | (product[0] & lost)),
        ]

        lba_bits = bits_for(config.lbas)
        extent = data.StructLayout({"lba": lba_bits, "end": lba_bits})
        m.submodules.extents = memory = Memory(shape=extent, depth=max_tables * max_extents, init=[])
        rd, wr = memory.read_port(), memory.write_port()
        m.submodules.fresh = fresh = Memory(shape=extent, depth=max(2, max_extents), init=[])  # of the new table
        fresh_rd, fresh_wr = fresh.read_port(domain="comb"), fresh.write_port()
        ours = Signal(range(max(2, max_extents)))  # extent of the new table
        other, theirs = Signal(range(max_tables + 1)), Signal(range(max_extents + 1))
        address = Signal(range(max(2, max_tables * max_extents)))
        mine, probe = Signal(extent), Signal(extent)
        meet = Signal()  # they overlap
        m.d.comb += [
            rd.addr.eq(address),
            fresh_rd.addr.eq(theirs),
        ]
        m.d.sync += meet.eq((mine.lba < probe.end) & (probe.lba < mine.end))

        def fail(code: Status, value) -> None:
            m.d.sync += [
                status.eq(code),
                dw0.eq(value),
            ]
            m.next = "RESULT"

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    table.table.eq(req.payload.table),
                    table.open.eq(~req.payload.delete),
                    index.eq(0),
                    fault.eq(0),
                    total.eq(0),
                    status.eq(0),
                    dw0.eq(0),
                ]
                with m.If(req.valid):
                    with m.If(req.payload.table >= max_tables):
                        fail(Status.INVALID_FIELD, 0)
                    with m.Elif(~req.payload.delete):
                        m.next = "REQUEST"
                    with m.Elif(is_open.bit_select(req.payload.table, 1)):
                        m.next = "BROADCAST"
                    with m.Else():
                        fail(Status.UNKNOWN_TABLE, req.payload.table)
            with m.State("REQUEST"):
                m.d.comb += self.host_req.valid.eq(1)
                with m.If(self.host_req.ready):
                    m.next = "BEAT"
            with m.State("BEAT"):
                m.d.comb += src.ready.eq(1)
                m.d.sync += [
                    beat.eq(src.payload.data),
                    last.eq(src.payload.last),
                    place.eq(0),
                ]
                with m.If(src.valid):
                    with m.If(src.payload.last & (src.payload.status != 0)):
                        fail(src.payload.status, 0)
                    with m.Else():
                        m.next = "WORD"
            with m.State("WORD"):
                self._take_word(m, word, index, total, stride, fresh_wr, bad)
                m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += [
                    beat.eq(beat >> 32),
                    index.eq(index + 1),
                    place.eq(place + 1),
                ]
                with m.If(bad & ~fault):
                    m.d.sync += [
                        fault.eq(1),
                        fault_word.eq(index),
                    ]
                with m.If(place != words_per_beat - 1):
                    m.next = "WORD"
                with m.Elif(~last):
                    m.next = "BEAT"
                with m.Else():
                    m.next = "CHECKED"
            with m.State("CHECKED"):
                with m.If(fault):
                    fail(Status.BAD_TABLE, fault_word)
                with m.Else():
                    m.d.sync += [
                        which.eq(0),
                        a.eq(table.stride),
                    ]
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    product.eq(table.rows_per_page),
                    bits_left.eq(16),
                    multiplying.eq(1),
                    lost.eq(0),
                ]
                m.next = "BIT"
            with m.State("BIT"):
                with m.If(bits_left == 0):
                    m.d.sync += multiplying.eq(0)
                    m.next = "SETTLE"
                with m.Else():
                    m.d.sync += [
                        product.eq(Cat(product[1:16], product[16:] + Mux(multiplying & product[0], a, 0))),
                        bits_left.eq(bits_left - 1),
                        lost.eq(~multiplying & (lost | product[0])),
                    ]
            with m.State("SETTLE"):
                m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.d.sync += which.eq(which + 1)
                with m.Switch(which):
                    with m.Case(0):  # stride x rows per page
                        m.d.sync += a.eq(table.magic)
                        m.next = "MULTIPLY"
                        with m.If(over_page):
                            fail(Status.BAD_TABLE, 4)
                    with m.Case(1):  # magic x rows per page, over 2**(shift - 31)
                        m.d.sync += bits_left.eq(table.shift - MAX_ROW_BITS)
                        m.next = "BIT"
                    # exact for 31-bit numerators when 0 <= magic * d - 2**shift <= 2**(shift - 31)
                    with m.Case(2):
                        m.d.sync += a.eq(total)
                        m.next = "MULTIPLY"
                        with m.If(not_one):
                            fail(Status.BAD_TABLE, 5)
                    with m.Default():  # pages x rows per page
                        m.d.sync += ours.eq(0)
                        m.next = "OURS"
                        with m.If(under_rows):
                            fail(Status.BAD_TABLE, 0)

            # every extent of ours against our earlier ones, then against every extent of every other open table
            with m.State("OURS"):
                m.d.comb += fresh_rd.addr.eq(ours)
                m.d.sync += [
                    mine.eq(fresh_rd.data),
                    theirs.eq(0),
                    other.eq(0),
                    address.eq(0),
                ]
                m.next = "SELF"
            with m.State("SELF"):
                m.d.sync += probe.eq(fresh_rd.data)
                with m.If(theirs == ours):
                    m.d.sync += theirs.eq(0)
                    m.next = "SEEK"
                with m.Else():
                    m.next = "SELF_COMPARE"
            with m.State("SELF_COMPARE"):
                m.d.sync += theirs.eq(theirs + 1)
                m.next = "SELF_COMPARED"
            with m.State("SELF_COMPARED"):
                m.next = "SELF"
                with m.If(meet):
                    fail(Status.BAD_TABLE, EXTENT_WORD + 1 + 4 * ours)
            with m.State("SEEK"):
                with m.If(other == max_tables):
                    m.d.sync += ours.eq(ours + 1)
                    with m.If(ours == table.n_extents - 1):
                        m.d.sync += [
                            theirs.eq(0),
                            address.eq(table.table * max_extents),
                        ]
                        m.next = "STORE"
                    with m.Else():
                        m.next = "OURS"
                with m.Elif(~is_open.bit_select(other, 1) | (other == table.table)):
                    m.d.sync += [
                        other.eq(other + 1),
                        address.eq(address + max_extents),
                    ]
                with m.Else():
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += probe.eq(rd.data)
                m.next = "COMPARE"
            with m.State("COMPARE"):
                m.next = "COMPARED"
            with m.State("COMPARED"):
                m.d.sync += [
                    address.eq(address + 1),
                    theirs.eq(theirs + 1),
                ]
                m.next = "SEEK"
                with m.If(theirs == max_extents - 1):
                    m.d.sync += [
                        theirs.eq(0),
                        other.eq(other + 1),
                    ]
                with m.If(meet):
                    fail(Status.OVERLAPPING_EXTENTS, other)

            with m.State("STORE"):  # unused extents are stored as empty, which overlap nothing
                m.d.comb += [
                    wr.en.eq(1),
                    wr.addr.eq(address),
                    wr.data.eq(fresh_rd.data),
                ]
                m.d.sync += [
                    address.eq(address + 1),
                    theirs.eq(theirs + 1),
                ]
                with m.If(theirs == max_extents - 1):
                    m.next = "BROADCAST"
            with m.State("BROADCAST"):
                m.d.comb += self.table_valid.eq(1)
                # Not assigned but toggled: so the bits need no enables, a control set each.
                with m.If(is_open.bit_select(table.table, 1) != table.open):
                    m.d.sync += is_open.eq(is_open ^ (1 << table.table))
                m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.d.comb += req.ready.eq(1)
                    m.next = "IDLE"
        return m

    def _take_word(self, m: Module, word, index, total, stride, fresh, bad) -> None:
        """Take descriptor word ``index`` into ``table``, an extent also into memory ``fresh``; ``bad`` in the next cycle: it
        was out of its range."""
        config, table = self.config, self.table
        max_extents = config.lookup.max_extents
        number = word.as_signed()
        checks = {
            0: (table.rows, (word == 0) | word[MAX_ROW_BITS]),
            1: (table.dim, (word == 0) | word[:2].any() | (word > config.lookup.max_dim)),
            2: (table.format, ~(Cat(word[:8] == RowFormat[f.upper()] for f in config.lookup.formats).any()
                                & Cat(word[8:] == PoolMode[f.upper()] for f in config.lookup.modes).any())),
            3: (table.stride, word != stride),
            4: (table.rows_per_page, (word == 0) | (word > config.page_beats)),
            5: (table.magic, 0),
            6: (table.shift, (word < MAX_ROW_BITS) | (word > MAX_ROW_BITS + 15)),
            7: (table.lsb_exp, (number < LSB_EXP[0]) | (number > LSB_EXP[1])),
            8: (table.quant_mult, word[16:].any()),
            9: (table.quant_shift, (number < QUANT_SHIFT[0]) | (number > QUANT_SHIFT[1])),
            10: (table.n_extents, (word == 0) | (word > max_extents)),
            11: (table.headroom, word > HEADROOM_MAX),
        }
        # Of the extent whose word it is: is it in use, the word (0 if not), its first block, the block after it.
        begin = Signal(Layouts.of(config).lba_bits, reset_less=True)
        used, value, end = Signal(), Signal(32), Signal(33)
        of_extent = Signal()  # one that there is a place for
        m.d.comb += [
            used.eq((index >= EXTENT_WORD) & (index[2:] < table.n_extents + EXTENT_WORD // 4)),
            value.eq(Mux(used, word, 0)),
            end.eq(begin + word),
        ]
        m.d.sync += bad.eq(0)
        with m.Switch(index):
            for k, (field, out_of_range) in checks.items():
                with m.Case(k):
                    m.d.sync += bad.eq(out_of_range)
                    m.d.sync += field.eq(word)
                    if k == 2:
                        m.d.sync += table.mean.eq(word[8])
            with m.Default():  # the extents: first page, first block, blocks, and a word that means nothing
                with m.Switch(index[:2]):
                    for at, out_of_range in enumerate((word != total, word >= config.lbas,
                                                       (word == 0) | (end > config.lbas))):
                        with m.Case(at):
                            m.d.sync += bad.eq(used & out_of_range)
        with m.If(index[:2] == 1):
            m.d.sync += begin.eq(word)
        with m.If(used & (index[:2] == 2)):
            m.d.sync += total.eq(total + word)
        m.d.comb += [
            of_extent.eq((index >= EXTENT_WORD) & (index < EXTENT_WORD + 4 * max_extents)),
            fresh.en.eq(of_extent & (index[:2] == 2)),
            fresh.addr.eq(index[2:] - EXTENT_WORD // 4),
            fresh.data.lba.eq(Mux(used, begin, 0)),
            fresh.data.end.eq(Mux(used, end, 0)),
        ]
        # The extents' words come in the order of their fields, which are equally wide: one after the other, they shift in.
        with m.If(of_extent & (index[:2] != 3)):
            extents = table.extents.as_value()
            m.d.sync += extents.eq(Cat(extents[len(begin) :], value[: len(begin)]))
