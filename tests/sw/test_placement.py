"""Orders of rows: permutations that put together what is wanted together, and the mapping that undoes them for queries."""

import json

import numpy as np
import pytest
from nearflash.contract import DataError, DeviceConfig, TableSpec
from nearflash.data import read_histograms
from nearflash.evaluate.placement import drawn_years, halves
from nearflash.models import ModelSpec, TableShape
from nearflash.placement import METHODS, Geometry, learn, striped
from nearflash.placement.partition import partition
from nearflash.runtime.placement import Placement

FOUR_DIES = Geometry(rows=1000, page_rows=10, dies=4, first_die=0)


def bags_of(*queries):
    lengths = [len(q) for q in queries]
    return np.concatenate([np.array(q, np.int64) for q in queries]), np.cumsum([0, *lengths[:-1]])


def pages_of(position, rows, g):
    return {int(p) for p in position[list(rows)] // g.page_rows}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("rows", "page_rows", "dies"), [(1000, 10, 4), (1003, 10, 4), (25, 2, 16), (7, 32, 2), (1, 1, 1)])
def test_every_order_is_a_permutation(method, rows, page_rows, dies):
    rng = np.random.default_rng(rows)
    g = [Geometry(rows, page_rows, dies, 0), Geometry(rows, page_rows, dies, min(1, dies - 1))]
    bags = [(rng.zipf(1.5, 600) % rows, np.arange(0, 600, 6)) for _ in g]
    for position in (*learn(method, g, bags), *striped(g)):
        assert np.sort(position).tolist() == list(range(rows))


def test_frequency_puts_hot_rows_in_one_stripe_and_an_equal_number_in_each_page():
    """40 rows that are asked for, most of them often, fill the first page of each of four dies, 10 a page; the hottest four
    lie in four pages."""
    rng = np.random.default_rng(0)
    hot = rng.choice(1000, 40, replace=False)
    queries = [np.repeat(r, 100 - k) for k, r in enumerate(hot)]
    position, = learn("frequency", [FOUR_DIES], [bags_of(*queries)])
    assert pages_of(position, hot, FOUR_DIES) == {0, 1, 2, 3}
    assert len(pages_of(position, hot[:4], FOUR_DIES)) == 4
    load = np.bincount(position[np.concatenate(queries)] // 10 % 4, minlength=4)
    assert load.max() - load.min() <= 0.04 * load.mean()


def test_rows_never_seen_keep_their_order():
    position, = learn("frequency", [Geometry(50, 5, 1, 0)], [bags_of([7, 7, 3])])
    unseen = [r for r in range(50) if r not in (3, 7)]
    assert position[7] < position[3] < position[unseen].min()
    assert (np.diff(position[unseen]) > 0).all()


def test_co_access_finds_groups_that_are_always_wanted_together():
    """100 groups of ten scattered rows, a query each, in random order: ten pages hold what a query wants without it, one
    with it. Half of a group elsewhere would be two."""
    rng = np.random.default_rng(1)
    groups = rng.permutation(1000).reshape(100, 10)
    queries = [groups[k] for k in rng.permutation(np.repeat(np.arange(100), 5))]
    before, after = (learn(m, [FOUR_DIES], [bags_of(*queries)], together=1)[0] for m in ("none", "co-access"))
    met = [np.mean([len(pages_of(p, group, FOUR_DIES)) for group in groups]) for p in (before, after)]
    assert met[0] > 9
    assert met[1] < 1.5


def test_rows_of_consecutive_queries_are_together():
    """One lookup a query: nothing is wanted together within a query, but within ten of them."""
    rng = np.random.default_rng(2)
    groups = rng.permutation(1000).reshape(100, 10)
    queries = [[r] for k in rng.permutation(np.repeat(np.arange(100), 5)) for r in groups[k]]
    met = [np.mean([len(pages_of(learn("co-access", [FOUR_DIES], [bags_of(*queries)], together=n)[0], group, FOUR_DIES))
                    for group in groups]) for n in (1, 10)]
    assert met[0] > 9
    assert met[1] < 1.5


def test_a_hot_page_and_a_hot_page_of_another_table_lie_on_different_dies():
    """Two tables of one hot page each, both on die 0 as they are."""
    g = [Geometry(40, 10, 4, 0)] * 2
    positions = learn("co-access", g, [bags_of(list(range(10)) * 50)] * 2, together=1)
    dies = [int(p[0] // 10 % 4) for p in positions]
    assert dies[0] != dies[1]


def test_partition_is_deterministic_and_takes_an_empty_history():
    sets, rows = np.array([0, 0, 1, 1]), np.array([0, 5, 2, 7])
    assert partition(sets, rows, 9, 2).tolist() == partition(sets, rows, 9, 2).tolist()
    assert sorted(partition(sets[:0], rows[:0], 9, 2).tolist()) == list(range(9))


def test_striped_rows_go_round_the_dies():
    position, = striped([Geometry(100, 5, 4, 0)])
    assert (position[:20] // 5).tolist() == [0, 1, 2, 3] * 5
    assert (position[20:40] // 5).tolist() == [4, 5, 6, 7] * 5


def test_geometry_of_tables_behind_one_another():
    config = DeviceConfig.preset("paper", channels=2, dies=2)
    tables = [TableSpec(1000, 32), TableSpec(25, 32)]  # 32 pages of 32 rows, then 4 of 7
    assert [(g.page_rows, g.dies, g.first_die) for g in Geometry.of(config, tables)] == [(32, 4, 0), (7, 4, 0)]


@pytest.mark.parametrize(("method", "bags", "together", "says"), [
    ("hot", bags_of([1]), 8, "method = 'hot': must be one of"), ("none", bags_of([]), 8, "lookups = 0"),
    ("both", bags_of([1000]), 8, "index for table 0 = 1000: must be from 0 to 999"),
    ("both", bags_of([1]), 0, "together = 0")])
def test_what_cannot_be_learnt_from(method, bags, together, says):
    with pytest.raises(DataError, match=says):
        learn(method, [FOUR_DIES], [bags], together)


# -- the mapping --------------------------------------------------------------------------------------------------------
def test_a_placed_table_answers_translated_queries_as_before(tmp_path):
    rng = np.random.default_rng(3)
    tables = [rng.standard_normal((n, 4)).astype(np.float32) for n in (30, 7)]
    placement = Placement(tuple(rng.permutation(len(t)) for t in tables), {"method": "random"})
    placement.save(tmp_path / "m.npz")
    read = Placement.load(tmp_path / "m.npz")
    assert (read.digest, read.about) == (placement.digest, {"method": "random"})
    bags = [(rng.integers(0, len(t), 20), np.arange(0, 20, 2)) for t in tables]
    for t, ((asked, _), (moved, offsets)) in enumerate(zip(bags, read.bags(bags), strict=True)):
        assert offsets is bags[t][1]
        assert (read.table(t, tables[t])[moved] == tables[t][asked]).all()
        assert (moved != asked).any()


def test_weights_pass_the_mapping():
    weights = np.ones(2, np.float32)
    (indices, _, kept), = Placement((np.array([2, 0, 1]),)).bags([(np.array([0, 2]), np.zeros(1), weights)])
    assert indices.tolist() == [2, 1]
    assert kept is weights


@pytest.mark.parametrize(("positions", "says"), [
    ([0, 1, 1], r"positions\[0\]\[2\] = 1: must be each of 0 to 2 once"), ([0, 3, 1], r"positions\[0\]\[1\] = 3"),
    ([-1, 0, 1], r"positions\[0\]\[0\] = -1"), ([], r"positions\[0\] = "), ([0.0, 1.0], r"positions\[0\] = ")])
def test_no_permutation(positions, says):
    with pytest.raises(DataError, match=says):
        Placement((np.array(positions),))


def test_queries_outside_the_mapping():
    placement = Placement((np.arange(3),))
    with pytest.raises(DataError, match=r"bags\[0\].indices\[1\] = 3: must be from 0 to 2"):
        placement.bags([(np.array([0, 3]), np.zeros(1))])
    with pytest.raises(DataError, match=r"bags = 2: must be of the mapping's tables \(1\)"):
        placement.bags([(np.array([0]), np.zeros(1))] * 2)
    with pytest.raises(DataError, match=r"positions = \[3\]: must be of the model's tables, with \[4\] rows"):
        placement.check([4])


def test_mappings_and_checkpoints_belong_together():
    one, other = Placement((np.array([0, 1]),)), Placement((np.array([1, 0]),))
    one.check_checkpoint(one.digest)
    with pytest.raises(DataError, match=f"must be the mapping that the checkpoint was placed by: {other.digest}"):
        one.check_checkpoint(other.digest)
    with pytest.raises(DataError, match="the checkpoint's rows were not placed"):
        one.check_checkpoint(None)


@pytest.mark.parametrize(("change", "says"), [
    (lambda a: a.pop("table0"), "tables = "), (lambda a: a.update(table0=a["table0"][::-1].copy()), "digest = "),
    (lambda a: a.update(about=np.frombuffer(b"[]", np.uint8)), "content = 'another file'"),
    (lambda a: a.update(about=np.frombuffer(b"{", np.uint8)), "content = ")])
def test_a_mapping_that_was_changed(tmp_path, change, says):
    path = tmp_path / "m.npz"
    Placement((np.array([2, 0, 1]),)).save(path)
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=says) as e:
        Placement.load(path)
    assert str(path) in str(e.value)


def test_no_mapping_at_all(tmp_path):
    (tmp_path / "m.npz").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"m\.npz"):
        Placement.load(tmp_path / "m.npz")


# -- what is learnt from, and what measured on ----------------------------------------------------------------------------
HISTOGRAM = """{name}.pt
Locality stats after processing 1 batches of size 65536
Avg # of indices: 1000
Avg # of unique cols: 300
Avg col size: 3.3
Histogram of col sizes:
(0, 1]: 0.5
(1, 8]: 0.5
(8+: 0.000
[0, 1, 8]
Ratio of index distribution at different column sizes:
(0, 1]: 0.2
(1, 8]: 0.8
(8+: 0.000
[0, 1, 8]
"""


def test_histograms_keep_their_hot_rows_but_for_the_drift(tmp_path):
    path = tmp_path / "h.txt"
    path.write_text(HISTOGRAM.format(name="a"))
    h, = read_histograms(path)
    spec = ModelSpec("one", (TableShape(5000, 4, 10),))
    shares = []
    for drift in (0.0, 0.5, 1.0):
        before, after = drawn_years(spec, h, h, 100, drift, seed=0)
        seen, asked = before.bags[0][0], after.bags[0][0]
        shares.append(np.isin(asked, seen).mean())
        counts = [np.sort(np.unique(x, return_counts=True)[1])[::-1][:50] for x in (seen, asked)]
        assert np.abs(counts[0] - counts[1]).max() <= 3  # the same reuse, whatever drifted
    assert shares[0] > 0.95
    assert 0.35 < shares[1] < 0.65
    assert shares[2] == 0
    with pytest.raises(DataError, match=r"tables\[0\].rows = 400: must be at least"):
        drawn_years(ModelSpec("one", (TableShape(400, 4, 10),)), h, h, 100, 1.0, seed=0)
    with pytest.raises(DataError, match="drift = 2"):
        drawn_years(spec, h, h, 100, 2, seed=0)


def test_the_measured_queries_follow_the_learnt_ones(tmp_path):
    spec = ModelSpec("one", (TableShape(5000, 4, 10),))
    path = tmp_path / "h.txt"
    path.write_text(HISTOGRAM.format(name="a"))
    q, _ = drawn_years(spec, *read_histograms(path) * 2, 100, 0.0, seed=0)
    first, second = halves(q, 0.3)
    assert (len(first), len(second)) == (30, 70)
    assert np.concatenate([first.bags[0][0], second.bags[0][0]]).tolist() == q.bags[0][0].tolist()
    for share in (0, 0.001, 1):
        with pytest.raises(DataError, match=f"learn_share = {share}"):
            halves(q, share)
