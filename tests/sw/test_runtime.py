"""The driver and the host library against a device written in Python: rings, PRP lists, tables, queries, failures."""

from dataclasses import replace

import model_cases
import numpy as np
import pytest
import torch
from fake_backend import FakeBackend
from hypothesis import given, settings
from hypothesis import strategies as st
from nearflash.contract import (
    AdminOpcode,
    CommandError,
    ConfigError,
    DataError,
    DeviceConfig,
    DeviceTimeout,
    NearflashError,
    Opcode,
    RowFormat,
    Status,
    TableSpec,
)
from nearflash.contract.identify import identify, limits
from nearflash.contract.nvme import HOST_PAGE
from nearflash.contract.table import Extent, PoolMode
from nearflash.reference.model import IntegerModel
from nearflash.reference.pooling import pool_bags
from nearflash.reference.query import pack_queries
from nearflash.runtime import Backend, Device, HostAllocator, NvmeDriver, open_backend
from nearflash.runtime.layout import ExtentAllocator, table_pages
from nearflash.runtime.module import DeviceModule
from nearflash.runtime.queries import normalize_bags, pack_batch

TINY = DeviceConfig.preset("tiny")


def make(config=TINY, **kw):
    return Device(FakeBackend(config, **kw), timeout=100_000)


def quiet(device):
    """Nothing is left allocated but the rings."""
    device.driver.reap()
    rings = sum(2 * HOST_PAGE for _ in range(device.config.host.queue_pairs))
    assert device.backend.allocator.used == rings
    assert not any(r.live for r in device.driver._rings)


def test_allocator_reuses_and_joins():
    a = HostAllocator(0x1000, 8 * HOST_PAGE)
    got = [a.alloc(n) for n in (1, 4096, 4097, 0)]
    assert [g % HOST_PAGE for g in got] == [0] * 4
    assert a.used == 5 * HOST_PAGE
    with pytest.raises(NearflashError, match="exhausted"):
        a.alloc(4 * HOST_PAGE)
    for g in (got[1], got[3], got[0], got[2]):
        a.free(g)
    assert a.alloc(8 * HOST_PAGE) == 0x1000
    with pytest.raises(NearflashError, match="not allocated"):
        a.free(0x3000)


@pytest.mark.parametrize("pages", [1, 2, 3, 512, 513, 514, 1023, 1024, 1025, 1600])
def test_prp_lists_describe_the_buffer(pages):
    backend = FakeBackend(TINY)
    driver = NvmeDriver(backend)
    n = pages * HOST_PAGE - 100
    b = driver.buffer(n)
    prp1, prp2, lists = driver.prp(b)
    runs = backend._runs(prp1, prp2, n)
    assert sum(k for _, k in runs) == n
    assert [a for a, _ in runs] == [b.address + i * HOST_PAGE for i in range(pages)]
    assert bool(lists) == (pages > 2)


def test_rings_wrap_many_times():
    d = make(shuffle=3)
    size = TINY.lba_bytes
    for i in range(5 * TINY.host.queue_entries):
        d.write(i % 7, bytes([i & 255]) * size)
    assert [d.read(k)[0] for k in range(7)] == [max(i for i in range(80) if i % 7 == k) for k in range(7)]
    quiet(d)


def test_more_commands_than_the_ring_holds():
    d = make(delay=500, shuffle=1)
    buffers = [d.driver.buffer(4096) for _ in range(60)]
    commands = [d.driver.submit(0, AdminOpcode.IDENTIFY, "identify", [b], prp1=b.address, cdw10=i % 2)
                for i, b in enumerate(buffers)]
    for i, (c, b) in enumerate(zip(commands, buffers, strict=True)):
        d.driver.wait(c)
        assert b.read() == identify(TINY, i % 2)
        c.release()
    quiet(d)


def test_whoever_waits_for_any_command_gets_all_that_are_finished():
    d = make(delay=500, shuffle=2, hang=[Opcode.FLUSH])
    with pytest.raises(ValueError, match="at least one"):
        d.driver.wait_any([])
    hangs = d.driver.submit(1, Opcode.FLUSH, "flush", nsid=1)
    waiting = [d.driver.submit(0, AdminOpcode.IDENTIFY, "identify", [b := d.driver.buffer(4096)], prp1=b.address,
                               cdw10=i % 2) for i in range(12)]
    while waiting:
        done = d.driver.wait_any([hangs, *waiting])
        assert done
        assert all(c.completion is not None for c in done)
        for c in done:
            waiting.remove(c)
            c.release()
    b = d.driver.buffer(4096)
    one = d.driver.submit(0, AdminOpcode.IDENTIFY, "identify", [b], prp1=b.address, cdw10=1)
    assert d.driver.wait_any([hangs, one]) == [one]
    one.release()
    with pytest.raises(DeviceTimeout, match="any of 1 commands: no answer within 700 cycles"):
        d.driver.wait_any([hangs], timeout=700)


def test_block_io():
    d = make()
    size, rng = TINY.lba_bytes, np.random.default_rng(0)
    content = rng.bytes(37 * size)  # several commands of mdts_pages
    d.write(3, content)
    d.flush()
    assert d.read(3, 37) == content
    assert d.read(0, 3) == bytes(3 * size)
    d.trim(5, 2)
    assert d.read(4, 4) == content[size : 2 * size] + bytes(2 * size) + content[4 * size : 5 * size]
    d.reset()  # what was flushed survives
    d.trim(5, 2)
    assert d.read(10) == content[7 * size : 8 * size]
    for bad in ((-1, 1), (0, 0), (TINY.lbas, 1)):
        with pytest.raises(DataError, match="lba"):
            d.read(*bad)
    with pytest.raises(DataError, match="content"):
        d.write(0, b"x" * (size + 1))
    quiet(d)
    d.close()
    d.close()
    assert d.backend.closed
    assert d.backend.allocator.used == 0


def test_identify_and_counters():
    d = make()
    assert d.identify() == limits(TINY)
    assert d.identify_page(0) == identify(TINY, 0)
    c = d.counters()
    assert (c["cycles"], c["lookups_count"]) == (1 << 32 | 1000, 1 << 32 | 1001)
    quiet(d)


def test_wrong_device_is_refused():
    b = FakeBackend(TINY)
    b.config = replace(TINY, clock_mhz=101.0)
    real = b.mmio_read32
    b.mmio_read32 = lambda offset: TINY.design_id if offset == 0x100 else real(offset)
    with pytest.raises(ConfigError, match="design_id"):
        Device(b)


def test_timeouts_name_the_command_and_reset_recovers():
    d = make(hang=[Opcode.FLUSH])
    with pytest.raises(DeviceTimeout, match=r"flush.*100000 cycles"):
        d.flush()
    assert d.driver._rings[1].live
    d.reset()
    quiet(d)
    d.write(0, bytes(TINY.lba_bytes))
    dead = FakeBackend(TINY)
    dead.mmio_write32 = lambda offset, value: None
    with pytest.raises(DeviceTimeout, match="RDY"):
        Device(dead, timeout=1000)
    assert dead.cycles < 3000


# -- tables ---------------------------------------------------------------------------------------------------------------
def table(rng, rows=50, dim=8, format=RowFormat.FP32, mode=PoolMode.SUM):
    values = rng.standard_normal((rows, dim)).astype(np.float32)
    from nearflash.quantize import encode_rows
    return TableSpec(rows, dim, format, mode, -30, 6), encode_rows(values, format)


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("format", list(RowFormat))
def test_lookup(format, preload):
    rng = np.random.default_rng(1)
    d = make()
    tables = [table(rng, 50, 8, format), table(rng, 31, 12, format, PoolMode.MEAN), table(rng, 200, 4, format)]
    specs = d.create_tables(dict(enumerate(tables)), preload=preload)
    assert sorted(specs) == sorted(d.tables) == [0, 1, 2]
    lengths = rng.integers(0, 9, (3, 5))
    for weighted in (False, True):
        bags = [(rng.integers(0, s.rows, n.sum()), np.cumsum(n) - n) for (s, _), n in zip(tables, lengths, strict=True)]
        w = [None, rng.standard_normal(lengths[1].sum()), None] if weighted else None
        out = d.lookup(bags, w)
        for t, (s, rows) in enumerate(tables):
            wt = None if not weighted else np.ones(lengths[t].sum(), np.float32) if w[t] is None else w[t].astype("f4")
            assert np.array_equal(out[t], pool_bags(s, TINY.lookup.acc_bits, rows[bags[t][0]], lengths[t], wt)[0])
    quiet(d)


def test_preloading_keeps_blocks_and_open_tables():
    rng = np.random.default_rng(2)
    d = make()
    size = TINY.lba_bytes
    d.write(100, b"a" * size)
    d.create_table(0, *table(rng))
    before = d.lookup([(np.arange(5), np.array([0, 2]))])[0]
    d.create_table(1, *table(rng), preload=True)
    assert d.read(100) == b"a" * size
    assert np.array_equal(d.lookup([(np.arange(5), np.array([0, 2]))])[0], before)


def test_extents_and_replacement():
    rng = np.random.default_rng(3)
    d = make()
    spec, rows = table(rng, 100, 32)
    a = d.create_table(0, spec, rows, lba=8)
    assert a.extents[0].lba == 8
    b = d.create_table(1, spec, rows)
    assert b.extents[0].lba == 8 + spec.pages(TINY)
    with pytest.raises(DataError, match="lba"):
        d.create_table(2, spec, rows, lba=10)
    assert 2 not in d.tables
    with pytest.raises(CommandError) as e:
        d.create_table(2, replace(spec, extents=(Extent(0, 8, 25),)), None)
    assert (e.value.status, e.value.dw0) == (Status.OVERLAPPING_EXTENTS, 0)
    d.delete_table(0)
    assert d.create_table(3, *table(rng, 20, 8)).extents[0].lba == 0
    again = d.create_table(1, spec, None)  # same table again, contents reused where its extents fall
    assert again.extents[0].pages == spec.pages(TINY)
    with pytest.raises(CommandError):
        d.delete_table(7)
    quiet(d)


def test_extents_split_over_gaps():
    e = ExtentAllocator(TINY)
    n = TINY.lbas
    e.take(0, 10)
    e.take(1, n - 20)
    e.take(2, 10)
    e.release(0)
    e.release(2)
    got = e.take(3, 15)
    assert [(x.first_page, x.pages) for x in got] == [(0, 10), (10, 5)]
    e.release(3)
    with pytest.raises(DataError, match="pages"):
        e.take(3, 21)


def test_table_pages_are_the_documented_layout():
    rng = np.random.default_rng(4)
    spec, rows = table(rng, 50, 12, RowFormat.INT8)  # 20 B rows, 24 B stride, 21 rows fit a 512 B page
    spec = replace(spec, page_rows=21)
    pages = table_pages(spec, rows, TINY)
    assert pages.shape == (3, 512)
    for r in range(50):
        at = r % 21 * 24
        assert pages[r // 21, at : at + 20].tobytes() == rows[r].tobytes()
    assert not pages[2, 8 * 24 :].any()
    assert np.array_equal(table_pages(spec, rows, TINY, 1, 1), pages[1:2])
    with pytest.raises(DataError, match="rows"):
        table_pages(spec, rows[:40], TINY)


# -- queries --------------------------------------------------------------------------------------------------------------
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.booleans(), st.integers(0, 1000))
def test_packing_equals_the_reference(batch, n_tables, n_dense, weighted, seed):
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((batch, n_dense)).astype(np.float32)
    lists = [[rng.integers(0, 1 << 32, rng.integers(0, 4)) for _ in range(batch)] for _ in range(n_tables)]
    w = [[rng.standard_normal(len(i)).astype(np.float32) for i in t] for t in lists]
    lengths = [np.array([len(i) for i in t]) for t in lists]
    bags = [(np.concatenate(t), np.cumsum(n) - n) for t, n in zip(lists, lengths, strict=True)]
    flat = [np.concatenate(t) for t in w] if weighted else None
    words, b, flag = pack_batch(dense, normalize_bags(bags, flat))
    assert (b, flag) == (batch, weighted)
    assert np.array_equal(words, pack_queries(dense, lists, w if weighted else None))


@pytest.mark.parametrize(("bags", "field"), [
    ([], "bags"), ([([0.5], [0])], r"bags\[0\]\.indices"), ([([-1], [0])], r"indices\[0\]"),
    ([([1 << 32], [0])], "indices"), ([([1, 2], [1])], "offsets"), ([([1, 2], [0, 3])], "offsets"),
    ([([1, 2], [0, 2, 1])], "offsets"), ([([1], [0]), ([1], [0, 1])], r"bags\[1\]"),
    ([([1], [0], [1.0, 2.0])], r"bags\[0\]\.weights"),
])
def test_malformed_bags_are_named(bags, field):
    with pytest.raises(DataError, match=field):
        normalize_bags(bags)


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("name", sorted(model_cases.SPECS))
def test_inference_is_the_integer_model(name, preload):
    _, c = model_cases.compiled(name)
    d = make(c.config, shuffle=5)
    d.load(c, preload=preload)
    spec = model_cases.SPECS[name]
    dense, bags = model_cases.queries(spec, 11, seed=9)
    want = IntegerModel(c).logits(dense, bags)[1]
    assert np.array_equal(d.infer(dense, bags, batch=3), want)
    assert np.array_equal(d.infer(dense, bags), want)
    module = DeviceModule(d, batch=4)
    got = module(torch.tensor(dense), [tuple(torch.tensor(x) for x in b) for b in bags])
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), want)
    quiet(d)


def test_dram_weights_and_both_scans_reach_the_device():
    for composition in (False, True):
        for decomposition in (False, True):
            _, c = model_cases.compiled("cat", composition=composition, decomposition=decomposition, onchip_bytes=60)
            assert any(n.weights == "dram" for n in c.config.mlp.graph)
            d = make(c.config)
            d.load(c)
            dense, bags = model_cases.queries(model_cases.SPECS["cat"], 4, seed=2)
            assert np.array_equal(d.infer(dense, bags), IntegerModel(c).logits(dense, bags)[1])


def test_several_batches_in_flight():
    _, c = model_cases.compiled("cat")
    d = make(c.config, delay=3000, shuffle=8)
    d.load(c)
    data = [model_cases.queries(model_cases.SPECS["cat"], 2, seed=s) for s in range(40)]
    tickets = [d.submit(*q) for q in data]
    for t, q in reversed(list(zip(tickets, data, strict=True))):
        assert np.array_equal(d.result(t), IntegerModel(c).logits(*q)[1])
    quiet(d)


def test_device_errors_reach_the_caller():
    _, c = model_cases.compiled("cat")
    d = make(c.config)
    dense, bags = model_cases.queries(model_cases.SPECS["cat"], 3, seed=2)
    with pytest.raises(CommandError) as e:
        d.infer(dense, bags)
    assert e.value.status == Status.NO_PROGRAM
    d.load(c)
    bad = [bags[0], bags[1], (np.array([33]), np.array([0, 0, 1]))]
    with pytest.raises(CommandError) as e:
        d.infer(dense, bad, batch=2)
    assert (e.value.status, e.value.dw1) == (Status.INDEX_OUT_OF_RANGE, 2)
    with pytest.raises(CommandError) as e:
        d.infer(dense[:, :4], bags)
    assert e.value.status == Status.BAD_BATCH
    with pytest.raises(CommandError) as e:
        d.load_program(c.image[:-32])
    assert e.value.status == Status.BAD_PROGRAM
    with pytest.raises(DataError, match="batch"):
        d.submit(np.zeros((0, 5)), [(np.zeros(0, int), np.zeros(0, int))] * 3)
    d.delete_table(1)
    with pytest.raises(DataError, match="table 1"):
        d.lookup([(np.array([0]), np.array([0]))] * 2)
    quiet(d)


def test_slow_results_can_be_asked_for_again():
    _, c = model_cases.compiled("wide")
    d = make(c.config, delay=5000)
    d.load(c)
    q = model_cases.queries(model_cases.SPECS["wide"], 2, seed=1)
    d.backend.rng.randint = lambda a, b: b  # always the longest delay
    t = d.submit(*q)
    with pytest.raises(DeviceTimeout):
        d.result(t, timeout=100)
    assert np.array_equal(d.result(t), IntegerModel(c).logits(*q)[1])
    quiet(d)


def test_back_ends_are_found_by_name():
    with pytest.raises(NearflashError, match="no back end named 'nothing'"):
        open_backend("nothing")
    assert issubclass(FakeBackend, Backend)


def test_import_needs_numpy_alone():
    import subprocess
    import sys
    code = ("import sys; sys.modules['torch'] = None; sys.modules['amaranth'] = None; "
            "import nearflash.runtime, nearflash.reference.model, nearflash.quantize, nearflash.models, nearflash.compiler")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- what callers hand in ---------------------------------------------------------------------------------------------------
def test_bfloat16_tensors_are_taken_exactly():
    spec = model_cases.SPECS["cat"]
    _, c = model_cases.compiled("cat")
    d = make(c.config)
    d.load(c)
    dense, bags = model_cases.queries(spec, 5, seed=3)
    half = torch.tensor(dense).bfloat16()
    t_bags = [tuple(torch.tensor(x) for x in b) for b in bags]
    want = IntegerModel(c).logits(half.float().numpy(), bags)[1]
    assert np.array_equal(DeviceModule(d)(half, t_bags).numpy(), want)
    assert np.array_equal(d.result(d.submit(half, t_bags)), want)
    assert np.array_equal(IntegerModel(c).logits(half, t_bags)[1], want)
    weights = [torch.rand(len(b[0])).bfloat16() for b in bags]
    for half_weights, (_, _, w) in zip(weights, normalize_bags(bags, weights), strict=True):
        assert w is not None
        assert np.array_equal(w, half_weights.float().numpy())
    with pytest.raises(DataError, match=r"tensor = .*sparse"):
        d.submit(half.float().to_sparse(), t_bags)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_dense_features_that_are_not_finite_are_refused(value):
    _, c = model_cases.compiled("cat")
    d = make(c.config)
    d.load(c)
    dense, bags = model_cases.queries(model_cases.SPECS["cat"], 3, seed=2)
    dense[1, 4] = value
    for call in (lambda: d.submit(dense, bags), lambda: d.infer(dense, bags), lambda: IntegerModel(c).logits(dense, bags)):
        with pytest.raises(DataError, match=r"dense\[1, 4\] = (nan|inf|-inf): must be finite"):
            call()
    quiet(d)


def with_last(bags):
    return [(i, np.append(o, len(i))) for i, o in bags]


def test_include_last_offset_adds_no_sample():
    for name in ("cat", "neumf"):
        spec = model_cases.SPECS[name]
        _, c = model_cases.compiled(name)
        d = make(c.config)
        d.load(c)
        dense = np.random.default_rng(8).standard_normal((4, spec.dense)).astype(np.float32)
        bags = [(np.arange(4) * 7 % t.rows, np.arange(4)) for t in spec.tables]
        want = IntegerModel(c).logits(dense, bags)[1]
        last = with_last(bags)
        given = dense if spec.dense else None
        assert np.array_equal(d.infer(dense, last), want)  # dense, even without a column, tells the samples
        assert np.array_equal(d.infer(given, last, include_last_offset=True), want)
        assert np.array_equal(DeviceModule(d, include_last_offset=True)(given, last).numpy(), want)
        assert np.array_equal(d.infer(given, bags), want)
        with pytest.raises(DataError, match=r"bags\[0\]\.offsets.*include_last_offset"):
            d.infer(given, bags, include_last_offset=True)
    for call in (d.infer, d.submit):  # of the model without dense features
        with pytest.raises(DataError, match=r"include_last_offset.*say True"):
            call(None, last)
    empty_last = d.infer(None, last, include_last_offset=False)
    assert np.array_equal(empty_last[:-1], want)
    assert len(empty_last) == len(want) + 1
    assert [len(v) for v in d.lookup(last, include_last_offset=True)] == [4] * len(bags)
