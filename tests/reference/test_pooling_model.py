"""The integer pooling model against exact rational arithmetic and torch."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nearflash.contract.errors import DataError
from nearflash.contract.table import PoolMode, RowFormat, TableSpec
from nearflash.reference.fp32 import int_to_fp32, quantize_fp32, ratio_to_fp32
from nearflash.reference.pooling import choose_window, decode_rows, error_bound, is_exact, pool_bags

FMAX = Fraction(2) ** 128 - Fraction(2) ** 104


def rne(x: Fraction) -> int:
    return round(x)  # Python's round of a Fraction is to nearest, ties to even


def fraction_to_fp32(x: Fraction) -> np.float32:
    """The definition, spelled out: round once to nearest even, subnormals and overflow included."""
    if x == 0:
        return np.float32(0)
    a = abs(x)
    log = a.numerator.bit_length() - a.denominator.bit_length()
    if a < Fraction(2) ** log:
        log -= 1
    ulp = Fraction(2) ** max(log - 23, -149)
    m = rne(a / ulp) * ulp
    v = np.float32(np.inf) if m > FMAX else np.float32(float(m))
    return -v if x < 0 else v


def same(a, b) -> bool:
    return np.array_equal(np.asarray(a, np.float32).view(np.uint32), np.asarray(b, np.float32).view(np.uint32))


def make_rows(rng, fmt, n, dim, wild=False):
    """Random rows as stored."""
    if fmt == RowFormat.INT8:
        q = rng.integers(0, 256, (n, dim), dtype=np.uint8)
        sb = (rng.standard_normal((n, 2)) * (0.01, 0.3)).astype("<f4")
        return np.concatenate([q, sb.view(np.uint8).reshape(n, 8)], axis=1)
    v = rng.standard_normal((n, dim))
    if wild:
        v = v * 2.0 ** rng.integers(-20, 5, (n, dim))
    return v.astype("<f4" if fmt == RowFormat.FP32 else "<f2").view(np.uint8).reshape(n, -1)


def exact_bag(spec, raw, weights):
    """Window sum of one bag by rational arithmetic, element by element."""
    rows = decode_rows(raw, spec.format, spec.dim)
    unit = Fraction(2) ** spec.lsb_exp

    def rn24(x):
        if x == 0:
            return x
        a = abs(x)
        log = a.numerator.bit_length() - a.denominator.bit_length()
        if a < Fraction(2) ** log:
            log -= 1
        u = Fraction(2) ** (log - 23)
        return rne(x / u) * u

    out = []
    for j in range(spec.dim):
        total = 0
        for i in range(len(raw)):
            w = Fraction(1) if weights is None else Fraction(float(weights[i]))
            if spec.format == RowFormat.INT8:
                ws, wb = rn24(w * Fraction(float(rows.scale[i]))), rn24(w * Fraction(float(rows.bias[i])))
                total += rne(ws * int(rows.values[i, j]) / unit) + rne(wb / unit)
            else:
                total += rne(w * Fraction(float(rows.values[i, j])) / unit)
        out.append(total)
    return out


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", list(PoolMode))
@pytest.mark.parametrize("fmt", list(RowFormat))
def test_against_rationals(fmt, mode, weighted):
    rng = np.random.default_rng(int(fmt) * 4 + int(mode) * 2 + weighted)
    dim = 8
    lengths = np.array([3, 0, 1, 7, 16])
    raw = make_rows(rng, fmt, lengths.sum(), dim, wild=True)
    weights = rng.standard_normal(lengths.sum()).astype(np.float32) if weighted else None
    for acc_bits in (40, 48, 64):
        max_abs = 80.0 if fmt == RowFormat.INT8 else 150.0
        lsb, headroom = choose_window(max_abs, 16, acc_bits, 4.0, fmt)
        spec = TableSpec(100, dim, fmt, mode, lsb, headroom)
        got, info = pool_bags(spec, acc_bits, raw, lengths, weights)
        assert not info.bad.any()
        at = 0
        for b, n in enumerate(lengths):
            sums = exact_bag(spec, raw[at : at + n], None if weights is None else weights[at : at + n])
            at += n
            assert info.sums[b].tolist() == sums
            want = [fraction_to_fp32(Fraction(s, max(int(n), 1) if mode == PoolMode.MEAN else 1) * Fraction(2) ** lsb)
                    for s in sums]
            assert same(got[b], want)


@pytest.mark.parametrize("fmt", list(RowFormat))
def test_error_bound_and_torch(fmt):
    rng = np.random.default_rng(5)
    dim, lengths = 16, np.array([5, 32, 1, 20])
    n = lengths.sum()
    raw = make_rows(rng, fmt, n, dim)
    weights = rng.uniform(-2, 2, n).astype(np.float32)
    lsb, headroom = choose_window(20.0, 32, 40, 2.0, fmt)
    spec = TableSpec(n, dim, fmt, PoolMode.SUM, lsb + 6, headroom)  # a coarse window: the window term matters
    got, _ = pool_bags(spec, 40, raw, lengths, weights)
    rows = decode_rows(raw, fmt, dim)
    table = torch.from_numpy(rows.exact().copy())
    offsets = torch.from_numpy(np.r_[0, np.cumsum(lengths)[:-1]])
    want = torch.nn.functional.embedding_bag(torch.arange(n), table, offsets, mode="sum",
                                             per_sample_weights=torch.from_numpy(weights).double()).numpy()
    mean, _ = pool_bags(replace(spec, mode=PoolMode.MEAN), 40, raw, lengths)
    want_mean = torch.nn.functional.embedding_bag(torch.arange(n), table, offsets, mode="mean").numpy()
    at = 0
    for b, k in enumerate(lengths):
        bag = slice(at, at + k)
        at += k
        w_abs = 0.0
        for j in range(dim):
            if fmt == RowFormat.INT8:
                w = np.abs(weights[bag].astype(float))
                w_abs = float((w * (np.abs(rows.scale[bag] * rows.values[bag, j].astype(float))
                                    + np.abs(rows.bias[bag]))).sum())
            slack = 1e-13  # torch's own float64 rounding
            assert abs(float(got[b, j]) - want[b, j]) <= error_bound(spec, k, float(got[b, j]), w_abs) + slack
            bound = error_bound(replace(spec, mode=PoolMode.MEAN), k, float(mean[b, j]))
            assert abs(float(mean[b, j]) - want_mean[b, j]) <= bound + slack


def test_exact_window_equals_exact_sum_rounded_once():
    rng = np.random.default_rng(8)
    v = (rng.integers(-(1 << 23), 1 << 23, (40, 8)) * 2.0 ** rng.integers(-30, -22, (40, 8))).astype("<f4")
    spec = TableSpec(40, 8, RowFormat.FP32, PoolMode.SUM, -30, 6)
    assert is_exact(v, -30)
    assert not is_exact(v, -20)
    got, info = pool_bags(spec, 48, v.view(np.uint8).reshape(40, -1), np.array([40]))
    assert not info.bad.any()
    assert same(got[0], [fraction_to_fp32(sum(Fraction(float(x)) for x in v[:, j])) for j in range(8)])
    shuffled, _ = pool_bags(spec, 48, v[rng.permutation(40)].view(np.uint8).reshape(40, -1), np.array([40]))
    assert same(got, shuffled)


def test_flags():
    lsb, h, acc = -20, 3, 40
    limit = 2.0 ** (acc - 1 - h + lsb)

    def flags(values, fmt=RowFormat.FP32, weight=None, scale_bias=None):
        raw = np.array([values], {0: "<f4", 1: "<f2", 2: "u1"}[int(fmt)]).view(np.uint8).reshape(1, -1)
        if scale_bias:
            raw = np.concatenate([raw, np.array([scale_bias], "<f4").view(np.uint8)], axis=1)
        spec = TableSpec(1, 4, fmt, PoolMode.SUM, lsb, h)
        w = None if weight is None else np.array([weight], np.float32)
        out, info = pool_bags(spec, acc, raw, np.array([1]), w)
        assert np.isnan(out).all() == info.bad[0]
        return bool(info.not_finite[0]), bool(info.overflow[0])

    below = np.nextafter(np.float32(limit), np.float32(0))
    assert flags([0, limit, 0, 0]) == (False, True)
    assert flags([0, -below, 1, 2]) == (False, False)
    assert flags([0, 1, np.nan, 0])[0]
    assert flags([0, 1, -np.inf, 0])[0]
    assert flags([0, 1, 2, 0], weight=np.nan)[0]
    assert flags([1, 1, 2, 0], RowFormat.FP16, weight=limit) == (False, True)
    assert flags([1, np.inf, 2, 0], RowFormat.FP16)[0]
    assert flags([1, 2, 3, 4], RowFormat.INT8, scale_bias=(np.inf, 0))[0]
    assert flags([1, 2, 3, 4], RowFormat.INT8, scale_bias=(0, np.nan))[0]
    assert flags([1, 2, 3, 4], RowFormat.INT8, scale_bias=(1, limit / 2)) == (False, True)
    assert flags([1, 2, 4, 0], RowFormat.INT8, scale_bias=(limit / 8, 0)) == (False, True)
    assert flags([1, 2, 3, 0], RowFormat.INT8, scale_bias=(limit / 8, limit / 4)) == (False, False)


def test_wrong_arguments_are_refused():
    spec = TableSpec(1, 4, headroom=1)
    with pytest.raises(DataError, match="lengths"):
        pool_bags(spec, 48, np.zeros((3, 16), np.uint8), np.array([2]))
    with pytest.raises(DataError, match="headroom"):
        pool_bags(spec, 48, np.zeros((3, 16), np.uint8), np.array([3]))
    with pytest.raises(DataError, match="raw"):
        decode_rows(np.zeros((3, 12), np.uint8), RowFormat.FP32, 4)
    with pytest.raises(DataError, match="finite"):
        choose_window(float("inf"), 4, 48)


@given(st.floats(0, float(FMAX), width=32), st.integers(1, 65536), st.integers(40, 64), st.sampled_from(list(RowFormat)))
@settings(max_examples=150, deadline=None)
def test_chosen_window_never_overflows_and_is_finest(max_abs, bag, acc_bits, fmt):
    try:
        lsb, h = choose_window(max_abs, bag, acc_bits, 1.0, fmt)
    except DataError:
        assert max_abs > 2.0**120
        return
    assert 1 << h >= bag
    limit = acc_bits - (2 if fmt == RowFormat.INT8 else 1) - h
    assert rne(Fraction(max_abs) / Fraction(2) ** lsb) < 1 << limit
    if max_abs > 0 and lsb > -250 and fmt != RowFormat.INT8:
        assert rne(Fraction(max_abs) / Fraction(2) ** (lsb - 1)) >= 1 << limit


def test_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    lengths = np.array([0, 9, 1, 0, 25, 5, 0])
    raw = make_rows(rng, RowFormat.FP16, 40, 4)
    spec = TableSpec(40, 4, RowFormat.FP16, PoolMode.MEAN, -24, 6)
    whole, _ = pool_bags(spec, 48, raw, lengths)
    monkeypatch.setattr("nearflash.reference.pooling.CHUNK_ELEMENTS", 12)
    parts, _ = pool_bags(spec, 48, raw, lengths)
    assert same(whole, parts)
    assert (whole[lengths == 0].view(np.uint32) == 0).all()


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-330, 200), st.integers(1, 65535), st.integers(0, 63))
@settings(max_examples=400, deadline=None)
def test_conversions_round_once(i, e, count, drop):
    i >>= drop
    assert same(int_to_fp32(np.array([i]), e), [fraction_to_fp32(Fraction(i) * Fraction(2) ** e)])
    assert same(ratio_to_fp32(np.array([i]), np.array([count]), e),
                [fraction_to_fp32(Fraction(i, count) * Fraction(2) ** e)])


def test_conversion_ties():
    for top in (1 << 23, (1 << 23) + 1, (1 << 24) - 1):
        for low, width in ((1, 1), (1 << 38, 39), ((1 << 38) - 1, 39), ((1 << 38) + 1, 39)):
            i = top << width | low
            for s in (1, -1):
                for e in (0, -149, -170, -189, -212, 100):
                    assert same(int_to_fp32(np.array([s * i]), e), [fraction_to_fp32(Fraction(s * i) * Fraction(2) ** e)])


@given(st.floats(width=32), st.integers(0, 65535), st.integers(-128, 127), st.sampled_from([8, 16]))
@settings(max_examples=400, deadline=None)
def test_quantize(x, mult, shift, bits):
    limit = (1 << (bits - 1)) - 1
    if np.isnan(x) or (np.isinf(x) and mult == 0):
        want = 0
    elif np.isinf(x):
        want = limit if x > 0 else -limit
    else:
        want = max(-limit, min(limit, rne(Fraction(x) * mult / Fraction(2) ** shift)))
    assert quantize_fp32(np.array([x], np.float32), mult, shift, bits).tolist() == [want]
