"""Packing and checking of query streams."""

import numpy as np
import pytest
from nearflash.contract import DataError, DeviceConfig, Opcode, Status, TableSpec
from nearflash.contract.table import Extent
from nearflash.reference.query import check_query, pack_queries, unpack_queries

CONFIG = DeviceConfig.preset("tiny")
TABLES = {t: TableSpec(rows=10 * (t + 1), dim=8, headroom=3, extents=(Extent(0, 0, 1),)) for t in range(2)}


def check(words, **kw):
    args = dict(opcode=Opcode.LOOKUP, batch=2, n_tables=2)
    return tuple(check_query(np.array(words, np.uint32), CONFIG, TABLES, **{**args, **kw}))


def test_words_of_a_batch():
    bags = [[np.array([3]), np.array([], int)], [np.array([1, 2]), np.array([7])]]
    assert pack_queries(None, bags).tolist() == [1, 3, 2, 1, 2, 0, 1, 7]
    weights = [[np.array([1.0]), np.array([])], [np.array([0.5, -2.0]), np.array([1.0])]]
    words = pack_queries(np.array([[1.0], [2.0]]), bags, weights)
    one, half, minus_two, two = 0x3F800000, 0x3F000000, 0xC0000000, 0x40000000
    assert words.tolist() == [one, 1, 3, one, 2, 1, half, 2, minus_two, two, 0, 1, 7, one]


@pytest.mark.parametrize("weighted", [False, True])
def test_unpack_reverses_pack(weighted):
    rng = np.random.default_rng(1)
    bags = [[rng.integers(0, 10, rng.integers(0, 5)) for _ in range(4)] for _ in range(3)]
    weights = [[rng.standard_normal(len(b)).astype(np.float32) for b in t] for t in bags] if weighted else None
    dense = rng.standard_normal((4, 3)).astype(np.float32)
    samples = unpack_queries(pack_queries(dense, bags, weights), 4, 3, 3, weighted)
    for b, s in enumerate(samples):
        assert np.array_equal(s.dense, dense[b])
        assert all(np.array_equal(s.bags[t], bags[t][b]) for t in range(3))
        assert s.weights is None if not weighted else all(np.array_equal(s.weights[t], weights[t][b]) for t in range(3))


@pytest.mark.parametrize(("bags", "dense", "weights"), [
    ([], None, None), ([[[1]], [[1], [2]]], None, None), ([[np.array([1.5])]], None, None), ([[np.array([-1])]], None, None),
    ([[np.array([1 << 32])]], None, None), ([[np.array([1])]], np.zeros((2, 1)), None),
    ([[np.array([1])]], None, [[np.array([1.0, 2.0])]]), ([[np.array([1])]], None, [])])
def test_shapes_that_do_not_match_are_refused(bags, dense, weights):
    with pytest.raises(DataError):
        pack_queries(dense, bags, weights)


@pytest.mark.parametrize(("words", "kw", "want"), [
    ([1, 3, 2, 1, 2, 0, 1, 7], {}, (Status.SUCCESS, 0, 0)),
    ([0, 0, 0, 0], {}, (Status.SUCCESS, 0, 0)),
    ([0, 0, 0], {}, (Status.BAD_BATCH, 3, 0)),
    ([0, 0, 0, 0, 0], {}, (Status.BAD_BATCH, 4, 0)),
    ([1, 10, 0, 0, 0], {}, (Status.INDEX_OUT_OF_RANGE, 1, 0)),
    ([0, 2, 19, 20, 0, 0], {}, (Status.INDEX_OUT_OF_RANGE, 3, 1)),
    ([9, *[0] * 12], {}, (Status.BAD_BATCH, 0, 0)),
    ([8, *[0] * 11], {}, (Status.SUCCESS, 0, 0)),
    ([2, 1], {}, (Status.BAD_BATCH, 2, 0)),
    ([2, 10], {}, (Status.INDEX_OUT_OF_RANGE, 1, 0)),
    ([1, 1, 5, 0, 0, 0], {"weighted": True}, (Status.SUCCESS, 0, 0)),
    ([1, 1], {"weighted": True}, (Status.BAD_BATCH, 2, 0)),
    ([], {}, (Status.BAD_BATCH, 0, 0)),
    ([0, 0, 0, 0], {"batch": 0}, (Status.BAD_BATCH, 0, 0)),
    ([0, 0, 0, 0], {"batch": 65}, (Status.BAD_BATCH, 0, 0)),
    ([0, 0, 0, 0], {"n_tables": 9}, (Status.BAD_BATCH, 0, 0)),
    ([0, 0, 0, 0], {"n_tables": 3}, (Status.UNKNOWN_TABLE, 2, 0)),
    ([0, 0, 0, 0], {"n_dense": 1}, (Status.BAD_BATCH, 0, 0)),
    ([0, 0, 0, 0], {"out_addr": 4}, (Status.INVALID_PRP_OFFSET, 0, 0)),
    ([0, 0, 0, 0], {"out_addr": 1 << 40}, (Status.DATA_TRANSFER_ERROR, 0, 0)),
    ([0, 0, 0, 0], {"out_addr": (1 << 40) - 64 * 128 * 4}, (Status.DATA_TRANSFER_ERROR, 0, 0)),  # 64 samples of 128 fp32
    ([0, 0, 0, 0], {"out_addr": (1 << 40) - 64 * 128 * 4 - 8}, (Status.SUCCESS, 0, 0)),
    ([0, 0, 0, 0], {"opcode": Opcode.INFER}, (Status.NO_PROGRAM, 0, 0)),
])
def test_checks(words, kw, want):
    assert check(words, **kw) == want
