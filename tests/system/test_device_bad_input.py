"""Bad input to the whole device: every fault has its status and place, changes nothing else, and the next command works."""

from __future__ import annotations

import struct
from dataclasses import replace

import nearflash.runtime.nvme as driver_module
import numpy as np
import pytest
from device_bench import FILL, assert_same_bits, call, expected, open_device, outcome, random_bags, submit_lookup
from nearflash.contract import (
    AdminOpcode,
    CommandError,
    DataError,
    DeviceTimeout,
    Opcode,
    RowFormat,
    Status,
)
from nearflash.contract.nvme import sqe
from nearflash.contract.onflash import superblock
from nearflash.contract.registers import doorbell
from nearflash.contract.table import DESCRIPTOR_WORDS, Extent
from nearflash.reference.query import check_query
from nearflash.runtime.nvme import Completion
from nearflash.runtime.queries import normalize_bags, pack_batch
from nearflash_sim.small.device import SMALL, load, make_table

ADMIN, INFER, BLOCK = 0, 1, 2
SIZE = SMALL.lba_bytes
FILES = 1000  # first of the blocks that hold files
BUS_END = 1 << 40


class Bench:
    """A device with two tables, some files, and the means to see that nothing but what was asked has changed."""

    def __init__(self):
        rng = self.rng = np.random.default_rng(42)
        self.device = open_device()
        self.host = self.device.backend.device.host
        self.dram = self.device.backend.device.dram
        self.tables = [make_table(rng, SMALL, 60, 16), make_table(rng, SMALL, 40, 8, RowFormat.INT8)]
        self.files = rng.bytes(8 * SIZE)
        self.load()

    def load(self):
        load(self.device, self.tables)
        self.device.write(FILES, self.files)

    def alive(self):
        """The next lookups and block I/O give what they should, and every stored byte is as it was."""
        bags = random_bags(self.rng, self.tables, 3)
        got = np.concatenate(self.device.lookup(bags), axis=1)
        assert_same_bits(got, expected(self.device, self.tables, bags))
        assert self.device.read(FILES, 8) == self.files
        for t in self.tables:
            for e in t.spec.extents:
                self.device.read(e.lba, e.pages)  # every page readable; their bytes were looked up
        assert self.device.driver.read_register("csts") == 1
        assert not any(ring.live for ring in self.device.driver._rings), "a command is still under way"

    # -- raw commands -------------------------------------------------------------------------------------------------
    def lookup(self, words=None, *, batch=1, tables=2, weighted=False, dense=0, opcode=Opcode.LOOKUP, n_words=None,
               out_address=None, prp1=None, prp2=0, out_bytes=None):
        """A LOOKUP from words: (completion, bytes of its output buffer)."""
        words = self.words(batch) if words is None else np.asarray(words, np.uint32)
        dims = sum(t.spec.dim for t in self.tables[:tables])
        driver = self.device.driver
        query, out = driver.buffer(words.tobytes()), driver.buffer(out_bytes or max(8, 4 * dims * min(batch, 64)))
        a = out.address if out_address is None else out_address
        p1, p2, lists = driver.prp(query)
        done = call(self.device, INFER, opcode, prp1=p1 if prp1 is None else prp1, prp2=prp2 or p2,
                    cdw10=words.size if n_words is None else n_words, cdw11=batch | int(weighted) << 16,
                    cdw12=tables | dense << 16, cdw14=a & 0xFFFFFFFF, cdw15=a >> 32)
        content = out.read()
        for b in (query, out, *lists):
            b.release()  # checks the guard bytes
        return done, content

    def words(self, batch=1, max_bag=4):
        return pack_batch(None, normalize_bags(random_bags(self.rng, self.tables, batch, max_bag)))[0]

    def block(self, opcode, lba, count, *, prp1=None, prp2=None, **fields):
        """A READ or WRITE: (completion, bytes of its buffer)."""
        b = self.device.driver.buffer(bytes([FILL]) * (count * SIZE))
        p1, p2, lists = self.device.driver.prp(b)
        kw = {"nsid": 1, "cdw10": lba, "cdw12": count - 1} | fields
        done = call(self.device, BLOCK, opcode, prp1=p1 if prp1 is None else prp1, prp2=p2 if prp2 is None else prp2, **kw)
        content = b.read()
        for x in (b, *lists):
            x.release()
        return done, content


@pytest.fixture(scope="module")
def shared():
    bench = Bench()
    yield bench
    bench.device.close()


@pytest.fixture
def bench(shared):
    shared.alive()
    yield shared
    shared.host.clear_faults()
    shared.dram.clear_faults()
    shared.alive()


def untouched(content):
    return content.count(FILL) == len(content)


# -- query streams ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("index", ["rows", "largest"])
def test_index_out_of_range(bench, table, index, weighted):
    """Anywhere in a batch: its position and table, and nothing is returned, not even for the good samples before it."""
    rows = bench.tables[table].spec.rows
    bags = normalize_bags(random_bags(bench.rng, bench.tables, 5, 6, weighted))
    bags[table][0][bench.rng.integers(len(bags[table][0]))] = rows if index == "rows" else 2**32 - 1
    words, batch, _ = pack_batch(None, bags)
    done, out = bench.lookup(words, batch=batch, weighted=weighted)
    want = check_query(words, SMALL, specs(bench), opcode=Opcode.LOOKUP, batch=batch, n_tables=2, weighted=weighted)
    assert done.status == Status.INDEX_OUT_OF_RANGE
    assert done == want
    assert done.dw1 == table
    assert words[done.dw0] in (rows, 2**32 - 1)
    assert untouched(out)


def specs(bench):
    return {t: table.spec for t, table in enumerate(bench.tables)}


@pytest.mark.parametrize(("change", "status"), [
    ({"batch": 0}, Status.BAD_BATCH), ({"batch": SMALL.host.max_batch + 1}, Status.BAD_BATCH),
    ({"batch": 65535}, Status.BAD_BATCH), ({"batch": 2}, Status.BAD_BATCH), ({"batch": 4}, Status.BAD_BATCH),
    ({"tables": 0}, Status.BAD_BATCH), ({"tables": 255}, Status.BAD_BATCH), ({"tables": 1}, Status.BAD_BATCH),
    ({"tables": 3}, Status.UNKNOWN_TABLE), ({"dense": 1}, Status.BAD_BATCH), ({"n_words": 0}, Status.BAD_BATCH),
    ({"n_words": 1 << 30}, Status.BAD_BATCH), ({"n_words": 0xFFFFFFFF}, Status.BAD_BATCH),
    ({"short": 1}, Status.BAD_BATCH), ({"long": 1}, Status.BAD_BATCH), ({"long": 2000}, Status.BAD_BATCH),
    ({"weighted": True}, None), ({"opcode": Opcode.INFER}, Status.NO_PROGRAM),
], ids=lambda v: "-".join(f"{k}={int(x):#x}" for k, x in v.items()) if isinstance(v, dict) else "")
def test_wrong_counts(bench, change, status):
    change = dict(change)
    words = bench.words(3)
    if "short" in change:
        words = words[: -change.pop("short")]
    if "long" in change:
        words = np.append(words, np.ones(change.pop("long"), np.uint32))
    args = {"batch": 3, "tables": 2, "dense": 0, "weighted": False, "opcode": Opcode.LOOKUP} | change
    done, out = bench.lookup(words, **args, out_bytes=4096)
    stream = words if "n_words" not in change else np.zeros(0, np.uint32)
    if args["opcode"] == Opcode.LOOKUP:
        assert done == check_query(stream, SMALL, specs(bench), opcode=args["opcode"], batch=args["batch"],
                                   n_tables=args["tables"], n_dense=args["dense"], weighted=args["weighted"])
    assert done.status == status or (status is None and done.status != Status.SUCCESS)
    if done.status == Status.UNKNOWN_TABLE:
        assert done.dw0 == 2
    assert untouched(out)


def test_random_streams_are_judged_as_the_reference_does(bench):
    """Garbage and damaged streams, against the reference's verdict."""
    rng = bench.rng
    seen = set()
    for _ in range(120):
        batch = int(rng.integers(1, 5))
        words = bench.words(batch).copy()
        for _ in range(int(rng.integers(1, 3))):
            words[rng.integers(len(words))] = rng.choice([0, 1, 5, 39, 40, 60, 256, 257, 1 << 16, 1 << 31, 0xFFFFFFFF])
        weighted = bool(rng.random() < 0.2)
        want = check_query(words, SMALL, specs(bench), opcode=Opcode.LOOKUP, batch=batch, n_tables=2, weighted=weighted)
        done, out = bench.lookup(words, batch=batch, weighted=weighted)
        if want.status != Status.SUCCESS:
            assert done == want
            assert untouched(out)
        seen.add(want.status)
    assert {Status.SUCCESS, Status.BAD_BATCH, Status.INDEX_OUT_OF_RANGE} <= seen


def test_a_bag_larger_than_its_window(bench):
    """More lookups than 2**headroom could overflow the accumulators: refused before any flash read."""
    limit = 1 << bench.tables[0].spec.headroom
    for n, status in ((limit, Status.SUCCESS), (limit + 1, Status.BAD_BATCH)):
        done, out = bench.lookup([n, *[3] * n, 0])
        assert done.status == status
        assert untouched(out) == (status != Status.SUCCESS)
    assert done.dw0 == 0


def test_more_pooled_elements_than_accumulators(bench):
    """Tables whose dims together exceed the accumulators cannot be looked up in one command."""
    extra = [make_table(bench.rng, SMALL, 4, 64) for _ in range(2)]
    for t, table in enumerate(extra, 2):
        bench.device.create_table(t, table.spec, table.rows)
    try:
        done, out = bench.lookup([0, 0, 0, 0], tables=4, out_bytes=4096)
        assert done == Completion(Status.BAD_BATCH, 0, 0)
        assert untouched(out)
        done, _ = bench.lookup([0, 0, 0], tables=3, out_bytes=4096)
        assert done.status == Status.SUCCESS
    finally:
        for t in (2, 3):
            bench.device.delete_table(t)


def test_result_address(bench):
    for address, status in ((0x12344, Status.INVALID_PRP_OFFSET), (BUS_END, Status.DATA_TRANSFER_ERROR),
                            (1 << 63, Status.DATA_TRANSFER_ERROR)):
        done, out = bench.lookup(out_address=address)
        assert done.status == status
        assert untouched(out)


def test_query_that_cannot_be_read(bench):
    b = bench.device.driver.buffer(4096)
    long = np.tile(np.array([2, 1, 1, 0], np.uint32), 3000)  # 48,000 bytes: a PRP list
    for kw, status in ((dict(prp1=b.address + 4), Status.INVALID_PRP_OFFSET),
                       (dict(prp1=BUS_END), Status.DATA_TRANSFER_ERROR),
                       (dict(words=long, prp2=b.address + 4), Status.INVALID_PRP_OFFSET),
                       (dict(words=long, prp2=BUS_END), Status.DATA_TRANSFER_ERROR)):
        done, out = bench.lookup(**kw)
        assert done.status == status, kw.keys()
        assert untouched(out)
    b.release()


# -- tables ------------------------------------------------------------------------------------------------------------
def create(bench, table, words, prp1=None):
    b = bench.device.driver.buffer(bytes(words))
    done = call(bench.device, ADMIN, AdminOpcode.TABLE_CREATE, prp1=b.address if prp1 is None else prp1, cdw10=table)
    b.release()
    return done


def test_unknown_table(bench):
    for table, status in ((7, Status.UNKNOWN_TABLE), (SMALL.lookup.max_tables, Status.INVALID_FIELD),
                          (0xFFFFFFFF, Status.INVALID_FIELD)):
        done = call(bench.device, ADMIN, AdminOpcode.TABLE_DELETE, cdw10=table)
        assert done.status == status
        assert done.dw0 == (7 if table == 7 else 0)


def test_bad_descriptors_leave_the_table_as_it_was(bench):
    good = np.frombuffer(bench.tables[0].spec.descriptor(SMALL), "<u4")
    cases = {0: (0, 1 << 31), 1: (0, 6, 4 * SMALL.lookup.max_dim), 2: (3, 0x200, 0x10000), 3: (0, good[3] + 1),
             4: (0, SMALL.page_beats + 1), 5: (good[5] + 9,), 6: (30, 47), 7: (128, (-251) & 0xFFFFFFFF), 8: (1 << 16,),
             9: (128, (-129) & 0xFFFFFFFF), 10: (0, SMALL.lookup.max_extents + 1), 11: (17,), 16: (1,),
             17: (SMALL.lbas,), 18: (0, SMALL.lbas + 1)}
    for word, values in cases.items():
        for value in values:
            w = good.copy()
            w[word] = value
            done = create(bench, 0, w.tobytes())
            assert done.status == Status.BAD_TABLE, (word, value)
            assert done.dw0 == word, (word, value)
    assert create(bench, SMALL.lookup.max_tables, good.tobytes()).status == Status.INVALID_FIELD
    assert create(bench, 0, good.tobytes(), prp1=BUS_END).status == Status.DATA_TRANSFER_ERROR
    assert create(bench, 0, good.tobytes(), prp1=0x20004).status == Status.INVALID_PRP_OFFSET
    assert len(good) == DESCRIPTOR_WORDS


def test_random_descriptors_never_hang(bench):
    """Garbage in any word is refused or, if it happens to be good, opens a table that can be closed again."""
    good = np.frombuffer(replace(bench.tables[0].spec, extents=(Extent(0, 1500, 40),)).descriptor(SMALL), "<u4")
    refused = 0
    for _ in range(60):
        w = good.copy()
        w[bench.rng.choice([*range(12), 16, 17, 18, 20, 79])] = bench.rng.integers(1 << 32) >> bench.rng.integers(32)
        done = create(bench, 5, w.tobytes())
        assert done.status in (Status.SUCCESS, Status.BAD_TABLE, Status.OVERLAPPING_EXTENTS)
        refused += done.status != Status.SUCCESS
        closed = call(bench.device, ADMIN, AdminOpcode.TABLE_DELETE, cdw10=5).status
        assert closed == (Status.UNKNOWN_TABLE if done.status != Status.SUCCESS else Status.SUCCESS)
    assert refused > 20


def test_overlapping_extents(bench):
    taken = bench.tables[1].spec.extents[0]
    spec = make_table(bench.rng, SMALL, 8, 16).spec
    n = spec.pages(SMALL)
    for lba in (taken.lba, taken.lba + taken.pages - 1):
        with pytest.raises(CommandError) as e:
            bench.device.create_table(4, replace(spec, extents=(Extent(0, lba, n),)), None)
        assert e.value.status == Status.OVERLAPPING_EXTENTS
        assert e.value.dw0 == 1
    own = replace(spec, extents=(Extent(0, 1600, n), Extent(n, 1599 + n, 1)))
    with pytest.raises(CommandError) as e:
        bench.device.create_table(4, own, None)
    assert (e.value.status, e.value.dw0) == (Status.BAD_TABLE, 21)


# -- rows --------------------------------------------------------------------------------------------------------------
def poke(bench, table, row, values):
    """Change a row's stored bytes behind the host library's back, through block I/O. Returns an undo."""
    spec = bench.tables[table].spec
    page, slot = divmod(row, spec.rows_per_page(SMALL))
    e = next(e for e in spec.extents if e.first_page <= page < e.first_page + e.pages)
    lba = e.lba + page - e.first_page
    before = bench.device.read(lba)
    at = slot * spec.stride_beats(SMALL) * SMALL.beat_bytes
    bench.device.write(lba, before[:at] + values + before[at + len(values) :])
    return lba, lambda: bench.device.write(lba, before)


ROW = {
    "nan": (0, struct.pack("<f", np.nan), Status.ROW_NOT_FINITE),
    "inf": (0, struct.pack("<ff", 1.0, -np.inf), Status.ROW_NOT_FINITE),
    "int8-scale-nan": (1, bytes(8) + struct.pack("<f", np.nan), Status.ROW_NOT_FINITE),
    "int8-bias-inf": (1, bytes(12) + struct.pack("<f", np.inf), Status.ROW_NOT_FINITE),
    "huge": (0, struct.pack("<f", 3e38), Status.POOL_OVERFLOW),
    "int8-huge": (1, b"\xff" * 8 + struct.pack("<f", 1e30), Status.POOL_OVERFLOW),
}


@pytest.mark.parametrize("case", ROW)
def test_bad_rows(bench, case):
    """Found only when the row is read: the command fails with the table; batches without the row still work."""
    table, values, status = ROW[case]
    _, undo = poke(bench, table, 7, values)
    try:
        bad = [0, 2, 3, 7] if table else [2, 3, 7, 0]
        done, _ = bench.lookup(bad)
        assert (done.status, done.dw1) == (status, table)
        done, out = bench.lookup(np.concatenate([[1, 2, 1, 3], bad, [1, 4, 1, 5]]), batch=3)  # in the middle of a batch
        assert (done.status, done.dw1) == (status, table)
        middle = np.frombuffer(out, "<f4").reshape(3, -1)[1]
        assert np.isnan(middle).all(), "a bad sample must not look like a result"
        assert bench.lookup([3, 1, 2, 3, 1, 5])[0].status == Status.SUCCESS
        with pytest.raises(CommandError, match=status.name):
            bench.device.lookup([(np.array([7]), np.array([0]))] * 2)
    finally:
        undo()


@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf])
def test_bad_weights(bench, weight):
    bits = int(np.float32(weight).view(np.uint32))
    done, _ = bench.lookup([0, 2, 3, 0x3F800000, 4, bits], weighted=True)
    assert (done.status, done.dw1) == (Status.ROW_NOT_FINITE, 1)
    done, _ = bench.lookup([1, 3, int(np.float32(1e30).view(np.uint32)), 0], weighted=True)
    assert (done.status, done.dw1) == (Status.POOL_OVERFLOW, 0)


def test_unmapped_rows(bench):
    """Part of a table trimmed away: rows in it fail, the others work; writing it again repairs the table."""
    table = bench.tables[0]
    e = table.spec.extents[0]
    content = bench.device.read(e.lba + 1)
    bench.device.trim(e.lba + 1)
    per_page = table.spec.rows_per_page(SMALL)
    try:
        done, _ = bench.lookup([2, 0, per_page, 1, 3])
        assert (done.status, done.dw1) == (Status.ROW_UNMAPPED, 0)
        assert bench.lookup([1, 0, 1, 3])[0].status == Status.SUCCESS
        assert bench.device.read(e.lba + 1) == bytes(SIZE)
    finally:
        bench.device.write(e.lba + 1, content)


def test_one_of_many_batches_in_flight_fails(bench):
    """The batches around it are complete and right."""
    _, undo = poke(bench, 0, 7, struct.pack("<f", np.nan))
    try:
        tickets = []
        for k in range(10):
            bags = [(b[0][b[0] != 7] if t == 0 else b[0], b[1]) for t, b in enumerate(
                random_bags(bench.rng, bench.tables, 1, 4))]
            if k % 3 == 1:
                bags[0] = (np.array([1, 7, 2]), np.array([0]))
            tickets.append((k, bags, submit_lookup(bench.device, bags)))
        for k, bags, ticket in tickets:
            if k % 3 == 1:
                with pytest.raises(CommandError) as e:
                    bench.device.result(ticket)
                assert e.value.status == Status.ROW_NOT_FINITE
            else:
                assert_same_bits(bench.device.result(ticket), expected(bench.device, bench.tables, bags))
    finally:
        undo()


# -- block I/O ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.WRITE], ids=["read", "write"])
def test_bad_block_commands(bench, opcode):
    n = SMALL.lbas
    b = bench.device.driver.buffer(4096)
    cases = [
        (dict(lba=n, count=1), Status.LBA_OUT_OF_RANGE), (dict(lba=n - 1, count=2), Status.LBA_OUT_OF_RANGE),
        (dict(lba=0xFFFFFFFF, count=1), Status.LBA_OUT_OF_RANGE), (dict(lba=0, count=1, cdw11=1), Status.LBA_OUT_OF_RANGE),
        (dict(lba=0, count=SMALL.host.mdts_pages + 1), Status.INVALID_FIELD),
        (dict(lba=0, count=1, cdw12=0xFFFF), Status.INVALID_FIELD if n > 0x10000 else Status.LBA_OUT_OF_RANGE),
        (dict(lba=0, count=1, nsid=0), Status.INVALID_NAMESPACE), (dict(lba=0, count=1, nsid=2), Status.INVALID_NAMESPACE),
        (dict(lba=0, count=1, nsid=0xFFFFFFFF), Status.INVALID_NAMESPACE),
        (dict(lba=FILES, count=1, prp1=b.address + 4), Status.INVALID_PRP_OFFSET),
        (dict(lba=FILES, count=1, prp1=BUS_END), Status.DATA_TRANSFER_ERROR),
        (dict(lba=FILES, count=1, prp1=1 << 63), Status.DATA_TRANSFER_ERROR),
        (dict(lba=FILES, count=8, prp1=b.address + 4096 - 64, prp2=b.address + 8), Status.INVALID_PRP_OFFSET),
        (dict(lba=FILES, count=8, prp1=b.address + 4096 - 64, prp2=BUS_END), Status.DATA_TRANSFER_ERROR),
    ]
    for kw, status in cases:
        files = bench.device.read(FILES, 8)
        done, content = bench.block(opcode, **kw)
        assert done.status == status, (kw, done)
        assert untouched(content)
        got = bench.device.read(FILES, 8)
        if opcode == Opcode.WRITE and kw.get("count") == 8:  # a page of a failed write is old or new, never torn
            assert all(got[i : i + SIZE] in (files[i : i + SIZE], bytes([FILL]) * SIZE) for i in range(0, len(got), SIZE))
            bench.device.write(FILES, files)
        else:
            assert got == files
    # the transfers above that failed midway read into, or from, the last 64 bytes of this page only
    assert untouched(b.read(4096 - 64)) or opcode == Opcode.READ
    b.release()
    with pytest.raises(DataError):
        bench.device.read(n - 1, 2)


def test_bad_trims(bench):
    """All ranges are checked before the first block is forgotten."""
    driver = bench.device.driver
    good = struct.pack("<IIQ", 0, 2, FILES)
    for bad in (struct.pack("<IIQ", 0, 1, SMALL.lbas), struct.pack("<IIQ", 0, 2, SMALL.lbas - 1),
                struct.pack("<IIQ", 0, 1, 1 << 33), struct.pack("<IIQ", 0, 0xFFFFFFFF, 1)):
        b = driver.buffer(good + bad)
        done = call(bench.device, BLOCK, Opcode.DSM, nsid=1, prp1=b.address, cdw10=1, cdw11=1 << 2)
        assert done.status == Status.LBA_OUT_OF_RANGE
        assert bench.device.read(FILES, 8) == bench.files
        b.release()
    b = driver.buffer(good)
    for kw, status in ((dict(prp1=b.address + 4), Status.INVALID_PRP_OFFSET),
                       (dict(prp1=BUS_END), Status.DATA_TRANSFER_ERROR), (dict(nsid=9), Status.INVALID_NAMESPACE)):
        done = call(bench.device, BLOCK, Opcode.DSM, **({"nsid": 1, "prp1": b.address, "cdw10": 0, "cdw11": 1 << 2} | kw))
        assert done.status == status
    assert call(bench.device, BLOCK, Opcode.DSM, nsid=1, prp1=b.address, cdw10=0, cdw11=0).status == Status.SUCCESS
    assert bench.device.read(FILES, 8) == bench.files, "without the deallocate bit nothing is forgotten"
    b.release()


# -- submission entries -----------------------------------------------------------------------------------------------
def test_unknown_opcodes(bench):
    for queue, known in ((ADMIN, set(AdminOpcode) - {AdminOpcode.PROGRAM_LOAD}), (INFER, set(Opcode)), (BLOCK, set(Opcode))):
        for opcode in set(range(256)) - known:
            done = call(bench.device, queue, opcode, nsid=1)
            assert done.status == Status.INVALID_OPCODE, hex(opcode)


def test_reserved_bits_of_an_entry(bench, monkeypatch):
    """FUSE (fused operations) and PSDT (SGLs) are not supported; the reserved bits between them are ignored."""
    flags = [0]

    def damaged(*args, **kw):
        entry = bytearray(sqe(*args, **kw))
        entry[1] = flags[0]
        return bytes(entry)

    monkeypatch.setattr(driver_module, "sqe", damaged)
    for flags[0] in (1, 2, 3, 0x40, 0x80, 0xC0):
        assert bench.block(Opcode.READ, FILES, 1)[0].status == Status.INVALID_FIELD
        assert bench.lookup()[0].status == Status.INVALID_FIELD
        assert call(bench.device, ADMIN, AdminOpcode.TABLE_DELETE, cdw10=0).status == Status.INVALID_FIELD
    flags[0] = 0x3C
    assert bench.block(Opcode.READ, FILES, 1)[0].status == Status.SUCCESS


def test_identify_of_an_unknown_page(bench):
    b = bench.device.driver.buffer(4096)
    done = call(bench.device, ADMIN, AdminOpcode.IDENTIFY, prp1=b.address, cdw10=0x77)
    assert done.status == Status.INVALID_FIELD
    assert untouched(b.read())
    for address, status in ((b.address + 4, Status.INVALID_PRP_OFFSET), (BUS_END, Status.DATA_TRANSFER_ERROR)):
        assert call(bench.device, ADMIN, AdminOpcode.IDENTIFY, prp1=address, cdw10=0).status == status
    b.release()


def test_wild_doorbells_are_ignored(bench):
    for q in range(SMALL.host.queue_pairs):
        for completion in (False, True):
            for value in (SMALL.host.queue_entries, 0xFFFF, 0xFFFFFFFF):
                bench.device.backend.mmio_write32(doorbell(q, completion), value)


# -- buses --------------------------------------------------------------------------------------------------------------
def test_host_bus_errors(bench):
    """A host page that answers errors: DATA_TRANSFER_ERROR for whatever needs it, and nothing else fails."""
    driver = bench.device.driver
    bad = driver.buffer(8 * SIZE)
    bench.host.inject_fault(bad.address, 8 * SIZE)
    expect = Status.DATA_TRANSFER_ERROR
    assert bench.block(Opcode.READ, FILES, 2, prp1=bad.address)[0].status == expect
    assert bench.block(Opcode.WRITE, FILES, 2, prp1=bad.address)[0].status == expect
    assert bench.device.read(FILES, 8) == bench.files, "what could not be fetched must not be written"
    assert bench.block(Opcode.READ, FILES, 8, prp1=bad.address, prp2=0)[0].status == expect
    assert bench.lookup(prp1=bad.address)[0].status == expect
    assert bench.lookup(out_address=bad.address)[0].status == expect
    long = np.tile(np.array([2, 1, 1, 0], np.uint32), 3000)
    assert bench.lookup(long, batch=3000 % 64, prp2=bad.address)[0].status == expect  # the PRP list
    assert create(bench, 6, bytes(320), prp1=bad.address).status == expect
    assert call(bench.device, BLOCK, Opcode.DSM, nsid=1, prp1=bad.address, cdw10=0, cdw11=4).status == expect
    assert call(bench.device, ADMIN, AdminOpcode.IDENTIFY, prp1=bad.address, cdw10=0).status == expect
    bench.host.clear_faults()
    assert untouched(bad.read())
    bad.release()


def test_host_bus_error_in_the_middle_of_a_query(bench):
    """The second pass over a query may fail where the first did not: still one completion, and the next works."""
    words = np.tile(np.array([20, *range(20), 20, *range(20)], np.uint32), 60)
    driver = bench.device.driver
    failed = set()
    for delay in (60, 400, 1500, 6000, 20_000):
        query, out = driver.buffer(words.tobytes()), driver.buffer(60 * 24 * 4)
        p1, p2, lists = driver.prp(query)
        command = driver.submit(INFER, Opcode.LOOKUP, "lookup", prp1=p1, prp2=p2, cdw10=words.size, cdw11=60, cdw12=2,
                                cdw14=out.address & 0xFFFFFFFF, cdw15=out.address >> 32)
        bench.device.backend.idle(delay)
        bench.host.inject_fault(query.address + 4096, 4096)
        failed.add(outcome(bench.device, command).status)
        bench.host.clear_faults()
        for b in (query, out, *lists):
            b.release()
        bench.alive()
    assert failed == {Status.DATA_TRANSFER_ERROR} or failed == {Status.DATA_TRANSFER_ERROR, Status.SUCCESS}


def test_query_changed_between_the_passes(bench):
    """A host that rewrites a query under way gets an error or a result, never a hang or another table's data."""
    words = np.tile(np.array([4, 1, 2, 3, 4, 4, 1, 2, 3, 4], np.uint32), 60)
    driver = bench.device.driver
    for value in (0xFFFFFFFF, 59, 3):
        query, out = driver.buffer(words.tobytes()), driver.buffer(60 * 24 * 4)
        p1, p2, lists = driver.prp(query)
        command = driver.submit(INFER, Opcode.LOOKUP, "lookup", prp1=p1, prp2=p2, cdw10=words.size, cdw11=60, cdw12=2,
                                cdw14=out.address & 0xFFFFFFFF, cdw15=out.address >> 32)
        bench.device.backend.idle(1500)
        query.write(np.full(words.size // 2, value, np.uint32).tobytes(), words.size * 2)
        assert outcome(bench.device, command).status in (Status.SUCCESS, Status.BAD_BATCH, Status.INDEX_OUT_OF_RANGE)
        for b in (query, out, *lists):
            b.release()
        bench.alive()


def test_dram_errors(bench):
    """The board's memory fails: reads are unrecovered, writes faults, each for its own pages."""
    layout = SMALL.layout
    bench.dram.inject_fault(layout.flash, SMALL.flash.total_pages * SIZE, write=False)
    assert bench.block(Opcode.READ, FILES, 2)[0].status == Status.UNRECOVERED_READ
    done, _ = bench.lookup([1, 2, 1, 3])
    assert done.status == Status.UNRECOVERED_READ
    assert bench.block(Opcode.READ, 1700, 1)[0].status == Status.SUCCESS  # unmapped: no flash read
    bench.dram.clear_faults()
    bench.dram.inject_fault(layout.flash, SMALL.flash.total_pages * SIZE, read=False)
    assert bench.block(Opcode.WRITE, 1700, 3)[0].status == Status.WRITE_FAULT
    bench.dram.clear_faults()
    assert bench.device.read(1700, 3) == bytes(3 * SIZE), "a failed write must not be mapped"
    far = 1024 + 32 * SMALL.lookup.map_cache_lines  # its map line is not cached
    bench.dram.inject_fault(layout.map + 4 * far, 64)
    assert bench.block(Opcode.READ, far, 1)[0].status == Status.UNRECOVERED_READ
    assert bench.block(Opcode.WRITE, far, 1)[0].status == Status.WRITE_FAULT
    bench.dram.clear_faults()
    assert bench.device.read(far) == bytes(SIZE)


def test_capacity_exceeded():
    """A full log refuses writes; what is stored stays readable, and trims still work."""
    left = SMALL.flash.channels * SMALL.flash.dies * SMALL.flash.pages  # pages of the last block of every die
    with open_device() as device:
        device.driver.disable()
        device.backend.dram_write(SMALL.layout.superblock, superblock(SMALL.flash.total_pages - left, 5))
        device.driver.enable()
        content = bytes(range(256)) * (SIZE // 256)
        device.write(0, content * left)
        for lba, count in ((left, 1), (0, 8)):
            with pytest.raises(CommandError, match="CAPACITY_EXCEEDED"):
                device.write(lba, bytes(SIZE) * count)
        assert device.read(0, left + 1) == content * left + bytes(SIZE)
        device.trim(0, 2)
        assert device.read(0, 3) == bytes(2 * SIZE) + content


def test_completion_that_cannot_be_written_is_fatal_until_reset():
    """CSTS.CFS; the host library says so, and a controller reset brings the device back with its data."""
    with open_device() as device:
        device.write(3, b"\x07" * SIZE)
        ring = device.driver._rings[BLOCK]
        device.backend.device.host.inject_fault(ring.cq.address, 4096)
        command = device.driver.submit(BLOCK, Opcode.FLUSH, "flush", nsid=1)
        with pytest.raises(DeviceTimeout, match="CFS"):
            device.driver.wait(command, timeout=20_000)
        device.backend.device.host.clear_faults()
        device.reset()
        assert device.read(3) == b"\x07" * SIZE
