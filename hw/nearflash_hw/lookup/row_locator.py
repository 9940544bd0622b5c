"""Where a row lies: table and row index to logical block and column."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.table import MAX_ROW_BITS

from ..interfaces import Layouts, bits_for
from ..primitives.fifo import StreamFifo
from .layouts import LookupLayouts

__all__ = ["RowLocator"]

IN_FLIGHT = 16  # lookups in the pipeline and its output FIFO


class RowLocator(wiring.Component):
    """page = (index * magic) >> shift, column = (index - page * rows_per_page) * stride, lpn from the page's extent
    (:mod:`nearflash.contract.table`); one lookup per cycle, latency 12 cycles.

    The division is not trusted: 0 <= index - page * rows_per_page < rows_per_page proves the quotient, and the page must
    lie within its extent, so no parameter can reach another table's blocks.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        super().__init__({
            #: A row by its index.
            "i": In(stream.Signature(LookupLayouts.of(config).slot_lookup)),
            #: Pulses with a ``table`` that is opened or closed.
            "table_valid": In(1),
            "table": In(Layouts.of(config).table_write),
            #: Where it lies, 12 cycles later.
            "o": Out(stream.Signature(LookupLayouts.of(config).located)),
        })

    def elaborate(self, platform):
        m = Module()
        lk, lo = self.config.lookup, Layouts.of(self.config)

        # -- table parameters, in two memories read where the pipeline needs them
        division = data.StructLayout({"magic": 32, "shift": 6})
        extent = lo.extent
        place = data.StructLayout({
            "rows_per_page": bits_for(self.config.page_beats), "stride": lo.column_bits, "used": lk.max_extents,
            "extents": data.ArrayLayout(extent, lk.max_extents)})
        m.submodules.divisions = div_ram = Memory(shape=division, depth=lk.max_tables, init=[])
        m.submodules.places = place_ram = Memory(shape=place, depth=lk.max_tables, init=[])
        div_w, div_r = div_ram.write_port(), div_ram.read_port()
        place_w, place_r = place_ram.write_port(), place_ram.read_port()
        t = self.table
        m.d.sync += [
            div_w.en.eq(self.table_valid),
            place_w.en.eq(self.table_valid),
        ]
        with m.If(self.table_valid):
            m.d.sync += [
                div_w.addr.eq(t.table),
                div_w.data.magic.eq(t.magic),
                div_w.data.shift.eq(t.shift),
                place_w.addr.eq(t.table),
                place_w.data.rows_per_page.eq(t.rows_per_page),
                place_w.data.stride.eq(t.stride),
                place_w.data.extents.eq(t.extents),
                # a closed table has no extents, so none of its rows can be found
                place_w.data.used.eq(Mux(t.open, Cat(k < t.n_extents for k in range(lk.max_extents)), 0)),
            ]

        # -- what only waits for the result
        keep = data.StructLayout({"slot": lo.slot_bits, "table": lo.table_bits, "weight": 32, "weighted": 1})
        found = data.StructLayout({"ok": 1, "lpn": lo.lba_bits, "column": lo.column_bits, "beats": lo.column_bits})
        m.submodules.kept = kept = StreamFifo(keep, IN_FLIGHT)
        m.submodules.found = results = StreamFifo(found, IN_FLIGHT)
        m.d.comb += [
            kept.i.valid.eq(self.i.valid),
            self.i.ready.eq(kept.i.ready),
            *(getattr(kept.i.payload, k).eq(getattr(self.i.payload, k)) for k in ("slot", "table", "weight", "weighted")),
            self.o.valid.eq(results.o.valid),
            results.o.ready.eq(self.o.ready),
            # an entry of ``kept`` leaves with its result, so results.i is always ready
            kept.o.ready.eq(self.o.ready & results.o.valid),
            *(getattr(self.o.payload, k).eq(getattr(kept.o.payload, k)) for k, _ in keep),
            *(getattr(self.o.payload, k).eq(getattr(results.o.payload, k)) for k, _ in found),
        ]

        def delay(value, stages, name):
            """``value`` now and after 1 .. ``stages`` cycles."""
            out = [value]
            for k in range(stages):
                s = Signal.like(value, name=f"{name}{k + 1}", reset_less=True)
                m.d.sync += s.eq(out[-1])
                out.append(s)
            return out

        def reg(value, name):
            """``value`` one cycle later."""
            s = Signal(value.shape(), name=name, reset_less=True)
            m.d.sync += s.eq(value)
            return s

        valid = [Signal(name="valid0")]
        m.d.comb += valid[0].eq(self.i.valid & self.i.ready)
        for k in range(1, 12):
            s = Signal(name=f"valid{k}")
            m.d.sync += s.eq(valid[-1])
            valid.append(s)
        index = delay(self.i.payload.index, 9, "index")
        table = delay(self.i.payload.table, 5, "table")

        # 0: read the divisor. 1: operand registers
        m.d.comb += [
            div_r.addr.eq(table[0]),
            div_r.en.eq(valid[0]),
        ]
        magic, shift2 = reg(div_r.data.magic, "magic"), reg(div_r.data.shift, "shift2")
        # 2, 3, 4: 32 x 32 bits from four 16 x 16 products
        a, b = index[2], magic
        low, high = reg(a[:16] * b[:16], "low"), reg(a[16:] * b[16:], "high")
        cross0, cross1 = reg(a[:16] * b[16:], "cross0"), reg(a[16:] * b[:16], "cross1")
        outer, cross = reg(Cat(low, high), "outer"), reg(cross0 + cross1, "cross")
        product = reg((outer + (cross << 16))[:64], "product")
        # 5: shift; a shift that magic_divide never gives has no page. Of the page only the bits that a logical block's
        # number has: the remainder proves what is left of it, too
        shift5 = delay(shift2, 3, "shift")[3]
        amount = Signal(6)
        m.d.comb += amount.eq(shift5 - MAX_ROW_BITS)
        page = reg((product[MAX_ROW_BITS:] >> amount[:4])[: lo.lba_bits], "page")
        shift_ok = delay(reg((shift5 >= MAX_ROW_BITS) & ~amount[4:].any(), "shift_ok"), 4, "shift_ok")[4]
        m.d.comb += [
            place_r.addr.eq(table[5]),
            place_r.en.eq(valid[5]),
        ]
        # 6: compare with every extent; register the place
        here = place_r.data
        after = reg(Cat(here.used[k] & (page >= here.extents[k].first_page) for k in range(lk.max_extents)), "after")
        extents = [reg(here.extents[k].as_value(), f"extent{k}") for k in range(lk.max_extents)]
        rows_per_page, stride = reg(here.rows_per_page, "rows_per_page"), reg(here.stride, "stride")
        page7 = reg(page, "page7")
        # 7: products for the remainder; the last extent that starts at or before the page
        back_low = reg(page7[:16] * rows_per_page, "back_low")
        back_high = reg(page7[16:] * rows_per_page, "back_high") if lo.lba_bits > 16 else Const(0)
        chosen = Signal(extent)
        for k in range(lk.max_extents):
            with m.If(after[k]):
                m.d.comb += chosen.as_value().eq(extents[k])
        extent8 = Signal(extent, reset_less=True)
        m.d.sync += extent8.eq(chosen)
        has_extent = delay(reg(after.any(), "has_extent"), 2, "has_extent")[2]
        page8 = reg(page7, "page8")
        # 8: first row of the page; page within the extent
        back = reg(back_low + (back_high << 16), "back")
        offset = reg((page8 - extent8.first_page)[: lo.lba_bits], "offset")
        lba, pages = reg(extent8.lba, "lba"), reg(extent8.pages, "pages")
        # 9: row within the page (negative and too large both leave high bits set)
        row = reg(index[9] - back, "row")
        inside, lpn = reg(offset < pages, "inside"), reg((lba + offset)[: lo.lba_bits], "lpn")
        # 10: the checks and the column
        rows10, stride10 = delay(rows_per_page, 3, "rows_per_page_")[3], delay(stride, 3, "stride_")[3]
        ok = reg(~row[16:].any() & (row[:16] < rows10) & inside & has_extent & shift_ok, "ok")
        column = reg((row[:16] * stride10)[: lo.column_bits], "column")
        # 11: out
        m.d.comb += [
            results.i.valid.eq(valid[11]),
            results.i.payload.ok.eq(ok),
            results.i.payload.lpn.eq(reg(lpn, "lpn11")),
            results.i.payload.column.eq(column),
            results.i.payload.beats.eq(reg(stride10, "stride11")),
        ]
        return m
