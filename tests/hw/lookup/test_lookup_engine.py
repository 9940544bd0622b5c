"""The whole lookup engine between Python models of its surroundings."""

import random
from dataclasses import replace

import numpy as np
import pytest
from lookup_models import MlpModel, PoolingModel, broadcast, mlp_logit, pool_word, small_config, table_write, two_tables
from nearflash.contract import Opcode, RowCacheConfig, Status
from nearflash.reference.query import check_query, pack_queries, unpack_queries
from nearflash_hw.lookup.engine import LookupEngine
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import FlashModel, FtlModel, HostReaderModel, MemoryModel

MASK = (1 << 32) - 1
NAN = 0x7FC00000
OUT, SPACING = 0x40000, 0x1000
ONE = 0x3F800000


class World:
    """Flash contents, map and faults."""

    def __init__(self, config, specs, seed, faults=True, striped=False):
        self.config, self.specs = config, specs
        rng = random.Random(seed)
        ppns = range(config.lbas) if striped else rng.sample(range(config.flash.total_pages), config.lbas)
        self.mapping = dict(enumerate(ppns))
        self.pages = {p: rng.randbytes(config.flash.page_bytes) for p in ppns}
        self.bad_pages, self.sick = set(), set()
        if faults:
            del self.mapping[41], self.mapping[102]
            self.mapping[9] = "error"
            self.bad_pages = {self.mapping[103]}
            for table, index in ((0, 3), (1, 5)):
                self.sick.add(self.row(table, index)[0])

    def row(self, table, index):
        """(bytes of the row with its padding, or None; status)."""
        c, spec = self.config, self.specs[table]
        page, slot = divmod(index, spec.rows_per_page(c))
        e = next(x for x in spec.extents if x.first_page <= page < x.first_page + x.pages)
        ppn = self.mapping.get(e.lba + page - e.first_page)
        if ppn is None:
            return None, Status.ROW_UNMAPPED
        if ppn == "error":
            return None, Status.UNRECOVERED_READ
        size = spec.stride_beats(c) * c.beat_bytes
        row = self.pages[ppn][slot * size : (slot + 1) * size]
        if ppn in self.bad_pages:
            return row, Status.UNRECOVERED_READ
        if row in self.sick:
            return row, Status.ROW_NOT_FINITE if self.flags(row) == ("not_finite",) else Status.POOL_OVERFLOW
        return row, Status.SUCCESS

    def flags(self, row):
        return () if row not in self.sick else ("not_finite",) if row[0] & 1 else ("overflow",)

    def answer(self, args, words):
        """(outcomes the first bad sample may give, or [(0, 0)]; words that must be written)."""
        lookup = args["opcode"] == Opcode.LOOKUP
        outcomes, out = [(0, 0)], []
        for s in unpack_queries(words, args["batch"], args["n_tables"], args["n_dense"], args["weighted"]):
            faults, pooled = [], []
            for t, bag in enumerate(s.bags):
                weights = s.weights[t].view(np.uint32) if s.weights else [ONE] * len(bag)
                rows = [self.row(t, int(i)) for i in bag]
                faults += [(int(st), t) for _, st in rows if st]
                pooled += [sum(pool_word(r, int(w), e) for (r, _), w in zip(rows, weights, strict=True) if r) & MASK
                           for e in range(self.specs[t].dim)]
            if faults and outcomes == [(0, 0)]:
                outcomes = faults
            if lookup:
                out += [NAN] * len(pooled) if faults else pooled
            else:
                dense = [int(v) for v in s.dense.view(np.uint32)]
                out += [mlp_logit(dense, pooled, o) for o in range(2)]
        return outcomes, out if lookup or outcomes == [(0, 0)] else []


def random_query(rng, config, world, lookup, weighted, safe, batch=None, max_bag=5, damage=False):
    batch = batch or rng.randint(1, config.host.max_batch)
    n = np.random.default_rng(rng.getrandbits(32))
    good = {t: [i for i in range(s.rows) if not safe or not world.row(t, i)[1]] for t, s in world.specs.items()}
    bags = [[n.choice(good[t], rng.choice([0, 1, rng.randint(0, max_bag)])) for _ in range(batch)] for t in good]
    weights = [[n.standard_normal(len(b)).astype(np.float32) for b in t] for t in bags] if weighted else None
    dense = None if lookup else n.standard_normal((batch, 3)).astype(np.float32)
    words = pack_queries(dense, bags, weights)
    if damage:
        words[rng.randrange(len(words))] = MASK
    return dict(opcode=int(Opcode.LOOKUP if lookup else Opcode.INFER), batch=batch, n_tables=len(bags),
                n_dense=0 if lookup else 3, weighted=weighted), words


def run(config, world, queries, stall=0.0, seed=0, max_cycles=20000, flash_latency=40, mlp_delay=60):
    dut = reused(LookupEngine, config)
    cmds = [{"opcode": a["opcode"], "qid": 1, "cid": i, "prp1": (i + 1) << 16, "prp2": 0, "words": len(w),
             "batch": a["batch"], "weighted": int(a["weighted"]), "tables": a["n_tables"], "dense": a["n_dense"],
             "out_addr": OUT + i * SPACING} for i, (a, w) in enumerate(queries)]
    buffers = {c["prp1"]: w.astype("<u4").tobytes() for c, (_, w) in zip(cmds, queries, strict=True)}
    reader = HostReaderModel(config, dut.host_req, dut.host_data, buffers, stall, seed)
    ftl = FtlModel(dut.ftl_req, dut.ftl_rsp, world.mapping, stall, seed + 2)
    flash = FlashModel(config, dut.flash_cmd, dut.flash_data, world.pages.get, lambda p: p in world.bad_pages,
                       flash_latency, stall, seed + 3)
    pooling = PoolingModel(config, dut, world.specs, world.flags, stall=stall, seed=seed + 4)
    memory = MemoryModel(config.beat_bytes, stall=stall, seed=seed + 5)
    completion = StreamSink(dut.completion, stall, seed + 6)
    src = StreamSource(dut.infer_cmd, stall=stall, seed=seed + 7)
    models = [reader, ftl, flash, pooling]
    mlp = MlpModel(config, dut, mlp_delay, stall, seed + 8) if config.mlp.graph else None
    models += [mlp] if mlp else []
    counts = {"lookups": 0, "samples": 0, "peak": 0, "hits": 0}
    state = {}

    async def start(ctx):
        await broadcast(dut, [table_write(config, t, s) for t, s in world.specs.items()])(ctx)
        await ctx.tick().repeat(2)
        src.items += cmds

    async def watch(ctx):
        while True:
            _, _, issued, done, tags, idle = await ctx.tick().sample(
                dut.lookups_issued, dut.sample_done, dut.tags_used, dut.idle)
            counts["lookups"] += issued
            counts["samples"] += done
            counts["peak"] = max(counts["peak"], tags)
            state.update(tags=tags, idle=idle)

    idle_models = lambda: pooling.idle and (mlp is None or mlp.idle)  # noqa: E731
    cache = MemoryModel(config.beat_bytes, latency=9, stall=stall, seed=seed + 9)  # the row cache's DRAM
    ports: list = []
    if config.row_cache.lines:
        ports = [cache.read_port(dut.cache_read), cache.write_port(dut.cache_write)]

        async def enable(ctx):
            ctx.set(dut.cache_enable, 1)
            async for _, _, hit in ctx.tick().sample(dut.cache_hit):
                counts["hits"] += hit

        ports.append(enable)
    cycles = simulate(dut, [start, watch, src, completion, memory.write_port(dut.host_write), *ports,
                            *(a for x in models for a in x.actors)],
                      until=lambda: len(completion.items) == len(cmds) and idle_models(), max_cycles=max_cycles)
    # nothing is left anywhere
    assert state == {"tags": 0, "idle": 1}
    assert not flash.active
    assert not any(flash.waiting)
    assert memory.pending == cache.pending == 0
    assert all(s.drained for s in (reader.out, ftl.rsp, *flash.out))
    assert len(completion.items) == len(cmds)

    written, lookups, samples = {}, 0, 0
    for i, (done, (args, words)) in enumerate(zip(completion.items, queries, strict=True)):
        assert (done["qid"], done["cid"]) == (1, i)
        check = check_query(words, config, world.specs, **args)
        if check.status:
            assert (Status(done["status"]), done["dw0"], done["dw1"]) == tuple(check)
            continue
        outcomes, out = world.answer(args, words)
        assert done["dw0"] == 0
        assert (done["status"], done["dw1"]) in outcomes
        written.update({OUT + i * SPACING + 4 * k: v for k, v in enumerate(out)})
        lookups += sum(len(b) for s in unpack_queries(words, args["batch"], args["n_tables"], args["n_dense"],
                                                      args["weighted"]) for b in s.bags)
        samples += args["batch"]
    assert counts["lookups"] == lookups
    assert counts["samples"] == samples
    assert {a for b in memory.bytes for a in [b & ~3]} == set(written), "a write out of place"
    for a, v in written.items():
        assert memory.read(a, 4) == v.to_bytes(4, "little")
    return completion.items, cycles, counts, flash


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("n_batch", [1, 2])
def test_random_commands_without_faults(stall, n_batch):
    rng = random.Random(41)
    config = small_config(n_batch=n_batch)
    world = World(config, two_tables(), 1, faults=False)
    queries = [random_query(rng, config, world, rng.random() < 0.5, rng.random() < 0.5, True) for _ in range(7)]
    done, *_ = run(config, world, queries, stall, seed=11)
    assert not any(d["status"] for d in done)


@pytest.mark.parametrize("seed", range(3))
def test_random_commands_with_every_fault(seed):
    rng = random.Random(50 + seed)
    config = small_config()
    world = World(config, two_tables(), 2)
    queries = [random_query(rng, config, world, rng.random() < 0.5, rng.random() < 0.5, safe=rng.random() < 0.4,
                            damage=rng.random() < 0.3, batch=rng.randint(1, 4)) for _ in range(14)]
    run(config, world, queries, 0.15, seed=12 + seed)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_rows_from_the_row_cache_are_the_same(stall):
    """Faults and all: no answer differs, and flash is not read for what is found."""
    rng = random.Random(70)
    config = replace(small_config(), row_cache=RowCacheConfig(lines=64, ways=4, line_bytes=32))
    world = World(config, two_tables(), 8)
    queries = [random_query(rng, config, world, rng.random() < 0.5, rng.random() < 0.5, safe=rng.random() < 0.7,
                            max_bag=12) for _ in range(12)]
    _, _, counts, flash = run(config, world, queries, stall, seed=71)
    assert counts["hits"] > 30
    assert flash.reads <= counts["lookups"] - counts["hits"]


@pytest.mark.parametrize(("table", "index", "status"), [
    (0, 30, Status.ROW_UNMAPPED), (0, 85, Status.UNRECOVERED_READ), (1, 50, Status.UNRECOVERED_READ), (1, 5, None),
    (0, 3, None)])
@pytest.mark.parametrize("lookup", [False, True])
def test_one_bad_row_fails_its_command_alone(table, index, status, lookup):
    config = small_config()
    world = World(config, two_tables(), 3)
    rng = random.Random(60)
    queries = [random_query(rng, config, world, k == 0, False, True, batch=3) for k in range(3)]
    bags = [[np.array([1, 2])] * 3 for _ in range(2)]
    bags[table] = [np.array([1, 2]), np.array([2, index, 1]), np.array([1])]
    args, _ = random_query(rng, config, world, lookup, False, True, batch=3)
    queries.insert(1, (args, pack_queries(None if lookup else np.ones((3, 3), np.float32), bags)))
    done, *_ = run(config, world, queries, seed=13)
    assert [bool(d["status"]) for d in done] == [False, True, False, False]
    if status:
        assert (done[1]["status"], done[1]["dw1"]) == (status, table)


def test_empty_bags_only():
    config = small_config()
    world = World(config, two_tables(), 4)
    empty = [[np.zeros(0, np.int64)] * 5] * 2
    queries = [(dict(opcode=int(Opcode.LOOKUP), batch=5, n_tables=2, n_dense=0, weighted=False), pack_queries(None, empty)),
               (dict(opcode=int(Opcode.INFER), batch=5, n_tables=2, n_dense=3, weighted=True),
                pack_queries(np.ones((5, 3), np.float32), empty, [[np.zeros(0, np.float32)] * 5] * 2))]
    run(config, world, queries * 2, 0.2, seed=14)


def test_lookup_only_device():
    config = small_config(graph=False, sample_slots=4)
    world = World(config, two_tables(), 5)
    rng = random.Random(61)
    queries = [random_query(rng, config, world, k != 2, k == 1, False) for k in range(5)]
    done, *_ = run(config, world, queries, 0.1, seed=15)
    assert done[2]["status"] == Status.NO_PROGRAM


def test_slow_flash_keeps_every_tag_in_use():
    """Two commands of 128 lookups at 16 reads in flight: the time is the flash's, not the parsing's."""
    config = small_config(graph=False)
    world = World(config, two_tables(), 6, faults=False)
    rng = random.Random(62)
    queries = [(dict(opcode=int(Opcode.LOOKUP), batch=4, n_tables=2, n_dense=0, weighted=False),
                pack_queries(None, [[np.array(rng.choices(range(60), k=16)) for _ in range(4)] for _ in range(2)]))
               for _ in range(3)]
    _, cycles, counts, flash = run(config, world, queries, seed=16, flash_latency=160)
    assert flash.reads == 384
    assert counts["peak"] == config.lookup.tags
    # on average 80 cycles and a retirement per read, 16 at a time, and the first command's pass 1
    assert cycles < 384 * 80 / 16 * 1.6 + 200


def test_fast_flash_takes_a_lookup_in_four_cycles():
    config = small_config(graph=False, tags=64, sample_slots=4)
    world = World(config, two_tables(), 7, faults=False, striped=True)
    rng = random.Random(63)
    queries = [(dict(opcode=int(Opcode.LOOKUP), batch=8, n_tables=2, n_dense=0, weighted=False),
                pack_queries(None, [[np.array(rng.choices(range(150), k=14)) for _ in range(8)],
                                    [np.array(rng.choices(range(60), k=2)) for _ in range(8)]])) for _ in range(4)]
    _, cycles, counts, _ = run(config, world, queries, seed=17, flash_latency=4)
    assert counts["lookups"] == 512
    assert cycles < 4 * 512 + 400  # pass 1 of the next command, as far as the lookups in flight do not hide it
