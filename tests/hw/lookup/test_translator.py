"""Row location, translation and tags against integer division in Python."""

import random

import pytest
from lookup_models import broadcast, small_config, table_write, two_tables
from nearflash.contract import DeviceConfig, RowFormat, Status, TableSpec
from nearflash.contract.table import Extent
from nearflash_hw.lookup.row_locator import RowLocator
from nearflash_hw.lookup.translator import Translator
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import FtlModel
from nearflash_sim.models.flash import ppn_of


def place(config, spec, index):
    """(lpn, column) of a row."""
    stride, per_page = spec.stride_beats(config), spec.rows_per_page(config)
    page, row = divmod(index, per_page)
    extent = next(e for e in spec.extents if e.first_page <= page < e.first_page + e.pages)
    return extent.lba + page - extent.first_page, row * stride


def lookups(rng, specs, n, slots=2):
    out = []
    for _ in range(n):
        t = rng.choice(list(specs))
        rows = specs[t].rows
        index = rng.choice([0, rows - 1, rng.randrange(rows)])
        out.append({"slot": rng.randrange(slots), "table": t, "index": index, "weight": rng.getrandbits(32),
                    "weighted": rng.randint(0, 1)})
    return out


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("preset", ["tiny", "paper", "largest"])
def test_rows_are_where_division_says(preset, stall):
    rng = random.Random(preset)
    config = small_config(graph=False) if preset == "tiny" else DeviceConfig.preset("paper")
    if preset == "largest":
        config = DeviceConfig.preset("paper", blocks=65536, pages=512)  # as much as the bus reaches
    beat = config.page_beats
    specs = {
        0: TableSpec(rows=150, dim=12, format=RowFormat.INT8, extents=(Extent(0, 40, 3), Extent(3, 8, 5))),
        1: TableSpec(rows=60, dim=8, extents=(Extent(0, 100, 4),)),
        # all logical blocks, and as many rows as they hold or as there can be
        2: TableSpec(rows=min((1 << 31) - 1, config.lbas * TableSpec(1, 64).rows_per_page(config)), dim=64,
                     extents=(Extent(0, 9, config.lbas - 9), Extent(config.lbas - 9, 0, 9))),
        3: TableSpec(rows=3, dim=beat * config.beat_bytes // 4 if preset == "tiny" else 1024, extents=(Extent(0, 0, 3),)),
    }
    dut = reused(RowLocator, config)
    items = lookups(rng, specs, 200)
    src = StreamSource(dut.i, stall=stall, seed=1)
    sink = StreamSink(dut.o, stall, seed=2)

    async def start(ctx):
        await broadcast(dut, [table_write(config, t, s) for t, s in specs.items()])(ctx)
        await ctx.tick().repeat(2)
        src.items += items

    cycles = simulate(dut, [start, src, sink], until=lambda: len(sink.items) == len(items), max_cycles=2000)
    for i, o in zip(items, sink.items, strict=True):
        lpn, column = place(config, specs[i["table"]], i["index"])
        assert o["ok"]
        assert (o["lpn"], o["column"], o["beats"]) == (lpn, column, specs[i["table"]].stride_beats(config))
        assert all(o[k] == i[k] for k in ("slot", "table", "weight", "weighted"))
    if not stall:
        assert cycles < len(items) + 40, "the pipeline must take a lookup per cycle"


@pytest.mark.parametrize("wrong", [
    {"magic": 1}, {"magic": (1 << 32) - 1}, {"shift": 3}, {"shift": 50}, {"rows_per_page": 1}, {"n_extents": 0},
    {"open": 0}, {"extents": [{"first_page": 0, "lba": 40, "pages": 1}, {"first_page": 1, "lba": 8, "pages": 1}]},
    {"extents": [{"first_page": 4, "lba": 40, "pages": 9}, {"first_page": 9, "lba": 8, "pages": 9}]},
])
def test_contradicting_parameters_never_give_a_place(wrong):
    config, specs = small_config(graph=False), two_tables()
    spec = specs[0]
    dut = reused(RowLocator, config)
    # the last rows of pages: pages 1 to 4, or those that the wrong extents don't cover
    pages = {0: (2, 3, 4), 4: (0, 1, 2)}[wrong["extents"][0]["first_page"]] if "extents" in wrong else (1, 2, 3, 4)
    indices = [p * spec.rows_per_page(config) + spec.rows_per_page(config) - 1 for p in pages]
    if wrong == {"magic": 1}:
        indices.append(spec.rows_per_page(config))  # one row beyond page 0, which this magic gives for every row
    src, sink = StreamSource(dut.i), StreamSink(dut.o)

    async def start(ctx):
        await broadcast(dut, [table_write(config, 0, spec, **wrong)])(ctx)
        await ctx.tick().repeat(2)
        src.items += [{"slot": 0, "table": 0, "index": i, "weight": 0, "weighted": 0} for i in indices]

    simulate(dut, [start, src, sink], until=lambda: len(sink.items) == len(indices), max_cycles=300)
    assert not any(o["ok"] for o in sink.items)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_reads_tags_and_poison(stall):
    config, specs = small_config(graph=False), two_tables()
    rng = random.Random(3)
    total = config.flash.total_pages
    mapping = {lpn: ppn for lpn, ppn in zip(range(config.lbas), rng.sample(range(total), config.lbas), strict=True)}
    del mapping[41], mapping[9]
    mapping[101] = "error"
    specs[2] = specs[1]
    dut = reused(Translator, config)
    items = lookups(rng, specs, 150)
    src = StreamSource(dut.lookup, stall=stall, seed=1)
    ftl = FtlModel(dut.ftl_req, dut.ftl_rsp, mapping, stall, seed=4)
    poison = StreamSink(dut.poison, stall, seed=6)
    entries, got, held, used = {}, [], [], []

    def on_command(channel):
        def take(cmd):
            assert cmd["tag"] not in held
            held.append(cmd["tag"])
            got.append((channel, cmd, entries[cmd["tag"]]))
        return take

    sinks = [StreamSink(dut.flash_cmd[k], stall, seed=7 + k, on_item=on_command(k)) for k in range(2)]

    async def watch_tags(ctx):
        while True:
            _, _, v, w, u = await ctx.tick().sample(dut.tag_write_valid, dut.tag_write, dut.tags_used)
            used.append(u)
            if v:
                entries[int(w.tag)] = {k: int(w.entry[k]) for k in ("slot", "table", "weight", "weighted")}

    async def free(ctx):
        while True:
            await ctx.tick()
            if held and rng.random() < 0.3:
                tag = held.pop(rng.randrange(len(held)))
                ctx.set(dut.tag_free.payload, tag)
                ctx.set(dut.tag_free.valid, 1)
                await ctx.tick()
                ctx.set(dut.tag_free.valid, 0)

    async def start(ctx):
        await broadcast(dut, [table_write(config, t, s, **({"magic": 1} if t == 2 else {})) for t, s in specs.items()])(ctx)
        await ctx.tick().repeat(2)
        src.items += items

    simulate(dut, [start, watch_tags, src, *ftl.actors, poison, *sinks, free],
             until=lambda: len(got) + len(poison.items) == len(items) and not held, max_cycles=6000)
    want_poison, want = [], [[], []]
    for i in items:
        t, spec = i["table"], specs[i["table"]]
        lpn, column = place(config, spec, i["index"])
        keep = {k: i[k] for k in ("slot", "table", "weight", "weighted")}
        if t == 2 and i["index"] >= spec.rows_per_page(config):  # a magic of 1 still finds page 0 in page 0
            want_poison.append({"slot": i["slot"], "table": t, "status": Status.BAD_TABLE})
        elif mapping.get(lpn) is None or mapping[lpn] == "error":
            want_poison.append({"slot": i["slot"], "table": t, "status":
                                Status.UNRECOVERED_READ if lpn in mapping else Status.ROW_UNMAPPED})
        else:
            want[mapping[lpn] % 2].append((mapping[lpn], column, spec.stride_beats(config), keep))
    assert poison.items == want_poison
    assert {p["status"] for p in poison.items} == {Status.BAD_TABLE, Status.UNRECOVERED_READ, Status.ROW_UNMAPPED}
    for k in range(2):
        assert [(ppn_of(config, k, c), c["column"], c["beats"], e) for ch, c, e in got if ch == k] == want[k]
    assert used[-1] == 0
    assert max(used) <= config.lookup.tags


def test_a_lookup_every_cycle_with_cache_hits():
    """The contract is one per four cycles."""
    config, specs = small_config(graph=False, tags=256), two_tables()
    rng = random.Random(5)
    dut = reused(Translator, config)
    items = lookups(rng, specs, 120)
    src = StreamSource(dut.lookup)
    ftl = FtlModel(dut.ftl_req, dut.ftl_rsp, {lpn: lpn + 3 for lpn in range(config.lbas)})
    sinks = [StreamSink(dut.flash_cmd[k]) for k in range(2)]
    begin = []

    async def start(ctx):
        await broadcast(dut, [table_write(config, t, s) for t, s in specs.items()])(ctx)
        await ctx.tick().repeat(2)
        src.items += items
        begin.append(len(begin))

    cycles = simulate(dut, [start, src, *ftl.actors, *sinks, StreamSink(dut.poison)],
                      until=lambda: sum(len(s.items) for s in sinks) == len(items), max_cycles=600)
    assert cycles < 1.5 * len(items) + 40
