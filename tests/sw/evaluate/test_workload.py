"""Streams of lookups: the same whatever the size of a command, on tables of any size, from files that are whole."""

from __future__ import annotations

import gzip
import io
import tracemalloc

import numpy as np
import pytest
import torch
from nearflash.contract import DataError
from nearflash.data import StackDistance
from nearflash.data.dlrm_datasets import read_dlrm_dataset
from nearflash.data.locality import _Order
from nearflash.evaluate.workload import dataset_bags, scaled, synthetic, trace
from nearflash.models import ModelSpec, TableShape, model_spec

SPEC = ModelSpec("two", (TableShape(50, 8, 3), TableShape(3_000_000, 8, 2)), 4, (8,), (1,))


def test_scaled_tables_are_the_papers():
    """30 GB in all: the rows that the RM-SSD evaluation states."""
    for name, rows in (("rmc1", 29.3e6), ("rmc2", 3.66e6), ("rmc3", 23.4e6)):
        spec = scaled(model_spec(name), 30e9)
        assert {t.rows for t in spec.tables} == {spec.tables[0].rows}
        assert spec.tables[0].rows == pytest.approx(rows, rel=2e-3)


def test_a_stream_does_not_depend_on_the_size_of_a_command():
    work = synthetic(SPEC, 23, 0.3, seed=5)
    whole, = work.commands(23)
    parts = list(work.commands(4))
    assert [len(p[0][1]) for p in parts] == [4, 4, 4, 4, 4, 3]
    for t, table in enumerate(SPEC.tables):
        assert np.concatenate([p[t][0] for p in parts]).tolist() == whole[t][0].tolist()
        assert whole[t][1].tolist() == [table.lookups * q for q in range(23)]


@pytest.mark.parametrize("rows", [2, 3, 1000, 4097])
def test_an_order_without_memory_is_a_permutation(rows):
    order = _Order(rows, np.random.default_rng(1))
    numbers = [order[i] for i in range(rows)]
    assert sorted(numbers) == list(range(rows))
    assert rows < 1000 or numbers != sorted(numbers)


def test_an_order_without_memory_is_shuffled():
    """Neighbours in the order lie as far apart as in a random one: a third of the rows on average."""
    order = _Order(1 << 22, np.random.default_rng(3))
    numbers = np.array([order[i] for i in range(4000)])
    assert np.abs(np.diff(numbers)).mean() / (1 << 22) == pytest.approx(1 / 3, rel=0.05)
    assert np.bincount(numbers % 8, minlength=8) / 500 == pytest.approx(np.ones(8), abs=0.2)


def test_a_large_table_takes_no_memory():
    tracemalloc.start()
    try:
        rows = StackDistance(1 << 31, 3.0, seed=1).draw(2000)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert rows.max() > 1 << 30


def saved(path, held, pack=True):
    file = io.BytesIO()
    torch.save(held, file)
    path.write_bytes(gzip.compress(file.getvalue()) if pack else file.getvalue())
    return path


@pytest.mark.parametrize("pack", [True, False])
def test_a_published_data_set_is_read(tmp_path, pack):
    """Table-major: table t's bags begin at offsets[B * t : B * (t + 1)]."""
    lengths = torch.tensor([[2, 0, 1], [1, 1, 0]], dtype=torch.int32)
    held = (torch.tensor([7, 8, 9, 5, 6]), torch.tensor([0, 2, 2, 3, 4, 5, 5]), lengths)
    path = saved(tmp_path / "t2_bs3.pt.gz", held, pack)
    bags = read_dlrm_dataset(path)
    assert [(i.tolist(), o.tolist()) for i, o in bags] == [([7, 8, 9], [0, 2, 2]), ([5, 6], [0, 1, 2])]
    work = dataset_bags(SPEC, 2, path)
    assert (work.queries, [len(b[0]) for b in work.first(2)]) == (2, [2, 2])


GOOD = (torch.tensor([7, 8, 9]), torch.tensor([0, 2, 3]), torch.tensor([[2], [1]]))


@pytest.mark.parametrize(("held", "says"), [
    (GOOD[:2], "must be three tensors"), ((GOOD[0].float(), *GOOD[1:]), r"indices\.dtype = 'torch\.float32'"),
    ((GOOD[0][:2], *GOOD[1:]), r"indices\.shape.*\[3\]"), ((GOOD[0], GOOD[1] + 1, GOOD[2]), "offsets = .*running sum"),
    ((-GOOD[0], *GOOD[1:]), "indices = -9"), ((*GOOD[:2], -GOOD[2]), "lengths = -2"),
    ((*GOOD[:2], GOOD[2][0]), r"lengths\.shape"), ({"a": 1}, "must be three tensors"),
])
def test_a_damaged_data_set_is_refused(tmp_path, held, says):
    with pytest.raises(DataError, match=says) as e:
        read_dlrm_dataset(saved(tmp_path / "x.pt.gz", held))
    assert "x.pt.gz" in str(e.value)


def test_a_truncated_data_set_is_refused(tmp_path):
    path = saved(tmp_path / "x.pt.gz", GOOD)
    for content in (path.read_bytes()[:-20], b"", b"\x1f\x8b"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a dlrm_datasets file"):
            read_dlrm_dataset(path)


def test_rows_that_a_table_lacks_are_refused(tmp_path):
    path = saved(tmp_path / "x.pt", (torch.tensor([7, 50]), torch.tensor([0, 2, 2]), torch.tensor([[2], [0]])))
    with pytest.raises(DataError, match="index for table 0 = 50: must be below the table's 50 rows"):
        dataset_bags(SPEC, None, path)
    one = saved(tmp_path / "y.pt", (torch.tensor([7]), torch.tensor([0, 1]), torch.tensor([[1]])))
    with pytest.raises(DataError, match="tables = 1: must be at least the model's 2"):
        dataset_bags(SPEC, None, one)
    log = tmp_path / "short.log"
    log.write_text("1, 2, 3, 4")
    with pytest.raises(DataError, match=r"short\.log: indices = 4: must hold at least one query's lookups \(5\)"):
        trace(SPEC, None, log)
