"""The integer MLP reference against plain Python integers, and against a straightforward torch model."""

import random

import numpy as np
import pytest
import torch
from nearflash.contract import Node
from nearflash.reference.mlp import FcParams, MlpParams, ScaleParams, run_graph, run_nodes
from nearflash.reference.requantize import requantize


def plain(acc, mult, shift, bits, relu):
    q = (acc * mult + ((1 << shift - 1) if shift else 0)) >> shift
    hi = 2 ** (bits - 1) - 1
    return min(max(q, 0 if relu else -hi), hi)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_requantize_matches_plain_integers(bits, relu):
    rng = random.Random(bits)
    top = (1 << 46) - 1
    cases = [(acc, mult, shift) for acc in (0, 1, -1, 2, -3, 127, -128, top, -top) for mult in (0, 1, 3, 65535)
             for shift in (0, 1, 2, 31, 61, 62)]
    cases += [(rng.randint(-top, top) >> rng.randint(0, 45), rng.randint(0, 65535), rng.randint(0, 62))
              for _ in range(2000)]
    acc, mult, shift = np.array(cases, np.int64).T
    want = [plain(*c, bits, relu) for c in cases]
    assert requantize(acc, mult, shift, bits, relu).tolist() == want
    assert requantize(torch.tensor(acc), torch.tensor(mult), torch.tensor(shift), bits, relu).tolist() == want


def test_requantize_rounds_halves_up_and_broadcasts():
    assert requantize(np.array([-3, -1, 1, 3]), 1, 1, 8).tolist() == [-1, 0, 1, 2]
    assert requantize(np.ones((2, 3), np.int64) * 8, np.array([1, 2, 3]), np.array([0, 1, 2]), 8).tolist() == [[8, 8, 6]] * 2
    assert int(requantize(-5, 1, 1, 8)) == -2


@pytest.mark.parametrize(("acc", "mult", "shift"), [(1 << 46, 1, 0), (-(1 << 46), 1, 0), (0, 1 << 16, 0), (0, -1, 0),
                                                     (0, 1, 63), (0, 1, -1)])
def test_requantize_refuses_what_hardware_has_no_bits_for(acc, mult, shift):
    with pytest.raises(AssertionError):
        requantize(np.array([acc]), mult, shift, 8)


def graph():
    return (
        Node("d", "dense", 4), Node("e", "tables", 8, tables=(0, 1)),
        Node("b", "fc", 4, ("d",), relu=True), Node("x", "dot", 3, ("b", "e"), dim=4),
        Node("m", "mul", 4, ("b", "d")), Node("o", "fc", 2, ("x", "m"), relu=True),
    )


def params(rng, big=False):
    hi = 32767 if big else 127

    def fc(r, c):
        return FcParams(rng.integers(-hi, hi + 1, (r, c)), rng.integers(-9000, 9000, r), rng.integers(1 << 15, 1 << 16, r),
                        rng.integers(20, 26, r))

    return MlpParams({"b": fc(4, 4), "o": fc(2, 7)}, {"x": ScaleParams(50000, 22), "m": ScaleParams(60000, 21)}, -9)


@pytest.mark.parametrize("act_bits", [8, 16])
def test_graph_matches_plain_integers(act_bits):
    rng = np.random.default_rng(act_bits)
    g, p = graph(), params(rng, act_bits == 16)
    hi = 2 ** (act_bits - 1) - 1
    dense = rng.integers(-hi, hi + 1, (5, 4))
    pooled = [rng.integers(-hi, hi + 1, (5, 4)) for _ in range(2)]
    ints, logits = run_graph(g, act_bits, p, dense, pooled)
    nodes = run_nodes(g, act_bits, p, dense, pooled)
    for s in range(5):
        def fc(name, x, bits, relu):
            f = p.fc[name]
            return [plain(sum(int(w) * v for w, v in zip(f.weight[r], x, strict=True)) + int(f.bias[r]), int(f.mult[r]),
                          int(f.shift[r]), bits, relu) for r in range(len(f.bias))]

        d = dense[s].tolist()
        b = fc("b", d, act_bits, True)
        features = [b, pooled[0][s].tolist(), pooled[1][s].tolist()]
        x = [plain(sum(u * v for u, v in zip(features[i], features[j], strict=True)), 50000, 22, act_bits, False)
             for i in range(3) for j in range(i)]
        m = [plain(u * v, 60000, 21, act_bits, False) for u, v in zip(b, d, strict=True)]
        assert [nodes[k][s].tolist() for k in "bxm"] == [b, x, m]
        o = fc("o", x + m, 32, False)  # no ReLU on logits
        assert ints[s].tolist() == o
        assert logits[s].tolist() == [float(np.float32(v * 2.0**-9)) for v in o]
    assert logits.dtype == np.float32
    assert (ints < 0).any()


def test_wide_layers_are_exact():
    """16-bit operands over 2560 inputs: beyond float32, still exact."""
    rng = np.random.default_rng(0)
    w = rng.integers(-32768, 32768, (3, 2560))
    x = rng.integers(-32767, 32768, (2, 2560))
    g = (Node("d", "dense", 2560), Node("o", "fc", 3, ("d",)))
    p = MlpParams({"o": FcParams(w, np.zeros(3, np.int64), np.ones(3, np.int64), np.full(3, 12))}, {}, 0)
    got, _ = run_graph(g, 16, p, x, [])
    want = [[plain(sum(int(a) * int(b) for a, b in zip(w[r], x[s], strict=True)), 1, 12, 32, False) for r in range(3)]
            for s in range(2)]
    assert got.tolist() == want


def test_table_order_and_width_are_checked():
    g = (Node("e", "tables", 4, tables=(1, 0)), Node("o", "fc", 1, ("e",)))
    p = MlpParams({"o": FcParams(np.array([[1, 10, 100, 1000]]), np.zeros(1, np.int64), np.ones(1, np.int64),
                                 np.zeros(1, np.int64))})
    assert run_graph(g, 8, p, None, [np.array([[3, 4]]), np.array([[1, 2]])])[0].tolist() == [[4321]]
    with pytest.raises(ValueError, match="its width is 4"):
        run_graph(g, 8, p, None, [np.array([[3, 4, 5]]), np.array([[1, 2]])])
    with pytest.raises(ValueError, match="dense"):
        run_graph((Node("d", "dense", 1), Node("o", "fc", 1, ("d",))), 8, p, None, [])
