"""The integer model against an independent recomputation in exact rationals, its distance from fp32, and AUC."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nearflash.contract import DataError, RowFormat
from nearflash.contract.table import PoolMode
from nearflash.quantize import to_torch
from nearflash.reference.metrics import auc
from nearflash.reference.model import IntegerModel, distance

sys.path.insert(0, str(Path(__file__).parents[1] / "sw"))
import model_cases


def rne(x):
    return round(x)  # Python rounds fractions half to even


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def fp32(x):
    """A rational as the nearest float32 (float64 first is exact enough: the test's values carry under 48 bits)."""
    return float(np.float32(x.numerator / x.denominator))


def scalar_logits(c, dense, bags):
    """One sample at a time, one number at a time, in Python integers and rationals."""
    graph, bits = c.config.mlp.graph, c.config.mlp.act_bits
    top = (1 << bits - 1) - 1
    out = []
    for b in range(len(bags[0][1])):
        pooled = []
        for spec, rows, bag in zip(c.tables, c.rows, bags, strict=True):
            end = bag[1][b + 1] if b + 1 < len(bag[1]) else len(bag[0])
            span = range(bag[1][b], end)
            unit = Fraction(2) ** spec.lsb_exp
            acc = [0] * spec.dim
            for k in span:
                row = rows[bag[0][k]]
                w = Fraction(float(bag[2][k])) if len(bag) > 2 else Fraction(1)
                if spec.format == RowFormat.INT8:
                    scale, bias = (Fraction(float(v)) for v in row[spec.dim :].view("<f4"))
                    assert len(bag) == 2, "weighted INT8 rounds its scale: see the pooling tests"
                    values = [(scale * int(q), bias) for q in row[: spec.dim]]
                else:
                    values = [(w * Fraction(float(v)),)
                              for v in row.view("<f4" if spec.format == RowFormat.FP32 else "<f2")]
                acc = [a + sum(rne(p / unit) for p in v) for a, v in zip(acc, values, strict=True)]
            n = len(span) if spec.mode == PoolMode.MEAN and len(span) else 1
            ratio = Fraction(spec.quant_mult) / Fraction(2) ** spec.quant_shift
            pooled.append([max(-top, min(top, rne(Fraction(fp32(Fraction(a) * unit / n)) * ratio))) for a in acc])
        v = {}
        for n in graph:
            x = [e for i in n.inputs for e in v[i]]
            if n.kind == "dense":
                ratio = Fraction(c.dense_quant[0]) / Fraction(2) ** c.dense_quant[1]
                v[n.name] = [max(-top, min(top, rne(Fraction(float(d)) * ratio))) for d in dense[b]]
            elif n.kind == "tables":
                v[n.name] = [e for t in n.tables for e in pooled[t]]
            else:
                if n.kind == "fc":
                    p = c.params.fc[n.name]
                    acc = [int(p.bias[r]) + dot(p.weight[r].tolist(), x) for r in range(n.width)]
                    mult, shift = p.mult, p.shift
                else:
                    s = c.params.scale[n.name]
                    f = [x[i : i + n.dim] for i in range(0, len(x), n.dim)] if n.kind == "dot" else None
                    acc = ([dot(f[i], f[j]) for i in range(len(f)) for j in range(i)] if f
                           else [a * d for a, d in zip(v[n.inputs[0]], v[n.inputs[1]], strict=True)])
                    mult, shift = [s.mult] * n.width, [s.shift] * n.width
                last = n is graph[-1]
                hi = (1 << 31) - 1 if last else top
                lo = 0 if n.relu and not last else -hi
                v[n.name] = [max(lo, min(hi, (a * int(m) + ((1 << int(s)) >> 1)) >> int(s)))
                             for a, m, s in zip(acc, mult, shift, strict=True)]
        out.append(v[graph[-1].name])
    return np.array(out)


@pytest.mark.parametrize("name", sorted(model_cases.SPECS))
@pytest.mark.parametrize("act_bits", [8, 16])
def test_equals_scalar_recomputation(name, act_bits):
    _, c = model_cases.compiled(name, act_bits=act_bits)
    dense, bags = model_cases.queries(model_cases.SPECS[name], 6, seed=42)
    integers, floats = IntegerModel(c).logits(dense, bags)
    assert np.array_equal(integers, scalar_logits(c, dense, bags))
    assert floats.dtype == np.float32
    assert np.array_equal(floats, (integers * 2.0**c.params.logit_exponent).astype(np.float32))


def test_weighted_queries():
    _, c = model_cases.compiled("neumf")
    dense, bags = model_cases.queries(model_cases.SPECS["neumf"], 6, seed=1, weighted=True)
    assert np.array_equal(IntegerModel(c).logits(dense, bags)[0], scalar_logits(c, dense, bags))


@pytest.mark.parametrize("name", sorted(model_cases.SPECS))
def test_close_to_fp32(name):
    model, c = model_cases.compiled(name)
    batches = model_cases.calibration(model_cases.SPECS[name])
    with torch.no_grad():
        logits = [model(*to_torch(*b))[:, 0].double().numpy() for b in batches]
    mean, spread = np.mean(logits), float(np.std(logits))
    rng = np.random.default_rng(0)  # the teacher: a sharper copy of the model
    labels = [rng.random(len(z)) < 1 / (1 + np.exp(-4 * (z - mean) / spread)) for z in logits]
    d = distance(model, c, [(*b, y) for b, y in zip(batches, labels, strict=True)])
    assert d.samples == 128
    assert 0 < d.mean_error < 0.05 * spread
    assert d.max_error < 0.25 * spread
    assert d.auc_fp32 > 0.8
    assert abs(d.auc_fp32 - d.auc_integer) < 0.02


def test_independent_of_order_within_a_bag():
    _, c = model_cases.compiled("cat")
    dense, bags = model_cases.queries(model_cases.SPECS["cat"], 1, seed=3)
    back = [(i[::-1].copy(), o) for i, o in bags]
    m = IntegerModel(c)
    assert np.array_equal(m.logits(dense, bags)[0], m.logits(dense, back)[0])


def test_malformed_queries_are_named():
    _, c = model_cases.compiled("cat")
    dense, bags = model_cases.queries(model_cases.SPECS["cat"], 3, seed=3)
    m = IntegerModel(c)
    bad = [*bags[:2], (np.array([0, 33]), np.array([0, 1, 2]))]
    with pytest.raises(DataError, match=r"bags\[2\]\.indices\[1\].*32"):
        m.logits(dense, bad)
    with pytest.raises(DataError, match="dense"):
        m.logits(dense[:, :4], bags)
    with pytest.raises(DataError, match="bags"):
        m.logits(dense, bags[:2])
    with pytest.raises(DataError, match="offsets"):
        m.logits(dense, [(bags[0][0], np.array([1, 1, 1])), *bags[1:]])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_auc_is_the_brute_force(pairs):
    y = np.array([p[0] for p in pairs])
    s = np.array([p[1] for p in pairs], float)
    if y.all() or not y.any():
        with pytest.raises(DataError):
            auc(y, s)
        return
    wins = [(a > b) + 0.5 * (a == b) for a in s[y] for b in s[~y]]
    assert auc(y, s) == pytest.approx(np.mean(wins))
