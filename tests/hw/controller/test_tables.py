"""Descriptor checks word by word, overlaps, replacement and deletion."""

import random
import struct
from dataclasses import replace

import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from nearflash.contract import DeviceConfig, RowFormat, Status, TableSpec
from nearflash.contract.table import DESCRIPTOR_WORDS, Extent, PoolMode, magic_divide
from nearflash_hw.controller.tables import TableManager
from nearflash_hw.host.host_dma import HostReader
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import MemoryModel

TINY = DeviceConfig.preset("tiny")
BUFFER = 0x10000


def beat(n):
    return replace(TINY, beat_bytes=n, lookup=replace(TINY.lookup, lanes=n // 4))


def play(config, requests, stall=0.0, fail=lambda a: False, max_cycles=60_000):
    """``requests``: (table, descriptor bytes or None to delete). Returns ((status, dw0) per request, broadcasts)."""
    class Top(Elaboratable):
        def __init__(self):
            self.tables, self.reader = TableManager(config), HostReader(config)

        def elaborate(self, platform):
            m = Module()
            m.submodules.tables, m.submodules.reader = self.tables, self.reader
            connect(m, self.tables.host_req, self.reader.req)
            connect(m, self.reader.data, self.tables.host_data)
            return m

    top = Top()
    dut = top.tables
    memory = MemoryModel(config.beat_bytes, stall=stall, seed=1, fail=fail)
    items = []
    for k, (table, raw) in enumerate(requests):
        address = BUFFER + k * 0x1000
        memory.write(address, raw or b"")
        items.append({"delete": int(raw is None), "table": table, "prp1": address, "prp2": 0})
    broadcasts = []

    async def watch(ctx):
        while True:
            _, _, valid, t = await ctx.tick().sample(dut.table_valid, dut.table)
            if valid:
                broadcasts.append((len(sink.items), t))

    src, sink = StreamSource(dut.req, items, stall, seed=2), StreamSink(dut.result, stall, seed=3)
    simulate(top, [src, sink, watch, memory.read_port(top.reader.list_read), memory.read_port(top.reader.data_read)],
             until=lambda: len(sink.items) == len(items), max_cycles=max_cycles)
    assert memory.pending == 0
    assert src.drained
    return [(r["status"], r["dw0"]) for r in sink.items], broadcasts


def patch(raw, changes):
    """``raw`` with descriptor words replaced."""
    words = list(struct.unpack(f"<{DESCRIPTOR_WORDS}I", raw))
    for k, v in changes.items():
        words[k] = v & 0xFFFFFFFF
    return struct.pack(f"<{DESCRIPTOR_WORDS}I", *words)


def table(config=TINY, lba=0, pages=4, rows=20, dim=8, **kw):
    return full(TableSpec(rows, dim, extents=kw.pop("extents", (Extent(0, lba, pages),)), **kw), config).descriptor(config)


def full(spec, config):
    """``spec`` with as many rows in a page as fit."""
    return replace(spec, page_rows=config.page_beats // spec.stride_beats(config))


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("stall", [0.0, 0.2])
def test_good_tables_are_broadcast_field_by_field(width, stall):
    config = beat(width)
    specs = [
        TableSpec(37, 8, RowFormat.FP32, PoolMode.SUM, -30, 12, 0, 0, (Extent(0, 0, 10),)),
        TableSpec(1000, 64, RowFormat.FP16, PoolMode.MEAN, -250, 0, 65535, -128, (Extent(0, 60, 100), Extent(100, 10, 40))),
        TableSpec(5, 64, RowFormat.INT8, PoolMode.SUM, 127, 16, 1, 127, (Extent(0, config.lbas - 5, 5),)),
        TableSpec(2, 4, RowFormat.FP32, PoolMode.MEAN, 0, 1, 3, -7, (Extent(0, 10 + 40, 1),)),
    ]
    specs = [full(s, config) for s in specs]
    specs[1] = replace(specs[1], rows=140 * specs[1].rows_per_page(config))  # exactly full
    specs[1] = replace(specs[1], extents=(Extent(0, 55, 30), Extent(30, 10, 40)), rows=specs[1].rows // 2)
    for s in specs:
        s.validate(config)
    results, broadcasts = play(config, [(k, s.descriptor(config)) for k, s in enumerate(specs)], stall)
    assert results == [(0, 0)] * 4
    assert [k for k, _ in broadcasts] == [0, 1, 2, 3]
    for k, (s, (_, t)) in enumerate(zip(specs, broadcasts, strict=True)):
        magic, shift = magic_divide(s.rows_per_page(config))
        assert (t.table, t.open, t.rows, t.dim, t.format, t.mean) == (k, 1, s.rows, s.dim, s.format, s.mode)
        assert (t.stride, t.rows_per_page) == (s.stride_beats(config), s.rows_per_page(config))
        assert (t.magic, t.shift, t.headroom) == (magic, shift, s.headroom)
        assert (t.lsb_exp, t.quant_mult, t.quant_shift) == (s.lsb_exp, s.quant_mult, s.quant_shift)
        assert t.n_extents == len(s.extents)
        for i in range(config.lookup.max_extents):
            e = s.extents[i] if i < len(s.extents) else Extent(0, 0, 0)
            assert (t.extents[i].first_page, t.extents[i].lba, t.extents[i].pages) == (e.first_page, e.lba, e.pages)


TWO = {"extents": (Extent(0, 30, 2), Extent(2, 10, 3))}
MALFORMED = [  # (changed words, word at fault); the base table has 20 rows of dim 8, fp32, 16 to a page, 4 pages at 0
    ({0: 0}, 0), ({0: 1 << 31}, 0), ({0: 0xFFFFFFFF}, 0), ({0: 65}, 0),
    ({1: 0}, 1), ({1: 6}, 1), ({1: 7}, 1), ({1: 68}, 1), ({1: 1 << 16 | 8}, 1),
    ({2: 3}, 2), ({2: 0x200}, 2), ({2: 0x10000}, 2), ({2: 1 << 31}, 2),
    ({3: 3}, 3), ({3: 5}, 3), ({3: 0}, 3), ({3: 1 << 16 | 4}, 3), ({2: 1}, 3), ({2: 2}, None),
    ({4: 0}, 4), ({4: 17}, 4), ({4: 64}, 4), ({4: 65}, 4), ({4: 1 << 16 | 16}, 4),
    ({5: 0}, 5), ({5: (1 << 31) - 1}, 5), ({5: (1 << 31) + 2}, 5), ({5: 0xFFFFFFFF}, 5),
    ({6: 34}, 5), ({6: 36}, 5), ({6: 30}, 6), ({6: 47}, 6), ({6: 64}, 6), ({6: 0}, 6),
    ({7: -251}, 7), ({7: 128}, 7), ({7: 1 << 31}, 7), ({8: 1 << 16}, 8), ({9: -129}, 9), ({9: 128}, 9),
    ({10: 0}, 10), ({10: 3}, 10), ({10: 1 << 8 | 1}, 10), ({11: 17}, 11), ({11: 32}, 11),
    ({16: 1}, 16), ({17: TINY.lbas}, 17), ({17: 0xFFFFFFFF}, 17), ({17: TINY.lbas - 3}, 18), ({18: 0}, 18),
    ({18: TINY.lbas + 1}, 18), ({18: 0xFFFFFFFF}, 18), ({18: 1}, 0), ({0: 0, 11: 99}, 0),
    ({5: 0, 18: 0}, 18),
]
MALFORMED_TWO = [
    ({20: 1}, 20), ({20: 3}, 20), ({21: 31}, 21), ({21: 28}, 21), ({21: 30, 22: 1}, 21), ({22: 0}, 22),
    ({21: TINY.lbas - 2}, 22), ({22: 21}, 21), ({18: 3}, 20),
]


def test_malformed_descriptors_name_the_word():
    good = table()
    assert full(TableSpec(20, 8), TINY).rows_per_page(TINY) == 16
    requests, expected = [], []
    for base, cases in ((good, MALFORMED), (table(**TWO), MALFORMED_TWO)):
        for changes, fault in cases:
            if fault is None:
                continue
            requests.append((1, patch(base, changes)))
            expected.append((Status.BAD_TABLE, fault))
    requests.append((1, good))
    results, broadcasts = play(TINY, requests)
    for (_, raw), got, want in zip(requests, [*results[:-1]], expected, strict=False):
        assert got == want, struct.unpack("<24I", raw[:96])
    assert results[-1] == (0, 0)
    assert len(broadcasts) == 1


@pytest.mark.parametrize(("formats", "modes"), [(("fp32",), ("sum",)), (("fp16", "int8"), ("mean",)),
                                                (("fp32", "int8"), ("sum", "mean"))])
def test_only_what_pooling_was_generated_for_is_accepted(formats, modes):
    config = replace(TINY, lookup=replace(TINY.lookup, formats=formats, modes=modes))
    specs = [TableSpec(4, 8, f, mode, extents=(Extent(0, 0, 4),)) for f in RowFormat for mode in PoolMode]
    results, _ = play(config, [(0, full(s, config).descriptor(config)) for s in specs])
    known = [s.format.name.lower() in formats and s.mode.name.lower() in modes for s in specs]
    assert results == [(0, 0) if k else (Status.BAD_TABLE, 2) for k in known]


def test_boundary_values_are_accepted():
    cases = [{7: -250}, {7: 127}, {8: 65535}, {9: -128}, {9: 127}, {11: 16}, {11: 0}, {0: 64}, {0: 1}, {2: 0x100},
             {17: TINY.lbas - 4}, {5: (1 << 31) + 1}, {12: 5, 15: 0xFFFFFFFF, 19: 7, 79: 1}, {4: 1, 0: 4, 5: 1 << 31, 6: 31},
             {4: 15, 0: 60, 5: magic_divide(15)[0], 6: magic_divide(15)[1]}]
    results, broadcasts = play(TINY, [(0, patch(table(), c)) for c in cases])
    assert results == [(0, 0)] * len(cases)
    assert len(broadcasts) == len(cases)


def test_overlaps_name_the_other_table():
    two = table(**TWO)  # [30, 32) and [10, 13)
    ok, clash = (0, 0), lambda t: (Status.OVERLAPPING_EXTENTS, t)
    script = [
        (5, two, ok),
        (2, table(lba=30), clash(5)), (2, table(lba=31), clash(5)), (2, table(lba=27), clash(5)),
        (2, table(lba=12), clash(5)), (2, table(lba=8), clash(5)), (2, table(lba=0, pages=100), clash(5)),
        (2, table(lba=32), ok), (2, table(lba=26), ok), (3, table(lba=13), ok), (4, table(lba=6), ok),
        (7, table(extents=(Extent(0, 50, 2), Extent(2, 29, 1))), clash(2)),
        (7, table(extents=(Extent(0, 50, 2), Extent(2, 17, 10))), clash(2)),
        (7, table(extents=(Extent(0, 50, 2), Extent(2, 17, 9))), ok),
        (7, table(extents=(Extent(0, 17, 9), Extent(9, 51, 1))), ok),  # over itself
        (0, table(lba=50, pages=1, rows=16), ok),
        (1, table(lba=51, pages=4), clash(7)),
        (5, table(lba=60), ok),  # replaced: its old extents are free
        (1, table(lba=10, pages=3), ok), (6, table(lba=30, pages=2), ok),
        (5, table(lba=10), clash(1)),
        (6, table(lba=60), clash(5)),  # a refused replacement changes nothing
        (6, None, ok), (6, None, (Status.UNKNOWN_TABLE, 6)),
        (1, table(lba=30, pages=2), ok),
        (8, table(), (Status.INVALID_FIELD, 0)), (1 << 31, None, (Status.INVALID_FIELD, 0)),
        (6, table(lba=10, pages=3), ok),
    ]
    results, broadcasts = play(TINY, [s[:2] for s in script])
    assert results == [s[2] for s in script]
    assert [(t.table, t.open) for _, t in broadcasts] == [(s[0], int(s[1] is not None)) for s in script if s[2] == ok]


def test_random_tables_against_a_model():
    rng = random.Random(11)
    model, requests, expected = {}, [], []
    for _ in range(60):
        t = rng.randrange(TINY.lookup.max_tables)
        if rng.random() < 0.2:
            requests.append((t, None))
            expected.append((0, 0) if model.pop(t, None) else (Status.UNKNOWN_TABLE, t))
            continue
        n = rng.randint(1, 2)
        pages = [rng.randint(1, 20) for _ in range(n)]
        starts = [rng.randint(0, TINY.lbas - p) for p in pages]
        extents = tuple(Extent(sum(pages[:i]), starts[i], pages[i]) for i in range(n))
        blocks = [set(range(s, s + p)) for s, p in zip(starts, pages, strict=True)]
        requests.append((t, table(extents=extents, rows=rng.randint(1, 16 * sum(pages)))))
        if n == 2 and blocks[0] & blocks[1]:
            expected.append((Status.BAD_TABLE, 21))
            continue
        # our extents in order, each against the tables in order
        clash = [o for b in blocks for o in range(8) if o != t and model.get(o, set()) & b]
        expected.append((Status.OVERLAPPING_EXTENTS, clash[0]) if clash else (0, 0))
        if not clash:
            model[t] = set().union(*blocks)
    assert len({s for s, _ in expected}) == 4
    results, _ = play(TINY, requests)
    assert results == expected


def test_bus_errors_and_bad_prps_are_reported():
    config = TINY
    results, broadcasts = play(config, [(0, table()), (1, table(lba=4)), (1, table(lba=4))],
                               fail=lambda a: a == BUFFER + 0x1000 + 16)
    assert results == [(0, 0), (Status.DATA_TRANSFER_ERROR, 0), (0, 0)]
    assert len(broadcasts) == 2
