"""Data sets, traces and locality: contents checked against values counted independently."""

import gzip

import numpy as np
import pytest
from nearflash.contract import DataError, DeviceConfig
from nearflash.data import (
    BlockLoad,
    Criteo,
    HistogramLocality,
    MovieTweetings,
    QueryBatch,
    StackDistance,
    read_block_trace,
    read_dlrm_trace,
    read_histograms,
    synthetic_queries,
)
from nearflash.data.block_traces import FLUSH, READ, TRIM, WRITE
from nearflash.data.locality import Histogram


def test_batch_slices_rebase_offsets():
    lists = [[[1, 2], [], [3]], [[4], [5, 6], [7]]]
    q = QueryBatch.from_lists(np.zeros((3, 2)), lists, np.array([0, 1, 0], np.float32))
    assert q.lookups == 7
    s = q[1:3]
    for t, rows in enumerate(lists):
        indices, offsets = s.bags[t]
        ends = np.append(offsets, len(indices))
        assert [indices[a:b].tolist() for a, b in zip(ends, ends[1:], strict=False)] == rows[1:]
    assert s.labels.tolist() == [1, 0]
    assert len(q[3:3]) == 0


@pytest.mark.parametrize("k", [0, 0.3, 1, 2])
def test_stack_distance_reuse(k):
    n = 20_000
    g = StackDistance(1 << 20, k, seed=5)
    reuse = 1 - len(np.unique(g.draw(n))) / n
    assert reuse == pytest.approx(g.expected_reuse, abs=0.012)
    # bin 0 of Exp(1) in 50 bins over its sample's range holds about 14 %, then K dilutes the rest
    assert reuse == pytest.approx(0.86 / (1 + k), abs=0.035)


def test_stack_distance_follows_its_distribution():
    g = StackDistance(1 << 20, 0.3, seed=1)
    stream = g.draw(30_000).tolist()
    stack, counts = [], np.zeros(51)
    for row in stream:
        d = stack[::-1].index(row) + 1 if row in stack else 0
        counts[min(d, 50)] += 1
        if d:
            stack.pop(-d)
        stack.append(row)
        stack = stack[-60:]
    assert np.abs(counts[:50] / len(stream) - g.distribution).max() < 0.012


def test_stack_distance_in_a_table_smaller_than_the_stack():
    assert set(StackDistance(3, 0.0, seed=2).draw(500).tolist()) <= {0, 1, 2}
    assert set(StackDistance(1, 2.0).draw(50).tolist()) == {0}


def size_shares(stream, edges):
    _, sizes = np.unique(stream, return_counts=True)
    e = [*edges, 1 << 60]
    inside = [(sizes > a) & (sizes <= b) for a, b in zip(e, e[1:], strict=False)]
    return [i.mean() for i in inside], [sizes[i].sum() / len(stream) for i in inside], len(sizes) / len(stream)


@pytest.mark.parametrize(("year", "first_touches"), [(2021, 0.145), (2022, 0.078)])
def test_published_histograms_are_reproduced(shared_data, year, first_touches):
    h = read_histograms(shared_data / "locality" / f"locality_stats_{year}.txt")[0]
    rows, accesses, distinct = size_shares(HistogramLocality(h, 1 << 20, seed=3).draw(1_000_000), h.edges)
    assert distinct == pytest.approx(first_touches, rel=0.03)
    assert np.abs(np.subtract(rows, h.rows)).max() < 0.006
    assert np.abs(np.subtract(accesses, h.accesses))[:12].max() < 0.02  # the far tail is a handful of rows


def test_histogram_locality_refuses_too_few_rows():
    h = Histogram("h", 2.0, (0, 1), (0.5, 0.5), (0.5, 0.5))
    with pytest.raises(DataError, match="rows = 10"):
        HistogramLocality(h, 10).draw(1000)


def test_dlrm_trace(tmp_path):
    p = tmp_path / "t.log"
    p.write_text("1, 5,7\n2")
    assert read_dlrm_trace(p).tolist() == [1, 5, 7, 2]
    for bad in ("", "1,x", "1,-2"):
        p.write_text(bad)
        with pytest.raises(DataError):
            read_dlrm_trace(p)


def test_block_trace(tmp_path, shared_data):
    t = read_block_trace(shared_data / "traces" / "mqsim" / "wsrch-small.trace")
    assert t[0].tolist() == (11413000, 657728, 16, READ)
    p = tmp_path / "t"
    for bad in ("", "1 2 3 4", "1 0 5 8 2", "1 0 5 0 1"):
        p.write_text(bad)
        with pytest.raises(DataError):
            read_block_trace(p)


FIO2, FIO3 = ("fio version 2 iolog\n", "fio version 3 iolog\n")

#: A trace and its requests: (ns, first sector, sectors, kind), in order of time.
BLOCK_TRACES = {
    "msr": ("128166372003061629,usr,0,Read,7014609920,24576,41286\n128166372003061639,usr,0,Write,1317441537,8192,1963\n",
            [(0, 13700410, 48, READ), (1000, 2573128, 17, WRITE)]),
    "fio 2": (FIO2 + "/dev/x add\n/dev/x open\n/dev/x read 0 4096\n/dev/x wait 500 0\n/dev/x write 4096 1\n"
              "/dev/x sync 0 0\n/dev/x datasync 8192 512\n/dev/x sync_file_range 0 4096\n/dev/x close\n",
              [(0, 0, 8, READ), (500_000, 8, 1, WRITE), (500_000, 0, 0, FLUSH), (500_000, 0, 0, FLUSH)]),
    "fio 3": (FIO3 + "2 d add\n9 d read 100 4096\n8 d trim 100 4096\n5 d read 8192 512\n",
              [(5000, 16, 1, READ), (8000, 1, 7, TRIM), (9000, 0, 9, READ)]),
    "mqsim": ("\n700 3 5 8 1\n600 0 7 9 0\n", [(600, 7, 9, WRITE), (700, 5, 8, READ)]),
}


@pytest.mark.parametrize("name", BLOCK_TRACES)
def test_block_traces_of_the_field(name, tmp_path):
    path, (text, want) = tmp_path / "t", BLOCK_TRACES[name]
    path.write_text(text)
    assert read_block_trace(path).tolist() == want


@pytest.mark.parametrize(("text", "message"), [
    ("1,usr,0,Read,0,512,1\n1,usr,0,Read,0,512\n", r"line 2 = '1,usr,0,Read,0,512': must be timestamp"),
    ("1,usr,0,Trim,0,512,1\n", "line 1 .*Read or Write"),
    ("5,usr,0,Read,0,512,1\n4,usr,0,Read,0,512,1\n", "line 2 timestamp = '4': must be from 5"),
    ("5,usr,0,Read,0,0,1\n", "line 1 size = '0'"),
    ("5,usr,0,Read,0x10,512,1\n", "line 1 offset = '0x10'"),
    ("fio version 1 iolog\nd read 0 512\n", "line 1 = 'fio version 1 iolog'"),
    (FIO2 + "d add\nd erase 0 512\n", "line 3 = 'd erase 0 512': must be file action"),
    (FIO2 + "d read 0\n", "line 2 = 'd read 0'"),
    (FIO2 + "d add 1 2\n", "line 2 = 'd add 1 2'"),
    (FIO3 + "1 d read 0 512\nd read 0 512\n", "line 3 timestamp = 'd'"),
    (FIO3 + "1 d wait 5 0\n", "line 2 = '1 d wait 5 0': must be timestamp"),
    (FIO3 + "1 d add\n", "requests = 0: must hold at least one"),
    ("1 0 5 8 1\n1,2\n", "line 2 = '1,2': must be five integers"),
])
def test_a_bad_line_of_a_block_trace_is_named(text, message, tmp_path):
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(DataError, match=f"{path}: {message}"):
        read_block_trace(path)


def test_a_traces_reads_as_a_device_is_given_them(tmp_path):
    """Blocks that the bytes touch, long requests in parts, addresses modulo the device's size; times in its cycles."""
    config = DeviceConfig.preset("tiny")
    size, most = config.lba_bytes, config.host.mdts_pages
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{at},usr,0,Read,{offset},{n},1\n" for at, offset, n in (
        (10, size - 1, 2), (30, 0, (most + 1) * size), (40, (config.lbas + 3) * size, 1),
        (50, (config.lbas - 1) * size, 2 * size))))
    trace = read_block_trace(path)
    load = BlockLoad.of_trace(trace, config, scale=2.0, kept=5)
    assert load.first.tolist() == [0, 0, most, 3, config.lbas - 2]
    assert load.count.tolist() == [2, most, 1, 1, 2]
    assert load.times.tolist() == [int(ns * 2 * config.clock_mhz / 1000) for ns in (0, 2000, 2000, 3000, 4000)]
    assert load.depth == config.host.queue_entries - 1
    queued = BlockLoad.of_trace(trace, config, depth=3)
    assert (queued.depth, queued.times) == (3, None)


def test_a_trace_that_writes_lies_behind_the_tables(tmp_path):
    """All of it; a TRIM is of the blocks that lie in it, in one piece, and a FLUSH of none."""
    config = DeviceConfig.preset("tiny")
    size, most = config.lba_bytes, config.host.mdts_pages
    room = config.lbas - 5
    path = tmp_path / "t.log"
    path.write_text(FIO2 + "".join(f"d {action} {offset} {n}\n" for action, offset, n in (
        ("read", 0, 1), ("write", size - 1, (most + 1) * size), ("sync", 0, 0), ("trim", 1, (most + 9) * size),
        ("trim", 1, size), ("read", (room + 2) * size, size), ("write", (room - 1) * size, 2 * size))))
    load = BlockLoad.of_trace(read_block_trace(path), config, kept=5)
    assert load.kind.tolist() == [READ, WRITE, WRITE, FLUSH, TRIM, READ, WRITE]
    assert load.first.tolist() == [5, 5, 5 + most, 0, 6, 7, config.lbas - 2]
    assert load.count.tolist() == [1, most, 2, 0, most + 8, 1, 2]
    assert load.moves.tolist() == [True, True, True, False, False, True, True]
    load.check(config, 5)
    with pytest.raises(DataError, match="block written = 5: must be at least 6: those before are the tables'"):
        load.check(config, 6)
    assert load.blocks_changed() == most + 9 + 2
    with pytest.raises(DataError, match=f"logical blocks = {config.lbas}: must be more than the {config.lbas} of the"):
        BlockLoad.of_trace(read_block_trace(path), config, kept=config.lbas)
    path.write_text(FIO2 + "d trim 1 512\n")
    with pytest.raises(DataError, match="requests = 0: must be at least one, of whole logical blocks"):
        BlockLoad.of_trace(read_block_trace(path), config)


def criteo_line(label="1", dense=("3",) * 13, cats=("1f",) * 26):
    return "\t".join([label, *dense, *cats]) + "\n"


def test_criteo(tmp_path):
    p = tmp_path / "c.txt"
    p.write_text(criteo_line() + criteo_line("0", ("", "-2") + ("0",) * 11, ("",) + ("ffffffff",) * 25))
    q = Criteo.load(p, rows=100).queries
    assert q.labels.tolist() == [1, 0]
    assert q.dense[0, 0] == np.float32(np.log(4))
    assert q.dense[1].tolist() == [0] * 13
    assert [i[0] for i, _ in q.bags] == [0x1F % 100] * 26
    assert [i[1] for i, _ in q.bags] == [0] + [0xFFFFFFFF % 100] * 25
    for bad in ("1\t2\n", criteo_line("2"), criteo_line(dense=("x",) * 13), criteo_line(cats=("xyz",) * 26), ""):
        p.write_text(bad)
        with pytest.raises(DataError):
            Criteo.load(p)


def test_movietweetings_knows_only_the_past(shared_data):
    folder = shared_data / "movietweetings"
    m = MovieTweetings.load(folder, history=5)
    raw = sorted((int(t), i, u, mv, int(r)) for i, (u, mv, r, t) in
                 enumerate(line.split("::") for line in (folder / "ratings.dat").read_text().splitlines()))
    assert len(m.queries) == len(raw) == 100_000
    assert m.queries.labels.tolist() == [float(r[4] >= 8) for r in raw]
    movies = sorted(line.split("::")[0] for line in (folder / "movies.dat").read_text().splitlines())
    assert m.rows[1] == len(movies)
    for k in (50_000, 99_999):
        _, _, user, movie, _ = raw[k]
        past = [r for r in raw[:k] if r[2] == user]
        liked = [movies.index(r[3]) for r in past if r[4] >= 8][-5:][::-1]
        q = m.queries[k : k + 1]
        assert q.bags[3][0].tolist() == liked
        assert q.bags[1][0].tolist() == [movies.index(movie)]
        assert q.dense[0, 1] == pytest.approx(np.log1p(len(past)))
    assert len(m.train) + len(m.valid) + len(m.test) == len(raw)
    assert max(m.test.bags[0][0]) < m.rows[0]


def test_movietweetings_bad_files(tmp_path):
    with pytest.raises(DataError, match="not found"):
        MovieTweetings.load(tmp_path)
    (tmp_path / "movies.dat").write_text("1::A (2000)::Drama\n")
    (tmp_path / "ratings.dat").write_text("1::1::11::5\n")
    with pytest.raises(DataError, match="line 1 rating"):
        MovieTweetings.load(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::1::5\n")
    with pytest.raises(DataError, match="line 1"):
        MovieTweetings.load(tmp_path)


def test_synthetic_queries_have_the_models_shape():
    q = synthetic_queries([(100, 3), (7, 1)], 5, 20, k=0.3, seed=4)
    assert q.dense.shape == (20, 5)
    assert [len(i) for i, _ in q.bags] == [60, 20]
    assert q.bags[0][1].tolist() == list(range(0, 60, 3))
    assert max(q.bags[0][0]) < 100
    again = synthetic_queries([(100, 3), (7, 1)], 5, 20, k=0.3, seed=4)
    assert np.array_equal(q.bags[0][0], again.bags[0][0])


def test_trace_is_handed_out_in_order():
    q = synthetic_queries([(10, 2), (10, 1)], 0, 3, trace=np.arange(5))
    assert q.bags[0][0].tolist() == [0, 1, 3, 4, 1, 2]
    assert q.bags[1][0].tolist() == [2, 0, 3]
    with pytest.raises(DataError, match="table 1"):
        synthetic_queries([(10, 2), (2, 1)], 0, 3, trace=np.arange(5))


def test_criteo_text_forms(tmp_path):
    p = tmp_path / "day"
    text = (criteo_line() + criteo_line("0")).encode()
    for raw in (text, gzip.compress(text), b"\xef\xbb\xbf" + text, text + b"\n", text + b"\r\n\n",
                text.replace(b"\n", b"\r\n")):
        p.write_bytes(raw)
        assert Criteo.load(p).queries.labels.tolist() == [1, 0]
    for raw, message in ((text.decode().encode("utf-16"), "UTF-16"), (text.decode().encode("utf-16-le"), "UTF-16"),
                         (text + b"\n" + text, "line 3.*empty"), (gzip.compress(text)[:-9], "gzip"),
                         (text + b"\xff", "line 3"), (b"0" * 10_000, "line 1")):
        p.write_bytes(raw)
        with pytest.raises(DataError, match=message) as e:
            Criteo.load(p)
        assert str(p) in str(e.value)


def test_criteo_rows_of_each_table(tmp_path):
    p = tmp_path / "day"
    p.write_text(criteo_line(cats=("ff",) * 26))
    assert [int(i[0]) for i, _ in Criteo.load(p, range(3, 29)).queries.bags] == [255 % n for n in range(3, 29)]
    with pytest.raises(DataError, match="rows"):
        Criteo.load(p, [3] * 25)


@pytest.mark.parametrize("number", ["1_000", "\u0661\u0662", "--5", "-1", "0x10", "9223372036854775808", "9" * 5000, "1.0",
                                    "+"])
def test_numbers_are_ascii_digits(number, tmp_path):
    p = tmp_path / "f"
    for text, read in ((f"1 2\n3 {number}\n", read_dlrm_trace), (f"1 0 5 8 1\n1 0 {number} 8 1\n", read_block_trace),
                       (criteo_line() + criteo_line(cats=(f"-{number}",) * 26), Criteo.load)):
        p.write_text(text)
        with pytest.raises(DataError, match=f"^{p}: line 2 "):
            read(p)


def test_a_histogram_of_no_numbers_is_refused(tmp_path):
    p = tmp_path / "h.txt"
    good = ("mine.pt\nAvg col size: {mean}\nHistogram:\n(0, 1]: {share}\n({edge}+: 0.5\nRatio of index distribution:\n"
            "(0, 1]: 0.5\n({edge}+: 0.5\n")
    values = {"mean": "1.5", "share": "0.5", "edge": "1"}
    p.write_text(good.format(**values))
    assert read_histograms(p)[0].mean == 1.5
    for change in ({"mean": "1.2.3"}, {"mean": "nan"}, {"mean": "0"}, {"share": "inf"}, {"share": "1e999"}, {"edge": "7"},
                   {"edge": "9" * 400}):
        p.write_text(good.format(**(values | change)))
        with pytest.raises(DataError, match=f"{p}: mine.pt"):
            read_histograms(p)
