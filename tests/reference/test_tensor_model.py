"""The tensor engine's integer operators against PyTorch and plain integers, and what their roundings cost."""

import numpy as np
import pytest
import torch
from nearflash.reference import tensor
from tensor_shapes import CHECKS, codes


@pytest.mark.parametrize("name", CHECKS)
def test_operator_equals_its_independent_formulation_on_random_shapes(name):
    for seed in range(50):
        CHECKS[name](np.random.default_rng([seed, len(name)]))


def test_exponentials_are_within_half_a_step_over_every_input():
    u = np.arange(4096)
    exact = tensor.EXP2[0] * np.exp2(-u / 256)
    assert np.abs(tensor.exponentials(u) - exact).max() <= 1.0  # the table's rounding and the shift's
    assert (np.diff(tensor.exponentials(u)) <= 0).all()


def test_reciprocal_root_is_precise_over_mantissas_and_magnitudes():
    rng = np.random.default_rng(0)
    v = np.concatenate([1 << np.arange(53), (1 << np.arange(1, 53)) - 1, rng.integers(1 << 22, 1 << 24, 100_000),
                        rng.integers(1, 1 << 53, 100_000)])
    recip, k = tensor.reciprocal_root(v)
    error = recip * np.exp2(-(27 + k / 2)) * np.sqrt(v.astype(np.float64)) - 1
    assert np.abs(error).max() < 2.0**-14.4  # two floors of 2**-15 at most, in opposite directions


def test_layer_norm_follows_pytorch():
    rng = np.random.default_rng(1)
    c, scale, out_scale = 96, 2e-4, 0.03
    x = rng.normal(0, 4000, (50, c)).round().clip(-32767, 32767).astype(np.int64)
    weight, bias = rng.normal(1, 0.3, c), rng.normal(0, 0.3, c)
    want = torch.nn.functional.layer_norm(torch.tensor(x * scale), (c,), torch.tensor(weight), torch.tensor(bias)).numpy()
    shift = np.full(c, 18)
    gain, offset = np.round(weight / out_scale * 2.0**8), np.round(bias / out_scale * 2.0**18)
    eps = round(1e-5 * c * c / scale**2)
    got = tensor.layer_norm(x, gain.astype(np.int64), offset.astype(np.int64), shift, eps, -127, 127)
    error = got - want / out_scale
    assert np.abs(error[np.abs(got) < 127]).max() < 0.65  # half a step of rounding, and what gain and z round


@pytest.mark.parametrize("spread", [0.0, 3.0, 60.0])
def test_probabilities_sum_to_one(spread):
    rng = np.random.default_rng(2)
    for keys in (1, 2, 63, 256, 1024):
        q, k = codes(rng, (20, 32)), np.clip(np.round(rng.normal(0, spread, (keys, 32))), -127, 127).astype(np.int64)
        for v in (-127, 1, 50, 127):
            y = tensor.attention(q, k, np.full((keys, 32), v), 1, tensor.Scale(40000, 22), tensor.Scale(1 << 15, 14), -127,
                                 127)
            assert np.abs(y.astype(int) - v).max() <= 1
        # and before rounding to 8 bits: a gain of 2**15 shows the sum itself
        e = tensor.exponentials(rng.integers(0, 4096, (50, keys)) * (spread > 0))
        e[:, 0] = tensor.EXP2[0]
        total = e.sum(1)
        r, m = tensor.reciprocal(total)
        assert np.abs(total * r * np.exp2(-(15.0 + m)) - 1).max() < 2.0**-14


def test_attention_follows_pytorch():
    q, k, v = (codes(np.random.default_rng(s), (64, 64)) for s in (10, 11, 12))
    factor = 0.002  # of logits per unit of score
    logs = factor * np.log2(np.e) * 256
    shift = 15 - int(np.floor(np.log2(logs)))
    got = tensor.attention(q, k, v, 2, tensor.Scale(round(logs * 2.0**shift), shift), tensor.Scale(1 << 15, 14), -127, 127)
    for h in range(2):
        qh, kh, vh = (torch.tensor(a[:, 32 * h : 32 * h + 32], dtype=torch.float64) for a in (q, k, v))
        want = torch.softmax(qh @ kh.T * factor, -1) @ vh
        assert np.abs(got[:, 32 * h : 32 * h + 32] - want.numpy()).max() < 0.8


@pytest.mark.parametrize(("channels", "side"), [(1298, 1), (514, 3), (4096, 1)])
def test_sums_beyond_float32_are_exact(channels, side):
    x, w = np.full((side, side, channels), 127), np.full((1, side, side, channels), 127)
    w[0, 0, 0, 0] = 126  # an odd sum: none of these is a float32
    want = int((x[None] * w).sum())
    assert want > 1 << 24
    assert want % 2
    assert tensor.convolve(x.astype(np.int8), w.astype(np.int8), 1, (0, 0), (1, 1)).item() == want
